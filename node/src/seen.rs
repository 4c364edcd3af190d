//! The latest time of a token request that was accepted, kept across restarts (docs/api.md §1): the memory of nonces is not.

use anyhow::{Context, Result};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// A u64 in decimal digits, always as wide as the largest, so that each write replaces the one before.
const DIGITS: usize = 20;

/// Seconds since 1970 in a file of 20 digits.
pub(crate) struct SeenUntil {
    file: File,
    latest: Mutex<u64>,
}

impl SeenUntil {
    /// Opens or makes the file. One that was never written to is 0.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let failed = || format!("cannot use {}", path.display());
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .with_context(failed)?;
        let mut text = String::new();
        file.read_to_string(&mut text).with_context(failed)?;
        let latest = if text.is_empty() {
            0
        } else {
            text.parse().with_context(|| format!("{} does not hold a time; delete it", path.display()))?
        };
        Ok(Self { file, latest: Mutex::new(latest) })
    }

    /// The time that was raised to last, by this run or an earlier one.
    pub(crate) fn latest(&self) -> u64 {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the verifier made of [`SeenUntil::latest`]: it forgets a time of a clock that was wrong, and so must this,
    /// or the next times would seem smaller and not be written.
    pub(crate) fn accept(&self, latest: u64) {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = latest;
    }

    /// Raises the time. It is with the kernel when this returns, which outlives the process; at most one write a second,
    /// since the times are whole seconds.
    pub(crate) fn raise(&self, seconds: u64) -> io::Result<()> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if seconds > *latest {
            self.file.write_all_at(format!("{seconds:0DIGITS$}").as_bytes(), 0)?;
            *latest = seconds;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_time_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seen");
        let seen = SeenUntil::open(&path).unwrap();
        assert_eq!(seen.latest(), 0);
        for (raised, latest) in [(7, 7), (1_795_412_326, 1_795_412_326), (9, 1_795_412_326)] {
            seen.raise(raised).unwrap();
            assert_eq!(seen.latest(), latest);
        }
        seen.accept(0);
        seen.raise(1_795_412_327).unwrap();
        drop(seen);
        assert_eq!(SeenUntil::open(&path).unwrap().latest(), 1_795_412_327);
        std::fs::write(&path, "rubbish").unwrap();
        assert!(SeenUntil::open(&path).is_err());
    }
}
