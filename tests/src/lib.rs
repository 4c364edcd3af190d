//! The stage of the end-to-end tests: a network of real daemons on loopback, in processes of their own.
//!
//! Everything is started by pid, kept in one temporary folder, and killed when the stage is dropped.

// A test stage that cannot be set up is a failed test: panics with the reason are what is wanted here.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod clip;
mod film;
mod landing;
mod liar;
mod liar_holder;
mod member;
mod namespaces;
mod platform;
mod process;
mod reader;
mod stage;
mod tls;

pub use clip::{clip, noisy_clip, run_tool};
pub use film::Viewer;
pub use landing::{Landing, TusUpload, offset, refusal};
pub use liar::Liar;
pub use liar_holder::LyingHolder;
pub use member::{Acknowledged, Copies, Member, random_block, ranked};
pub use namespaces::{Host, Hosts};
pub use platform::{Platform, Published};
pub use process::{Process, raise_descriptors, run, run_ok};
pub use reader::Reader;
pub use stage::{Node, NodeOptions, Stage};
pub use tls::certificate;

use std::time::{Duration, Instant};

/// Polls `condition` until it gives something; panics with `what` after `limit`.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> F,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(begun.elapsed() < limit, "{what} did not happen within {limit:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
