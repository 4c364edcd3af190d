//! A run of the replication core: nodes, blocks, faults, and what must hold meanwhile.

pub use crate::{
    checks::{Failure, Violation},
    faults::Fault,
};

use crate::sessions::Sessions;
use crate::{
    node::{Block, Publication},
    world::{WARM_UP_MS, World},
};
use chunkstore_block::BlockId;
use dht_core::{Config, Position, Time};
use std::{collections::BTreeMap, fmt, time::Duration};

/// Blocks of a publication: a short film.
const PUBLICATION_BLOCKS: usize = 50;

/// How often progress is told, and how often a network that is to settle is looked at.
const MINUTE: Duration = Duration::from_secs(60);

/// The longest fault lasts half an hour; after that, blocks are on exactly their closest nodes within this time.
const SETTLE: Duration = Duration::from_secs(90 * 60);

/// What is simulated. The same settings give the same run.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Nodes at the beginning.
    pub nodes: usize,
    /// Blocks, of 32 KiB to 1 MiB; at most 3,000,000.
    pub blocks: usize,
    /// Settings of the nodes.
    pub config: Config,
    /// Faults begin in this time; then everything has to settle.
    pub faults_until: Duration,
    /// Faults come so many times as often and are over in so small a part of the time, for nodes whose own times are as much shorter.
    pub hurry: u32,
    /// Requests in a million that are lost.
    pub lost_per_million: u64,
    /// Of a node's uplink; `None`: bodies take the latency only.
    pub bytes_per_s: Option<u64>,
    /// Of a node's downlink; `None`: nothing waits there.
    pub downlink_bytes_per_s: Option<u64>,
    /// Of a hundred nodes so many are slow: 400 ms more each way, a sixteenth of the uplink.
    pub slow_percent: u64,
    /// What a node may store.
    pub quota_bytes: u64,
    /// Of a hundred nodes so many have no room from the start.
    pub full_percent: u64,
    /// Of a hundred nodes so many are malicious from the start: they name what they were given and did not keep, and half of them give other bytes for it.
    pub malicious_percent: u64,
    /// Whether the first publications were uploaded a moment ago, so that ingest nodes still keep what its holders have not proved.
    pub just_uploaded: bool,
    /// Whether the usual faults happen, and a tenth of the publications is uploaded meanwhile.
    pub usual_faults: bool,
    /// Besides: how many of each fault in an hour of 1,000 nodes.
    pub more_faults: BTreeMap<Fault, f64>,
    /// Nodes that come and go besides.
    pub sessions: Option<Sessions>,
    /// At these times since the end of the warm-up so many of a hundred nodes that are up die at once.
    pub deaths_at_once: Vec<(Duration, u32)>,
    /// At these times since the end of the warm-up so many new nodes for a hundred of those at the beginning come within ten seconds.
    pub joins_at_once: Vec<(Duration, u32)>,
    /// Nodes that fail together.
    pub outages: Vec<Outage>,
    /// Every node belongs to one of so many operators; 0 for none.
    pub operators: usize,
    /// A network that there is, instead of drawn nodes and blocks.
    pub like: Option<Like>,
    /// Whether to count what an oracle would have moved, which takes time at each coming and going.
    pub compare_with_oracle: bool,
    /// Everything drawn follows from this number.
    pub seed: u64,
    /// Shows that the checks see it.
    pub sabotage: Option<Sabotage>,
}

/// Nodes that have something in common by which they fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// A part of the world, 0 to 7: a power grid.
    Region(usize),
    /// All that somebody runs, from 0: a mistake, a seizure, a bankruptcy.
    Operator(usize),
}

/// A group's nodes are off. Whoever belongs to it and would come meanwhile comes afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Whose.
    pub group: Group,
    /// From when on, since the end of the warm-up.
    pub at: Duration,
    /// For how long; `None` for ever, with their disks.
    pub length: Option<Duration>,
}

/// A real network, to compare with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Like {
    /// Its nodes.
    pub nodes: Vec<Position>,
    /// Its blocks, with their lengths.
    pub blocks: Vec<(BlockId, u32)>,
    /// Which of the nodes die, all at once.
    pub deaths: Vec<usize>,
    /// When they do, since the end of the warm-up.
    pub deaths_after: Duration,
    /// A node that comes, and when.
    pub join: Option<(Position, Duration)>,
}

impl Settings {
    /// A network as the real one is, without faults but its own.
    #[must_use]
    pub fn like(like: Like, config: Config, seed: u64) -> Self {
        let (nodes, blocks) = (like.nodes.len(), like.blocks.len());
        let settings = Self::new(nodes, blocks, config.replication, Duration::ZERO, seed);
        Self { usual_faults: false, lost_per_million: 0, config, like: Some(like), ..settings }
    }
}

/// What nodes do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// They drop what a new node is to have as soon as it comes, without a proof.
    DropUnproved,
    /// They drop what closer nodes proved, without asking these for their references.
    DropUnasked,
    /// They fetch and offer nothing.
    RepairOff,
    /// Lookups go on naming those who were there at the beginning, and nobody else.
    StaleLookups,
    /// They store what they fetch without looking whether it is the block.
    BelieveBytes,
    /// They store what a platform has deleted if somebody still has it.
    ForgetOrders,
    /// They pass orders on and delete nothing.
    KeepDeleted,
    /// They store without looking whether there is room.
    Overfill,
    /// They remember as much as nodes do by default, whatever the settings say.
    RememberMore,
}

impl Settings {
    /// `nodes` with `blocks` in `replication` copies, where things go wrong for `faults_until`.
    #[must_use]
    pub fn new(nodes: usize, blocks: usize, replication: usize, faults_until: Duration, seed: u64) -> Self {
        let config = Config::new(replication);
        // The fullest of many nodes has some ten times the mean, and a copy more while others are away.
        let mean = (blocks * config.replication / nodes.max(1)) as u64 * 512 * 1_024;
        let quota_bytes = mean * 30 + 64 * 1_024 * 1_024;
        Self {
            nodes,
            blocks,
            config,
            faults_until,
            hurry: 1,
            lost_per_million: 1_000,
            bytes_per_s: Some(12_500_000),
            downlink_bytes_per_s: Some(62_500_000),
            slow_percent: 0,
            quota_bytes,
            full_percent: 0,
            malicious_percent: 0,
            just_uploaded: false,
            usual_faults: true,
            more_faults: BTreeMap::new(),
            sessions: None,
            deaths_at_once: Vec::new(),
            joins_at_once: Vec::new(),
            outages: Vec::new(),
            operators: 0,
            like: None,
            compare_with_oracle: false,
            seed,
            sabotage: None,
        }
    }

    /// A network of so many nodes in which things go wrong five times as fast as they should for ten minutes. What there is much of follows from
    /// the seed, too.
    #[must_use]
    pub fn drawn(nodes: usize, seed: u64) -> Self {
        let mut settings = Self::new(nodes, nodes * 10, 2 + (seed % 2) as usize, Duration::from_secs(600), seed);
        settings.hurry = 5;
        settings.config.grace = Duration::from_secs(120);
        settings.config.minimum_age = Duration::from_secs(120);
        settings.config.proof_lifetime = Duration::from_secs(120);
        settings.config.drop_delay = Duration::from_secs(24);
        let minute = Duration::from_secs(60);
        match seed % 9 {
            1 => settings.more_faults = [(Fault::FullDisk, 300.0)].into(),
            2 => (settings.full_percent, settings.more_faults) = (20, [(Fault::StandInDeath, 50.0)].into()),
            3 => settings.more_faults = [(Fault::Crash, 300.0)].into(),
            4 => settings.lost_per_million = 20_000,
            5 => {
                settings.operators = 50;
                settings.outages = vec![
                    Outage { group: Group::Region(3), at: 3 * minute, length: Some(3 * minute) },
                    Outage { group: Group::Operator(7), at: 5 * minute, length: None },
                ];
            }
            6 => (settings.joins_at_once, settings.slow_percent) = (vec![(4 * minute, 20)], 5),
            7 => settings.deaths_at_once = vec![(5 * minute, 5)],
            8 => settings.more_faults = [(Fault::WrongSums, 50.0), (Fault::Hoarder, 50.0)].into(),
            _ => {}
        }
        settings
    }

    /// How long after the last fault begins everything is in place.
    #[must_use]
    pub fn settle(&self) -> Duration {
        self.scaled(SETTLE)
    }

    /// When the last of what is planned begins, or who was off comes back.
    fn last_change(&self) -> Duration {
        let at_once = self.deaths_at_once.iter().chain(&self.joins_at_once).map(|(time, _)| *time);
        let outages = self.outages.iter().map(|outage| outage.at + outage.length.unwrap_or_default());
        at_once.chain(outages).fold(self.faults_until, Duration::max)
    }

    /// A time as it is for nodes in a hurry.
    pub(crate) fn scaled(&self, duration: Duration) -> Duration {
        if duration == Duration::MAX { duration } else { duration / self.hurry }
    }

    /// The time of faults, as long as it would be without hurry.
    pub(crate) fn faults_in_proportion(&self) -> Duration {
        self.faults_until * self.hurry
    }

    pub(crate) const fn publication_of(&self, block: usize) -> Publication {
        (block / PUBLICATION_BLOCKS) as Publication
    }

    pub(crate) const fn publications(&self) -> Publication {
        self.blocks.div_ceil(PUBLICATION_BLOCKS) as Publication
    }

    /// Its own blocks, and those of the one before, of which it has some.
    pub(crate) fn blocks_with(&self, publication: Publication) -> std::ops::Range<Block> {
        let first = usize::from(publication) * PUBLICATION_BLOCKS;
        first.saturating_sub(PUBLICATION_BLOCKS) as Block..(first + PUBLICATION_BLOCKS).min(self.blocks) as Block
    }
}

/// What happened in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events handled.
    pub events: u64,
    /// Faults of each kind.
    pub faults: BTreeMap<Fault, u64>,
    /// Blocks that lost R copies within the repair window, counted for each publication.
    pub excused: u64,
    /// Blocks of which all copies were on nodes that died at the same moment (`deaths_at_once`), counted for each publication.
    pub doomed: u64,
    /// Bodies moved.
    pub pulls: u64,
    /// Bodies moved that nobody needed: their publication had been deleted at the taker.
    pub unwanted: u64,
    /// Surplus copies dropped.
    pub drops: u64,
    /// Lookups.
    pub lookups: u64,
    /// Comparisons.
    pub syncs: u64,
    /// Digests asked for.
    pub digests: u64,
    /// Audits.
    pub audits: u64,
    /// Audits that were not passed.
    pub failed_audits: u64,
    /// Blocks offered.
    pub offered: u64,
    /// Bytes of bodies.
    pub bytes_blocks: u64,
    /// Bytes of digests.
    pub bytes_digests: u64,
    /// Bytes of offers.
    pub bytes_offers: u64,
    /// Bytes of references.
    pub bytes_references: u64,
    /// Bytes of deletion orders.
    pub bytes_orders: u64,
    /// Bytes of audits.
    pub bytes_audits: u64,
    /// Bytes of pings.
    pub bytes_pings: u64,
    /// What an oracle would have moved that knows everything at once and keeps exact placement, too.
    pub oracle_bytes: u64,
    /// Bytes of copies that were destroyed for good.
    pub destroyed_bytes: u64,
    /// Nodes up at the end.
    pub up: usize,
    /// How long after the last fault was over every block was on exactly its closest nodes, and from then on; looked at each minute, and more
    /// often where nodes are in a hurry. `None`: that was not waited for.
    pub settled: Option<Duration>,
}

/// Runs until the faults are over and everything is in place; `progress` is told the simulated minute.
///
/// # Errors
/// The first [`Violation`], and where it was.
pub fn run(settings: &Settings, progress: impl FnMut(u64)) -> Result<Counts, Failure> {
    let mut world = World::new(settings);
    let outcome = run_in(&mut world, settings, progress);
    outcome.map_err(|violation| Failure { violation, event: world.counts.events })?;
    Ok(world.finish())
}

fn run_in(world: &mut World, settings: &Settings, mut progress: impl FnMut(u64)) -> Result<(), Violation> {
    let last_fault = Time::from_millis(WARM_UP_MS) + settings.last_change();
    let step = settings.scaled(MINUTE);
    let mut now = Time::ZERO;
    // Since when everything has been in place.
    let mut settled = None;
    loop {
        let over = world.faults_over.max(last_fault);
        if now >= over {
            let wrong = world.misplaced();
            settled = (wrong == 0).then(|| settled.unwrap_or(now));
            let since_last_fault = now.since(last_fault);
            if wrong > 0 && since_last_fault >= settings.settle() {
                return Err(Violation::NotSettled { wrong, minutes: since_last_fault.as_secs() / 60 });
            }
            // What is in place only for a while is seen: the run goes on for as long as the longest fault, a third of the time.
            if let Some(settled) = settled.filter(|_| since_last_fault >= settings.settle() / 3) {
                world.counts.settled = Some(settled.since(over));
                break;
            }
        }
        now = now + step;
        progress(now.as_millis() / 60_000);
        world.run(now)?;
    }
    if let Some(violation) = world.undeleted() {
        return Err(violation);
    }
    world.counts.up = world.up();
    Ok(())
}

/// How the network is at a moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Since the end of the warm-up.
    pub time: Duration,
    /// Nodes that are up.
    pub up: usize,
    /// Publications' blocks that were acknowledged, are not deleted, and not lost with so many nodes at once.
    pub acknowledged: usize,
    /// Of them, those on the disks of all R closest nodes; a node within its grace period counts.
    pub in_place: usize,
    /// Of them, those of which a node that is up has a copy.
    pub readable: usize,
    /// Of them, those of which R nodes that are up have a copy.
    pub with_all_copies: usize,
    /// Copies of them on nodes that are up, R of each at most.
    pub copies_up: usize,
    /// Blocks of a publication lost with R copies within the repair window, so far.
    pub lost: u64,
    /// Bytes of bodies moved so far.
    pub moved_bytes: u64,
    /// What an oracle would have moved so far, if that is counted.
    pub oracle_bytes: u64,
    /// Bytes of copies destroyed for good so far, if that is counted.
    pub destroyed_bytes: u64,
}

/// Runs for `length` after the warm-up, whatever is in place by then, and looks at the network every `every`; `progress` is told the minute since
/// the warm-up.
///
/// # Errors
/// The first [`Violation`], and where it was.
pub fn watch(
    settings: &Settings,
    length: Duration,
    every: Duration,
    progress: impl FnMut(u64),
) -> Result<(Vec<Sample>, Counts), Failure> {
    let mut world = World::new(settings);
    let samples = watch_in(&mut world, length, every, progress);
    let samples = samples.map_err(|violation| Failure { violation, event: world.counts.events })?;
    Ok((samples, world.finish()))
}

fn watch_in(
    world: &mut World,
    length: Duration,
    every: Duration,
    mut progress: impl FnMut(u64),
) -> Result<Vec<Sample>, Violation> {
    let begin = Time::from_millis(WARM_UP_MS);
    world.run(begin)?;
    let mut samples = vec![world.sample()];
    let (mut now, end) = (begin, begin + length);
    while now < end {
        let look = (now + every).min(end);
        while now < look {
            now = (now + MINUTE).min(look);
            world.run(now)?;
            progress(now.since(begin).as_secs() / 60);
        }
        samples.push(world.sample());
    }
    world.counts.up = world.up();
    Ok(samples)
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
        let faults: Vec<_> = self.faults.iter().map(|(fault, count)| format!("{count} {fault:?}")).collect();
        writeln!(f, "faults:   {}", faults.join(", "))?;
        writeln!(f, "blocks:   {} lost with R copies within the repair window", self.excused)?;
        match self.settled {
            Some(after) => {
                let minutes = after.as_secs_f64() / 60.0;
                writeln!(f, "settled:  {minutes:.1} min after the last fault, {} nodes up", self.up)?;
            }
            None => writeln!(f, "nodes:    {} up", self.up)?,
        }
        writeln!(f, "bodies:   {} pulled, {} of them for nothing, {} dropped", self.pulls, self.unwanted, self.drops)?;
        writeln!(f, "asked:    {} lookups, {} comparisons, {} digests", self.lookups, self.syncs, self.digests)?;
        writeln!(f, "audits:   {}, {} not passed; {} blocks offered", self.audits, self.failed_audits, self.offered)?;
        writeln!(f, "MiB:      {:.1} bodies, {:.1} digests", mib(self.bytes_blocks), mib(self.bytes_digests))?;
        writeln!(f, "          {:.1} pings, {:.1} offers", mib(self.bytes_pings), mib(self.bytes_offers))?;
        let (references, orders) = (mib(self.bytes_references), mib(self.bytes_orders));
        write!(f, "          {references:.1} references, {orders:.1} orders, {:.1} audits", mib(self.bytes_audits))
    }
}
