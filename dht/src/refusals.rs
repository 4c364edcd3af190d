//! Counts those who were refused, and keeps them from filling the log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Refusals are logged at most this often: anybody can cause them.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// Connections refused on one plane since the start.
#[derive(Debug, Default)]
pub struct Refusals {
    count: AtomicU64,
    logged: Mutex<Option<(Instant, u64)>>,
}

impl Refusals {
    /// How many so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Counts one. When it is time for a line in the log: how many the line stands for.
    pub(crate) fn note(&self) -> Option<u64> {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, before) = logged.map_or((None, 0), |(last, before)| (Some(last), before));
        if last.is_some_and(|last| last.elapsed() < LOG_EVERY) {
            return None;
        }
        *logged = Some((Instant::now(), count));
        Some(count.saturating_sub(before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_makes_one_line() {
        let refusals = Refusals::default();
        assert_eq!(refusals.note(), Some(1));
        assert_eq!((0..99).filter_map(|_| refusals.note()).count(), 0);
        assert_eq!(refusals.count(), 100);
    }
}
