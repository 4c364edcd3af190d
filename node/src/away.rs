//! How long this node was away. Other nodes remember what was deleted for a set time only: one that comes back later could bring deleted
//! videos back (`docs/protocol.md` §10.5).

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the node notes that it is up: so much too long it is taken to have been away, at the most.
const NOTE_EVERY: Duration = Duration::from_secs(3_600);
const SECONDS_PER_DAY: u64 = 24 * 3_600;

/// The file that says when the node was up last, in seconds since 1970.
#[derive(Clone, Debug)]
pub(crate) struct Alive(PathBuf);

impl Alive {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Refuses to start a node that has blocks and was away for longer than tombstones are kept. `now` in seconds since 1970.
    pub(crate) fn check(&self, now: u64, tombstone_days: u32, blocks: &Path) -> Result<()> {
        let Some(last) = self.last() else { return Ok(()) };
        let days = now.saturating_sub(last) / SECONDS_PER_DAY;
        ensure!(
            days < u64::from(tombstone_days) || !blocks.exists(),
            "this node was away for {days} days. Other nodes remember deletions for {tombstone_days} days only, so videos that were deleted \
             meanwhile could return with it. Rename {} and start the node again: it comes back empty and gets what is its from the other \
             nodes. Only if the whole network was away, remove {} instead and start it with what it has.",
            blocks.display(),
            self.0.display()
        );
        Ok(())
    }

    /// `None` if it was never noted, or the file is not readable as a time: a node of before has none.
    fn last(&self) -> Option<u64> {
        fs::read_to_string(&self.0).ok()?.trim().parse().ok()
    }

    fn note(&self, now: u64) -> Result<()> {
        let new = self.0.with_extension("new");
        let written = fs::write(&new, format!("{now}\n")).and_then(|()| fs::rename(&new, &self.0));
        written.with_context(|| format!("cannot write {}", self.0.display()))
    }

    /// Notes now and then that the node is up, until `stop`.
    pub(crate) async fn keep_noting(self, now: impl Fn() -> u64 + Send, stop: CancellationToken) {
        loop {
            let (own, seconds) = (self.clone(), now());
            match tokio::task::spawn_blocking(move || own.note(seconds)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(error = format!("{error:#}"), "that the node is up is not noted"),
                Err(_) => return,
            }
            if tokio::time::timeout(NOTE_EVERY, stop.cancelled()).await.is_ok() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = SECONDS_PER_DAY;

    #[test]
    fn a_node_that_was_away_for_longer_than_deletions_are_remembered_does_not_start_with_its_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let (alive, blocks) = (Alive::new(folder.path().join("alive")), folder.path().join("blocks"));
        fs::create_dir(&blocks).unwrap();
        alive.check(1_000 * DAY, 90, &blocks).unwrap();
        alive.note(1_000 * DAY).unwrap();
        alive.check(1_089 * DAY, 90, &blocks).unwrap();
        // A clock that was set back is no absence.
        alive.check(999 * DAY, 90, &blocks).unwrap();
        let error = alive.check(1_090 * DAY, 90, &blocks).unwrap_err().to_string();
        assert!(error.contains("90 days") && error.contains("blocks"), "{error}");
        fs::rename(&blocks, folder.path().join("blocks.old")).unwrap();
        alive.check(1_090 * DAY, 90, &blocks).unwrap();
    }
}
