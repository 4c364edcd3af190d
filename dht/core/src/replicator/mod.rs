//! The replication state machine.

mod health;
mod lookups;
mod membership;
mod offers;
mod pulls;
mod surplus;
mod sync;

pub use health::{Health, Queues};

use crate::{
    Config, Digest, Entry, Input, MAX_REPLICATION, Output, Position, Prefix, Regions, Time,
    holdings::Holdings,
    members::{Members, State},
    random::Random,
    recent::{Recent, Why},
    ring::{Cell, Ring},
    timers::{Timer, Timers},
    wants::Wants,
};
use chunkstore_block::{BlockId, MAX_BLOCK_BYTES};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

/// Outputs that wait for the driver. What does not fit is found again by the next comparison, ping or step.
const MAX_OUTPUTS: usize = 4_096;

/// Nodes ranked beyond R that may take an offered block (`docs/protocol.md` §10.2): with R, about as many as a lookup names. Where a fifth of the nodes is full for
/// ever, blocks are short of copies with 4 (simulator, 60 nodes, one seed in 40) and with 8 (500 nodes, four blocks in 106 seeds); that fewer than three in
/// 19 have room happens to one block in 10^10.
const OFFER_RANKS: usize = 16;

/// How long a change of the known nodes is collected before neighbours and surplus are found anew.
const SETTLE: Duration = Duration::from_millis(100);

/// How often answers that never came are given up.
const DEADLINE_STEP: Duration = Duration::from_secs(10);

/// A request that the driver has not answered by then counts as failed. Longer than any deadline of the driver's own.
const DEADLINE: Duration = Duration::from_secs(120);

/// The replication of one node (`docs/protocol.md` §9, §10).
///
/// Call [`Replicator::handle_input`] for what happens and [`Replicator::handle_timeout`] at [`Replicator::poll_timeout`]; after
/// either, [`Replicator::poll_output`] until it is `None`, then `poll_timeout` anew. Inputs may be repeated, late or lost: each
/// comparison starts from what the store and the peer have.
pub struct Replicator {
    config: Config,
    local: Position,
    random: Random,
    timers: Timers,
    outputs: VecDeque<Output>,
    /// Nodes that count as holders, this one included.
    ring: Ring,
    /// Those, and the ones that lookups named and that have not answered yet. A node that has just started knows few and would
    /// take itself for a holder of everything: nothing is pulled or offered that is another's if these are there.
    possible: Ring,
    members: Members,
    regions: Regions,
    /// Where this node is among the R closest, as of the last time that nodes changed.
    territory: Vec<Cell>,
    /// A node has gone: compare with all neighbours.
    resync: bool,
    holdings: Holdings,
    syncs: BTreeMap<Position, sync::Descent>,
    wants: Wants,
    budget: pulls::Budget,
    recent: Recent,
    lacking: offers::Lacking,
    surplus: BTreeMap<Position, surplus::Surplus>,
    /// Where the next step through the surplus begins.
    surplus_at: Position,
    /// The last surplus copy that was taken in.
    surplus_last: Position,
    /// There are more of them.
    surplus_cut: bool,
    /// Parts of the keyspace that have to be looked up before a surplus copy there may go.
    surplus_lookups: BTreeSet<Position>,
    audits: BTreeMap<(Position, Position), surplus::Audit>,
    /// What is being looked up, and until when that is waited for.
    lookups: BTreeMap<Position, Time>,
    /// Whether the store here takes blocks.
    room: bool,
    counts: Health,
}

impl Replicator {
    /// A node at `local` that knows nobody and has nothing yet: [`Input::Held`] and [`Input::Seen`] tell it.
    #[must_use]
    pub fn new(mut config: Config, local: Position, now: Time) -> Self {
        config.replication = config.replication.clamp(1, MAX_REPLICATION);
        config.pulls_under_way = config.pulls_under_way.max(1);
        let limits = &mut config.limits;
        for limit in [&mut limits.lacking, &mut limits.overflow, &mut limits.surplus, &mut limits.wants] {
            *limit = (*limit).max(1);
        }
        let mut ring = Ring::default();
        ring.insert(local);
        let mut timers = Timers::default();
        timers.set(Timer::Lookups, now);
        timers.set(Timer::Neighbours, now);
        timers.set(Timer::Deadlines, now + DEADLINE_STEP);
        Self {
            local,
            random: Random::new(config.seed),
            timers,
            outputs: VecDeque::new(),
            possible: ring.clone(),
            ring,
            members: Members::new(local),
            regions: Regions::new(local, config.replication + 2, config.region_lifetime),
            territory: Vec::new(),
            resync: false,
            holdings: Holdings::default(),
            syncs: BTreeMap::new(),
            wants: Wants::new(config.limits.wants),
            budget: pulls::Budget::new(config.repair_bytes_per_s, now),
            recent: Recent::new(),
            lacking: offers::Lacking::new(config.limits.overflow),
            surplus: BTreeMap::new(),
            surplus_at: local,
            surplus_last: local,
            surplus_cut: false,
            surplus_lookups: BTreeSet::new(),
            audits: BTreeMap::new(),
            lookups: BTreeMap::new(),
            room: true,
            counts: Health::default(),
            config,
        }
    }

    /// Something happened.
    pub fn handle_input(&mut self, now: Time, input: Input) {
        match input {
            Input::Held(entry) => self.held(now, entry),
            Input::Gone(id) => self.gone(now, &id),
            Input::Seen(node) => self.answered(now, node),
            Input::Known(node) => self.known_before(now, node),
            Input::Status { from, room, epoch, orders } => self.status(now, from, room, (epoch, orders)),
            Input::NoAnswer(node) => self.failed(now, node),
            Input::Found { target, near, nodes } => self.found(now, &target, &near, &nodes),
            Input::NotFound { target } => self.not_found(now, &target),
            Input::Digest { from, prefix, digest } => self.digest(now, from, prefix, digest),
            Input::Offered { to, answers } => self.offer_answered(now, to, &answers),
            Input::Pulled { id, from, outcome } => self.pulled(now, &id, from, outcome),
            Input::Audited { id, by, outcome } => self.audited(now, &id, by, outcome),
            Input::Orders { from, epoch, next } => self.orders(now, from, (epoch, next)),
            Input::Room(room) => self.own_room(now, room),
            Input::Wrong(node) => self.distrust(now, node),
            Input::Unsupported(node) => self.unsupported(now, node),
            Input::SyncNow => self.sync_all(now),
        }
    }

    /// The time of [`Replicator::poll_timeout`] has come; harmless at other times.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some(timer) = self.timers.pop(now) {
            match timer {
                Timer::Ping(node) => self.ping(now, node),
                Timer::Sync(node) => self.begin_sync(now, node),
                Timer::SyncStuck(node) => self.abandon_sync(now, node),
                Timer::State(node) => self.state_ended(now, node),
                Timer::Neighbours => self.find_neighbours(now),
                Timer::Lookups => self.look_up(now),
                Timer::Pulls => self.pull(now),
                Timer::Surplus => self.step_surplus(now),
                Timer::Deadlines => self.give_up_overdue(now),
            }
        }
    }

    /// What is to be done next. Poll after each input and timeout, until `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Replicator::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    /// The answer to `digest`: the shared set with `asker`, as this node sees it, within `prefix` (`docs/protocol.md` §10.3).
    /// Empty for an asker that is no member: say [`Input::Seen`] of it first. 100,000 blocks take 1.3 ms.
    #[must_use]
    pub fn summarize(&self, asker: &Position, prefix: &Prefix) -> Digest {
        let r = self.config.replication;
        Digest::of(prefix, self.holdings.select(&self.ring, r, prefix.range(), |closest| closest.contains(asker)))
    }

    /// Up to `limit` of the blocks that this node has, by position, behind `after`: for a driver that looks whether they still are.
    #[must_use]
    pub fn held_after(&self, after: Option<Position>, limit: usize) -> Vec<(Position, BlockId)> {
        self.holdings.after(after, limit).map(|(position, entry)| (*position, entry.id)).collect()
    }

    /// The `n` nodes closest to `target` that count as holders (up, or silent within the grace period), this one included; closest first.
    #[must_use]
    pub fn holders(&self, target: &Position, n: usize) -> Vec<Position> {
        self.ring.closest(target, n)
    }

    /// The `n` nodes closest to `target` for a new block: those that are up, this one included; closest first.
    #[must_use]
    pub fn takers(&self, target: &Position, n: usize) -> Vec<Position> {
        let mut ranked = self.ring.closest(target, usize::MAX);
        ranked.retain(|node| *node == self.local || self.members.is_up(node));
        ranked.truncate(n);
        ranked
    }

    /// Nodes that proved wrong and do not count.
    pub fn distrusted(&self) -> impl Iterator<Item = Position> {
        let distrusted = self.members.iter().filter(|(_, member)| member.state == State::Distrusted);
        distrusted.map(|(node, _)| node)
    }

    fn held(&mut self, now: Time, entry: Entry) {
        let position = entry.position();
        self.recent.forget(&position);
        self.wants.remove(&position);
        if entry.length as usize > MAX_BLOCK_BYTES {
            return;
        }
        if let Some(before) = self.holdings.insert(position, entry) {
            if before.digest != entry.digest
                && let Some(surplus) = self.surplus.get_mut(&position)
            {
                surplus.forget_claims();
            }
            return;
        }
        if !self.is_mine(&position) {
            self.note_surplus(now, position);
        }
    }

    fn gone(&mut self, now: Time, id: &BlockId) {
        let position = Position::of_block(id);
        if self.holdings.remove(&position).is_none() {
            return;
        }
        self.lacking.forget(&position);
        if self.surplus_gone(now, &position) {
            self.counts.dropped += 1;
            self.recent.note(now, position, Why::Dropped);
            return;
        }
        self.recent.note(now, position, Why::Gone);
        let closest = self.ring.closest(&position, self.config.replication);
        if closest.contains(&self.local) {
            closest.iter().for_each(|node| self.sync_by(node, now + pulls::AFTER_LOSS));
        }
    }

    /// Whether this node is among the R closest.
    fn is_mine(&self, position: &Position) -> bool {
        self.ring.closest(position, self.config.replication).contains(&self.local)
    }

    /// Whether the surroundings of `position` are known well enough to say whose it is, and it is `node`'s, even if all nodes that
    /// were merely named are there.
    fn is_surely_of(&self, now: Time, position: &Position, node: &Position) -> bool {
        self.regions.is_known(now, position) && self.possible.closest(position, self.config.replication).contains(node)
    }

    /// False if the driver is too far behind.
    fn push(&mut self, output: Output) -> bool {
        let fits = self.outputs.len() < MAX_OUTPUTS;
        if fits {
            self.outputs.push_back(output);
        }
        fits
    }

    /// A tenth less or more, so that nodes that started together do not act in step.
    fn jittered(&mut self, duration: Duration) -> Duration {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let spread = millis / 5;
        Duration::from_millis(millis - spread / 2 + self.random.below(spread + 1))
    }

    fn give_up_overdue(&mut self, now: Time) {
        self.timers.set(Timer::Deadlines, now + DEADLINE_STEP);
        self.give_up_lookups(now);
        self.give_up_pulls(now);
        self.give_up_audits(now);
        self.stand_in_for_the_mute(now);
    }
}
