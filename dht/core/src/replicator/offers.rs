//! Offering blocks to those who lack them, and answering offers (`docs/protocol.md` §10.2).

use super::{OFFER_RANKS, Replicator};
use crate::{Entry, OfferAnswer, Output, Position, Time, bounded::Bounded, members::State, recent::Why};
use chunkstore_block::{BlockId, MAX_BLOCK_BYTES};
use std::collections::BTreeMap;

/// Blocks of one offer (`docs/protocol.md` §4.2).
const MAX_OFFER: usize = 1_024;

/// Blocks that nodes lack because they are full, and to whom they were offered instead.
#[derive(Debug)]
pub(super) struct Lacking {
    blocks: Bounded<Position, Overflow>,
}

#[derive(Debug, Default)]
struct Overflow {
    full: Vec<Position>,
    offered: BTreeMap<Position, Time>,
}

impl Lacking {
    pub(super) fn new(most: usize) -> Self {
        Self { blocks: Bounded::new(most) }
    }

    pub(super) fn forget(&mut self, block: &Position) {
        self.blocks.remove(block);
    }

    fn note(&mut self, block: Position, full: Position) {
        let Some(overflow) = self.blocks.get_or_insert(block) else { return };
        if !overflow.full.contains(&full) && overflow.full.len() < 2 * OFFER_RANKS + crate::MAX_REPLICATION {
            overflow.full.push(full);
        }
    }

    fn lacks(&self, block: &Position, node: &Position) -> bool {
        self.blocks.get(block).is_some_and(|overflow| overflow.full.contains(node))
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
        let dropped = matches!(self.recent.get(now, &position), Some((_, Why::Dropped)));
        if length as usize > MAX_BLOCK_BYTES || dropped && rank >= self.config.replication {
            return OfferAnswer::NotMine;
        }
        if !self.room {
            return OfferAnswer::Full;
        }
        // Too many wants: the offer is repeated after the next comparison.
        if self.want(now, position, (*id, length), from, true) { OfferAnswer::WillPull } else { OfferAnswer::NotMine }
    }

    /// Who is to have the block: the R closest but those that are full and lack it.
    pub(super) fn targets(&self, block: &Position) -> Vec<Position> {
        let mut ranked = self.ring.closest(block, self.config.replication + OFFER_RANKS);
        ranked.retain(|node| {
            let full = self.members.get(node).is_some_and(|member| !member.room);
            !(full && self.lacking.lacks(block, node))
        });
        ranked.truncate(self.config.replication);
        ranked
    }

    /// Offers `peer` what it lacks, or others if it is full.
    pub(super) fn offer_lacking(&mut self, now: Time, peer: Position, entries: Vec<Entry>) {
        if self.members.get(&peer).is_some_and(|member| member.room) {
            self.offer(&BTreeMap::from([(peer, entries)]));
        } else {
            self.offer_others(now, peer, entries);
        }
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

    /// `full` has no room for `entries`: offers them to those whose place it is then.
    fn offer_others(&mut self, now: Time, full: Position, entries: Vec<Entry>) {
        let mut offers: BTreeMap<Position, Vec<Entry>> = BTreeMap::new();
        for entry in entries {
            let position = entry.position();
            self.lacking.note(position, full);
            let closest = self.ring.closest(&position, self.config.replication);
            let mut others = self.targets(&position);
            others.retain(|node| *node != self.local && !closest.contains(node));
            for node in others {
                if self.may_offer(now, &position, node) {
                    offers.entry(node).or_default().push(entry);
                }
            }
        }
        self.offer(&offers);
    }

    /// Once in the time that a proof lasts: the node has most likely come to fetch the block since.
    fn may_offer(&mut self, now: Time, block: &Position, node: Position) -> bool {
        let Some(overflow) = self.lacking.blocks.get_mut(block) else { return false };
        let lately = overflow.offered.get(&node).is_some_and(|time| now.since(*time) < self.config.proof_lifetime);
        if !lately && overflow.offered.len() < 2 * OFFER_RANKS + crate::MAX_REPLICATION {
            overflow.offered.insert(node, now);
        }
        !lately
    }

    pub(super) fn offer_answered(&mut self, now: Time, to: Position, answers: &[(BlockId, OfferAnswer)]) {
        self.answered(now, to);
        if self.members.is(&to, State::Distrusted) {
            return;
        }
        let mut refused = Vec::new();
        for (id, answer) in answers.iter().take(MAX_OFFER) {
            let position = Position::of_block(id);
            self.note_claim(&position, to, *answer == OfferAnswer::Have);
            match answer {
                OfferAnswer::Full => refused.extend(self.holdings.get(&position).copied()),
                OfferAnswer::Have | OfferAnswer::WillPull | OfferAnswer::NotMine => {}
            }
        }
        if !refused.is_empty() {
            if let Some(member) = self.members.get_mut(&to) {
                member.room = false;
            }
            self.offer_others(now, to, refused);
        }
    }
}
