//! Blocks that are to be here and are not: which, who has them, and in which order they are fetched (`docs/protocol.md` §10.4).

use super::{Replicator, Timer};
use crate::{Output, Position, PullOutcome, Time};
use chunkstore_block::BlockId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Blocks that are wanted at a time, 20 MiB; the others are found again by a later comparison.
const MAX_WANTED: usize = 65_536;
/// Holders that are remembered for one block.
const MAX_HOLDERS: usize = 8;
/// The largest block: so much may be pulled at once whatever the rate is.
const BURST_BYTES: u64 = 1 << 20;

/// What is wanted.
#[derive(Clone, Debug)]
pub(super) struct Pulls {
    wanted: BTreeMap<Position, Want>,
    /// Those that are not being pulled: fewest known copies first, then by position.
    queue: BTreeSet<(usize, Position)>,
    /// Pulls under way from each holder.
    busy: BTreeMap<Position, usize>,
    bytes: u64,
    bucket: Option<Bucket>,
}

#[derive(Clone, Debug)]
struct Want {
    id: BlockId,
    length: u32,
    holders: Vec<Position>,
    from: Option<Position>,
}

/// Bytes that may be pulled now: they come with time, and stay up to a second's worth.
#[derive(Clone, Debug)]
struct Bucket {
    bytes_per_s: u64,
    bytes: u64,
    filled: Time,
}

impl Pulls {
    pub(super) fn new(now: Time, bytes_per_s: Option<u64>) -> Self {
        let bucket =
            bytes_per_s.map(|bytes_per_s| Bucket { bytes_per_s: bytes_per_s.max(1), bytes: BURST_BYTES, filled: now });
        Self { wanted: BTreeMap::new(), queue: BTreeSet::new(), busy: BTreeMap::new(), bytes: 0, bucket }
    }

    pub(super) fn len(&self) -> usize {
        self.wanted.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn under_way(&self) -> usize {
        self.wanted.len() - self.queue.len()
    }

    /// Notes that `holder` has a block that is wanted. `false` if there is no room for it.
    pub(super) fn want(&mut self, id: BlockId, length: u32, holder: Position) -> bool {
        let position = Position::of_block(&id);
        if let Some(want) = self.wanted.get_mut(&position) {
            if want.holders.len() < MAX_HOLDERS && !want.holders.contains(&holder) {
                let before = want.holders.len();
                want.holders.push(holder);
                if want.from.is_none() {
                    self.queue.remove(&(before, position));
                    self.queue.insert((before + 1, position));
                }
            }
            return true;
        }
        if self.wanted.len() >= MAX_WANTED {
            return false;
        }
        self.wanted.insert(position, Want { id, length, holders: vec![holder], from: None });
        self.queue.insert((1, position));
        self.bytes += u64::from(length);
        true
    }

    /// It is here: whoever brought it.
    pub(super) fn forget_unless_under_way(&mut self, position: &Position) {
        if self.wanted.get(position).is_some_and(|want| want.from.is_none()) {
            self.forget(position);
        }
    }

    fn forget(&mut self, position: &Position) {
        let Some(want) = self.wanted.remove(position) else { return };
        self.queue.remove(&(want.holders.len(), *position));
        self.bytes -= u64::from(want.length);
        want.from.into_iter().for_each(|from| self.free(from));
    }

    /// What is not being pulled is not wanted any more.
    fn forget_waiting(&mut self) {
        let waiting: Vec<_> = self.queue.iter().map(|(_, position)| *position).collect();
        waiting.iter().for_each(|position| self.forget(position));
    }

    /// A node does not count any more. Pulls under way from it end by themselves.
    pub(super) fn forget_holder(&mut self, holder: &Position) {
        let its: Vec<_> = self
            .wanted
            .iter()
            .filter(|(_, want)| want.holders.contains(holder))
            .map(|(position, _)| *position)
            .collect();
        its.iter().for_each(|position| self.remove_holder(position, holder));
    }

    fn remove_holder(&mut self, position: &Position, holder: &Position) {
        let Some(want) = self.wanted.get_mut(position) else { return };
        let before = want.holders.len();
        want.holders.retain(|other| other != holder);
        let after = want.holders.len();
        if want.from.is_none() {
            self.queue.remove(&(before, *position));
            self.queue.insert((after, *position));
            if after == 0 {
                self.forget(position);
            }
        }
    }

    fn free(&mut self, holder: Position) {
        if let Some(count) = self.busy.get_mut(&holder) {
            *count -= 1;
            if *count == 0 {
                self.busy.remove(&holder);
            }
        }
    }

    /// A pull from `from` has ended; the block waits again. Its length, unless it was not under way from there.
    fn put_back(&mut self, position: &Position, from: Position) -> Option<u32> {
        let want = self.wanted.get_mut(position).filter(|want| want.from == Some(from))?;
        want.from = None;
        let (copies, length) = (want.holders.len(), want.length);
        self.queue.insert((copies, *position));
        self.free(from);
        Some(length)
    }

    fn first(&self) -> Option<(Position, &Want)> {
        let (_, position) = self.queue.first()?;
        Some((*position, self.wanted.get(position)?))
    }

    fn begin(&mut self, position: Position, from: Position) {
        if let Some(want) = self.wanted.get_mut(&position) {
            want.from = Some(from);
            self.queue.remove(&(want.holders.len(), position));
            *self.busy.entry(from).or_default() += 1;
        }
    }
}

impl Bucket {
    /// Takes bytes if they are there, else says how long they will take.
    fn take(&mut self, now: Time, bytes: u64) -> Result<(), Duration> {
        let elapsed = now.since(self.filled);
        // In 128 bits, since a node may have been idle for months.
        let come = u128::from(self.bytes_per_s) * elapsed.as_millis() / 1_000;
        if come > 0 {
            let most = self.bytes_per_s.max(BURST_BYTES);
            self.bytes = u64::try_from(u128::from(self.bytes) + come).unwrap_or(u64::MAX).min(most);
            self.filled = now;
        }
        if self.bytes >= bytes {
            self.bytes -= bytes;
            return Ok(());
        }
        let lacking = bytes - self.bytes;
        Err(Duration::from_millis((lacking * 1_000).div_ceil(self.bytes_per_s).max(1)))
    }
}

impl Replicator {
    /// Begins pulls while there are places, and bytes by the rate.
    pub(super) fn start_pulls(&mut self, now: Time) {
        while self.pulls.under_way() < self.config.pulls_under_way {
            let Some((position, want)) = self.pulls.first() else { return };
            let (id, length) = (want.id, want.length);
            let Some(from) = self.best_holder(&want.holders) else {
                // Nobody who has it answers: a later comparison names who does.
                self.pulls.forget(&position);
                continue;
            };
            if let Some(bucket) = &mut self.pulls.bucket
                && let Err(wait) = bucket.take(now, length.into())
            {
                self.timers.set_no_later(Timer::Pulls, now + wait);
                return;
            }
            self.pulls.begin(position, from);
            self.say(Output::Pull { id, length, from });
        }
    }

    /// Of the holders that answer, the one with the fewest pulls under way.
    fn best_holder(&self, holders: &[Position]) -> Option<Position> {
        let usable = holders.iter().filter(|holder| self.members.is_up(holder) && self.members.is_holder(holder));
        usable.min_by_key(|holder| self.pulls.busy.get(holder).copied().unwrap_or(0)).copied()
    }

    pub(super) fn pull_ended(&mut self, now: Time, id: &BlockId, from: Position, outcome: PullOutcome) {
        let position = Position::of_block(id);
        if outcome != PullOutcome::NoAnswer {
            self.heard(now, from);
        }
        if let Some(length) = self.pulls.put_back(&position, from) {
            match outcome {
                PullOutcome::Stored => {
                    self.counts.pulled_blocks += 1;
                    self.counts.pulled_bytes += u64::from(length);
                    self.pulls.forget(&position);
                }
                PullOutcome::Unwanted => self.pulls.forget(&position),
                PullOutcome::NotThere | PullOutcome::NoAnswer | PullOutcome::Wrong => {
                    self.counts.failed_pulls += 1;
                    self.pulls.remove_holder(&position, &from);
                }
                PullOutcome::Full => {
                    self.has_room = false;
                    self.pulls.forget_waiting();
                }
            }
        }
        match outcome {
            PullOutcome::NoAnswer => self.no_answer(now, from),
            PullOutcome::Wrong => self.distrust(now, &from),
            PullOutcome::Stored | PullOutcome::NotThere | PullOutcome::Unwanted | PullOutcome::Full => {}
        }
        self.start_pulls(now);
    }
}
