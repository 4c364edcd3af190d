//! A small world of production replicators: model disks, a network of fixed delays, a clock that jumps from event to event.

use chunkstore_block::{BlockId, PlatformFingerprint, PublicationId, Reference};
use dht_core::{
    AuditOutcome, Config, Entry, EntryDigest, Health, Input, OfferAnswer, Output, Position, PullOutcome, Replicator,
    Time, closest,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// From a request to its arrival, and from there to the answer's.
const HOP: Duration = Duration::from_millis(5);

/// Until a request to a node that is down fails.
const NO_ANSWER: Duration = Duration::from_millis(500);

pub(crate) const LENGTH: u32 = 1_000;

pub(crate) const MINUTE: Duration = Duration::from_secs(60);

#[derive(Clone)]
struct Stored {
    length: u32,
    references: BTreeSet<Reference>,
}

pub(crate) struct Node {
    pub(crate) position: Position,
    pub(crate) up: bool,
    /// Answers for blocks that it does not have.
    pub(crate) lies: bool,
    /// Has pinned no platform: nothing that it pulls is wanted.
    pub(crate) unpinned: bool,
    /// Answers pings and nothing else.
    pub(crate) mute: bool,
    /// Cannot read its own copies, and so not check proofs.
    pub(crate) unchecking: bool,
    /// It answers `not mine` to these.
    pub(crate) refuses: Vec<BlockId>,
    /// Its pulls come to nothing, without a word.
    pub(crate) idle: bool,
    /// Another one at each start; what was meant for an earlier one is lost.
    start: u64,
    replicator: Replicator,
    store: BTreeMap<BlockId, Stored>,
    quota_blocks: usize,
    tombstones: BTreeSet<Reference>,
    orders: Vec<Reference>,
    wake: Option<Time>,
}

enum Event {
    Wake { node: usize, start: u64 },
    Request { from: usize, start: u64, output: Output },
    Answer { to: usize, start: u64, from: usize, answer: Answer },
}

enum Answer {
    Input(Box<Input>),
    Body {
        id: BlockId,
        stored: Stored,
    },
    References(Vec<(BlockId, BTreeSet<Reference>)>),
    Orders {
        epoch: u64,
        orders: Vec<Reference>,
        next: u64,
    },
    /// The references of a holder whose copy one is to be dropped for.
    Confirmed {
        id: BlockId,
        digest: EntryDigest,
        left: Vec<Position>,
        references: BTreeSet<Reference>,
    },
}

pub(crate) struct World {
    pub(crate) now: Time,
    config: Config,
    events: BTreeMap<(Time, u64), Event>,
    sequence: u64,
    pub(crate) nodes: Vec<Node>,
    /// Every body that arrived: block, giver, taker.
    pub(crate) moved: Vec<(BlockId, usize, usize)>,
    pub(crate) pulls: Vec<(Time, BlockId)>,
    /// Every copy that was told to go, whether it went or not: when, on which node, which block.
    pub(crate) drops: Vec<(Time, usize, BlockId)>,
    pub(crate) blocks: Vec<BlockId>,
}

pub(crate) fn publication(number: u8) -> Reference {
    Reference {
        platform: PlatformFingerprint::from_bytes([1; 32]),
        publication: PublicationId::from_bytes([number; 16]),
    }
}

pub(crate) fn block(number: u32) -> BlockId {
    BlockId::of(&number.to_be_bytes())
}

impl World {
    /// `count` nodes that know each other, in a world where `minutes` have passed.
    pub(crate) fn settled(config: Config, count: usize, minutes: u32) -> Self {
        let mut world = Self {
            now: Time::ZERO,
            config,
            events: BTreeMap::new(),
            sequence: 0,
            nodes: Vec::new(),
            moved: Vec::new(),
            pulls: Vec::new(),
            drops: Vec::new(),
            blocks: Vec::new(),
        };
        for _ in 0..count {
            world.join();
        }
        world.run(MINUTE * minutes);
        world
    }

    pub(crate) fn join(&mut self) -> usize {
        let position = Position::of_peer(&(self.nodes.len() as u64).to_be_bytes());
        self.nodes.push(Node {
            position,
            up: false,
            lies: false,
            unpinned: false,
            idle: false,
            mute: false,
            unchecking: false,
            refuses: Vec::new(),
            start: 0,
            replicator: Replicator::new(self.config.clone(), position, self.now),
            store: BTreeMap::new(),
            quota_blocks: usize::MAX,
            tombstones: BTreeSet::new(),
            orders: Vec::new(),
            wake: None,
        });
        self.start(self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    pub(crate) fn start(&mut self, node: usize) {
        let config = Config { seed: node as u64, ..self.config.clone() };
        let it = &mut self.nodes[node];
        it.up = true;
        it.start += 1;
        it.wake = None;
        let known = it.replicator.known();
        it.replicator = Replicator::new(config, it.position, self.now);
        known.into_iter().for_each(|node| it.replicator.handle_input(self.now, Input::Known(node)));
        let entries: Vec<_> = it.store.iter().map(|(id, stored)| entry(id, stored)).collect();
        for entry in entries {
            self.nodes[node].replicator.handle_input(self.now, Input::Held(entry));
        }
        let room = self.nodes[node].has_room();
        self.input(node, Input::Room(room));
    }

    pub(crate) fn stop(&mut self, node: usize) {
        self.nodes[node].up = false;
    }

    pub(crate) fn set_quota(&mut self, node: usize, blocks: usize) {
        self.nodes[node].quota_blocks = blocks;
        let room = self.nodes[node].has_room();
        self.input(node, Input::Room(room));
    }

    /// Puts new blocks on their R closest nodes that are up and have room, as an upload does.
    pub(crate) fn publish(&mut self, count: u32, publication: Reference) {
        for _ in 0..count {
            let id = block(self.blocks.len() as u32);
            self.blocks.push(id);
            let takers = self.ranked(&id);
            let takers: Vec<_> = takers.into_iter().filter(|node| self.nodes[*node].has_room()).collect();
            for node in takers.into_iter().take(self.config.replication) {
                self.put(node, id, BTreeSet::from([publication]));
            }
        }
    }

    pub(crate) fn put(&mut self, node: usize, id: BlockId, references: BTreeSet<Reference>) {
        let stored = Stored { length: LENGTH, references };
        let held = Input::Held(entry(&id, &stored));
        self.nodes[node].store.insert(id, stored);
        self.input(node, held);
        let room = self.nodes[node].has_room();
        self.input(node, Input::Room(room));
    }

    /// The block is damaged on the node's disk, and the node notices.
    pub(crate) fn lose(&mut self, node: usize, id: BlockId) {
        self.nodes[node].store.remove(&id);
        self.input(node, Input::Gone(id));
    }

    /// The block is damaged on the node's disk, and the node says nothing.
    pub(crate) fn lose_silently(&mut self, node: usize) {
        self.nodes[node].lies = true;
    }

    pub(crate) fn delete(&mut self, node: usize, publication: Reference) {
        let it = &mut self.nodes[node];
        if !it.tombstones.insert(publication) {
            return;
        }
        it.orders.push(publication);
        let concerned =
            it.store.iter_mut().filter_map(|(id, stored)| stored.references.remove(&publication).then_some(*id));
        for id in concerned.collect::<Vec<_>>() {
            let stored = &self.nodes[node].store[&id];
            if stored.references.is_empty() {
                self.lose(node, id);
            } else {
                let held = Input::Held(entry(&id, stored));
                self.input(node, held);
            }
        }
    }

    pub(crate) fn input(&mut self, node: usize, input: Input) {
        self.nodes[node].replicator.handle_input(self.now, input);
        self.drain(node);
    }

    pub(crate) fn offer(&mut self, from: usize, to: usize, id: BlockId) -> OfferAnswer {
        let from = self.nodes[from].position;
        let answers = self.nodes[to].replicator.offered(self.now, from, &[(id, LENGTH)]);
        self.drain(to);
        answers[0]
    }

    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(next) = self.events.first_entry().filter(|next| next.key().0 <= end) {
            self.now = next.key().0;
            let event = next.remove();
            self.handle(event);
        }
        self.now = end;
    }

    /// Runs for at most `limit` until `done`, looking every second; says how long it took.
    pub(crate) fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> Duration {
        let begin = self.now;
        while !done(self) {
            assert!(self.now.since(begin) < limit, "not done after {limit:?}");
            self.run(Duration::from_secs(1));
        }
        self.now.since(begin)
    }

    pub(crate) fn health(&self, node: usize) -> Health {
        self.nodes[node].replicator.health()
    }

    pub(crate) fn replicator(&self, node: usize) -> &Replicator {
        &self.nodes[node].replicator
    }

    pub(crate) fn has(&self, node: usize, id: &BlockId) -> bool {
        self.nodes[node].up && !self.nodes[node].lies && self.nodes[node].store.contains_key(id)
    }

    pub(crate) fn references(&self, node: usize, id: &BlockId) -> BTreeSet<Reference> {
        self.nodes[node].store.get(id).map(|stored| stored.references.clone()).unwrap_or_default()
    }

    pub(crate) fn holders(&self, id: &BlockId) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.has(*node, id)).collect()
    }

    /// All nodes that are up, closest first.
    pub(crate) fn ranked(&self, id: &BlockId) -> Vec<usize> {
        let up = self.nodes.iter().enumerate().filter(|(_, node)| node.up && !node.lies);
        let up: Vec<_> = up.map(|(index, node)| (index, node.position)).collect();
        closest(&Position::of_block(id), &up, usize::MAX)
    }

    pub(crate) fn belongs(&self, id: &BlockId) -> BTreeSet<usize> {
        self.ranked(id).into_iter().take(self.config.replication).collect()
    }

    pub(crate) fn all_on_the_closest(&self) -> bool {
        self.blocks.iter().all(|id| self.belongs(id).iter().all(|node| self.has(*node, id)))
    }

    pub(crate) fn all_exact(&self) -> bool {
        self.blocks.iter().all(|id| self.belongs(id) == self.holders(id).into_iter().collect())
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Wake { node, start } => {
                if self.is_running(node, start) && self.nodes[node].wake == Some(self.now) {
                    self.nodes[node].wake = None;
                    self.nodes[node].replicator.handle_timeout(self.now);
                    self.drain(node);
                }
            }
            Event::Request { from, start, output } => self.serve(from, start, output),
            Event::Answer { to, start, from, answer } => {
                if self.is_running(to, start) {
                    self.take(to, from, answer);
                }
            }
        }
    }

    fn is_running(&self, node: usize, start: u64) -> bool {
        self.nodes[node].up && self.nodes[node].start == start
    }

    fn drain(&mut self, node: usize) {
        let start = self.nodes[node].start;
        while let Some(output) = self.nodes[node].replicator.poll_output() {
            if let Output::Pull { id, .. } = &output {
                self.pulls.push((self.now, *id));
                if self.nodes[node].idle {
                    continue;
                }
            }
            if self.nodes[node].mute && !matches!(output, Output::Ping(_) | Output::Lookup(_)) {
                continue;
            }
            if let Output::Drop { id, .. } = &output {
                self.drops.push((self.now, node, *id));
            }
            self.schedule(self.now + HOP, Event::Request { from: node, start, output });
        }
        let due = self.nodes[node].replicator.poll_timeout().map(|time| time.max(self.now));
        if let Some(time) = due.filter(|time| self.nodes[node].wake.is_none_or(|wake| wake > *time)) {
            self.nodes[node].wake = Some(time);
            self.schedule(time, Event::Wake { node, start });
        }
    }

    fn schedule(&mut self, time: Time, event: Event) {
        self.sequence += 1;
        self.events.insert((time, self.sequence), event);
    }

    /// What the asked node does, and when the answer comes.
    fn serve(&mut self, from: usize, start: u64, output: Output) {
        let (own, now) = (self.nodes[from].position, self.now);
        let peer = match &output {
            Output::Ping(peer) => *peer,
            Output::AskDigest { peer, .. } | Output::AskReferences { peer, .. } | Output::AskOrders { peer, .. } => {
                *peer
            }
            Output::Pull { from, .. } => *from,
            Output::Offer { to, .. } => *to,
            Output::Audit { by, .. } => *by,
            Output::Lookup(target) => return self.look_up(from, start, *target),
            Output::Drop { id, digest, holders } => match holders.first() {
                Some(holder) => *holder,
                None if self.is_running(from, start) => return self.drop_copy(from, id, digest),
                None => return,
            },
        };
        let answers = |node: &Node| node.up && (!node.mute || matches!(output, Output::Ping(_)));
        let Some(to) = self.nodes.iter().position(|node| node.position == peer && answers(node)) else {
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
            let answer = Event::Answer { to: from, start, from, answer: Answer::Input(Box::new(input)) };
            return self.schedule(now + NO_ANSWER, answer);
        };
        self.input(to, Input::Seen(own));
        let answer = self.answer(to, own, output);
        self.schedule(now + HOP, Event::Answer { to: from, start, from: to, answer });
    }

    /// All holders have the references of the copy that they were asked for.
    fn drop_copy(&mut self, node: usize, id: &BlockId, digest: &EntryDigest) {
        if self.nodes[node].store.get(id).is_some_and(|stored| entry(id, stored).digest == *digest) {
            self.lose(node, *id);
            let room = self.nodes[node].has_room();
            self.input(node, Input::Room(room));
        }
    }

    fn look_up(&mut self, node: usize, start: u64, target: Position) {
        let others = self.nodes.iter().enumerate().filter(|(index, other)| *index != node && other.up);
        let others: Vec<_> = others.map(|(_, other)| (other.position, other.position)).collect();
        let found = Input::Found { target, near: target, nodes: closest(&target, &others, 20) };
        let answer = Answer::Input(Box::new(found));
        self.schedule(self.now + 4 * HOP, Event::Answer { to: node, start, from: node, answer });
    }

    fn answer(&mut self, node: usize, asker: Position, output: Output) -> Answer {
        let now = self.now;
        let it = &mut self.nodes[node];
        let from = it.position;
        let stored = |id: &BlockId| it.store.get(id).filter(|_| !it.lies).cloned();
        Answer::Input(Box::new(match output {
            Output::Ping(_) => {
                Input::Status { from, room: it.has_room(), epoch: it.start, orders: it.orders.len() as u64 }
            }
            Output::AskDigest { prefix, .. } => {
                Input::Digest { from, prefix, digest: it.replicator.summarize(&asker, &prefix) }
            }
            Output::Offer { entries, .. } => {
                let offer: Vec<_> = entries.iter().map(|entry| (entry.id, entry.length)).collect();
                let refuses = it.refuses.clone();
                let taken: Vec<_> = offer.iter().filter(|(id, _)| !refuses.contains(id)).copied().collect();
                let answers = it.replicator.offered(now, asker, &taken);
                let refused =
                    offer.iter().filter(|(id, _)| refuses.contains(id)).map(|(id, _)| (*id, OfferAnswer::NotMine));
                let answers = taken.iter().map(|(id, _)| *id).zip(answers).chain(refused).collect();
                self.drain(node);
                Input::Offered { to: from, answers }
            }
            Output::Pull { id, .. } => match stored(&id) {
                Some(stored) => return Answer::Body { id, stored },
                None => Input::Pulled { id, from, outcome: PullOutcome::NotThere },
            },
            Output::Audit { id, by } => {
                let outcome = stored(&id).map_or(AuditOutcome::NotThere, |_| AuditOutcome::Proved);
                Input::Audited { id, by, outcome }
            }
            Output::AskReferences { ids, .. } => {
                let all = ids.into_iter().filter_map(|id| stored(&id).map(|stored| (id, stored.references)));
                return Answer::References(all.collect());
            }
            Output::AskOrders { epoch, after, .. } => {
                let after = if epoch == it.start { after as usize } else { 0 };
                let orders = it.orders.iter().skip(after).copied().collect();
                return Answer::Orders { epoch: it.start, orders, next: it.orders.len() as u64 };
            }
            Output::Drop { id, digest, mut holders } => {
                holders.remove(0);
                let references = stored(&id).map(|stored| stored.references).unwrap_or_default();
                return Answer::Confirmed { id, digest, left: holders, references };
            }
            Output::Lookup(_) => unreachable!("nobody is asked"),
        }))
    }

    fn take(&mut self, node: usize, giver: usize, answer: Answer) {
        let from = self.nodes[giver].position;
        match answer {
            Answer::Input(mut input) => {
                if let Input::Audited { outcome, .. } = input.as_mut()
                    && self.nodes[node].unchecking
                {
                    *outcome = AuditOutcome::Unchecked;
                }
                self.input(node, *input);
            }
            Answer::Body { id, stored } => {
                self.moved.push((id, giver, node));
                let outcome = self.store(node, id, stored);
                self.input(node, Input::Pulled { id, from, outcome });
            }
            Answer::References(all) => {
                for (id, references) in all {
                    self.add_references(node, id, references);
                }
            }
            Answer::Confirmed { id, digest, left, references } => {
                if self.references(node, &id).is_subset(&references) {
                    let (start, output) = (self.nodes[node].start, Output::Drop { id, digest, holders: left });
                    self.schedule(self.now, Event::Request { from: node, start, output });
                }
            }
            Answer::Orders { epoch, orders, next } => {
                orders.into_iter().for_each(|publication| self.delete(node, publication));
                self.input(node, Input::Orders { from, epoch, next });
            }
        }
    }

    fn store(&mut self, node: usize, id: BlockId, stored: Stored) -> PullOutcome {
        let it = &self.nodes[node];
        let references: BTreeSet<_> = stored.references.difference(&it.tombstones).copied().collect();
        if it.unpinned || references.is_empty() {
            return PullOutcome::Unwanted;
        }
        if !it.has_room() {
            return PullOutcome::Full;
        }
        self.put(node, id, references);
        PullOutcome::Stored
    }

    /// A reference takes room as a block does.
    fn add_references(&mut self, node: usize, id: BlockId, references: BTreeSet<Reference>) {
        let it = &mut self.nodes[node];
        if it.unpinned || !it.has_room() {
            return;
        }
        let Some(stored) = it.store.get_mut(&id) else { return };
        stored.references.extend(references.difference(&it.tombstones));
        let held = Input::Held(entry(&id, stored));
        self.input(node, held);
    }
}

impl Node {
    fn has_room(&self) -> bool {
        self.store.len() < self.quota_blocks
    }
}

fn entry(id: &BlockId, stored: &Stored) -> Entry {
    let references: Vec<_> = stored.references.iter().copied().collect();
    Entry { id: *id, length: stored.length, digest: EntryDigest::of(id, &references) }
}
