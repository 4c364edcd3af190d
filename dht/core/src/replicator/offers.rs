//! Offering blocks to those who lack them, and answering offers (`docs/protocol.md` §10.2).

use super::{OFFER_RANKS, Replicator};
use crate::{Distance, Entry, OfferAnswer, Output, Position, Time, bounded::Bounded, members::State, recent::Why};
use chunkstore_block::{BlockId, MAX_BLOCK_BYTES};
use std::collections::BTreeMap;

/// Blocks of one offer (`docs/protocol.md` §4.2).
const MAX_OFFER: usize = 1_024;

/// Who fetches other blocks meanwhile is given so many grace periods for one that it said it would fetch. A guess.
const PATIENCE: u32 = 6;

/// Nodes remembered for a block, the closest ones: at least as many as are asked.
const MAX_NODES: usize = OFFER_RANKS + crate::MAX_REPLICATION;

/// Blocks that nodes lack although they are to have them, and to whom they were offered instead.
#[derive(Debug)]
pub(super) struct Lacking {
    blocks: Bounded<Position, Overflow>,
}

#[derive(Debug, Default)]
struct Overflow {
    nodes: Nearest<Lack>,
    offered: Nearest<Offered>,
}

/// What became of offering a block to a node in another's place.
#[derive(Clone, Copy, Debug, Default)]
struct Offered {
    at: Option<Time>,
    /// It said that it has the block, or comes for it.
    promised: bool,
}

/// What is known of nodes, by their distance to the block; of at most [`MAX_NODES`]. Who was taken for one of the closest while half of the others
/// seemed to be gone makes room for those that are.
#[derive(Debug, Default)]
struct Nearest<T>(BTreeMap<Distance, T>);

impl<T> Nearest<T> {
    fn set(&mut self, distance: Distance, set: impl FnOnce(&mut T))
    where
        T: Default,
    {
        set(self.0.entry(distance).or_default());
        if self.0.len() > MAX_NODES {
            self.0.pop_last();
        }
    }
}

/// Why a node lacks a block.
#[derive(Clone, Copy, Debug, Default)]
struct Lack {
    /// It has no room.
    full: bool,
    /// It does not take it: not its, by its own knowledge, or nothing that it stores refers to it.
    refused: Option<Time>,
    /// Since when it is to come for it.
    awaited: Option<Time>,
}

impl Lacking {
    pub(super) fn new(most: usize) -> Self {
        Self { blocks: Bounded::new(most) }
    }

    /// Blocks remembered.
    pub(super) fn len(&self) -> usize {
        self.blocks.len()
    }

    pub(super) fn forget(&mut self, block: &Position) {
        self.blocks.remove(block);
    }

    fn note(&mut self, block: Position, node: Position, note: impl FnOnce(&mut Lack)) {
        let Some(overflow) = self.blocks.get_or_insert(block) else { return };
        overflow.nodes.set(block.distance(&node), note);
    }

    pub(super) fn note_refusal(&mut self, now: Time, block: Position, node: Position) {
        self.note(block, node, |lack| *lack = Lack { refused: Some(now), awaited: None, ..*lack });
    }

    /// Since when the node has been to come for the block; `now` if that is new.
    fn note_awaited(&mut self, now: Time, block: Position, node: Position) -> Time {
        let mut since = now;
        self.note(block, node, |lack| since = *lack.awaited.get_or_insert(now));
        since
    }

    fn note_has(&mut self, block: &Position, node: &Position) {
        let Some(overflow) = self.blocks.get_mut(block) else { return };
        overflow.nodes.0.remove(&block.distance(node));
        if overflow.nodes.0.is_empty() {
            self.blocks.remove(block);
        }
    }

    /// What became of offering the block to the node in another's place.
    fn offered(&self, block: &Position, node: &Position) -> Option<&Offered> {
        self.blocks.get(block)?.offered.0.get(&block.distance(node))
    }

    fn note_promise(&mut self, block: &Position, node: &Position, promised: bool) {
        let Some(overflow) = self.blocks.get_mut(block) else { return };
        if let Some(offered) = overflow.offered.0.get_mut(&block.distance(node)) {
            offered.promised = promised;
        }
    }

    fn get(&self, block: &Position, node: &Position) -> Option<&Lack> {
        self.blocks.get(block)?.nodes.0.get(&block.distance(node))
    }
}

impl Replicator {
    /// Answers an offer of blocks with their lengths; for those answered `WillPull`, pulls from `from` follow.
    pub fn offered(&mut self, now: Time, from: Position, entries: &[(BlockId, u32)]) -> Vec<OfferAnswer> {
        self.answered(now, from);
        let heard = self.members.talks(&from);
        let answer = |(index, (id, length)): (usize, &(BlockId, u32))| {
            if heard && index < MAX_OFFER { self.answer(now, from, id, *length) } else { OfferAnswer::NotMine }
        };
        let answers: Vec<_> = entries.iter().enumerate().map(answer).collect();
        let named = entries.iter().zip(&answers).filter(|(_, answer)| **answer == OfferAnswer::Have);
        // The copy there may have references that the one here lacks, and may go because of the one here.
        self.ask_references(from, &named.map(|((id, _), _)| *id).collect::<Vec<_>>());
        self.pull(now);
        answers
    }

    fn answer(&mut self, now: Time, from: Position, id: &BlockId, length: u32) -> OfferAnswer {
        let position = Position::of_block(id);
        if self.holdings.get(&position).is_some() {
            return OfferAnswer::Have;
        }
        let ranked = self.ring.closest(&position, self.config.replication + OFFER_RANKS);
        let Some(rank) = ranked.iter().position(|node| *node == self.local) else { return OfferAnswer::NotMine };
        // For a while, or it would come and go for ever where views differ; no longer than that, or a block whose other stand-ins are lost
        // would wait for this one.
        let dropped = self
            .recent
            .get(&position)
            .is_some_and(|(time, why)| why == Why::Dropped && now.since(time) < self.config.proof_lifetime);
        if length as usize > MAX_BLOCK_BYTES || dropped && rank >= self.config.replication {
            return OfferAnswer::NotMine;
        }
        if !self.room {
            return OfferAnswer::Full;
        }
        // Too many wants: the offer is repeated after the next comparison.
        if self.want(now, position, (*id, length), from, true) { OfferAnswer::WillPull } else { OfferAnswer::NotMine }
    }

    /// Who is to have the block: the R closest but those that are full and lack it, or do not take it; and of those in their places, not who is silent
    /// and has not said that it has the block: a grace period is for those who come back with their copy.
    pub(super) fn targets(&self, now: Time, block: &Position) -> Vec<Position> {
        let mut ranked = self.ring.closest(block, self.config.replication + OFFER_RANKS);
        let is_lost = |node: &Position| {
            *node != self.local
                && !self.members.talks(node)
                && self.lacking.offered(block, node).is_some_and(|offered| !offered.promised)
        };
        ranked.retain(|node| !self.is_passed_over(now, block, node) && !is_lost(node));
        ranked.truncate(self.config.replication);
        ranked
    }

    /// Whether others are to have the block in the node's place. Who refused it, or was too slow, is asked again after a grace period.
    fn is_passed_over(&self, now: Time, block: &Position, node: &Position) -> bool {
        self.lacking.get(block, node).is_some_and(|lack| {
            let refused = lack.refused.is_some_and(|time| now.since(time) < self.config.grace);
            refused || lack.full && self.is_full(node)
        })
    }

    /// Who would have a copy in another's place, is silent, and is not known to have it (`has`) counts as one to which it was offered in vain; and so on
    /// with those who are targets then.
    pub(super) fn note_silent(&mut self, now: Time, block: &Position, has: &[Position]) {
        let closest = self.ring.closest(block, self.config.replication);
        for _ in 0..OFFER_RANKS {
            let mut unknown = self.targets(now, block);
            unknown.retain(|node| {
                let is_silent = *node != self.local && !closest.contains(node) && !self.members.talks(node);
                is_silent && !has.contains(node) && self.lacking.offered(block, node).is_none()
            });
            if unknown.is_empty() {
                return;
            }
            let Some(overflow) = self.lacking.blocks.get_or_insert(*block) else { return };
            for node in unknown {
                overflow.offered.set(block.distance(&node), |_| ());
            }
        }
    }

    /// Whoever keeps a copy in the place of others, or beside others, is mostly no neighbour of theirs: it asks whether they still are full, and
    /// whether they still are there.
    pub(super) fn ask_holders(&mut self, now: Time, block: &Position) {
        let mut holders = self.ring.closest(block, self.config.replication);
        holders.extend(self.targets(now, block));
        for node in holders {
            let Some(member) = self.members.get_mut(&node).filter(|member| member.talks()) else { continue };
            let learnt = if member.room { member.heard } else { member.told_at };
            if now.since(learnt.max(member.asked)) >= self.config.sync_interval {
                member.asked = now;
                self.push(Output::Ping(node));
            }
        }
    }

    pub(super) fn is_full(&self, node: &Position) -> bool {
        self.members.get(node).is_some_and(|member| !member.room)
    }

    /// Offers `peer` what it lacks, or others if it is full or does not take it.
    pub(super) fn offer_lacking(&mut self, now: Time, peer: Position, entries: Vec<Entry>) {
        if self.is_full(&peer) {
            entries.iter().for_each(|entry| self.lacking.note(entry.position(), peer, |lack| lack.full = true));
        }
        let (others, its) = entries.into_iter().partition(|entry| self.is_passed_over(now, &entry.position(), &peer));
        self.offer(&BTreeMap::from([(peer, its)]));
        self.offer_others(now, others);
    }

    /// Whatever `peer` is to have, it tells nothing of it: it counts as one that does not take any of it.
    pub(super) fn offer_in_place_of(&mut self, now: Time, peer: Position, entries: Vec<Entry>) {
        entries.iter().for_each(|entry| self.lacking.note_refusal(now, entry.position(), peer));
        self.offer_others(now, entries);
    }

    /// A full peer that has a block with other references, and still has a while after it could have asked for ours, has no room for them.
    pub(super) fn offer_different(&mut self, now: Time, peer: Position, ids: &[BlockId]) {
        if !self.is_full(&peer) {
            return;
        }
        let mut entries = Vec::new();
        for position in ids.iter().map(Position::of_block) {
            let since = self.lacking.note_awaited(now, position, peer);
            if now.since(since) > 2 * self.config.sync_interval {
                self.lacking.note(position, peer, |lack| lack.full = true);
                entries.extend(self.holdings.get(&position).copied());
            }
        }
        self.offer_others(now, entries);
    }

    /// A comparison with `peer` was made: forgets what was noted of those blocks of which it was `seen` to have them as this node has them.
    pub(super) fn note_seen(&mut self, now: Time, peer: Position, seen: impl Fn(&Position) -> bool) {
        let r = self.config.replication;
        let noted = self
            .lacking
            .blocks
            .iter()
            .filter(|(block, overflow)| overflow.nodes.0.contains_key(&block.distance(&peer)));
        let shared = noted.map(|(position, _)| *position).filter(|position| {
            let closest = self.ring.closest(position, r);
            closest.contains(&self.local) && closest.contains(&peer) && seen(position)
        });
        for position in shared.collect::<Vec<_>>() {
            self.note_has(now, &position, peer);
        }
    }

    fn note_has(&mut self, now: Time, position: &Position, node: Position) {
        if self.lacking.get(position, &node).is_some_and(|lack| lack.awaited.is_some())
            && let Some(member) = self.members.get_mut(&node)
        {
            member.kept_word = Some(now);
        }
        self.lacking.note_has(position, &node);
    }

    /// The node says that it comes for the block. False if it has said so for too long.
    fn is_awaited(&mut self, now: Time, position: Position, node: Position) -> bool {
        let since = self.lacking.note_awaited(now, position, node);
        let kept = self.members.get(&node).and_then(|member| member.kept_word);
        let idle = now.since(kept.map_or(since, |kept| kept.max(since)));
        idle <= self.config.grace && now.since(since) <= self.config.grace * PATIENCE
    }

    pub(super) fn offer(&mut self, offers: &BTreeMap<Position, Vec<Entry>>) {
        for (to, entries) in offers {
            if !self.members.talks(to) {
                continue;
            }
            for entries in entries.chunks(MAX_OFFER) {
                if self.push(Output::Offer { to: *to, entries: entries.to_vec() }) {
                    self.counts.offered += entries.len() as u64;
                }
            }
        }
    }

    /// Offers `entries`, which some of the closest do not take, to those whose place it is then.
    fn offer_others(&mut self, now: Time, entries: Vec<Entry>) {
        let mut offers: BTreeMap<Position, Vec<Entry>> = BTreeMap::new();
        for entry in entries {
            let position = entry.position();
            let closest = self.ring.closest(&position, self.config.replication);
            // Each that is silent makes the next one a target.
            for _ in 0..OFFER_RANKS {
                let mut others = self.targets(now, &position);
                others.retain(|node| *node != self.local && !closest.contains(node));
                let mut silent = false;
                for node in others {
                    silent |= !self.members.talks(&node)
                        && !self.lacking.offered(&position, &node).is_some_and(|offered| offered.promised);
                    if self.may_offer(now, &position, node) {
                        offers.entry(node).or_default().push(entry);
                    }
                }
                if !silent {
                    break;
                }
            }
        }
        self.offer(&offers);
    }

    /// Once in the time that a proof lasts, if the node said that it comes for the block: it has most likely come since.
    fn may_offer(&mut self, now: Time, block: &Position, node: Position) -> bool {
        let Some(overflow) = self.lacking.blocks.get_mut(block) else { return false };
        let distance = block.distance(&node);
        let before = overflow.offered.0.get(&distance).copied().unwrap_or_default();
        let pause = if before.promised { self.config.proof_lifetime } else { self.config.sync_interval / 2 };
        if before.at.is_some_and(|time| now.since(time) < pause) {
            return false;
        }
        overflow.offered.set(distance, |offered| offered.at = Some(now));
        true
    }

    pub(super) fn offer_answered(&mut self, now: Time, to: Position, answers: &[(BlockId, OfferAnswer)]) {
        self.answered(now, to);
        if self.members.is(&to, State::Distrusted) {
            return;
        }
        let full = answers.iter().any(|(_, answer)| *answer == OfferAnswer::Full);
        if let Some(member) = self.members.get_mut(&to).filter(|_| full) {
            member.room = false;
        }
        let mut passed_over = Vec::new();
        for (id, answer) in answers.iter().take(MAX_OFFER) {
            let position = Position::of_block(id);
            self.note_claim(&position, to, *answer == OfferAnswer::Have);
            self.lacking.note_promise(&position, &to, matches!(answer, OfferAnswer::Have | OfferAnswer::WillPull));
            match answer {
                OfferAnswer::Have => self.note_has(now, &position, to),
                OfferAnswer::Full => self.lacking.note(position, to, |lack| lack.full = true),
                OfferAnswer::WillPull if self.is_awaited(now, position, to) => {}
                OfferAnswer::WillPull | OfferAnswer::NotMine => self.lacking.note_refusal(now, position, to),
            }
            if self.is_passed_over(now, &position, &to) {
                passed_over.extend(self.holdings.get(&position).copied());
            }
        }
        self.offer_others(now, passed_over);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_closer_is_remembered_rather_than_who_once_seemed_to_be() {
        // Found by the simulator: a node that was cut off noted refusals of nodes far away, and had no place left for the full one among the closest.
        let block = Position::from_bytes([0; 32]);
        let at =
            |distance: usize| Position::from_bytes(std::array::from_fn(|i| if i == 31 { distance as u8 } else { 0 }));
        let mut lacking = Lacking::new(1);
        (100..100 + 2 * MAX_NODES).for_each(|far| lacking.note_refusal(Time::ZERO, block, at(far)));
        lacking.note(block, at(1), |lack| lack.full = true);
        assert!(lacking.get(&block, &at(1)).is_some_and(|lack| lack.full));
        assert!(lacking.get(&block, &at(100)).is_some() && lacking.get(&block, &at(100 + MAX_NODES)).is_none());
    }
}
