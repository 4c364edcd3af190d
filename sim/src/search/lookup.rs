//! One search, event by event.

use super::{Network, Settings, tables::K};
use dht_core::{Distance, Position};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Requests under way at a time (Kademlia's alpha, as in libp2p).
const PARALLEL: usize = 3;
/// A peer that has not answered by then is passed over.
const PEER_TIMEOUT: Duration = Duration::from_secs(10);

/// Round trips that a request takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trips {
    /// To a peer that was not asked before in this search, besides the request itself.
    contact: u32,
}

impl Trips {
    /// Connections are open, and a substream's first message carries the request (multistream-select V1Lazy).
    pub(super) const WARM: Self = Self { contact: 0 };
    /// QUIC's handshake is one, the gate another (`docs/protocol.md` §3.1: its third message goes with what follows).
    pub(super) const COLD: Self = Self { contact: 2 };
}

/// What a search came to.
pub(super) struct Lookup {
    /// Those that answered, closest first.
    pub(super) nodes: Vec<u32>,
    pub(super) hops: u64,
    pub(super) requests: u64,
    pub(super) time: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    NotAsked,
    Waiting,
    Answered,
    PassedOver,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    node: u32,
    hops: u64,
    state: State,
}

struct Search {
    candidates: BTreeMap<Distance, Candidate>,
    results: usize,
    waiting: usize,
    /// Answers in a row that named nobody closer. From [`PARALLEL`] on, as many are asked at a time as results are wanted.
    idle_answers: usize,
}

impl Lookup {
    pub(super) fn run(network: &Network, searcher: u32, target: &Position, settings: &Settings, trips: Trips) -> Self {
        let distance = |node: u32| network.positions[node as usize].distance(target);
        let mut search = Search::new(settings.results);
        for node in network.tables.closest(&network.positions, searcher, target) {
            search.candidates.insert(distance(node), Candidate { node, hops: 1, state: State::NotAsked });
        }
        // Answers and the ends of patience on their way, in the order of time and then of asking.
        let mut due: BTreeSet<(Duration, u64, Distance)> = BTreeSet::new();
        let (mut now, mut requests) = (Duration::ZERO, 0);
        let answer_after = settings.round_trip * (1 + trips.contact);
        loop {
            while let Some((at, node)) = search.next_to_ask() {
                requests += 1;
                let after = if network.gone.contains(&node) { PEER_TIMEOUT } else { answer_after };
                due.insert((now + after, requests, at));
            }
            if search.is_done() {
                break;
            }
            let Some((time, _, at)) = due.pop_first() else { break };
            now = time;
            let asked = search.candidates[&at];
            if network.gone.contains(&asked.node) {
                search.pass_over(&at);
                continue;
            }
            let named = network.named(asked.node, target);
            let named = named.into_iter().filter(|node| *node != searcher).map(|node| (distance(node), node));
            search.answer(&at, named);
        }
        let answered = search.candidates.values().filter(|candidate| candidate.state == State::Answered);
        let found: Vec<_> = answered.take(settings.results).copied().collect();
        Self {
            hops: found.iter().map(|candidate| candidate.hops).max().unwrap_or_default(),
            nodes: found.iter().map(|candidate| candidate.node).collect(),
            requests,
            time: now,
        }
    }
}

impl Search {
    fn new(results: usize) -> Self {
        Self { candidates: BTreeMap::new(), results: results.clamp(1, K), waiting: 0, idle_answers: 0 }
    }

    /// The closest that was not asked, unless enough are being asked or the results are there.
    fn next_to_ask(&mut self) -> Option<(Distance, u32)> {
        let most = if self.idle_answers >= PARALLEL { self.results.max(PARALLEL) } else { PARALLEL };
        if self.waiting >= most || self.is_done() {
            return None;
        }
        let (at, candidate) = self.candidates.iter_mut().find(|(_, candidate)| candidate.state == State::NotAsked)?;
        candidate.state = State::Waiting;
        self.waiting += 1;
        Some((*at, candidate.node))
    }

    /// Whether as many as are wanted have answered, and nobody closer is waited for or was not asked.
    fn is_done(&self) -> bool {
        let mut left =
            self.candidates.values().filter(|candidate| candidate.state != State::PassedOver).take(self.results);
        left.all(|candidate| candidate.state == State::Answered)
    }

    fn answer(&mut self, at: &Distance, named: impl Iterator<Item = (Distance, u32)>) {
        let Some(candidate) = self.candidates.get_mut(at) else { return };
        candidate.state = State::Answered;
        let hops = candidate.hops + 1;
        self.waiting -= 1;
        // Progress is whoever is closer than the last of the results so far.
        let range = self.candidates.keys().nth(self.results - 1).or_else(|| self.candidates.keys().last()).copied();
        let mut has_progress = self.candidates.len() < self.results;
        for (distance, node) in named {
            self.candidates.entry(distance).or_insert_with(|| {
                has_progress |= range.is_some_and(|range| distance < range);
                Candidate { node, hops, state: State::NotAsked }
            });
        }
        self.idle_answers = if has_progress { 0 } else { self.idle_answers + 1 };
    }

    fn pass_over(&mut self, at: &Distance) {
        if let Some(candidate) = self.candidates.get_mut(at) {
            candidate.state = State::PassedOver;
            self.waiting -= 1;
        }
    }
}
