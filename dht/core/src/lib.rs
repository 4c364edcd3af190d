//! Which nodes a block belongs on, and how it gets and stays there (white paper 4.2, `docs/protocol.md` §2, §9, §10).
//!
//! A pure core: no clock, no randomness but a seeded one, no IO, no libp2p, so that the simulator and the daemon run the same
//! code. [`Replicator`] is the state machine: the driver hands in [`Input`]s and the time, and carries out [`Output`]s.

mod bounded;
mod config;
mod entry;
mod holdings;
mod members;
mod message;
mod placement;
mod position;
mod prefix;
mod random;
mod recent;
mod regions;
mod replicator;
mod ring;
mod time;
mod timers;
mod wants;

pub use config::{Config, Limits, MAX_REPLICATION};
pub use entry::{Bucket, Digest, Entry, EntryDigest, MAX_DIGEST_ENTRIES};
pub use message::{AuditOutcome, Input, OfferAnswer, Output, PullOutcome};
pub use placement::{Placement, closest};
pub use position::{Distance, Position};
pub use prefix::{Prefix, PrefixError};
pub use regions::Regions;
pub use replicator::{Health, Queues, Replicator};
pub use ring::Ring;
pub use time::Time;
