//! A limit on bytes per second that many share.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What may be saved up while nothing comes: short enough that a pause is not followed by a flood.
const BURST: Duration = Duration::from_millis(100);

/// Lets so many bytes pass a second, whoever sends them: each takes its turn in the order of asking.
pub(crate) struct Pace {
    /// `None` lets everything pass.
    bytes_per_s: Option<u64>,
    /// When all that was let pass so far will have passed.
    next: Mutex<Instant>,
}

impl Pace {
    /// 0 is no limit.
    pub(crate) fn new(bytes_per_s: u64) -> Self {
        Self { bytes_per_s: Some(bytes_per_s).filter(|rate| *rate > 0), next: Mutex::new(Instant::now()) }
    }

    /// Waits until `bytes` more may pass.
    pub(crate) async fn pass(&self, bytes: usize) {
        if let Some(turn) = self.turn(bytes, Instant::now()) {
            tokio::time::sleep_until(turn).await;
        }
    }

    /// When `bytes` more, asked for at `now`, may pass.
    fn turn(&self, bytes: usize, now: Instant) -> Option<Instant> {
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_s? as f64);
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next = (*next).max(now.checked_sub(BURST).unwrap_or(now)) + takes;
        Some(*next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_together_keep_to_the_rate_and_a_pause_is_no_credit() {
        let (pace, begun) = (Pace::new(1_000), Instant::now() + Duration::from_secs(1));
        let wait = |bytes, after| pace.turn(bytes, begun + Duration::from_millis(after)).unwrap() - begun;
        assert_eq!(wait(500, 0), Duration::from_millis(400));
        assert_eq!(wait(500, 0), Duration::from_millis(900));
        assert_eq!(wait(2_000, 100), Duration::from_millis(2_900));
        assert_eq!(wait(1_000, 60_000), Duration::from_millis(60_900));
        assert_eq!(Pace::new(0).turn(usize::MAX, begun), None);
    }
}
