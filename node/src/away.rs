//! How long this node was away. Other nodes remember what was deleted for a set time only: one that comes back later could bring deleted
//! videos back (`docs/protocol.md` §10.5).

use anyhow::{Context, Result, ensure};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the node notes that it is up: so much too long it is taken to have been away, at the most.
const NOTE_EVERY: Duration = Duration::from_secs(3_600);
/// How often it looks whether it may, until then.
const TRY_EVERY: Duration = Duration::from_secs(60);
/// How long every node of a network remembers a deletion at least (`docs/protocol.md` §7), whatever this one does.
const REMEMBERED_DAYS: u64 = 90;
/// A clock that is behind the last note by more is wrong.
const CLOCK_SLACK: u64 = SECONDS_PER_DAY;
const SECONDS_PER_DAY: u64 = 24 * 3_600;

/// The file that says when the node was up last, in seconds since 1970.
#[derive(Clone, Debug)]
pub(crate) struct Alive(PathBuf);

impl Alive {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Refuses to start a node that has blocks and was away for longer than tombstones are kept, or whose clock cannot tell. `now` in
    /// seconds since 1970.
    pub(crate) fn check(&self, now: u64, blocks: &Path) -> Result<()> {
        let Some(last) = self.last()?.filter(|_| blocks.exists()) else { return Ok(()) };
        ensure!(
            now.saturating_add(CLOCK_SLACK) >= last,
            "the clock of this machine is {} days behind the time at which this node was up last. Set the clock and start the node again; if it was the \
             earlier time that was wrong, remove {} first.",
            (last - now) / SECONDS_PER_DAY,
            self.0.display()
        );
        let days = now.saturating_sub(last) / SECONDS_PER_DAY;
        ensure!(
            days < REMEMBERED_DAYS,
            "this node was away for {days} days. Other nodes remember deletions for {REMEMBERED_DAYS} days only, so videos that were deleted \
             meanwhile could return with it. Rename {} and start the node again: it comes back empty and gets what is its from the other \
             nodes. Only if the whole network was away, remove {} instead and start it with what it has.",
            blocks.display(),
            self.0.display()
        );
        Ok(())
    }

    /// `None` if it was never noted: a new node has no such file.
    fn last(&self) -> Result<Option<u64>> {
        let text = match fs::read_to_string(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("cannot read {}", self.0.display()))?,
        };
        let last = text.trim().parse().with_context(|| {
            format!(
                "{} should say when this node was up last, in seconds since 1970, and does not. Write that there, or remove the file if the node \
                 was up in the last {REMEMBERED_DAYS} days",
                self.0.display()
            )
        });
        last.map(Some)
    }

    fn note(&self, now: u64) -> Result<()> {
        let new = self.0.with_extension("new");
        let written = File::create(&new).and_then(|mut file| {
            file.write_all(format!("{now}\n").as_bytes())?;
            file.sync_all()
        });
        written.and_then(|()| fs::rename(&new, &self.0)).with_context(|| format!("cannot write {}", self.0.display()))
    }

    /// Notes now and then that the node is up, until `stop`. `now` is the time, if the node knows by then what was deleted while it was
    /// away: one that is started for a minute without a network has not come back.
    pub(crate) async fn keep_noting(self, now: impl Fn() -> Option<u64> + Send, stop: CancellationToken) {
        loop {
            let mut next = TRY_EVERY;
            if let Some(seconds) = now() {
                let own = self.clone();
                match tokio::task::spawn_blocking(move || own.note(seconds)).await {
                    Ok(Ok(())) => next = NOTE_EVERY,
                    Ok(Err(error)) => tracing::warn!(error = format!("{error:#}"), "that the node is up is not noted"),
                    Err(_) => return,
                }
            }
            if tokio::time::timeout(next, stop.cancelled()).await.is_ok() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    const DAY: u64 = SECONDS_PER_DAY;

    #[test]
    fn a_node_that_was_away_for_longer_than_deletions_are_remembered_does_not_start_with_its_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let (alive, blocks) = (Alive::new(folder.path().join("alive")), folder.path().join("blocks"));
        fs::create_dir(&blocks).unwrap();
        alive.check(1_000 * DAY, &blocks).unwrap();
        alive.note(1_000 * DAY).unwrap();
        alive.check(1_089 * DAY, &blocks).unwrap();
        let error = alive.check(1_090 * DAY, &blocks).unwrap_err().to_string();
        assert!(error.contains("90 days") && error.contains("blocks"), "{error}");
        fs::rename(&blocks, folder.path().join("blocks.old")).unwrap();
        alive.check(1_090 * DAY, &blocks).unwrap();
    }

    #[test]
    fn a_clock_that_was_set_back_and_a_broken_note_are_no_excuse() {
        let folder = tempfile::tempdir().unwrap();
        let (alive, blocks) = (Alive::new(folder.path().join("alive")), folder.path().join("blocks"));
        fs::create_dir(&blocks).unwrap();
        alive.note(1_000 * DAY).unwrap();
        alive.check(999 * DAY, &blocks).unwrap();
        let error = alive.check(0, &blocks).unwrap_err().to_string();
        assert!(error.contains("clock") && error.contains("1000 days"), "{error}");
        for text in ["", "soon", "-1"] {
            fs::write(folder.path().join("alive"), text).unwrap();
            assert!(alive.check(1_000 * DAY, &blocks).unwrap_err().to_string().contains("alive"), "{text:?}");
        }
    }

    #[tokio::test]
    async fn it_is_noted_when_the_node_knows_what_was_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let alive = Alive::new(folder.path().join("alive"));
        for (now, noted) in [(None, None), (Some(77), Some(77)), (None, Some(77))] {
            let (stop, asked) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
            let was_asked = Arc::clone(&asked);
            let now = move || {
                was_asked.store(true, Ordering::SeqCst);
                now
            };
            let noting = tokio::spawn(alive.clone().keep_noting(now, stop.clone()));
            while !asked.load(Ordering::SeqCst) || alive.last().unwrap() != noted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            stop.cancel();
            noting.await.unwrap();
            assert_eq!(alive.last().unwrap(), noted);
        }
    }
}
