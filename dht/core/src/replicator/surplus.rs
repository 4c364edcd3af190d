//! Copies that are one too many: offered to those who are to have them, and dropped when those have proved theirs
//! (`docs/protocol.md` §10.2 and §10.6).

use super::{Replicator, Timer};
use crate::{AuditOutcome, Entry, Output, Position, Prefix, Time};
use chunkstore_block::BlockId;
use std::collections::BTreeMap;
use std::time::Duration;

/// Copies that are looked after at a time, 10 MiB; the others are when these are gone.
const MAX_SURPLUS: usize = 65_536;
/// Audits under way. Each reads a block at both ends.
const MAX_AUDITS: usize = 4;
/// Copies that one turn looks at.
const TURN: usize = 256;
/// A copy whose holders could not prove theirs is looked at again after this long. Guess: an offered block has come by then.
const RETRY: Duration = Duration::from_secs(5);
/// While there are copies to look after. Guess.
const PAUSE: Duration = Duration::from_millis(500);
/// Audits in a row that a node may fail for blocks it named itself.
const STRIKES: u8 = 3;

/// The copies, and the audits under way.
#[derive(Clone, Debug, Default)]
pub(super) struct SurplusCopies {
    copies: BTreeMap<Position, Copy>,
    /// Whether each is for a surplus copy, by block and prover.
    audits: BTreeMap<(Position, Position), bool>,
    /// Where the next turn begins.
    next: Option<Position>,
}

#[derive(Clone, Debug)]
struct Copy {
    since: Time,
    try_at: Time,
    /// Who proved possession, and when.
    proofs: BTreeMap<Position, Time>,
}

impl SurplusCopies {
    pub(super) fn len(&self) -> usize {
        self.copies.len()
    }

    pub(super) fn forget(&mut self, position: &Position) {
        self.copies.remove(position);
    }
}

impl Replicator {
    /// Finds the copies that are one too many now, and forgets those that are not any more.
    pub(super) fn find_surplus(&mut self, now: Time) {
        let mut found = Vec::new();
        self.walk(&Prefix::ALL, self.config.replication, |ranked, first, end| {
            if !ranked.contains(&self.local) && found.len() < MAX_SURPLUS {
                let room = MAX_SURPLUS - found.len();
                found.extend(self.held.range(first..=end).take(room).map(|(position, _)| *position));
            }
        });
        let mut before = std::mem::take(&mut self.surplus.copies);
        for position in found {
            let new = || Copy { since: now, try_at: now, proofs: BTreeMap::new() };
            self.surplus.copies.insert(position, before.remove(&position).unwrap_or_else(new));
        }
        if !self.surplus.copies.is_empty() {
            self.timers.set_once(Timer::Surplus, now);
        }
    }

    /// One turn: some copies are offered, their holders audited, or they are dropped.
    pub(super) fn look_after_surplus(&mut self, now: Time) {
        let from = self.surplus.next.take().unwrap_or(Position::from_bytes([0; 32]));
        let mut turn: Vec<_> =
            self.surplus.copies.range(from..).take(TURN + 1).map(|(position, _)| *position).collect();
        if turn.len() > TURN {
            self.surplus.next = turn.pop();
        }
        self.look_after_these(now, turn);
        if !self.surplus.copies.is_empty() {
            self.timers.set_once(Timer::Surplus, now + PAUSE);
        }
    }

    fn look_after_these(&mut self, now: Time, positions: Vec<Position>) {
        let mut offers: BTreeMap<Position, Vec<Entry>> = BTreeMap::new();
        for position in positions {
            self.look_after_one(now, position, &mut offers);
        }
        for (to, entries) in offers {
            self.counts.offered += entries.len() as u64;
            self.say(Output::Offer { to, entries });
        }
    }

    fn look_after_one(&mut self, now: Time, position: Position, offers: &mut BTreeMap<Position, Vec<Entry>>) {
        let Some(entry) = self.held.get(&position).copied() else { return self.surplus.forget(&position) };
        let Some(copy) = self.surplus.copies.get(&position) else { return };
        if now < copy.try_at {
            return;
        }
        let is_new = copy.since == copy.try_at;
        let (is_ripe, since) = (now.since(copy.since) >= self.config.drop_delay, copy.since);
        if is_ripe && self.regions.find(now, &position).is_none() {
            // Somebody closer may have come who has not been heard of.
            return self.look_up(now, position);
        }
        let closer = self.closer_nodes(&position);
        if is_new {
            // Those who are to have it may not know of it.
            for node in closer.iter().take(self.config.replication).filter(|node| self.members.is_up(node)) {
                offers.entry(*node).or_default().push(entry);
            }
        }
        if !is_ripe {
            return self.retry(&position, (since + self.config.drop_delay).max(now + Duration::from_millis(1)));
        }
        if self.is_proved(now, &position, &closer) {
            self.surplus.forget(&position);
            self.counts.dropped += 1;
            return self.say(Output::Drop(entry.id));
        }
        for node in closer {
            if !self.has_proved(now, &position, &node) && self.surplus.audits.len() < MAX_AUDITS {
                self.audit(now, position, entry.id, node, true);
            }
        }
    }

    /// The nodes that rank before this one and count, those known for long enough.
    fn closer_nodes(&self, position: &Position) -> Vec<Position> {
        let ranked = self.members.closest(position, self.config.replication + 2 * super::SPARE_HOLDERS);
        ranked.into_iter().take_while(|node| *node != self.local).collect()
    }

    fn has_proved(&self, now: Time, position: &Position, node: &Position) -> bool {
        let proved = self.surplus.copies.get(position).and_then(|copy| copy.proofs.get(node));
        proved.is_some_and(|at| now.since(*at) < self.config.proof_lifetime)
    }

    /// Whether R nodes that are closer have proved that they have it, and have been known for long enough.
    fn is_proved(&self, now: Time, position: &Position, closer: &[Position]) -> bool {
        let counts = |node: &&Position| {
            self.has_proved(now, position, node) && self.members.is_known_for(now, node, self.config.minimum_age)
        };
        closer.iter().filter(counts).count() >= self.config.replication
    }

    /// Has a node prove that it has a block, unless it is doing so.
    pub(super) fn audit(&mut self, now: Time, position: Position, id: BlockId, by: Position, is_surplus: bool) {
        let is_ripe = !is_surplus || self.members.is_known_for(now, &by, self.config.minimum_age);
        if !is_ripe || !self.members.is_up(&by) || self.surplus.audits.contains_key(&(position, by)) {
            return;
        }
        if self.surplus.audits.len() < MAX_AUDITS + super::view::MAX_NEIGHBOURS {
            self.surplus.audits.insert((position, by), is_surplus);
            self.counts.audits += 1;
            self.say(Output::Audit { id, by });
        }
    }

    pub(super) fn audit_ended(&mut self, now: Time, id: &BlockId, by: Position, outcome: AuditOutcome) {
        let position = Position::of_block(id);
        let Some(is_surplus) = self.surplus.audits.remove(&(position, by)) else { return };
        match outcome {
            AuditOutcome::Proved => self.note_proof(now, position, by),
            AuditOutcome::NotThere => {
                self.heard(now, by);
                self.retry(&position, now + RETRY);
                if is_surplus {
                    self.offer_again(&position, by);
                } else {
                    self.strike(now, &by);
                }
            }
            AuditOutcome::Wrong => {
                self.counts.failed_audits += 1;
                self.retry(&position, now + RETRY);
                self.distrust(now, &by);
            }
            AuditOutcome::NoAnswer => {
                self.retry(&position, now + RETRY);
                self.no_answer(now, by);
            }
            AuditOutcome::Void => self.retry(&position, now + RETRY),
        }
        if !self.surplus.copies.is_empty() {
            self.timers.set_no_later(Timer::Surplus, now);
        }
    }

    fn note_proof(&mut self, now: Time, position: Position, by: Position) {
        self.heard(now, by);
        if let Some(member) = self.members.get_mut(&by) {
            member.strikes = 0;
        }
        if let Some(copy) = self.surplus.copies.get_mut(&position) {
            copy.proofs.insert(by, now);
            // It may have been the last that was lacking.
            self.look_after_these(now, vec![position]);
        }
    }

    fn retry(&mut self, position: &Position, at: Time) {
        if let Some(copy) = self.surplus.copies.get_mut(position) {
            copy.try_at = at;
        }
    }

    fn offer_again(&mut self, position: &Position, to: Position) {
        if let Some(entry) = self.held.get(position).copied() {
            self.counts.offered += 1;
            self.say(Output::Offer { to, entries: vec![entry] });
        }
    }

    /// It does not have what it had in its digests.
    fn strike(&mut self, now: Time, by: &Position) {
        self.counts.failed_audits += 1;
        let Some(member) = self.members.get_mut(by) else { return };
        member.strikes += 1;
        if member.strikes >= STRIKES {
            self.distrust(now, by);
        }
    }
}
