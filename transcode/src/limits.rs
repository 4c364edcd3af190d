//! What an upload and the programs that read it may cost.

use std::path::PathBuf;
use std::time::Duration;

/// The programs that are started. Names without a slash are looked up in `PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    /// `ffmpeg`, 5.1 or newer.
    pub ffmpeg: PathBuf,
    /// `ffprobe` of the same build.
    pub ffprobe: PathBuf,
}

impl Default for Tools {
    fn default() -> Self {
        Self { ffmpeg: "ffmpeg".into(), ffprobe: "ffprobe".into() }
    }
}

/// Bounds for one upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Programs.
    pub tools: Tools,
    /// Longest film. 12 hours of 4 s segments need 21,600 of the 32,768 runs that the index allows an MP4.
    pub max_duration: Duration,
    /// Most pixels in a picture. Default 8192 x 4320 (8K cinema); decoding costs about 1.5 bytes a pixel and reference picture.
    pub max_pixels: u64,
    /// Time for ffprobe, which reads little of the file. Guess: a slow disk under load answers well within it.
    pub probe_timeout: Duration,
    /// FFmpeg is ended when it makes no progress for this long. Guess: far above the longest pause seen on 2 busy cores.
    pub stall_timeout: Duration,
    /// Whether the kernel keeps the programs from all files but their input and work folder, and from the network (Landlock and seccomp). Without it
    /// a hole in one of FFmpeg's decoders is a hole in the node.
    pub confined: bool,
    /// Longest time that a conversion may take for each second of film, besides ten minutes. Guess: `veryfast` at 1080p takes two on one slow processor.
    pub max_slowness: u32,
    /// Largest file that a program may write (`RLIMIT_FSIZE`). A segment of 4 s at the highest rung has 3 MB.
    pub max_file_bytes: u64,
    /// Address space of each process in bytes (`RLIMIT_AS`). Guess: five 1080p encoders map under 3 GiB.
    pub max_memory_bytes: u64,
}

impl Limits {
    /// How long the conversion of a film may take.
    pub(crate) fn max_wall(&self, film: Duration) -> Duration {
        LEAST_WALL + film * self.max_slowness
    }
}

/// A conversion has so much time, however short the film.
const LEAST_WALL: Duration = Duration::from_secs(600);

impl Default for Limits {
    fn default() -> Self {
        Self {
            tools: Tools::default(),
            max_duration: Duration::from_secs(12 * 3600),
            max_pixels: 8192 * 4320,
            probe_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(120),
            confined: true,
            max_slowness: 60,
            max_file_bytes: 1 << 30,
            max_memory_bytes: 8 << 30,
        }
    }
}
