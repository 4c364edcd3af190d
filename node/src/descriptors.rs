//! How many files and connections the process may have open, and how they are shared.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For all that is not a viewer's connection: the control listener, other nodes on both planes, the store's files, uploads, FFmpeg's pipes.
const RESERVED: u64 = 2_048;
/// Of a limit that is smaller than the reserve, too, so many are for viewers.
const LEAST_SHARE: u64 = 4;

/// Connections of viewers that there are descriptors for. Raises the soft limit to the hard one first: the soft one is 1,024 as a rule,
/// for programs that still use `select`.
pub(crate) fn for_viewers() -> u32 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        tracing::warn!(%error, "the number of open files stays at its soft limit");
    }
    share(getrlimit(Resource::Nofile).current)
}

/// Of a limit on descriptors; `None` is none.
fn share(limit: Option<u64>) -> u32 {
    let viewers = limit.map_or(u64::MAX, |limit| limit.saturating_sub(RESERVED).max(limit / LEAST_SHARE));
    u32::try_from(viewers).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn viewers_leave_descriptors_for_the_rest() {
        let shares = [Some(20_000), Some(1_024), Some(0), None].map(share);
        assert_eq!(shares, [17_952, 256, 1, u32::MAX]);
        assert!(for_viewers() > 0);
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
