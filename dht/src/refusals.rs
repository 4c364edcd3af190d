//! Counts those who were refused by the reason, and keeps them from filling the log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Refusals are logged at most this often: anybody can cause them.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// Why a connection was refused, as metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalReason {
    /// None of our network keys, or a wrong proof of one.
    WrongKey,
    /// It names another network.
    OtherNetwork,
    /// The network has authorities, and it shows no certificate.
    NoCertificate,
    /// A certificate that is not by an authority of ours, for this network and for this peer.
    ForeignCertificate,
    /// A certificate that has ended or has not begun.
    ExpiredCertificate,
    /// A certificate that its authority has taken back.
    RevokedCertificate,
    /// Not our protocol, or another peer than was wanted.
    Protocol,
    /// The handshake took too long.
    TooSlow,
    /// The peer closed instead of answering: it has refused us, as a rule.
    Closed,
}

impl RefusalReason {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::WrongKey,
        Self::OtherNetwork,
        Self::NoCertificate,
        Self::ForeignCertificate,
        Self::ExpiredCertificate,
        Self::RevokedCertificate,
        Self::Protocol,
        Self::TooSlow,
        Self::Closed,
    ];

    /// Its name in metrics and in the control API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::WrongKey => "wrong_key",
            Self::OtherNetwork => "other_network",
            Self::NoCertificate => "no_certificate",
            Self::ForeignCertificate => "foreign_certificate",
            Self::ExpiredCertificate => "expired_certificate",
            Self::RevokedCertificate => "revoked_certificate",
            Self::Protocol => "protocol",
            Self::TooSlow => "too_slow",
            Self::Closed => "closed",
        }
    }
}

/// Connections refused on one plane since the start.
#[derive(Debug, Default)]
pub struct Refusals {
    /// In the order of [`RefusalReason::ALL`].
    counts: [AtomicU64; RefusalReason::ALL.len()],
    logged: Mutex<Option<(Instant, u64)>>,
}

impl Refusals {
    /// How many so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// How many for this reason.
    #[must_use]
    pub fn count_of(&self, reason: RefusalReason) -> u64 {
        self.counts[reason as usize].load(Ordering::Relaxed)
    }

    /// How many for each reason, those without any among them.
    pub fn by_reason(&self) -> impl Iterator<Item = (RefusalReason, u64)> + '_ {
        RefusalReason::ALL.into_iter().map(|reason| (reason, self.count_of(reason)))
    }

    /// Counts one. When it is time for a line in the log: how many the line stands for.
    pub(crate) fn note(&self, reason: RefusalReason) -> Option<u64> {
        self.counts[reason as usize].fetch_add(1, Ordering::Relaxed);
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let count = self.count();
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
        assert_eq!(refusals.note(RefusalReason::WrongKey), Some(1));
        assert_eq!((0..99).filter_map(|_| refusals.note(RefusalReason::TooSlow)).count(), 0);
        assert_eq!(refusals.count(), 100);
    }

    #[test]
    fn each_reason_has_its_own_count_and_name() {
        let refusals = Refusals::default();
        for (index, reason) in RefusalReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            for _ in 0..=index {
                refusals.note(reason);
            }
        }
        let counts: Vec<_> = refusals.by_reason().map(|(_, count)| count).collect();
        assert_eq!(counts, (1..=RefusalReason::ALL.len() as u64).collect::<Vec<_>>());
        let names: std::collections::BTreeSet<_> = RefusalReason::ALL.map(RefusalReason::name).into_iter().collect();
        assert_eq!(names.len(), RefusalReason::ALL.len());
    }
}
