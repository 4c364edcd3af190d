//! From an uploaded file to the files that viewers fetch.
//!
//! Four steps, each usable alone: [`probe`] asks ffprobe what a file holds and refuses what is not a video we can publish;
//! [`plan`] (pure) chooses renditions; [`run`] drives one FFmpeg process that makes all of them; [`layout`] (pure) arranges the
//! result as the files and the stored parts of the index (`docs/index-format.md`).
//!
//! Input is hostile: only listed demuxers and the `file` protocol are open to FFmpeg, the kernel keeps it from all files but its own and from the network,
//! and time, memory, pixels and output are bounded.

mod args;
mod cmaf;
mod confine;
mod fps;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod kind;
mod language;
mod layout;
mod limits;
mod mp4;
mod output;
mod plan;
mod playlist;
mod probe;
mod process;
mod progress;
mod refusal;
mod run;
mod source;
mod stills;

pub use cmaf::{CmafError, Init};
pub use confine::check_confinement;
pub use kind::ErrorKind;
pub use layout::{Layout, LayoutError, LayoutFile, Part, Rendition, RenditionKind, layout};
pub use limits::{Limits, Tools};
pub use mp4::Mp4Error;
pub use output::{MadeFile, Output, OutputError, Segment, Track};
pub use plan::{AudioPlan, Ladder, LadderRung, Plan, Rung, SubtitlePlan, plan};
pub use probe::probe;
pub use progress::Progress;
pub use refusal::ProbeError;
pub use run::{RunError, run};
pub use source::{AudioStream, Hdr, Rational, Source, SubtitleStream, VideoStream};
pub use stills::{Poster, Storyboard};
