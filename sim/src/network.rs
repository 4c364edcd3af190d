//! Links between nodes: latency, jitter, loss, bandwidth, partitions; and lookups, answered by a model of discovery.

use crate::{random::Random, replication::Settings};
use dht_core::{Position, Ring, Time};
use std::time::Duration;

/// Parts of the world; a node is in one, drawn.
pub(crate) const REGIONS: usize = 8;

/// One way between two nodes of a region, from and to: a city, a country.
const NEAR_MS: (u64, u64) = (2, 20);

/// One way between two regions, from and to: across a continent, across an ocean. What two nodes add is as within a region.
const FAR_MS: (u64, u64) = (15, 110);

/// What a slow node adds to each way, and by what its uplink is divided: a phone's network, an old disk. A guess.
const SLOW_MS: u64 = 400;
const SLOW_UPLINK: u64 = 16;

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
    downlink_bytes_per_s: Option<u64>,
    slow_percent: u64,
    /// Whom discovery names: nodes that are up, and for a while those that died.
    pub(crate) listed: Ring,
}

impl Network {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            random: Random::new(settings.seed),
            seed: settings.seed,
            lost_per_million: settings.lost_per_million,
            bytes_per_s: settings.bytes_per_s,
            downlink_bytes_per_s: settings.downlink_bytes_per_s,
            slow_percent: settings.slow_percent,
            listed: Ring::default(),
        }
    }

    /// What is drawn for a node, or for two, once and for all.
    fn drawn(&self, what: u64, number: u64) -> u64 {
        Random::new(self.seed ^ what.rotate_left(48) ^ number).next()
    }

    /// Which part of the world a node is in.
    pub(crate) fn region(&self, node: usize) -> usize {
        (self.drawn(1, node as u64) % REGIONS as u64) as usize
    }

    fn is_slow(&self, node: usize) -> bool {
        self.drawn(2, node as u64) % 100 < self.slow_percent
    }

    /// Whether lookups of a misled node name another.
    pub(crate) fn is_left_to(&self, node: usize, other: usize) -> bool {
        self.drawn(5, (node as u64) << 32 | other as u64).is_multiple_of(2)
    }

    /// One way: the same for a pair but for a fifth of jitter.
    pub(crate) fn latency(&mut self, a: usize, b: usize) -> Duration {
        let pair = |a: usize, b: usize| (a.min(b) as u64) << 32 | a.max(b) as u64;
        let between = |drawn: u64, (from, to): (u64, u64)| from + drawn % (to - from);
        let (here, there) = (self.region(a), self.region(b));
        let near = between(self.drawn(3, pair(a, b)), NEAR_MS);
        let far = if here == there { 0 } else { between(self.drawn(4, pair(here, there)), FAR_MS) };
        let slow = SLOW_MS * (u64::from(self.is_slow(a)) + u64::from(self.is_slow(b)));
        let base = near + far + slow;
        Duration::from_millis(base + self.random.next() % (base / 5 + 1))
    }

    pub(crate) fn loses(&mut self) -> bool {
        self.random.next() % 1_000_000 < self.lost_per_million
    }

    pub(crate) fn lookup_time(&mut self, node: usize) -> Duration {
        self.latency(node, usize::MAX >> 33) * LOOKUP_TRIPS
    }

    /// How long `bytes` occupy the uplink of `node`.
    pub(crate) fn sending(&self, node: usize, bytes: u32) -> Duration {
        let rate = self.bytes_per_s.map(|rate| if self.is_slow(node) { rate / SLOW_UPLINK } else { rate });
        transfer(rate, bytes)
    }

    /// How long `bytes` occupy a node's downlink.
    pub(crate) fn receiving(&self, bytes: u32) -> Duration {
        transfer(self.downlink_bytes_per_s, bytes)
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

fn transfer(bytes_per_s: Option<u64>, bytes: u32) -> Duration {
    bytes_per_s.map_or(Duration::ZERO, |rate| Duration::from_millis(u64::from(bytes) * 1_000 / rate.max(1)))
}

/// When a node's uplink has sent `transfer` more, beginning at `now`.
pub(crate) fn occupy(free_at: &mut Time, now: Time, transfer: Duration) -> Time {
    *free_at = (*free_at).max(now) + transfer;
    *free_at
}
