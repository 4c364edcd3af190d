//! Kademlia's routing tables and searches: how many hops, requests and milliseconds a lookup takes in a network of any size.
//!
//! The tables and the search follow libp2p-kad 0.49, which the daemon uses: buckets of 20, three requests at a time, a peer that
//! does not answer within 10 s is passed over. Tables are full, as those of nodes that have been up for a while.

mod lookup;
mod tables;

use crate::random::Random;
use dht_core::{Position, Ring};
use lookup::{Lookup, Trips};
use std::{collections::BTreeSet, fmt, time::Duration};
use tables::{K, Tables};

/// What is searched, and where.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Nodes in the network.
    pub nodes: usize,
    /// Searches, each by another node for another position.
    pub lookups: usize,
    /// How many of the closest nodes must have answered before a search ends.
    pub results: usize,
    /// Of a hundred entries of the tables, those of nodes that are gone.
    pub gone_percent: u32,
    /// Of a hundred nodes, those that are malicious: they name each other only, the closest first.
    pub malicious_percent: u32,
    /// There and back, between any two nodes.
    pub round_trip: Duration,
    /// Everything drawn follows from this number.
    pub seed: u64,
}

impl Settings {
    /// Everybody is up and honest, 50 ms there and back.
    #[must_use]
    pub const fn quiet(nodes: usize, lookups: usize, results: usize, seed: u64) -> Self {
        let round_trip = Duration::from_millis(50);
        Self { nodes, lookups, results, gone_percent: 0, malicious_percent: 0, round_trip, seed }
    }
}

/// What a run found.
#[derive(Clone, Debug)]
pub struct Report {
    /// Searches.
    pub lookups: usize,
    /// Of them, those that found exactly the closest nodes that are up, malicious or not.
    pub right: usize,
    /// Hops to the farthest of the results: 1 for a node of the searcher's own table.
    pub hops: Distribution,
    /// Requests sent.
    pub requests: Distribution,
    /// Milliseconds, when all connections are open.
    pub warm_ms: Distribution,
    /// Milliseconds, when none is.
    pub cold_ms: Distribution,
}

/// Of the values of all searches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distribution {
    /// Mean.
    pub mean: f64,
    /// Half of them are no more.
    pub p50: u64,
    /// 99 of 100 are no more.
    pub p99: u64,
}

/// Runs the searches; `progress` hears how many are done.
pub fn run(settings: &Settings, mut progress: impl FnMut(usize)) -> Report {
    let mut random = Random::new(settings.seed);
    let mut positions: Vec<_> = (0..settings.nodes).map(|_| Position::from_bytes(random.bytes())).collect();
    positions.sort_unstable();
    let tables = Tables::fill(&positions, &mut random);
    let drawn =
        |percent: u32, random: &mut Random| draw_nodes(settings.nodes * percent as usize / 100, settings.nodes, random);
    let gone = drawn(settings.gone_percent, &mut random);
    let malicious = drawn(settings.malicious_percent, &mut random);
    let mut colluders = Ring::default();
    malicious.iter().for_each(|node| _ = colluders.insert(positions[*node as usize]));
    let network = Network { positions, tables, gone, malicious, colluders };
    let (mut right, mut hops, mut requests, mut warm, mut cold) = (0, vec![], vec![], vec![], vec![]);
    for done in 0..settings.lookups {
        let searcher = network.draw_honest(&mut random);
        let target = Position::from_bytes(random.bytes());
        let lookup = |trips| Lookup::run(&network, searcher, &target, settings, trips);
        let (found, late) = (lookup(Trips::WARM), lookup(Trips::COLD));
        let closest = closest_up(&network.positions, &network.gone, searcher, &target, settings.results);
        right += usize::from(found.nodes == closest);
        hops.push(found.hops);
        requests.push(found.requests);
        warm.push(millis(found.time));
        cold.push(millis(late.time));
        progress(done + 1);
    }
    Report {
        lookups: settings.lookups,
        right,
        hops: Distribution::of(hops),
        requests: Distribution::of(requests),
        warm_ms: Distribution::of(warm),
        cold_ms: Distribution::of(cold),
    }
}

/// Who there is and whom they know.
struct Network {
    positions: Vec<Position>,
    tables: Tables,
    /// Those that are gone and still in tables.
    gone: BTreeSet<u32>,
    malicious: BTreeSet<u32>,
    /// Where the malicious ones are.
    colluders: Ring,
}

impl Network {
    /// Whom a node names to whoever looks for `target`.
    fn named(&self, node: u32, target: &Position) -> Vec<u32> {
        if !self.malicious.contains(&node) {
            return self.tables.closest(&self.positions, node, target);
        }
        let colluders = self.colluders.closest(target, K);
        colluders
            .iter()
            .filter_map(|position| self.positions.binary_search(position).ok())
            .map(|node| node as u32)
            .collect()
    }

    /// A node that searches.
    fn draw_honest(&self, random: &mut Random) -> u32 {
        loop {
            let node = random.below(self.positions.len()) as u32;
            if !self.gone.contains(&node) && !self.malicious.contains(&node) {
                return node;
            }
        }
    }
}

fn draw_nodes(count: usize, of: usize, random: &mut Random) -> BTreeSet<u32> {
    let mut drawn = BTreeSet::new();
    while drawn.len() < count {
        drawn.insert(random.below(of) as u32);
    }
    drawn
}

/// What the search should find: whoever searches does not count.
fn closest_up(
    positions: &[Position],
    gone: &BTreeSet<u32>,
    searcher: u32,
    target: &Position,
    results: usize,
) -> Vec<u32> {
    // The closest share the longest prefix with the target, so they are neighbours of it in the order of positions; those beside
    // them are looked at until enough are found in a whole subtree.
    let mut bits = 256;
    loop {
        let subtree = tables::subtree(positions, target, bits);
        let up = |node: &u32| *node != searcher && !gone.contains(node);
        let mut found: Vec<_> = (subtree.start as u32..subtree.end as u32).filter(up).collect();
        if found.len() >= results || bits == 0 {
            found.sort_unstable_by_key(|node| positions[*node as usize].distance(target));
            found.truncate(results);
            return found;
        }
        bits -= 1;
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Distribution {
    fn of(mut values: Vec<u64>) -> Self {
        values.sort_unstable();
        let at = |percent: usize| values.get((values.len() * percent / 100).min(values.len().saturating_sub(1)));
        Self {
            mean: values.iter().sum::<u64>() as f64 / values.len().max(1) as f64,
            p50: at(50).copied().unwrap_or_default(),
            p99: at(99).copied().unwrap_or_default(),
        }
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mean {:.2}, half within {}, 99 % within {}", self.mean, self.p50, self.p99)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = self.right as f64 / self.lookups.max(1) as f64 * 100.0;
        writeln!(f, "right:    {share:.3} % of {} searches", self.lookups)?;
        writeln!(f, "hops:     {}", self.hops)?;
        writeln!(f, "requests: {}", self.requests)?;
        writeln!(f, "warm ms:  {}", self.warm_ms)?;
        write!(f, "cold ms:  {}", self.cold_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings::quiet(2_000, 300, 2, 1);

    #[test]
    fn a_quiet_network_is_searched_in_a_few_hops() {
        let report = run(&SETTINGS, |_| ());
        assert_eq!(report.right, report.lookups);
        assert!(report.hops.mean < 2.6 && report.hops.p99 <= 4, "{report}");
        assert_eq!(report.warm_ms.p50 % 50, 0);
        assert!(report.cold_ms.p50 > report.warm_ms.p50);
    }

    #[test]
    fn more_results_take_more_requests_and_all_are_right() {
        let report = run(&Settings { results: 20, ..SETTINGS }, |_| ());
        assert_eq!(report.right, report.lookups);
        assert!(report.requests.mean > 20.0, "{report}");
    }

    #[test]
    fn nodes_that_are_gone_cost_time_and_not_the_result() {
        let report = run(&Settings { gone_percent: 20, ..SETTINGS }, |_| ());
        assert!(report.right * 100 >= report.lookups * 98, "{report}");
        assert!(report.warm_ms.p99 >= 10_000, "a peer that does not answer is waited for: {report}");
    }

    #[test]
    fn nodes_that_name_each_other_only_mislead_few_searches_of_twenty() {
        // As many as the daemon asks for.
        let searched = |results| run(&Settings { malicious_percent: 20, results, ..SETTINGS }, |_| ());
        let (twenty, two) = (searched(20), searched(2));
        assert!(twenty.right * 100 >= twenty.lookups * 98 && twenty.right > two.right, "{twenty}\n{two}");
    }

    #[test]
    fn the_same_seed_gives_the_same_report() {
        let again = || format!("{}", run(&Settings { lookups: 50, ..SETTINGS }, |_| ()));
        assert_eq!(again(), again());
    }

    #[test]
    fn the_closest_are_those_of_a_plain_sort() {
        let mut random = Random::new(3);
        let mut positions: Vec<_> = (0..500).map(|_| Position::from_bytes(random.bytes())).collect();
        positions.sort_unstable();
        for _ in 0..100 {
            let target = Position::from_bytes(random.bytes());
            let mut all: Vec<u32> = (0..500).filter(|node| *node != 7).collect();
            all.sort_unstable_by_key(|node| positions[*node as usize].distance(&target));
            assert_eq!(closest_up(&positions, &BTreeSet::new(), 7, &target, 20), all[..20]);
        }
    }
}
