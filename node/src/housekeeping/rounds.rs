//! When the scrub begins its rounds, and the file that remembers it.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// Between the beginnings of two rounds. A disk of 4 TB at the default rate takes nearly six days; a small store need not be read
/// all the time: damage of a disk at rest is rare (a guess at what an operator would want).
const ROUND_EVERY: u64 = 7 * 24 * 3_600;

/// What is known of the rounds. Times are in seconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Rounds {
    began: Option<u64>,
    finished: Option<u64>,
    is_running: bool,
}

/// What the scrub does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    GoOn,
    Begin,
    Wait(Duration),
}

impl Rounds {
    pub(super) fn next(self, now: u64) -> Next {
        match self.began {
            Some(_) if self.is_running => Next::GoOn,
            // A beginning in the future is of a clock that was set back.
            Some(began) if began <= now && now - began < ROUND_EVERY => {
                Next::Wait(Duration::from_secs(began + ROUND_EVERY - now))
            }
            _ => Next::Begin,
        }
    }

    pub(super) fn finished(self) -> Option<u64> {
        self.finished
    }
}

/// The rounds with the file that keeps them.
pub(super) struct RoundsFile {
    rounds: Rounds,
    path: PathBuf,
}

impl RoundsFile {
    /// Without a file, or with one that cannot be read, no round was ever begun: that costs no more than another one.
    pub(super) fn open(path: PathBuf) -> Self {
        let rounds = fs::read_to_string(&path).ok().and_then(|text| toml::from_str(&text).ok()).unwrap_or_default();
        Self { rounds, path }
    }

    pub(super) fn rounds(&self) -> Rounds {
        self.rounds
    }

    pub(super) fn begin(&mut self, now: u64) {
        self.keep(Rounds { began: Some(now), is_running: true, ..self.rounds });
    }

    pub(super) fn finish(&mut self, now: u64) {
        self.keep(Rounds { finished: Some(now), is_running: false, ..self.rounds });
    }

    fn keep(&mut self, rounds: Rounds) {
        self.rounds = rounds;
        if let Err(error) = self.write() {
            tracing::warn!(error = format!("{error:#}"), "the scrub's rounds are not remembered");
        }
    }

    fn write(&self) -> Result<()> {
        let new = self.path.with_extension("new");
        let text = format!("# When the scrub began and finished its rounds.\n{}", toml::to_string(&self.rounds)?);
        let written = File::create(&new).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &self.path)
        });
        written.with_context(|| format!("cannot write {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3_600;

    #[test]
    fn a_round_begins_once_a_week_and_is_finished_first() {
        let mut rounds = Rounds::default();
        assert_eq!(rounds.next(0), Next::Begin);
        rounds = Rounds { began: Some(100 * DAY), is_running: true, ..rounds };
        assert_eq!(rounds.next(500 * DAY), Next::GoOn);
        rounds = Rounds { finished: Some(102 * DAY), is_running: false, ..rounds };
        assert_eq!(rounds.next(103 * DAY), Next::Wait(Duration::from_secs(4 * DAY)));
        assert_eq!(rounds.next(107 * DAY), Next::Begin);
        assert_eq!(rounds.next(99 * DAY), Next::Begin);
    }

    #[test]
    fn rounds_outlive_the_process_and_a_broken_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scrub");
        let mut file = RoundsFile::open(path.clone());
        file.begin(7);
        assert_eq!(RoundsFile::open(path.clone()).rounds().next(u64::MAX), Next::GoOn);
        file.finish(9);
        assert_eq!(RoundsFile::open(path.clone()).rounds(), file.rounds());
        assert_eq!(file.rounds().finished(), Some(9));
        fs::write(&path, "rubbish").unwrap();
        assert_eq!(RoundsFile::open(path).rounds(), Rounds::default());
    }
}
