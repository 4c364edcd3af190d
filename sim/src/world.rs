//! The simulated world: events in order of time, and nodes that run the production replicator.

mod trouble;

use crate::{
    checks::{Checks, Violation},
    faults::{self, Fault},
    network::{NO_ANSWER, Network, occupy},
    node::{Block, BlockFacts, Conduct, Node, Power, Publication, entry},
    oracle::Oracle,
    queue::Queue,
    random::Random,
    replication::{Counts, Group, Outage, Sabotage, Sample, Settings},
};
use chunkstore_block::BlockId;
use dht_core::{
    AuditOutcome, Bucket, Digest, EntryDigest, Input, Limits, OfferAnswer, Output, Position, PullOutcome, Ring, Time,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{BuildHasherDefault, Hasher},
};

/// Nodes by their positions, whose first bytes are as good a hash as any. Never walked through, so that its order is nobody's.
type ByPosition = HashMap<Position, usize, BuildHasherDefault<FirstBytes>>;

#[derive(Default)]
struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }
}

/// Nodes start over this time; nobody has met anybody before.
const START_SPREAD_MS: u64 = 2_000;

/// Before anything goes wrong, everybody finds their neighbours.
pub(crate) const WARM_UP_MS: u64 = 120_000;

/// Bytes of a small request and its answer together, with frames, Noise and TCP: estimated.
const SMALL_BYTES: u64 = 200;

/// An upload passes over so many nodes that do not take a block; others than these ranks do not stand in for those that are full.
const RANKS: usize = 4;

enum Event {
    Begin {
        node: usize,
    },
    Wake {
        node: usize,
        start: u64,
    },
    Request {
        from: usize,
        start: u64,
        to: usize,
        output: Output,
    },
    Answer {
        to: usize,
        start: u64,
        from: usize,
        answer: Answer,
    },
    /// A block's first bytes come; the rest follows as fast as the downlink takes it.
    Body {
        to: usize,
        start: u64,
        from: usize,
        from_start: u64,
        body: Body,
    },
    Unlist {
        node: usize,
        start: u64,
    },
    Publish {
        publication: Publication,
    },
    Fault(Fault),
    DeathsAtOnce {
        percent: u32,
    },
    Deaths {
        nodes: Vec<usize>,
    },
    Join {
        position: Position,
    },
    Outage(Outage),
    /// A node's session ends.
    Leave {
        node: usize,
        /// The start that it ends, but for sessions that are given.
        start: Option<u64>,
    },
    /// A node that is off does not count as a holder any more.
    Uncount {
        node: usize,
        start: u64,
    },
    /// A fault ends.
    End {
        fault: Fault,
        node: usize,
    },
}

/// A block on its way, with its references.
struct Body {
    block: Block,
    publications: BTreeSet<Publication>,
    is_right: bool,
}

enum Answer {
    Input(Box<Input>),
    Body(Body),
    References(Vec<(Block, BTreeSet<Publication>)>),
    Orders {
        epoch: u64,
        orders: Vec<Publication>,
        next: u64,
    },
    /// What a holder, for whose copy one is to be dropped, refers to; the holders that are left have not been asked.
    Confirmed {
        block: Block,
        digest: EntryDigest,
        left: Vec<Position>,
        publications: BTreeSet<Publication>,
    },
}

pub(crate) struct World {
    now: Time,
    queue: Queue<Event>,
    settings: Settings,
    random: Random,
    network: Network,
    nodes: Vec<Node>,
    by_position: ByPosition,
    blocks: Vec<BlockFacts>,
    by_id: BTreeMap<BlockId, Block>,
    /// Which publications there are of each block, and on which disks it is to be read.
    publications: Vec<BTreeSet<Publication>>,
    places: Vec<BTreeSet<usize>>,
    deleted: BTreeSet<Publication>,
    /// One side of a partition.
    apart: BTreeSet<usize>,
    /// Groups that are off, and until when.
    dark: BTreeMap<Group, Time>,
    checks: Checks,
    oracle: Option<Oracle>,
    /// When the last of the faults that have begun is over.
    pub(crate) faults_over: Time,
    pub(crate) counts: Counts,
}

impl World {
    pub(crate) fn new(settings: &Settings) -> Self {
        let mut world = Self {
            now: Time::ZERO,
            queue: Queue::new(),
            random: Random::new(settings.seed),
            network: Network::new(settings),
            nodes: Vec::new(),
            by_position: ByPosition::default(),
            blocks: Vec::new(),
            by_id: BTreeMap::new(),
            publications: Vec::new(),
            places: Vec::new(),
            deleted: BTreeSet::new(),
            apart: BTreeSet::new(),
            dark: BTreeMap::new(),
            checks: Checks::new(&settings.config, settings.blocks),
            oracle: settings.compare_with_oracle.then(|| Oracle::new(settings.config.replication)),
            faults_over: Time::ZERO,
            counts: Counts::default(),
            settings: settings.clone(),
        };
        world.draw_blocks();
        for _ in 0..settings.nodes {
            let given = settings.like.as_ref().and_then(|like| like.nodes.get(world.nodes.len()).copied());
            let node = world.add_node_at(given);
            // Discovery has met everybody, as it has in a network that grew: fewer than 20 named nodes are taken for all there are.
            world.network.listed.insert(world.nodes[node].position);
            if let Some(oracle) = &mut world.oracle {
                oracle.begin_with(world.nodes[node].position);
            }
            let begin = Time::from_millis(world.random.next() % START_SPREAD_MS);
            world.schedule(begin, Event::Begin { node });
        }
        world.publish_the_first();
        let end = settings.faults_in_proportion();
        for (time, fault) in
            faults::draw(&mut world.random, settings.nodes, end, settings.usual_faults, &settings.more_faults)
        {
            world.schedule(Time::from_millis(WARM_UP_MS) + settings.scaled(time), Event::Fault(fault));
        }
        world.plan_sessions();
        if let Some(like) = &settings.like {
            let begin = Time::from_millis(WARM_UP_MS);
            world.schedule(begin + like.deaths_after, Event::Deaths { nodes: like.deaths.clone() });
            if let Some((position, after)) = like.join {
                world.schedule(begin + after, Event::Join { position });
            }
        }
        world.plan_joins_and_outages();
        for (time, percent) in settings.deaths_at_once.iter().copied() {
            world.schedule(Time::from_millis(WARM_UP_MS) + time, Event::DeathsAtOnce { percent });
        }
        world
    }

    fn draw_blocks(&mut self) {
        for number in 0..self.settings.blocks {
            let drawn = BlockId::from_bytes(self.random.bytes());
            let drawn = (drawn, 32 * 1_024 + (self.random.next() % 1_000_000) as u32);
            let given = self.settings.like.as_ref().and_then(|like| like.blocks.get(number).copied());
            let (id, length) = given.unwrap_or(drawn);
            self.blocks.push(BlockFacts { id, position: Position::of_block(&id), length });
            self.by_id.insert(id, number as Block);
            let publication = self.settings.publication_of(number);
            // Some blocks are in two publications, uploaded one after the other: they outlive the deletion of one. Those of a given network are in one.
            let in_two = self.settings.like.is_none() && number.is_multiple_of(10);
            let second = in_two.then_some(publication + 1).filter(|it| *it < self.settings.publications());
            self.publications.push(second.into_iter().chain([publication]).collect());
            self.places.push(BTreeSet::new());
        }
    }

    /// Nine publications of ten are there from the beginning, the others are uploaded while things go wrong.
    fn publish_the_first(&mut self) {
        let ring = self.ring(|_| true);
        for publication in 0..self.settings.publications() {
            if self.settings.just_uploaded {
                self.schedule(Time::from_millis(WARM_UP_MS), Event::Publish { publication });
            } else if publication % 10 == 9 && self.settings.usual_faults {
                let millis = u64::try_from(self.settings.faults_until.as_millis()).unwrap_or(u64::MAX);
                let time = Time::from_millis(WARM_UP_MS + self.random.next() % millis.max(1));
                self.schedule(time, Event::Publish { publication });
            } else {
                self.publish(publication, &ring, None);
            }
        }
    }

    /// Puts the blocks of a publication on their closest nodes of `ring`, as an upload does; the node that was uploaded to keeps a copy until
    /// these have proved theirs.
    fn publish(&mut self, publication: Publication, ring: &Ring, ingest: Option<usize>) {
        if self.deleted.contains(&publication) {
            return;
        }
        for block in self.settings.blocks_with(publication) {
            if !self.publications[block as usize].contains(&publication) {
                continue;
            }
            let ranked = ring.closest(&self.blocks[block as usize].position, self.settings.config.replication + RANKS);
            let takers = ranked.iter().filter_map(|node| self.by_position.get(node).copied());
            // A reference takes room as a block does. A node that knows of a deletion which the platform made a moment ago refuses it.
            let takers = takers.filter(|node| self.takes(*node, publication));
            let takers: Vec<_> = takers.take(self.settings.config.replication).collect();
            let complete = takers.len() == self.settings.config.replication;
            let keeper = ingest.filter(|node| !takers.contains(node) && self.takes(*node, publication));
            takers.into_iter().chain(keeper).for_each(|node| self.put(node, block, BTreeSet::from([publication])));
            if let Some(oracle) = &mut self.oracle {
                let facts = &self.blocks[block as usize];
                oracle.publish(facts.position, facts.length);
            }
            if complete {
                self.checks.acknowledged(block, publication);
            }
        }
    }

    fn takes(&self, node: usize, publication: Publication) -> bool {
        self.nodes[node].has_room() && !self.nodes[node].tombstones.contains(&publication)
    }

    /// Handles what happens until `end`, or until something is wrong.
    pub(crate) fn run(&mut self, end: Time) -> Result<(), Violation> {
        while let Some((time, event)) = self.queue.pop_by(end) {
            self.now = time;
            self.counts.events += 1;
            self.handle(event);
            if let Some(violation) = self.checks.violation() {
                return Err(violation);
            }
        }
        self.now = end;
        Ok(())
    }

    /// Acknowledged blocks, for each publication, that are not with its reference on exactly their R closest nodes that are up and have ever room.
    pub(crate) fn misplaced(&self) -> usize {
        let ring = self.ring(|node| node.is_up() && !node.lies() && node.usual_quota_bytes > 0);
        let wrong = (0..self.blocks.len()).map(|block| {
            let closest = ring.closest(&self.blocks[block].position, self.settings.config.replication);
            let closest: BTreeSet<_> = closest.iter().filter_map(|node| self.by_position.get(node).copied()).collect();
            let up = || self.places[block].iter().copied().filter(|node| self.nodes[*node].is_up());
            let refers = |node: &usize, to| self.nodes[*node].store[&(block as Block)].contains(&to);
            let acknowledged = self.checks.acknowledged_of(block as Block);
            acknowledged.filter(|to| closest != up().filter(|node| refers(node, *to)).collect()).count()
        });
        wrong.sum()
    }

    /// How the network is now.
    pub(crate) fn sample(&self) -> Sample {
        let grace = self.settings.config.grace;
        let counts = |node: &Node| node.is_up() || node.power == Power::Down && self.now.since(node.off_since) < grace;
        let ring = self.ring(|node| counts(node) && !node.lies() && node.has_room());
        let replication = self.settings.config.replication;
        let oracle = self.oracle.as_ref();
        let mut sample = Sample {
            time: self.now.since(Time::from_millis(WARM_UP_MS)),
            up: self.up(),
            acknowledged: 0,
            in_place: 0,
            readable: 0,
            with_all_copies: 0,
            copies_up: 0,
            lost: self.checks.excused.len() as u64,
            moved_bytes: self.counts.bytes_blocks,
            oracle_bytes: oracle.map_or(0, |oracle| oracle.moved_bytes),
            destroyed_bytes: oracle.map_or(0, |oracle| oracle.destroyed_bytes),
        };
        for block in 0..self.blocks.len() {
            let closest = ring.closest(&self.blocks[block].position, replication);
            let homes: Vec<_> = closest.iter().filter_map(|node| self.by_position.get(node).copied()).collect();
            for publication in self.checks.acknowledged_of(block as Block) {
                let refers = |node: &&usize| {
                    let node = &self.nodes[**node];
                    let has = node.store.get(&(block as Block)).is_some_and(|to| to.contains(&publication));
                    has && !node.rotten.contains(&(block as Block))
                };
                let up = self.places[block].iter().filter(|node| self.nodes[**node].is_up()).filter(refers).count();
                sample.acknowledged += 1;
                sample.in_place += usize::from(homes.iter().filter(refers).count() == homes.len());
                sample.readable += usize::from(up > 0);
                sample.with_all_copies += usize::from(up >= replication);
                sample.copies_up += up.min(replication);
            }
        }
        sample
    }

    /// Whether a node that is up still has what was deleted.
    pub(crate) fn undeleted(&self) -> Option<Violation> {
        let up = self.nodes.iter().enumerate().filter(|(_, node)| node.is_up());
        let mut all =
            up.flat_map(|(index, node)| node.store.values().flatten().map(move |publication| (index, *publication)));
        // The one node that an order had reached may have died before it passed it on: the platform would send it again.
        let is_known = |publication: &Publication| {
            self.nodes.iter().any(|node| node.power != Power::Dead && node.tombstones.contains(publication))
        };
        let (node, publication) =
            all.find(|(_, publication)| self.deleted.contains(publication) && is_known(publication))?;
        Some(Violation::Undeleted { publication, node })
    }

    /// Nodes that are up.
    pub(crate) fn up(&self) -> usize {
        self.nodes.iter().filter(|node| node.is_up()).count()
    }

    /// Sums up what the nodes counted.
    pub(crate) fn finish(&mut self) -> Counts {
        for node in 0..self.nodes.len() {
            self.collect(node);
        }
        self.counts.excused = self.checks.excused.len() as u64;
        if let Some(oracle) = &self.oracle {
            self.counts.oracle_bytes = oracle.moved_bytes;
            self.counts.destroyed_bytes = oracle.destroyed_bytes;
        }
        self.counts.clone()
    }

    fn collect(&mut self, node: usize) {
        let health = self.nodes[node].replicator.health();
        self.counts.syncs += health.syncs;
        self.counts.digests += health.digests;
        self.counts.audits += health.audits;
        self.counts.failed_audits += health.failed_audits;
        self.counts.offered += health.offered;
    }

    fn ring(&self, wanted: impl Fn(&Node) -> bool) -> Ring {
        let mut ring = Ring::default();
        self.nodes.iter().filter(|node| wanted(node)).for_each(|node| _ = ring.insert(node.position));
        ring
    }

    fn add_node(&mut self) -> usize {
        self.add_node_at(None)
    }

    /// At a drawn position if none is given.
    fn add_node_at(&mut self, given: Option<Position>) -> usize {
        let drawn = Position::of_peer(&self.random.bytes::<38>());
        let position = given.unwrap_or(drawn);
        let full = self.settings.full_percent > 0 && self.random.next() % 100 < self.settings.full_percent;
        let quota = if full { 0 } else { self.settings.quota_bytes };
        let mut node = Node::new(position, self.settings.config.clone(), quota, self.now);
        if self.settings.malicious_percent > 0 && self.random.next() % 100 < self.settings.malicious_percent {
            node.conduct = if self.random.below(2) == 0 { Conduct::Claims } else { Conduct::GivesWrongBytes };
        }
        self.nodes.push(node);
        self.by_position.insert(position, self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    fn schedule(&mut self, time: Time, event: Event) {
        if matches!(event, Event::End { .. }) {
            self.faults_over = self.faults_over.max(time);
        }
        self.queue.push(time, event);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Begin { node } => self.begin(node),
            Event::Wake { node, start } => self.wake(node, start),
            Event::Request { from, start, to, output } => self.serve(from, start, to, output),
            Event::Answer { to, start, from, answer } => {
                if self.is_running(to, start) {
                    self.take(to, from, answer);
                }
            }
            Event::Body { to, start, from, from_start, body } => self.receive(to, start, (from, from_start), body),
            Event::Unlist { node, start } => {
                let stale = self.settings.sabotage == Some(Sabotage::StaleLookups);
                if !stale && !self.is_running(node, start) && !self.nodes[node].is_up() {
                    self.network.listed.remove(&self.nodes[node].position);
                }
            }
            Event::Publish { publication } => {
                let ring = self.ring(Node::is_up);
                let ingest = self.any_up();
                self.publish(publication, &ring, ingest);
            }
            Event::Fault(fault) => self.fault(fault),
            Event::DeathsAtOnce { percent } => self.kill_at_once(percent),
            Event::Deaths { nodes } => nodes.into_iter().for_each(|node| self.hit(Fault::Death, node)),
            Event::Join { position } => {
                let node = self.add_node_at(Some(position));
                self.begin(node);
            }
            Event::Outage(outage) => self.switch_group_off(outage),
            Event::Leave { node, start } => self.leave(node, start),
            Event::Uncount { node, start } => self.uncount(node, start),
            Event::End { fault, node } => self.end(fault, node),
        }
    }

    fn is_running(&self, node: usize, start: u64) -> bool {
        self.nodes[node].is_up() && self.nodes[node].start == start
    }

    fn begin(&mut self, node: usize) {
        if self.nodes[node].power != Power::Down {
            return;
        }
        if let Some(until) = self.dark_until(node) {
            return self.schedule(until, Event::Begin { node });
        }
        self.collect(node);
        let mut config = dht_core::Config { seed: self.random.next(), ..self.settings.config.clone() };
        if self.settings.sabotage == Some(Sabotage::RememberMore) {
            config.limits = Limits::default();
        }
        self.nodes[node].begin(config, self.now, &self.blocks);
        let position = self.nodes[node].position;
        // The first nodes were listed when they were made.
        if self.settings.sabotage != Some(Sabotage::StaleLookups) {
            self.network.listed.insert(position);
        }
        if let Some(oracle) = &mut self.oracle {
            oracle.join(position);
        }
        self.drain(node);
        self.plan_leave(node);
    }

    fn wake(&mut self, node: usize, start: u64) {
        if self.is_running(node, start) && self.nodes[node].wake == Some(self.now) {
            self.nodes[node].wake = None;
            self.nodes[node].replicator.handle_timeout(self.now);
            self.drain(node);
        }
    }

    fn input(&mut self, node: usize, input: Input) {
        self.nodes[node].replicator.handle_input(self.now, input);
        self.drain(node);
    }

    fn drain(&mut self, node: usize) {
        self.checks.within_bounds(self.now, node, self.nodes[node].replicator.queues());
        while let Some(output) = self.nodes[node].replicator.poll_output() {
            self.carry_out(node, output);
        }
        let due = self.nodes[node].replicator.poll_timeout().map(|time| time.max(self.now));
        if let Some(time) = due.filter(|time| self.nodes[node].wake.is_none_or(|wake| wake > *time)) {
            self.nodes[node].wake = Some(time);
            let start = self.nodes[node].start;
            self.schedule(time, Event::Wake { node, start });
        }
    }

    fn carry_out(&mut self, node: usize, output: Output) {
        let is_repair = matches!(output, Output::Pull { .. } | Output::Offer { .. });
        if is_repair && self.settings.sabotage == Some(Sabotage::RepairOff) {
            return;
        }
        let start = self.nodes[node].start;
        let peer = match &output {
            Output::Ping(peer) => *peer,
            Output::AskDigest { peer, .. } | Output::AskReferences { peer, .. } | Output::AskOrders { peer, .. } => {
                *peer
            }
            Output::Pull { from, .. } => *from,
            Output::Offer { to, .. } => *to,
            Output::Audit { by, .. } => *by,
            Output::Lookup(target) => return self.look_up(node, *target),
            Output::Drop { id, digest, holders } => match holders.first() {
                Some(holder) if self.settings.sabotage != Some(Sabotage::DropUnasked) => *holder,
                Some(_) | None => return self.drop_if_unchanged(node, id, digest),
            },
        };
        let Some(to) = self.by_position.get(&peer).copied() else { return };
        let time = self.now + self.network.latency(node, to);
        self.schedule(time, Event::Request { from: node, start, to, output });
    }

    fn look_up(&mut self, node: usize, target: Position) {
        self.counts.lookups += 1;
        let (own, start) = (self.nodes[node].position, self.nodes[node].start);
        let input = if self.network.loses() {
            Input::NotFound { target }
        } else {
            let is_named = |other: usize| !self.nodes[node].misled || self.network.is_left_to(node, other);
            let reachable = |other: &Position| {
                self.by_position.get(other).is_some_and(|other| self.reaches(node, *other) && is_named(*other))
            };
            let nodes = self.network.look_up(&own, &target, reachable);
            Input::Found { target, near: target, nodes }
        };
        let time = self.now + self.network.lookup_time(node);
        self.schedule(time, Event::Answer { to: node, start, from: node, answer: Answer::Input(Box::new(input)) });
    }

    /// All holders have the references of the copy.
    fn drop_if_unchanged(&mut self, node: usize, id: &BlockId, digest: &EntryDigest) {
        let Some(block) = self.by_id.get(id) else { return };
        let publications = self.nodes[node].store.get(block);
        if publications.is_some_and(|publications| entry(&self.blocks[*block as usize], publications).digest == *digest)
        {
            self.drop_copy(node, *block);
        }
    }

    fn drop_copy(&mut self, node: usize, block: Block) {
        let Some(publications) = self.nodes[node].store.get(&block) else { return };
        self.counts.drops += 1;
        if self.places[block as usize].contains(&node) {
            self.checks.dropped(self.now, node, block, publications);
        }
        self.remove(node, block);
    }

    fn reaches(&self, a: usize, b: usize) -> bool {
        self.apart.contains(&a) == self.apart.contains(&b)
    }

    /// What the asked node does, and when the answer comes.
    fn serve(&mut self, from: usize, start: u64, to: usize, output: Output) {
        if !self.nodes[to].is_up() || !self.reaches(from, to) || self.network.loses() {
            let peer = self.nodes[to].position;
            let input = match output {
                Output::Pull { id, .. } => Input::Pulled { id, from: peer, outcome: PullOutcome::NoAnswer },
                Output::Audit { id, by } => Input::Audited { id, by, outcome: AuditOutcome::NoAnswer },
                Output::AskDigest { .. }
                | Output::AskOrders { .. }
                | Output::AskReferences { .. }
                | Output::Drop { .. }
                | Output::Lookup(_)
                | Output::Offer { .. }
                | Output::Ping(_) => Input::NoAnswer(peer),
            };
            let answer = Answer::Input(Box::new(input));
            return self.schedule(self.now + NO_ANSWER, Event::Answer { to: from, start, from: to, answer });
        }
        let asker = self.nodes[from].position;
        self.input(to, Input::Seen(asker));
        let answer = self.answer(to, asker, output);
        let late = self.network.latency(from, to);
        let Answer::Body(body) = answer else {
            return self.schedule(self.now + late, Event::Answer { to: from, start, from: to, answer });
        };
        let sending = self.network.sending(to, self.blocks[body.block as usize].length);
        let sent = occupy(&mut self.nodes[to].uplink_free_at, self.now, sending);
        let from_start = self.nodes[to].start;
        self.schedule(sent + late, Event::Body { to: from, start, from: to, from_start, body });
    }

    /// A body comes whole only if its giver was there until it was sent.
    fn receive(&mut self, node: usize, start: u64, (from, from_start): (usize, u64), body: Body) {
        let facts = &self.blocks[body.block as usize];
        let (time, answer) = if self.is_running(from, from_start) && self.reaches(node, from) {
            let receiving = self.network.receiving(facts.length);
            (occupy(&mut self.nodes[node].downlink_free_at, self.now, receiving), Answer::Body(body))
        } else {
            let input = Input::Pulled { id: facts.id, from: self.nodes[from].position, outcome: PullOutcome::NoAnswer };
            (self.now + NO_ANSWER, Answer::Input(Box::new(input)))
        };
        self.schedule(time, Event::Answer { to: node, start, from, answer });
    }

    /// The node reads its copy, and notices if it is damaged.
    pub(super) fn read(&mut self, node: usize, block: Block) {
        if self.nodes[node].rotten.contains(&block) {
            self.remove(node, block);
        }
    }

    fn answer(&mut self, node: usize, asker: Position, output: Output) -> Answer {
        if let Output::Pull { id, .. } | Output::Audit { id, .. } = &output
            && let Some(block) = self.by_id.get(id).copied()
        {
            self.read(node, block);
        }
        let named =
            |id: &BlockId| self.by_id.get(id).copied().filter(|block| self.nodes[node].store.contains_key(block));
        let block = |id: &BlockId| named(id).filter(|block| self.nodes[node].has(*block));
        let it = &self.nodes[node];
        let from = it.position;
        Answer::Input(Box::new(match output {
            Output::Ping(_) => {
                self.counts.bytes_pings += SMALL_BYTES;
                let orders = if it.hoards { u64::MAX } else { it.orders.len() as u64 };
                Input::Status { from, room: it.has_room(), epoch: it.start, orders }
            }
            Output::AskDigest { prefix, .. } => {
                let digest = if it.wrong_sums {
                    Digest::Children([Bucket { count: 1_000, sum: 1 }; 16])
                } else {
                    it.replicator.summarize(&asker, &prefix)
                };
                self.counts.bytes_digests += SMALL_BYTES + digest_bytes(&digest);
                Input::Digest { from, prefix, digest }
            }
            Output::Offer { entries, .. } => {
                self.counts.bytes_offers += SMALL_BYTES + 37 * entries.len() as u64;
                self.answer_offer(
                    node,
                    asker,
                    &entries.iter().map(|entry| (entry.id, entry.length)).collect::<Vec<_>>(),
                )
            }
            Output::Pull { id, .. } => match named(&id).filter(|_| it.conduct != Conduct::Claims) {
                Some(block) => {
                    let publications = it.store[&block].clone();
                    return Answer::Body(Body { block, publications, is_right: !it.lies() });
                }
                None => Input::Pulled { id, from, outcome: PullOutcome::NotThere },
            },
            Output::Audit { id, by } => {
                let outcome = match it.conduct {
                    Conduct::Honest if named(&id).is_some() => AuditOutcome::Proved,
                    Conduct::Honest | Conduct::Claims => AuditOutcome::NotThere,
                    Conduct::GivesWrongBytes => AuditOutcome::Wrong,
                };
                self.counts.bytes_audits += SMALL_BYTES;
                Input::Audited { id, by, outcome }
            }
            Output::AskReferences { ids, .. } => {
                let all: Vec<_> = ids.iter().filter_map(block).map(|block| (block, it.store[&block].clone())).collect();
                self.counts.bytes_references += SMALL_BYTES + 34 * ids.len() as u64 + 48 * all.len() as u64;
                return Answer::References(all);
            }
            Output::AskOrders { epoch, after, .. } => {
                let after = if epoch == it.start { after as usize } else { 0 };
                let orders: Vec<_> = it.orders.iter().skip(after).copied().collect();
                self.counts.bytes_orders += SMALL_BYTES + 1_000 * orders.len() as u64;
                return Answer::Orders { epoch: it.start, orders, next: it.orders.len() as u64 };
            }
            Output::Drop { id, digest, mut holders } => {
                holders.remove(0);
                self.counts.bytes_references += SMALL_BYTES + 34 + 48;
                let Some(block) = block(&id) else { return Answer::References(Vec::new()) };
                return Answer::Confirmed { block, digest, left: holders, publications: it.store[&block].clone() };
            }
            Output::Lookup(_) => unreachable!("nobody is asked"),
        }))
    }

    fn answer_offer(&mut self, node: usize, asker: Position, offer: &[(BlockId, u32)]) -> Input {
        let answers: Vec<OfferAnswer> = self.nodes[node].replicator.offered(self.now, asker, offer);
        self.drain(node);
        let answers = offer.iter().map(|(id, _)| *id).zip(answers).collect();
        Input::Offered { to: self.nodes[node].position, answers }
    }

    fn take(&mut self, node: usize, giver: usize, answer: Answer) {
        let from = self.nodes[giver].position;
        match answer {
            Answer::Input(input) => self.input(node, *input),
            Answer::Body(Body { block, publications, is_right }) => {
                self.counts.pulls += 1;
                self.counts.bytes_blocks += u64::from(self.blocks[block as usize].length);
                let outcome = self.store(node, block, publications, is_right);
                let id = self.blocks[block as usize].id;
                self.input(node, Input::Pulled { id, from, outcome });
            }
            Answer::References(all) => {
                for (block, publications) in all {
                    self.add_references(node, block, &publications);
                }
            }
            Answer::Confirmed { block, digest, left, publications } => {
                if self.nodes[node].store.get(&block).is_some_and(|own| own.is_subset(&publications)) {
                    self.carry_out(node, Output::Drop { id: self.blocks[block as usize].id, digest, holders: left });
                }
            }
            Answer::Orders { epoch, orders, next } => {
                orders.into_iter().for_each(|publication| self.delete(node, publication));
                self.input(node, Input::Orders { from, epoch, next });
            }
        }
    }

    fn store(&mut self, node: usize, block: Block, publications: BTreeSet<Publication>, is_right: bool) -> PullOutcome {
        if !is_right {
            if self.settings.sabotage != Some(Sabotage::BelieveBytes) {
                return PullOutcome::Wrong;
            }
            self.checks.report(Violation::WrongBytes { node, block, at_ms: self.now.as_millis() });
        }
        let forgets = self.settings.sabotage == Some(Sabotage::ForgetOrders);
        let is_wanted = |to: &Publication| forgets || !self.nodes[node].tombstones.contains(to);
        let publications: BTreeSet<_> = publications.into_iter().filter(is_wanted).collect();
        if publications.is_empty() {
            self.counts.unwanted += 1;
            return PullOutcome::Unwanted;
        }
        if !self.nodes[node].has_room() && self.settings.sabotage != Some(Sabotage::Overfill) {
            return PullOutcome::Full;
        }
        self.put(node, block, publications);
        PullOutcome::Stored
    }

    fn put(&mut self, node: usize, block: Block, publications: BTreeSet<Publication>) {
        self.check_references(node, &publications);
        let facts = &self.blocks[block as usize];
        let it = &mut self.nodes[node];
        let room = it.has_room();
        if !it.store.contains_key(&block) {
            it.used_bytes += u64::from(facts.length);
            it.note_written(self.now, block);
            if !it.lies() {
                self.places[block as usize].insert(node);
            }
        }
        let stored = it.store.entry(block).or_default();
        let new: Vec<_> = publications.difference(stored).copied().collect();
        let is_kept = self.places[block as usize].contains(&node);
        for publication in &new {
            if is_kept {
                self.checks.stored(block, *publication);
            } else {
                self.checks.thrown_away(self.now, node, block, *publication);
            }
        }
        if it.rotten.contains(&block) {
            self.checks.unnoticed(node, block, &new);
        }
        stored.extend(new);
        if it.used_bytes > it.quota_bytes {
            let (used, quota, at_ms) = (it.used_bytes, it.quota_bytes, self.now.as_millis());
            self.checks.report(Violation::OverQuota { node, used, quota, at_ms });
        }
        if it.is_up() {
            let held = Input::Held(entry(facts, &it.store[&block]));
            self.input(node, held);
            self.tell_room(node, room);
        }
    }

    /// A reference takes room as a block does.
    fn add_references(&mut self, node: usize, block: Block, publications: &BTreeSet<Publication>) {
        let allowed: BTreeSet<_> = publications.difference(&self.nodes[node].tombstones).copied().collect();
        let it = &self.nodes[node];
        if it.has_room() && it.store.get(&block).is_some_and(|stored| !allowed.is_subset(stored)) {
            self.put(node, block, allowed);
        }
    }

    fn check_references(&mut self, node: usize, publications: &BTreeSet<Publication>) {
        if let Some(publication) = publications.intersection(&self.nodes[node].tombstones).next().copied() {
            self.checks.report(Violation::Returned { publication, node, at_ms: self.now.as_millis() });
        }
    }

    fn tell_room(&mut self, node: usize, before: bool) {
        let room = self.nodes[node].has_room();
        if room != before {
            self.input(node, Input::Room(room));
        }
    }

    /// The body goes; whoever calls has told the checks why.
    fn remove(&mut self, node: usize, block: Block) {
        let it = &mut self.nodes[node];
        let room = it.has_room();
        it.store.remove(&block);
        it.used_bytes -= u64::from(self.blocks[block as usize].length);
        if it.rotten.remove(&block) {
            self.checks.noticed(self.now, node, block);
        }
        self.places[block as usize].remove(&node);
        if it.is_up() {
            let id = self.blocks[block as usize].id;
            self.input(node, Input::Gone(id));
            self.tell_room(node, room);
        }
    }

    /// An order comes into force on a node.
    fn delete(&mut self, node: usize, publication: Publication) {
        if !self.nodes[node].tombstones.insert(publication) {
            return;
        }
        self.nodes[node].orders.push(publication);
        if self.settings.sabotage == Some(Sabotage::KeepDeleted) {
            return;
        }
        let concerned = self.nodes[node].store.iter_mut();
        let concerned: Vec<_> =
            concerned.filter_map(|(block, publications)| publications.remove(&publication).then_some(*block)).collect();
        for block in concerned {
            if self.places[block as usize].contains(&node) {
                self.checks.removed(block, publication);
            }
            let publications = &self.nodes[node].store[&block];
            if publications.is_empty() {
                self.remove(node, block);
            } else {
                let held = Input::Held(entry(&self.blocks[block as usize], publications));
                self.input(node, held);
            }
        }
    }
}

fn digest_bytes(digest: &Digest) -> u64 {
    match digest {
        Digest::Children(_) => 320,
        Digest::Entries(entries) => 52 * entries.len() as u64,
    }
}
