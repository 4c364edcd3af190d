//! The other nodes that this node knows of, and their states (`docs/protocol.md` §9).

use crate::{Position, Time, position::Distance};
use std::{collections::BTreeMap, time::Duration};

/// Nodes remembered; the farthest from this one goes. About 200 bytes each.
pub(crate) const MAX_MEMBERS: usize = 4_096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// A lookup named it; it has not answered yet. Not a member: lookups name the dead for a while.
    Heard,
    Up,
    Silent,
    Gone,
    /// As silent or gone, but for what it did.
    Distrusted,
}

/// Where this node is in another's deletion orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) epoch: u64,
    pub(crate) next: u64,
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) state: State,
    /// When it last answered or asked.
    pub(crate) heard: Time,
    /// When it first answered.
    pub(crate) known_since: Option<Time>,
    /// Requests in a row without an answer.
    pub(crate) failures: u8,
    pub(crate) room: bool,
    /// Asked for blocks only.
    pub(crate) unsupported: bool,
    pub(crate) neighbour: bool,
    /// Its deletion orders are asked for although it is no neighbour.
    pub(crate) link: bool,
    pub(crate) orders: Option<Cursor>,
    /// What its last status said.
    pub(crate) told: Option<Cursor>,
    /// And when that was.
    pub(crate) told_at: Time,
    /// When it was last pinged out of turn.
    pub(crate) asked: Time,
    /// Orders of this epoch were asked for, and are not asked for again before then.
    pub(crate) orders_due: Option<(Time, u64)>,
    /// Audits in a row that found nothing.
    pub(crate) not_there: u8,
    /// Comparisons that follow soon after the next one, because the peer's view of a change may lag behind.
    pub(crate) burst: u8,
    /// The last block found lacking there, if there were too many for one comparison.
    pub(crate) lacking_after: Option<Position>,
    /// How comparisons with it went since it is up and a neighbour.
    pub(crate) compared: Option<Comparisons>,
    /// When others were last offered what it is to have, because it compares nothing.
    pub(crate) stood_in_for: Option<Time>,
    /// When it was last found to have a block that it said it would fetch.
    pub(crate) kept_word: Option<Time>,
}

/// How comparisons with a neighbour went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Comparisons {
    /// When one last ended, or there was none to end yet.
    ended: Time,
    /// How often one was begun since, at most once in half an interval.
    tries: u8,
    tried: Time,
}

/// Comparisons in vain: this node may have been the one that was asleep.
const MUTE_AFTER: u8 = 3;

impl Comparisons {
    pub(crate) const fn new(now: Time) -> Self {
        Self { ended: now, tries: 0, tried: now }
    }

    /// One is begun, or would be if the peer's orders came to an end.
    pub(crate) fn begin(&mut self, now: Time, interval: Duration) {
        if self.tries == 0 || now.since(self.tried) >= interval / 2 {
            self.tries = self.tries.saturating_add(1);
            self.tried = now;
        }
    }

    /// It answers, and none has ended for so long although several were begun.
    pub(crate) fn are_in_vain(&self, now: Time, patience: Duration) -> bool {
        self.tries >= MUTE_AFTER && now.since(self.ended) > patience
    }
}

impl Member {
    const fn new(now: Time) -> Self {
        Self {
            state: State::Heard,
            heard: now,
            known_since: None,
            failures: 0,
            room: true,
            unsupported: false,
            neighbour: false,
            link: false,
            orders: None,
            told: None,
            told_at: now,
            asked: now,
            orders_due: None,
            not_there: 0,
            burst: 0,
            lacking_after: None,
            compared: None,
            stood_in_for: None,
            kept_word: None,
        }
    }

    /// Whether it can be asked for more than blocks.
    pub(crate) fn talks(&self) -> bool {
        self.state == State::Up && !self.unsupported
    }

    /// Whether its deletion orders are in force here. Before they are, nothing is taken from it: it may name what is deleted.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.told.is_some_and(|told| self.orders.is_some_and(|have| have.epoch == told.epoch && have.next >= told.next))
    }
}

#[derive(Debug)]
pub(crate) struct Members {
    local: Position,
    all: BTreeMap<Distance, Member>,
}

impl Members {
    pub(crate) const fn new(local: Position) -> Self {
        Self { local, all: BTreeMap::new() }
    }

    pub(crate) fn get(&self, position: &Position) -> Option<&Member> {
        self.all.get(&self.local.distance(position))
    }

    pub(crate) fn get_mut(&mut self, position: &Position) -> Option<&mut Member> {
        self.all.get_mut(&self.local.distance(position))
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Closest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Position, &Member)> {
        self.all.iter().map(|(distance, member)| (self.local.at(distance), member))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Position, &mut Member)> {
        self.all.iter_mut().map(|(distance, member)| (self.local.at(distance), member))
    }

    pub(crate) fn remove(&mut self, position: &Position) {
        self.all.remove(&self.local.distance(position));
    }

    pub(crate) fn is(&self, position: &Position, state: State) -> bool {
        self.get(position).is_some_and(|member| member.state == state)
    }

    pub(crate) fn is_up(&self, position: &Position) -> bool {
        self.is(position, State::Up)
    }

    pub(crate) fn talks(&self, position: &Position) -> bool {
        self.get(position).is_some_and(Member::talks)
    }

    /// Adds a node that is not known; says which was forgotten for it, which may be the same.
    pub(crate) fn add(&mut self, now: Time, position: Position) -> Option<Position> {
        self.all.insert(self.local.distance(&position), Member::new(now));
        if self.all.len() <= MAX_MEMBERS {
            return None;
        }
        self.all.pop_last().map(|(farthest, _)| self.local.at(&farthest))
    }
}
