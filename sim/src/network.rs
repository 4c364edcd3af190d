//! Links between nodes: latency, jitter, loss, bandwidth, partitions; and lookups, answered by a model of discovery.

use crate::random::Random;
use dht_core::{Position, Ring, Time};
use std::time::Duration;

/// One way between two nodes at least, and what distance adds at most: within a city to across an ocean.
const LATENCY_MS: (u64, u64) = (2, 80);

/// A lookup takes about so many one-way trips: libp2p asks some rounds of peers.
const LOOKUP_TRIPS: u32 = 6;

/// Until a request without an answer counts as failed.
pub(crate) const NO_ANSWER: Duration = Duration::from_secs(3);

/// Nodes of a lookup's answer.
const LOOKUP_NODES: usize = 20;

pub(crate) struct Network {
    random: Random,
    seed: u64,
    /// Requests in a million that are lost.
    lost_per_million: u64,
    bytes_per_s: Option<u64>,
    /// Whom discovery names: nodes that are up, and for a while those that died.
    pub(crate) listed: Ring,
}

impl Network {
    pub(crate) fn new(seed: u64, lost_per_million: u64, bytes_per_s: Option<u64>) -> Self {
        Self { random: Random::new(seed), seed, lost_per_million, bytes_per_s, listed: Ring::default() }
    }

    /// One way: the same for a pair but for a fifth of jitter.
    pub(crate) fn latency(&mut self, a: usize, b: usize) -> Duration {
        let pair = (a.min(b) as u64) << 32 | a.max(b) as u64;
        let base = LATENCY_MS.0 + Random::new(self.seed ^ pair).next() % (LATENCY_MS.1 - LATENCY_MS.0);
        Duration::from_millis(base + self.random.next() % (base / 5 + 1))
    }

    pub(crate) fn loses(&mut self) -> bool {
        self.random.next() % 1_000_000 < self.lost_per_million
    }

    pub(crate) fn lookup_time(&mut self, node: usize) -> Duration {
        self.latency(node, usize::MAX >> 33) * LOOKUP_TRIPS
    }

    /// How long `bytes` occupy a node's uplink.
    pub(crate) fn transfer(&self, bytes: u32) -> Duration {
        self.bytes_per_s.map_or(Duration::ZERO, |rate| Duration::from_millis(u64::from(bytes) * 1_000 / rate.max(1)))
    }

    /// The 20 closest that discovery names and `reachable` allows, without the node itself.
    pub(crate) fn look_up(
        &self,
        own: &Position,
        target: &Position,
        reachable: impl Fn(&Position) -> bool,
    ) -> Vec<Position> {
        let mut asked = 2 * LOOKUP_NODES;
        loop {
            let named = self.listed.closest(target, asked);
            let all = named.len() < asked;
            let mut nodes: Vec<_> = named.into_iter().filter(|node| node != own && reachable(node)).collect();
            if nodes.len() >= LOOKUP_NODES || all {
                nodes.truncate(LOOKUP_NODES);
                return nodes;
            }
            asked *= 4;
        }
    }
}

/// When a node's uplink has sent `transfer` more, beginning at `now`.
pub(crate) fn occupy(free_at: &mut Time, now: Time, transfer: Duration) -> Time {
    *free_at = (*free_at).max(now) + transfer;
    *free_at
}
