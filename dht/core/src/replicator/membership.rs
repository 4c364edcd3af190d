//! Which nodes there are, and how they are (`docs/protocol.md` §9).

use super::{DEADLINE, Replicator, SETTLE};
use crate::members::Comparisons;
use crate::{
    Output, Position, Time,
    members::{Cursor, Member, State},
    ring::TERRITORY_RANKS,
    timers::Timer,
};
use std::{collections::BTreeSet, time::Duration};

/// Neighbours at most (`docs/protocol.md` §9).
const MAX_NEIGHBOURS: usize = 64;

/// Requests in a row without an answer until a node is silent (`docs/protocol.md` §9).
const SILENT_FAILURES: u8 = 2;

/// Grace periods between pings of a node that is up and no neighbour (30 min): its place in the ranking matters little here, and whoever wants something of
/// it finds out. A guess; at five minutes, nodes of a network of 10,000 pinged as many that are far away as neighbours.
const DISTANT_PING: u32 = 3;

/// Between pings of a node over which deletion orders come from afar. There are about as many as the number of nodes has bits. A guess.
const LINK_PING: Duration = Duration::from_secs(60);

/// Between pings of a node that has gone: after a partition somebody has to ask first. A guess.
const GONE_PING: Duration = Duration::from_secs(60);

/// For so many intervals a node that asks is not pinged itself. Longer: its room and its orders are learnt of later.
const SPARED_PINGS: u32 = 3;

/// How long a node that has gone is remembered.
const GONE_MEMORY: Duration = Duration::from_secs(3_600);

/// Comparisons soon after the first one with a node that is new, back, or has lost a neighbour: its view may lag behind.
const BURST: u8 = 2;

impl Replicator {
    /// The node is up.
    pub(super) fn answered(&mut self, now: Time, node: Position) {
        self.add_member(now, node);
        let Some(member) = self.members.get_mut(&node) else { return };
        member.failures = 0;
        member.heard = now;
        match member.state {
            State::Up | State::Distrusted => return,
            State::Heard | State::Silent | State::Gone => {}
        }
        member.state = State::Up;
        member.known_since.get_or_insert(now);
        member.burst = BURST;
        member.compared = Some(Comparisons::new(now));
        let neighbour = member.neighbour;
        self.timers.cancel(Timer::State(node));
        self.possible.insert(node);
        if self.ring.insert(node) {
            self.node_changed(now, &node);
        }
        if neighbour {
            self.timers.set(Timer::Sync(node), now);
        }
        self.schedule_ping(now, node);
    }

    /// The node was a member when this node last ran: as long as it might only be late, what it had is not anybody else's.
    pub(super) fn known_before(&mut self, now: Time, node: Position) {
        if !self.add_member(now, node) {
            return;
        }
        if let Some(member) = self.members.get_mut(&node) {
            member.state = State::Silent;
        }
        self.timers.set(Timer::State(node), now + self.config.grace);
        self.timers.set(Timer::Ping(node), now);
        self.ring.insert(node);
        self.node_changed(now, &node);
    }

    /// The nodes that count as holders, without this one. The driver keeps them on disk and hands them in again at its next
    /// start, as [`crate::Input::Known`].
    #[must_use]
    pub fn known(&self) -> Vec<Position> {
        let counts = |state| matches!(state, State::Up | State::Silent);
        self.members.iter().filter(|(_, member)| counts(member.state)).map(|(node, _)| node).collect()
    }

    /// A lookup named the node; it is asked whether it is there.
    pub(super) fn heard(&mut self, now: Time, node: Position) {
        if self.add_member(now, node) {
            self.timers.set(Timer::Ping(node), now);
        }
    }

    /// A request failed.
    pub(super) fn failed(&mut self, now: Time, node: Position) {
        let Some(member) = self.members.get_mut(&node) else { return };
        member.failures = member.failures.saturating_add(1);
        member.orders_due = None;
        let lasting = member.failures >= SILENT_FAILURES;
        match member.state {
            State::Up if lasting => {
                member.state = State::Silent;
                self.timers.set(Timer::State(node), now + self.config.grace);
            }
            State::Heard if lasting => {
                member.state = State::Gone;
                self.possible.remove(&node);
                self.timers.set(Timer::State(node), now + GONE_MEMORY);
            }
            State::Up => self.timers.set_by(Timer::Ping(node), now + self.config.ping_interval),
            State::Heard | State::Silent | State::Gone | State::Distrusted => {}
        }
        if self.syncs.contains_key(&node) {
            self.abandon_sync(now, node);
        }
    }

    /// The node proved wrong.
    pub(super) fn distrust(&mut self, now: Time, node: Position) {
        self.add_member(now, node);
        let Some(member) = self.members.get_mut(&node) else { return };
        member.state = State::Distrusted;
        member.not_there = 0;
        self.timers.set(Timer::State(node), now + self.config.distrust);
        self.timers.cancel(Timer::Ping(node));
        self.leave_ring(now, node);
    }

    /// Silent nodes go, those that have gone are forgotten, distrusted ones get another chance.
    pub(super) fn state_ended(&mut self, now: Time, node: Position) {
        let Some(member) = self.members.get_mut(&node) else { return };
        match member.state {
            State::Silent => {
                member.state = State::Gone;
                self.timers.set(Timer::State(node), now + GONE_MEMORY);
                self.leave_ring(now, node);
            }
            State::Gone => self.forget_member(now, node),
            State::Distrusted => {
                member.state = State::Heard;
                member.failures = 0;
                self.possible.insert(node);
                self.timers.set(Timer::Ping(node), now);
            }
            State::Heard | State::Up => {}
        }
    }

    pub(super) fn ping(&mut self, now: Time, node: Position) {
        let Some(member) = self.members.get(&node) else { return };
        let Some(interval) = self.ping_interval(member) else { return };
        // Whoever is pinged hears of the other, too, so that one of the two is enough. What was heard longer ago may be the answer to the last ping.
        let spared = member.state == State::Up
            && member.failures == 0
            && member.room
            && member.told.is_some()
            && now.since(member.told_at) < interval * SPARED_PINGS
            && now.since(member.heard) < interval / 2;
        let after = if spared { member.heard } else { now };
        if !spared {
            self.push(Output::Ping(node));
        }
        self.schedule_ping(after, node);
    }

    pub(super) fn status(&mut self, now: Time, from: Position, room: bool, told: (u64, u64)) {
        self.answered(now, from);
        let Some(member) = self.members.get_mut(&from) else { return };
        member.unsupported = false;
        member.room = room;
        member.told = Some(Cursor { epoch: told.0, next: told.1 });
        member.told_at = now;
        // Nothing to ask for: a node without orders is caught up with at once.
        if told.1 == 0 {
            member.orders = member.told;
        }
        // Of the others, when something is taken from them: everybody asking everybody would cost more than all else.
        if self.members.get(&from).is_some_and(|member| member.neighbour || member.link) {
            self.ask_orders(now, from);
        }
    }

    /// Sees to it that the node's deletion orders are in force here.
    pub(super) fn catch_up(&mut self, now: Time, node: Position) {
        if self.members.get(&node).is_some_and(|member| member.told.is_none()) {
            self.timers.set_by(Timer::Ping(node), now);
        }
        self.ask_orders(now, node);
    }

    pub(super) fn unsupported(&mut self, now: Time, node: Position) {
        self.answered(now, node);
        if let Some(member) = self.members.get_mut(&node) {
            member.unsupported = true;
            member.orders_due = None;
            self.syncs.remove(&node);
            self.timers.cancel(Timer::Sync(node));
            self.timers.cancel(Timer::SyncStuck(node));
        }
    }

    pub(super) fn orders(&mut self, now: Time, from: Position, (epoch, next): (u64, u64)) {
        self.answered(now, from);
        let Some(member) = self.members.get_mut(&from) else { return };
        let asked = member.orders_due.take();
        let before = member.orders;
        // The node was started anew between question and answer: what it skipped for us was counted in another epoch.
        let next = if asked.is_some_and(|(_, asked)| asked != epoch) { 0 } else { next };
        member.orders = Some(Cursor { epoch, next });
        if before != member.orders {
            self.ask_orders(now, from);
        }
    }

    fn ask_orders(&mut self, now: Time, peer: Position) {
        let Some(member) = self.members.get_mut(&peer).filter(|member| member.talks()) else { return };
        let is_due = member.orders_due.is_none_or(|(until, _)| until <= now);
        let Some(told) = member.told.filter(|_| !member.is_caught_up() && is_due) else { return };
        let after = member.orders.filter(|have| have.epoch == told.epoch).map_or(0, |have| have.next);
        member.orders_due = Some((now + DEADLINE, told.epoch));
        if !self.push(Output::AskOrders { peer, epoch: told.epoch, after })
            && let Some(member) = self.members.get_mut(&peer)
        {
            member.orders_due = None;
        }
    }

    /// Finds the neighbours anew: those who are to have what this node is to have, or would if others went.
    pub(super) fn find_neighbours(&mut self, now: Time) {
        self.territory = self.ring.territory(&self.local, self.config.replication);
        let mut neighbours = BTreeSet::new();
        for node in self.territory.iter().flat_map(|cell| &cell.closest).filter(|node| **node != self.local) {
            if neighbours.len() < MAX_NEIGHBOURS {
                neighbours.insert(*node);
            }
        }
        self.find_links(now);
        let changed: Vec<_> = self
            .members
            .iter_mut()
            .filter_map(|(node, member)| {
                let is = neighbours.contains(&node);
                let changed = std::mem::replace(&mut member.neighbour, is) != is;
                if changed {
                    member.compared = Some(Comparisons::new(now));
                }
                changed.then_some((node, is))
            })
            .collect();
        for (node, is) in changed {
            self.neighbour_changed(now, node, is);
        }
        if std::mem::take(&mut self.resync) {
            neighbours.iter().for_each(|node| self.sync_soon(now, node));
        }
        self.find_surplus(now);
        self.timers.set_by(Timer::Lookups, now);
    }

    /// Neighbours alone are islands: over the links, deletion orders come to everybody.
    fn find_links(&mut self, now: Time) {
        let links = self.ring.links(&self.local);
        for (node, member) in self.members.iter_mut() {
            let is = links.contains(&node);
            if std::mem::replace(&mut member.link, is) != is && is {
                self.timers.set_by(Timer::Ping(node), now + LINK_PING);
            }
        }
    }

    fn neighbour_changed(&mut self, now: Time, node: Position, is: bool) {
        if is {
            self.sync_soon(now, &node);
        } else {
            self.syncs.remove(&node);
            self.timers.cancel(Timer::Sync(node));
            self.timers.cancel(Timer::SyncStuck(node));
        }
        self.schedule_ping(now, node);
    }

    pub(super) fn sync_all(&mut self, now: Time) {
        self.resync = true;
        self.find_neighbours(now);
    }

    fn sync_soon(&mut self, now: Time, node: &Position) {
        if let Some(member) = self.members.get_mut(node) {
            member.burst = BURST;
        }
        self.sync_by(node, now);
    }

    /// The node has come into the ring, or is about to leave it. What is far away in a large network comes and goes all the time, and changes nothing
    /// here. True if it does.
    fn node_changed(&mut self, now: Time, node: &Position) -> bool {
        let matters = self.ring.matters(&self.local, node, self.config.replication + TERRITORY_RANKS);
        if matters {
            self.timers.set_by(Timer::Neighbours, now + SETTLE);
        }
        matters
    }

    /// True if the node is new.
    fn add_member(&mut self, now: Time, node: Position) -> bool {
        if node == self.local || self.members.get(&node).is_some() {
            return false;
        }
        if let Some(forgotten) = self.members.add(now, node) {
            self.forget_member(now, forgotten);
        }
        let added = self.members.get(&node).is_some();
        if added {
            self.possible.insert(node);
        }
        added
    }

    fn forget_member(&mut self, now: Time, node: Position) {
        self.members.remove(&node);
        for timer in [Timer::Ping(node), Timer::State(node)] {
            self.timers.cancel(timer);
        }
        self.leave_ring(now, node);
    }

    fn leave_ring(&mut self, now: Time, node: Position) {
        self.syncs.remove(&node);
        self.timers.cancel(Timer::Sync(node));
        self.timers.cancel(Timer::SyncStuck(node));
        self.possible.remove(&node);
        if self.ring.contains(&node) {
            self.resync |= self.node_changed(now, &node);
            self.ring.remove(&node);
        }
    }

    fn schedule_ping(&mut self, after: Time, node: Position) {
        let interval = self.members.get(&node).and_then(|member| self.ping_interval(member));
        if let Some(interval) = interval {
            let interval = self.jittered(interval);
            self.timers.set(Timer::Ping(node), after + interval);
        }
    }

    /// `None`: it is not pinged.
    fn ping_interval(&self, member: &Member) -> Option<Duration> {
        match member.state {
            State::Up if member.neighbour => Some(self.config.ping_interval),
            State::Up if member.link => Some(LINK_PING),
            State::Up => Some(self.config.grace * DISTANT_PING),
            State::Gone => Some(GONE_PING),
            State::Silent | State::Heard => Some(self.config.ping_interval),
            State::Distrusted => None,
        }
    }
}
