//! Fetching what is to be here (`docs/protocol.md` §10.4).

use super::{DEADLINE, Replicator};
use crate::{Output, Position, PullOutcome, Time, recent::Why, timers::Timer, wants::Want};
use chunkstore_block::{BlockId, MAX_BLOCK_BYTES};
use std::time::Duration;

/// How long after the store lost a block it is fetched. It may have been deleted, which every neighbour knows within two pings;
/// before that, fetching a deleted film back for nothing would be the rule. A damaged block waits as long.
pub(super) const AFTER_LOSS: Duration = Duration::from_secs(10);

/// After the store here failed.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

/// When the driver is behind.
const LATER: Duration = Duration::from_secs(1);

/// How long a want waits for a holder's deletion orders: of 1 MiB each, they come every few seconds. Who names more and more of them
/// never gives what it offers. A guess.
const MAX_WAIT: Duration = Duration::from_secs(120);

/// The bytes that may be moved: a bucket that fills at the repair rate.
#[derive(Debug)]
pub(super) struct Budget {
    bytes_per_s: Option<u64>,
    /// In bytes times 1,000, so that milliseconds divide it.
    left: u64,
    at: Time,
}

impl Budget {
    pub(super) fn new(bytes_per_s: Option<u64>, now: Time) -> Self {
        let bytes_per_s = bytes_per_s.map(|rate| rate.max(1));
        Self { bytes_per_s, left: bytes_per_s.map_or(0, Self::most), at: now }
    }

    /// When `bytes` may be moved; now, if that is no later than `now`.
    fn ready(&mut self, now: Time, bytes: u32) -> Time {
        let Some(rate) = self.bytes_per_s else { return now };
        let passed = u64::try_from(now.since(self.at).as_millis()).unwrap_or(u64::MAX);
        self.left = self.left.saturating_add(passed.saturating_mul(rate)).min(Self::most(rate));
        self.at = self.at.max(now);
        let short = (u64::from(bytes) * 1_000).saturating_sub(self.left);
        now + Duration::from_millis(short.div_ceil(rate))
    }

    fn spend(&mut self, bytes: u32) {
        self.left = self.left.saturating_sub(u64::from(bytes) * 1_000);
    }

    /// A second's worth, and the largest block at least, or that could never come.
    fn most(rate: u64) -> u64 {
        rate.max(MAX_BLOCK_BYTES as u64).saturating_mul(1_000)
    }
}

/// What is to be done about a want.
enum Choice {
    From(Position),
    /// Its holders, of which this is one, have deletion orders that are not in force here yet.
    Wait(Position),
    Forget,
}

impl Replicator {
    /// Notes that a block is to be here and that `holder` has it. False if it is not taken.
    pub(super) fn want(
        &mut self,
        now: Time,
        position: Position,
        block: (BlockId, u32),
        holder: Position,
        offered: bool,
    ) -> bool {
        if self.recent.is_unwanted(now, &position, &holder) {
            return false;
        }
        let not_before = match self.recent.get(&position) {
            Some((lost, Why::Gone)) => Some(lost + AFTER_LOSS).filter(|time| *time > now),
            Some((_, Why::Dropped)) | None => None,
        };
        self.timers.set_by(Timer::Pulls, now);
        self.wants.add(position, block, holder, offered, not_before)
    }

    /// Begins the pulls that may begin.
    pub(super) fn pull(&mut self, now: Time) {
        self.wants.wake(now);
        while self.room
            && self.wants.under_way() < self.config.pulls_under_way
            && let Some((position, want)) = self.wants.first()
        {
            let (id, length) = (want.id, want.length);
            match self.choose(&position, want) {
                Choice::Forget => _ = self.wants.remove(&position),
                Choice::Wait(holder) => {
                    self.wants.await_orders(now, &position, holder, MAX_WAIT);
                    self.catch_up(now, holder);
                }
                Choice::From(from) => {
                    let ready = self.budget.ready(now, length);
                    if ready > now {
                        self.timers.set_by(Timer::Pulls, ready);
                        return;
                    }
                    if !self.push(Output::Pull { id, length, from }) {
                        self.timers.set_by(Timer::Pulls, now + LATER);
                        return;
                    }
                    self.budget.spend(length);
                    self.wants.set_pulling(&position, from, now + DEADLINE);
                }
            }
        }
        if let Some(next) = self.wants.next_wake().filter(|_| self.room) {
            self.timers.set_by(Timer::Pulls, next.max(now + Duration::from_millis(1)));
        }
    }

    /// The holder with the fewest pulls under way.
    fn choose(&self, position: &Position, want: &Want) -> Choice {
        if self.holdings.get(position).is_some() || !(want.offered || self.is_mine(position)) {
            return Choice::Forget;
        }
        let up = || want.holders.iter().filter(|holder| self.members.talks(holder));
        let ready = up().filter(|holder| self.members.get(holder).is_some_and(|member| member.is_caught_up()));
        let best = ready.min_by_key(|holder| self.wants.load(holder)).map(|holder| Choice::From(*holder));
        best.or_else(|| up().next().map(|holder| Choice::Wait(*holder))).unwrap_or(Choice::Forget)
    }

    pub(super) fn pulled(&mut self, now: Time, id: &BlockId, from: Position, outcome: PullOutcome) {
        let position = Position::of_block(id);
        match outcome {
            PullOutcome::NoAnswer => self.failed(now, from),
            PullOutcome::Wrong => self.distrust(now, from),
            PullOutcome::Stored | PullOutcome::NotThere | PullOutcome::Unwanted | PullOutcome::Full => {
                self.answered(now, from);
            }
            PullOutcome::Failed => {}
        }
        match outcome {
            PullOutcome::Stored => self.count_pulled(&position),
            PullOutcome::Unwanted => {
                self.wants.failed(&position, &from);
                self.recent.note_unwanted(now, position, from);
            }
            PullOutcome::Full => {
                self.room = false;
                self.wants.again(&position, &from, None);
            }
            PullOutcome::Failed => self.wants.again(&position, &from, Some(now + AFTER_FAILURE)),
            PullOutcome::NotThere | PullOutcome::NoAnswer | PullOutcome::Wrong => {
                self.counts.failed_pulls += u64::from(self.wants.failed(&position, &from));
            }
        }
        self.pull(now);
    }

    fn count_pulled(&mut self, position: &Position) {
        let wanted = self.wants.remove(position).map(|want| want.length);
        // `Held` may have come before.
        let length = wanted.or_else(|| self.holdings.get(position).map(|entry| entry.length));
        self.counts.pulled_blocks += 1;
        self.counts.pulled_bytes += u64::from(length.unwrap_or(0));
    }

    pub(super) fn own_room(&mut self, now: Time, room: bool) {
        if std::mem::replace(&mut self.room, room) != room {
            self.pull(now);
        }
    }

    pub(super) fn give_up_pulls(&mut self, now: Time) {
        for (position, from) in self.wants.overdue(now) {
            self.counts.failed_pulls += u64::from(self.wants.failed(&position, &from));
        }
        self.pull(now);
    }
}
