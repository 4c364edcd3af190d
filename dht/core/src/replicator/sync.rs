//! Anti-entropy: comparing with a neighbour what both are to have (`docs/protocol.md` §10.3).

use super::{Replicator, SYNC_AGAIN, Timer};
use crate::{Digest, Entry, OfferAnswer, Output, Position, Prefix, Time};
use chunkstore_block::BlockId;
use std::collections::BTreeMap;

/// Questions to one node at a time.
const ASKED_AT_A_TIME: usize = 4;
/// Parts of the keyspace that still are to be compared; what is over it is found by the next comparison.
const MAX_WAITING: usize = 1_024;
/// Blocks in one offer, and in one question for references (`docs/protocol.md` §4.2).
const MAX_OFFERED: usize = 1_024;
const MAX_REFERENCE_IDS: usize = 256;
/// Tries to find a block for an audit among those here; sets that hardly overlap are audited less often.
const AUDIT_TRIES: usize = 16;

/// Comparisons under way, by the other node.
#[derive(Clone, Debug, Default)]
pub(super) struct Syncs(BTreeMap<Position, Sync>);

#[derive(Clone, Debug, Default)]
struct Sync {
    waiting: Vec<Prefix>,
    asked: Vec<Prefix>,
    differs: bool,
}

impl Replicator {
    /// Compares with a neighbour now, and once more when its view has had time to follow.
    pub(super) fn sync_soon(&mut self, now: Time, node: Position) {
        if node != self.local && self.members.get(&node).is_some() {
            self.timers.set_no_later(Timer::Sync(node), now + super::SURVEY_DELAY * 2);
            self.timers.set(Timer::SyncAgain(node), now + SYNC_AGAIN);
        }
    }

    pub(super) fn sync_with_all(&mut self, now: Time) {
        let neighbours: Vec<_> = self.members.neighbours().collect();
        for node in neighbours {
            self.sync_soon(now, node);
        }
    }

    pub(super) fn begin_sync(&mut self, now: Time, node: Position) {
        let Some(member) = self.members.get(&node) else { return };
        if member.is_neighbour {
            let next = self.jittered(self.config.sync_interval);
            self.timers.set_no_later(Timer::Sync(node), now + next);
        }
        let Some(member) = self.members.get(&node) else { return };
        let is_asked = member.is_supported && self.members.is_up(&node) && self.members.is_holder(&node);
        if is_asked && !self.syncs.0.contains_key(&node) {
            self.syncs.0.insert(node, Sync { waiting: vec![Prefix::ALL], ..Sync::default() });
            self.counts.syncs += 1;
            self.ask_further(now, node);
        }
    }

    pub(super) fn end_sync(&mut self, node: &Position) {
        self.syncs.0.remove(node);
    }

    fn ask_further(&mut self, now: Time, node: Position) {
        let Some(sync) = self.syncs.0.get_mut(&node) else { return };
        let mut questions = Vec::new();
        while sync.asked.len() < ASKED_AT_A_TIME {
            let Some(prefix) = sync.waiting.pop() else { break };
            sync.asked.push(prefix);
            questions.push(prefix);
        }
        if sync.asked.is_empty() {
            let differs = sync.differs;
            self.syncs.0.remove(&node);
            if !differs {
                self.audit_one(now, node);
            }
        }
        for prefix in questions {
            self.counts.digests += 1;
            self.say(Output::AskDigest { peer: node, prefix });
        }
    }

    /// What the peer has in a part of the keyspace, against what is here.
    pub(super) fn compare(&mut self, now: Time, from: Position, prefix: &Prefix, digest: Digest) {
        self.heard(now, from);
        let Some(sync) = self.syncs.0.get_mut(&from) else { return };
        let Some(at) = sync.asked.iter().position(|asked| asked == prefix) else { return };
        sync.asked.swap_remove(at);
        let differs = match digest {
            Digest::Children(theirs) => {
                let ours = self.summary(&from, prefix).buckets();
                let children = prefix.children().into_iter().flatten();
                let pairs = children.zip(ours.into_iter().zip(*theirs));
                let differing: Vec<_> =
                    pairs.filter(|(_, (ours, theirs))| ours != theirs).map(|(child, _)| child).collect();
                let differs = !differing.is_empty();
                if let Some(sync) = self.syncs.0.get_mut(&from) {
                    let room = MAX_WAITING.saturating_sub(sync.waiting.len());
                    sync.waiting.extend(differing.into_iter().take(room));
                }
                differs
            }
            Digest::Entries(theirs) => self.compare_entries(now, from, prefix, theirs),
        };
        if let Some(sync) = self.syncs.0.get_mut(&from) {
            sync.differs |= differs;
        }
        self.start_pulls(now);
        self.ask_further(now, from);
    }

    /// Whether there was a difference.
    fn compare_entries(&mut self, now: Time, from: Position, prefix: &Prefix, theirs: Vec<Entry>) -> bool {
        let mut ours = BTreeMap::new();
        self.for_each_shared(&from, prefix, |position, entry| {
            ours.insert(*position, *entry);
        });
        let (mut differs, mut other_references) = (false, Vec::new());
        for entry in theirs {
            let position = entry.position();
            if !prefix.contains(&position) {
                continue; // it was not asked for that
            }
            ours.remove(&position);
            match self.held.get(&position) {
                Some(own) if own.digest == entry.digest => {}
                Some(_) => other_references.push(entry.id),
                None => differs |= self.want(now, from, &entry),
            }
        }
        differs |= !ours.is_empty() || !other_references.is_empty();
        for ids in other_references.chunks(MAX_REFERENCE_IDS) {
            self.say(Output::AskReferences { peer: from, ids: ids.to_vec() });
        }
        self.offer(from, ours.into_values().collect());
        differs
    }

    /// Whether it is wanted.
    fn want(&mut self, now: Time, from: Position, entry: &Entry) -> bool {
        let position = entry.position();
        let is_wanted = self.has_room && self.is_to_have(&position) && !self.went_lately(now, &position);
        is_wanted && self.pulls.want(entry.id, entry.length, from)
    }

    /// Offers what a node is to have and lacks; if it is full, to those that take its place.
    fn offer(&mut self, to: Position, entries: Vec<Entry>) {
        if self.members.get(&to).is_none_or(|member| member.has_room) {
            self.say_offer(to, entries);
        } else {
            self.offer_to_next(&to, entries);
        }
    }

    fn say_offer(&mut self, to: Position, entries: Vec<Entry>) {
        for entries in entries.chunks(MAX_OFFERED) {
            self.counts.offered += entries.len() as u64;
            self.say(Output::Offer { to, entries: entries.to_vec() });
        }
    }

    /// Offers blocks to the nodes behind the R closest, the first of them that have room.
    fn offer_to_next(&mut self, full: &Position, entries: Vec<Entry>) {
        let mut offers: BTreeMap<Position, Vec<Entry>> = BTreeMap::new();
        for entry in entries {
            if let Some(node) = self.stand_in(full, &entry) {
                offers.entry(node).or_default().push(entry);
            }
        }
        for (to, entries) in offers {
            self.say_offer(to, entries);
        }
    }

    /// Who takes the place of a full node: of those that are full or silent among the R closest, the first has the first behind them,
    /// and so on.
    fn stand_in(&self, full: &Position, entry: &Entry) -> Option<Position> {
        let replication = self.config.replication;
        let ranked = self.members.closest(&entry.position(), replication + 2 * super::SPARE_HOLDERS);
        let takes = |node: &&Position| {
            **node == self.local
                || self.members.is_up(node) && self.members.get(node).is_some_and(|member| member.has_room)
        };
        let rank = ranked.iter().position(|node| node == full)?;
        let before = ranked.iter().take(rank.min(replication)).filter(|node| !takes(node)).count();
        let stand_in = ranked.iter().skip(replication).filter(takes).nth(before)?;
        (*stand_in != self.local).then_some(*stand_in)
    }

    pub(super) fn offer_answered(&mut self, now: Time, to: Position, answers: Vec<(BlockId, OfferAnswer)>) {
        self.heard(now, to);
        let full: Vec<_> = answers
            .into_iter()
            .filter(|(_, answer)| *answer == OfferAnswer::Full)
            .filter_map(|(id, _)| self.held.get(&Position::of_block(&id)).copied())
            .collect();
        if full.is_empty() {
            return;
        }
        if let Some(member) = self.members.get_mut(&to) {
            member.has_room = false;
        }
        self.offer_to_next(&to, full);
    }

    /// After a comparison without a difference, the peer is to prove that it has one block of the shared set.
    fn audit_one(&mut self, now: Time, node: Position) {
        for _ in 0..AUDIT_TRIES {
            let from = Position::from_bytes(self.random.bytes());
            let Some((position, entry)) = self.held.range(from..).next().or_else(|| self.held.first_key_value()) else {
                return;
            };
            let (position, id) = (*position, entry.id);
            let ranked = self.members.closest(&position, self.config.replication);
            if ranked.contains(&node) {
                return self.audit(now, position, id, node, false);
            }
        }
    }
}
