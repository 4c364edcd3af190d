//! The replication of one node: who is to have what, who lacks it, and what is to be done (`docs/protocol.md` §9 and §10).

mod members;
mod pulls;
mod surplus;
mod sync;
mod timers;
mod view;

use crate::random::Random;
use crate::{Config, Digest, Entry, Input, OfferAnswer, Output, Position, Prefix, Regions, Time};
use chunkstore_block::BlockId;
use members::{Change, Members};
use pulls::Pulls;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use surplus::SurplusCopies;
use sync::Syncs;
use timers::{Timer, Timers};

/// Nodes beyond R that are kept in view, in case some of the closest are full or silent (`docs/protocol.md` §9).
const SPARE_HOLDERS: usize = 2;
/// What waits for the driver at most. What is not said for that reason is found again by the next comparison.
const MAX_OUTPUTS: usize = 8_192;
/// A block that went is not asked for again before others can have heard why: it may have been deleted. Bounds the memory of it.
const MAX_RECENTLY_GONE: usize = 65_536;
/// A view that has changed is looked at after this long, so that several changes are one. Guess.
const SURVEY_DELAY: Duration = Duration::from_millis(50);
/// The other side's view may lag behind this one's: a comparison that a change has caused is made again after this long. Guess.
const SYNC_AGAIN: Duration = Duration::from_secs(3);

/// What replication is at, for operators and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Blocks here, undamaged.
    pub held: u64,
    /// Their bytes.
    pub held_bytes: u64,
    /// Of them, known copies for which R closer nodes are known.
    pub surplus: u64,
    /// Blocks that are to be here and are known to be elsewhere.
    pub wanted: u64,
    /// Their bytes.
    pub wanted_bytes: u64,
    /// Pulls under way.
    pub pulling: u64,
    /// Nodes that answered last time.
    pub members_up: u64,
    /// Nodes within their grace period.
    pub members_silent: u64,
    /// Nodes that are pinged and compared with.
    pub neighbours: u64,
    /// Nodes that proved wrong in the last hour.
    pub distrusted: u64,
    /// Outputs that wait for the driver.
    pub outputs: u64,
    /// Blocks pulled, ever.
    pub pulled_blocks: u64,
    /// Their bytes.
    pub pulled_bytes: u64,
    /// Pulls that failed, ever.
    pub failed_pulls: u64,
    /// Blocks offered to others, ever.
    pub offered: u64,
    /// Surplus copies dropped, ever.
    pub dropped: u64,
    /// Audits asked for, ever.
    pub audits: u64,
    /// Audits that were not passed, ever.
    pub failed_audits: u64,
    /// Comparisons begun, ever.
    pub syncs: u64,
    /// Digests asked for, ever.
    pub digests: u64,
    /// Lookups, ever.
    pub lookups: u64,
}

/// The replication of one node.
///
/// Give it inputs as they come; after each, and when the time of [`Replicator::poll_timeout`] has come (then
/// [`Replicator::handle_timeout`] first), take outputs until there are none, then ask for the next timeout.
pub struct Replicator {
    config: Config,
    local: Position,
    random: Random,
    /// About 100 bytes a block.
    held: BTreeMap<Position, Entry>,
    recently_gone: BTreeMap<Position, Time>,
    members: Members,
    regions: Regions,
    /// Lookups that were asked for and have not ended.
    lookups: BTreeMap<Position, Time>,
    syncs: Syncs,
    pulls: Pulls,
    surplus: SurplusCopies,
    timers: Timers,
    outputs: VecDeque<Output>,
    has_room: bool,
    counts: Health,
}

impl Replicator {
    /// A node at `local` that knows nobody and has nothing yet: [`Input::Held`] and [`Input::Seen`] tell it.
    #[must_use]
    pub fn new(config: Config, local: Position, now: Time) -> Self {
        let mut timers = Timers::default();
        timers.set(Timer::Survey, now + SURVEY_DELAY);
        Self {
            random: Random::new(config.seed),
            regions: Regions::new(local, config.replication + SPARE_HOLDERS, config.region_lifetime),
            pulls: Pulls::new(now, config.repair_bytes_per_s),
            config,
            local,
            held: BTreeMap::new(),
            recently_gone: BTreeMap::new(),
            members: Members::new(local),
            lookups: BTreeMap::new(),
            syncs: Syncs::default(),
            surplus: SurplusCopies::default(),
            timers,
            outputs: VecDeque::new(),
            has_room: true,
            counts: Health::default(),
        }
    }

    /// Something happened.
    pub fn handle_input(&mut self, now: Time, input: Input) {
        match input {
            Input::Held(entry) => self.hold(now, entry),
            Input::Gone(id) => self.lose(now, &id),
            Input::Damaged(id) => self.lose_damaged(now, &id),
            Input::Seen(node) => self.heard(now, node),
            Input::Status { from, room, epoch, orders } => self.note_status(now, from, room, (epoch, orders)),
            Input::NoAnswer(node) => self.no_answer(now, node),
            Input::Refused(node) => {
                self.heard(now, node);
                self.end_sync(&node);
            }
            Input::Unsupported(node) => {
                self.heard(now, node);
                self.end_sync(&node);
                if let Some(member) = self.members.get_mut(&node) {
                    member.is_supported = false;
                }
            }
            Input::Found { target, nodes } => self.found(now, target, &nodes),
            Input::NotFound { target } => drop(self.lookups.remove(&target)),
            Input::Digest { from, prefix, digest } => self.compare(now, from, &prefix, digest),
            Input::Offered { to, answers } => self.offer_answered(now, to, answers),
            Input::Pulled { id, from, outcome } => self.pull_ended(now, &id, from, outcome),
            Input::Audited { id, by, outcome } => self.audit_ended(now, &id, by, outcome),
            Input::Orders { from, epoch, next } => {
                self.heard(now, from);
                if let Some(member) = self.members.get_mut(&from) {
                    member.orders = (epoch, next);
                }
            }
            Input::Room(has_room) => self.note_room(now, has_room),
            Input::Wrong(node) => self.distrust(now, &node),
            Input::SyncNow => self.sync_with_all(now),
        }
    }

    /// The time of [`Replicator::poll_timeout`] has come; harmless at other times.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some(timer) = self.timers.pop(now) {
            match timer {
                Timer::Ping(node) => self.ping(now, node),
                Timer::Sync(node) | Timer::SyncAgain(node) => self.begin_sync(now, node),
                Timer::Grace(node) => self.give_up(now, &node),
                Timer::Trust(node) => {
                    self.members.trust(&node);
                    self.view_changed(now);
                }
                Timer::Pulls => self.start_pulls(now),
                Timer::Surplus => self.look_after_surplus(now),
                Timer::Survey => self.survey(now),
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
    #[must_use]
    pub fn summarize(&self, asker: &Position, prefix: &Prefix) -> Digest {
        self.summary(asker, prefix).finish()
    }

    /// The `n` nodes closest to `target` that count as holders (up, or silent within the grace period), this one included; closest first.
    #[must_use]
    pub fn holders(&self, target: &Position, n: usize) -> Vec<Position> {
        self.members.closest(target, n)
    }

    /// The block at a position, if it is here.
    #[must_use]
    pub fn held_at(&self, position: &Position) -> Option<&Entry> {
        self.held.get(position)
    }

    /// Nodes that proved wrong and do not count.
    pub fn distrusted(&self) -> impl Iterator<Item = Position> {
        self.members.iter().filter(|(_, member)| member.distrusted_until.is_some()).map(|(node, _)| *node)
    }

    /// What it is at.
    #[must_use]
    pub fn health(&self) -> Health {
        let count = |is_it: fn(&members::Member) -> bool| {
            self.members.iter().filter(|(_, member)| is_it(member)).count() as u64
        };
        Health {
            held: self.held.len() as u64,
            surplus: self.surplus.len() as u64,
            wanted: self.pulls.len() as u64,
            wanted_bytes: self.pulls.bytes(),
            pulling: self.pulls.under_way() as u64,
            members_up: count(|member| member.state == members::State::Up),
            members_silent: count(|member| matches!(member.state, members::State::Silent(_))),
            neighbours: count(|member| member.is_neighbour),
            distrusted: count(|member| member.distrusted_until.is_some()),
            outputs: self.outputs.len() as u64,
            ..self.counts
        }
    }

    fn say(&mut self, output: Output) {
        if self.outputs.len() < MAX_OUTPUTS {
            self.outputs.push_back(output);
        }
    }

    fn hold(&mut self, now: Time, entry: Entry) {
        let position = entry.position();
        self.recently_gone.remove(&position);
        match self.held.insert(position, entry) {
            Some(before) => self.counts.held_bytes -= u64::from(before.length),
            // It may be the first of its part of the keyspace, whose nodes are neighbours then; or it is surplus from the beginning.
            None => self.timers.set_no_later(Timer::Survey, now + SURVEY_DELAY),
        }
        self.counts.held_bytes += u64::from(entry.length);
        self.pulls.forget_unless_under_way(&position);
    }

    /// Whether it was here.
    fn forget(&mut self, id: &BlockId) -> Option<Position> {
        let position = Position::of_block(id);
        let before = self.held.remove(&position)?;
        self.counts.held_bytes -= u64::from(before.length);
        self.surplus.forget(&position);
        Some(position)
    }

    fn lose(&mut self, now: Time, id: &BlockId) {
        let Some(position) = self.forget(id) else { return };
        if self.recently_gone.len() >= MAX_RECENTLY_GONE {
            // Whichever: what it costs is a pull that finds out that the block was deleted.
            self.recently_gone.pop_first();
        }
        self.recently_gone.insert(position, now);
    }

    fn lose_damaged(&mut self, now: Time, id: &BlockId) {
        let Some(position) = self.forget(id) else { return };
        for holder in self.members.closest(&position, self.config.replication + 1) {
            self.sync_soon(now, holder);
        }
    }

    /// Whether a block went so lately that it may have been deleted.
    fn went_lately(&self, now: Time, position: &Position) -> bool {
        let memory = self.config.sync_interval * 2;
        self.recently_gone.get(position).is_some_and(|at| now.since(*at) < memory)
    }

    fn note_room(&mut self, now: Time, has_room: bool) {
        let had_room = std::mem::replace(&mut self.has_room, has_room);
        if has_room && !had_room {
            self.sync_with_all(now);
        }
    }

    fn note_status(&mut self, now: Time, from: Position, room: bool, (epoch, orders): (u64, u64)) {
        self.heard(now, from);
        let Some(member) = self.members.get_mut(&from) else { return };
        (member.has_room, member.is_supported) = (room, true);
        let known = if member.orders.0 == epoch { member.orders.1 } else { 0 };
        if orders > known {
            self.say(Output::AskOrders { peer: from, epoch, after: known });
        }
    }

    fn heard(&mut self, now: Time, node: Position) {
        match self.members.heard(now, node) {
            Change::New => {
                self.timers.clear(Timer::Grace(node));
                self.timers.set_no_later(Timer::Ping(node), now);
                self.view_changed(now);
                self.sync_soon(now, node);
            }
            Change::Back => {
                self.timers.clear(Timer::Grace(node));
                self.timers.set_no_later(Timer::Ping(node), now);
                self.sync_soon(now, node);
            }
            Change::Same | Change::Silent | Change::Forgotten => {}
        }
    }

    fn no_answer(&mut self, now: Time, node: Position) {
        self.end_sync(&node);
        if let Some(member) = self.members.get_mut(&node) {
            member.is_pinged = false;
        }
        match self.members.failed(now, &node) {
            Change::Silent => {
                let since = self.members.get(&node).and_then(|member| member.first_failure).unwrap_or(now);
                self.timers.set(Timer::Grace(node), since + self.config.grace);
            }
            Change::Forgotten => self.forget_timers(node),
            Change::Same | Change::New | Change::Back => {
                // The second failure, if it is one, should not wait for the next turn.
                self.timers.set_no_later(Timer::Ping(node), now + self.config.ping_interval / 2);
            }
        }
    }

    fn give_up(&mut self, now: Time, node: &Position) {
        if self.members.give_up(node) {
            self.forget_timers(*node);
            self.pulls.forget_holder(node);
            self.view_changed(now);
            self.sync_with_all(now);
        }
    }

    fn forget_timers(&mut self, node: Position) {
        for timer in [Timer::Ping(node), Timer::Sync(node), Timer::SyncAgain(node), Timer::Grace(node)] {
            self.timers.clear(timer);
        }
    }

    fn distrust(&mut self, now: Time, node: &Position) {
        let until = now + self.config.distrust;
        if self.members.distrust(node, until) {
            self.timers.set(Timer::Trust(*node), until);
            self.pulls.forget_holder(node);
            self.end_sync(node);
            self.view_changed(now);
            self.sync_with_all(now);
        }
    }

    fn ping(&mut self, now: Time, node: Position) {
        let Some(member) = self.members.get_mut(&node) else { return };
        // One question at a time: its answer, or that there is none, comes for certain.
        if !std::mem::replace(&mut member.is_pinged, true) {
            self.say(Output::Ping(node));
        }
        let keeps_on = self.members.get(&node).is_some_and(|member| member.is_neighbour || !self.members.is_up(&node));
        if keeps_on {
            self.timers.set_once(Timer::Ping(node), now + self.config.ping_interval);
        }
    }

    /// Other nodes count than before.
    fn view_changed(&mut self, now: Time) {
        self.timers.set_no_later(Timer::Survey, now + SURVEY_DELAY);
    }

    fn jittered(&mut self, interval: Duration) -> Duration {
        // Up to an eighth more, so that nodes do not act in step.
        let extra = (interval.as_millis() as u64 / 8).max(1);
        interval + Duration::from_millis(self.random.below(extra))
    }
}

impl Replicator {
    /// Answers an offer of blocks with their lengths; for those answered `WillPull`, pulls from `from` follow.
    pub fn offered(&mut self, now: Time, from: Position, blocks: &[(BlockId, u32)]) -> Vec<OfferAnswer> {
        self.heard(now, from);
        let answers = blocks.iter().map(|(id, length)| self.offered_one(now, from, *id, *length)).collect();
        self.start_pulls(now);
        answers
    }

    fn offered_one(&mut self, now: Time, from: Position, id: BlockId, length: u32) -> OfferAnswer {
        let position = Position::of_block(&id);
        if self.held.contains_key(&position) {
            return OfferAnswer::Have;
        }
        if !self.would_take(&position) || self.went_lately(now, &position) {
            return OfferAnswer::NotMine;
        }
        if !self.has_room {
            return OfferAnswer::Full;
        }
        // A queue that is full says nothing of the disk: the block is offered again.
        if self.pulls.want(id, length, from) { OfferAnswer::WillPull } else { OfferAnswer::NotMine }
    }

    /// Whether this node is one of the R closest, or takes the place of one that is full or silent.
    fn would_take(&self, target: &Position) -> bool {
        let ranked = self.members.closest(target, self.config.replication + 2 * SPARE_HOLDERS);
        let Some(rank) = ranked.iter().position(|node| *node == self.local) else { return false };
        let absent = ranked[..rank].iter().filter(|node| {
            self.members.get(node).is_some_and(|member| !member.has_room || member.state != members::State::Up)
        });
        rank < self.config.replication + SPARE_HOLDERS.max(absent.count())
    }
}
