//! Copies that need not be here, and proofs of possession (`docs/protocol.md` §10.2, §10.6).

use super::{DEADLINE, Replicator};
use crate::{AuditOutcome, Entry, Output, Position, Prefix, Time, timers::Timer};
use chunkstore_block::BlockId;
use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
    time::Duration,
};

/// Audits under way: each reads a block here and there.
const MAX_AUDITS: usize = 4;

/// Between two steps through the surplus.
const STEP: Duration = Duration::from_secs(5);

/// Surplus copies looked at in a step.
const STEP_COPIES: usize = 512;

/// Parts of the keyspace that wait to be looked up for the sake of surplus copies.
const MAX_SURPLUS_LOOKUPS: usize = 64;

/// A copy is told to go so often, at most, while a proof lasts. A guess.
const DROPS_IN_PROOF_LIFETIME: u32 = 5;

/// Audits in a row that find nothing until a node is distrusted (`docs/protocol.md` §10.6).
const MAX_NOT_THERE: u8 = 3;

/// A copy that need not be here.
#[derive(Debug)]
pub(super) struct Surplus {
    since: Time,
    /// What those who are to have it said of it.
    others: BTreeMap<Position, Claim>,
    /// It was told to go; again after a while if it does not.
    dropping: Option<Time>,
    /// How often it was told to go and did not.
    stayed: u8,
}

impl Surplus {
    /// Whether it was told to go a moment ago.
    pub(super) fn is_dropping(&self, now: Time) -> bool {
        self.dropping.is_some_and(|time| now.since(time) < DEADLINE)
    }

    /// The copy is another than the one that was offered and proved: with more references, others may lack some of them.
    pub(super) fn forget_claims(&mut self) {
        self.others.clear();
        self.stayed = 0;
    }

    /// It was told to go and is still here after `patience`: most likely another holder lacks some of its references. What is offered to a
    /// holder makes it ask for them, so it is offered anew. True if that has not helped before.
    fn begin_anew(&mut self, now: Time, patience: Duration) -> bool {
        if self.dropping.is_none_or(|time| now.since(time) < patience) {
            return false;
        }
        self.dropping = None;
        self.others.values_mut().for_each(|claim| *claim = Claim { proved: claim.proved, ..Claim::default() });
        self.stayed = self.stayed.saturating_add(1);
        self.stayed > 1
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Claim {
    offered: Option<Time>,
    has: bool,
    proved: Option<Time>,
    /// It said that it has the block, and an audit found nothing.
    belied: bool,
}

/// Why a node is asked for a proof.
#[derive(Clone, Copy, Debug)]
pub(super) struct Audit {
    until: Time,
    /// The block was in its digest, so that `not-found` tells against it.
    claimed: bool,
}

impl Replicator {
    /// Finds the surplus anew, after nodes have come or gone.
    pub(super) fn find_surplus(&mut self, now: Time) {
        let (ring, local, r) = (&self.ring, &self.local, self.config.replication);
        self.surplus.retain(|position, _| !ring.closest(position, r).contains(local));
        self.fill_surplus(now);
    }

    /// Takes in surplus copies that are not seen to, from behind the last that was, wrapping round.
    fn fill_surplus(&mut self, now: Time) {
        let most = self.config.limits.surplus;
        let (first, last) = Prefix::ALL.range();
        let behind = self.surplus_last.next().map(|next| (next, last));
        let not_here = |closest: &[Position]| !closest.contains(&self.local);
        let select = |range| self.holdings.select(&self.ring, self.config.replication, range, not_here);
        let all = behind.into_iter().chain([(first, self.surplus_last)]).flat_map(select);
        let mut others = all.map(|(position, _)| position).filter(|position| !self.surplus.contains_key(*position));
        let new: Vec<_> = others.by_ref().take(most.saturating_sub(self.surplus.len())).copied().collect();
        self.surplus_cut = others.next().is_some();
        if let Some(position) = new.last() {
            self.surplus_last = *position;
        }
        self.surplus.extend(new.into_iter().map(|position| (position, Surplus::new(now))));
        self.step_surplus_later(now);
    }

    pub(super) fn note_surplus(&mut self, now: Time, position: Position) {
        if self.surplus.len() >= self.config.limits.surplus {
            self.surplus_cut = true;
            return;
        }
        self.surplus.entry(position).or_insert_with(|| Surplus::new(now));
        self.step_surplus_later(now);
    }

    /// The store no longer has it. True if it was told to remove it.
    pub(super) fn surplus_gone(&mut self, now: Time, position: &Position) -> bool {
        let dropped = self.surplus.remove(position).is_some_and(|surplus| surplus.is_dropping(now));
        if self.surplus_cut && self.surplus.len() <= self.config.limits.surplus / 2 {
            self.fill_surplus(now);
        }
        dropped
    }

    /// All were seen to. Those that have been for long enough to be proved and dropped make room for others, and have another turn later.
    fn take_turns(&mut self, now: Time) {
        if self.surplus_cut {
            let turn = self.config.drop_delay + self.config.proof_lifetime;
            self.surplus.retain(|_, surplus| now.since(surplus.since) < turn);
            self.fill_surplus(now);
        }
    }

    fn step_surplus_later(&mut self, now: Time) {
        if !self.surplus.is_empty() {
            self.timers.set_by(Timer::Surplus, now + STEP);
        }
    }

    /// Goes on through the surplus: offers, audits, drops.
    pub(super) fn step_surplus(&mut self, now: Time) {
        let from_here = self.surplus.range((Excluded(self.surplus_at), Unbounded)).map(|(position, _)| *position);
        let from_start = self.surplus.range(..=self.surplus_at).map(|(position, _)| *position);
        let next: Vec<_> = from_here.chain(from_start).take(STEP_COPIES).collect();
        let mut offers = BTreeMap::new();
        for position in next {
            let wraps = position <= std::mem::replace(&mut self.surplus_at, position);
            if wraps {
                self.take_turns(now);
            }
            self.see_to(now, &position, &mut offers);
            if self.audits.len() >= MAX_AUDITS {
                break;
            }
        }
        self.offer(&offers);
        self.step_surplus_later(now);
    }

    fn see_to(&mut self, now: Time, position: &Position, offers: &mut BTreeMap<Position, Vec<Entry>>) {
        let Some(entry) = self.holdings.get(position).copied() else { return };
        // Far from this node's own surroundings, those who seem closest may be far behind those who are.
        if !self.regions.is_known(now, position) {
            return self.look_up_for(now, *position);
        }
        self.ask_holders(now, position);
        let claims = self.surplus.get(position).into_iter().flat_map(|surplus| &surplus.others);
        let has: Vec<_> = claims.filter(|(_, claim)| claim.has).map(|(node, _)| *node).collect();
        self.note_silent(now, position, &has);
        let own = position.distance(&self.local);
        let is_closer = |node: &Position| position.distance(node) < own;
        let mut targets = self.targets(now, position);
        let Some(surplus) = self.surplus.get_mut(position) else { return };
        if surplus.begin_anew(now, self.config.proof_lifetime / DROPS_IN_PROOF_LIFETIME) {
            // They have the block and not for all of its publications: for those that they lack, others are to have it. Most likely it is
            // a full one that does not take references.
            targets.retain(is_closer);
            let any_full = targets.iter().any(|node| self.is_full(node));
            targets.retain(|node| !any_full || self.is_full(node));
            targets.iter().for_each(|node| self.lacking.note_refusal(now, *position, *node));
            targets = self.targets(now, position);
        }
        let Some(surplus) = self.surplus.get_mut(position) else { return };
        surplus.others.retain(|node, _| targets.contains(node));
        // Not only to those that are closer: where these are full, other stand-ins are as much needed as this one.
        for node in targets.iter().filter(|node| **node != self.local) {
            let claim = surplus.others.entry(*node).or_default();
            // Who has it may lose it.
            let pause = if claim.has { self.config.proof_lifetime } else { self.config.sync_interval };
            let lately = claim.offered.is_some_and(|time| now.since(time) < pause);
            if !lately && self.members.talks(node) {
                claim.offered = Some(now);
                offers.entry(*node).or_default().push(entry);
            }
        }
        let mut closer = targets;
        closer.retain(is_closer);
        // Fewer than R closer nodes can have it: this copy is needed.
        if closer.len() >= self.config.replication && self.may_go(now, position, &closer) {
            self.prove_and_drop(now, position, &entry, &closer);
        }
    }

    /// Whether it has been surplus for long enough, of nodes that have been known for long enough, and their region is fresh.
    fn may_go(&mut self, now: Time, position: &Position, closer: &[Position]) -> bool {
        let Some(surplus) = self.surplus.get(position) else { return false };
        let waited = now.since(surplus.since) >= self.config.drop_delay;
        let claimed = closer.iter().all(|node| surplus.others.get(node).is_some_and(|claim| claim.has));
        let old = closer.iter().all(|node| {
            let member = self.members.get(node).filter(|member| member.talks());
            let known = member.and_then(|member| member.known_since);
            known.is_some_and(|since| now.since(since) >= self.config.minimum_age)
        });
        if !waited || surplus.dropping.is_some() || !claimed || !old {
            return false;
        }
        let fresh = self.regions.find(now, position).is_some();
        if !fresh {
            self.look_up_for(now, *position);
        }
        fresh
    }

    fn look_up_for(&mut self, now: Time, position: Position) {
        if self.surplus_lookups.len() < MAX_SURPLUS_LOOKUPS {
            self.surplus_lookups.insert(position);
            self.timers.set_by(Timer::Lookups, now);
        }
    }

    fn prove_and_drop(&mut self, now: Time, position: &Position, entry: &Entry, closer: &[Position]) {
        let Some(surplus) = self.surplus.get(position) else { return };
        let is_fresh = |time: Time| now.since(time) < self.config.proof_lifetime;
        let proved = |node: &&Position| surplus.others.get(*node).and_then(|claim| claim.proved).is_some_and(is_fresh);
        let unproved: Vec<_> = closer.iter().filter(|node| !proved(node)).copied().collect();
        for node in &unproved {
            self.audit(now, *position, entry.id, *node, false);
        }
        if unproved.is_empty()
            && self.push(Output::Drop { id: entry.id, digest: entry.digest, holders: closer.to_vec() })
            && let Some(surplus) = self.surplus.get_mut(position)
        {
            surplus.dropping = Some(now);
        }
    }

    /// The node says whether it has the block.
    pub(super) fn note_claim(&mut self, position: &Position, node: Position, has: bool) {
        if let Some(claim) = self.surplus.get_mut(position).and_then(|surplus| surplus.others.get_mut(&node)) {
            *claim = Claim { has, proved: claim.proved.filter(|_| has), ..*claim };
        }
    }

    /// Audits one block of the set shared with `peer`, chosen at random.
    pub(super) fn audit_one_of(&mut self, now: Time, peer: Position) {
        let start = Position::from_bytes(self.random.position());
        let r = self.config.replication;
        let (first, last) = Prefix::ALL.range();
        let both = |closest: &[Position]| closest.contains(&self.local) && closest.contains(&peer);
        let mut later = self.holdings.select(&self.ring, r, (start, last), both);
        let chosen = later.next().or_else(|| self.holdings.select(&self.ring, r, (first, last), both).next());
        if let Some((position, id)) = chosen.map(|(position, entry)| (*position, entry.id)) {
            self.audit(now, position, id, peer, true);
        }
    }

    fn audit(&mut self, now: Time, position: Position, id: BlockId, by: Position, claimed: bool) {
        let known = self.audits.contains_key(&(position, by));
        if self.audits.len() < MAX_AUDITS && !known && self.push(Output::Audit { id, by }) {
            self.audits.insert((position, by), Audit { until: now + DEADLINE, claimed });
            self.counts.audits += 1;
        }
    }

    pub(super) fn audited(&mut self, now: Time, id: &BlockId, by: Position, outcome: AuditOutcome) {
        let position = Position::of_block(id);
        let Some(audit) = self.audits.remove(&(position, by)) else { return };
        if outcome == AuditOutcome::Unchecked {
            return;
        }
        self.counts.failed_audits += u64::from(outcome != AuditOutcome::Proved);
        match outcome {
            AuditOutcome::NoAnswer => self.failed(now, by),
            AuditOutcome::Wrong => self.distrust(now, by),
            AuditOutcome::Proved | AuditOutcome::NotThere => self.answered(now, by),
            AuditOutcome::Unchecked => {}
        }
        let (proved, belied) = (outcome == AuditOutcome::Proved, outcome == AuditOutcome::NotThere);
        if let Some(claim) = self.surplus.get_mut(&position).and_then(|surplus| surplus.others.get_mut(&by)) {
            // A bad disk is noticed the first time. Who says so again just says so, and others are to have the block in its place.
            if belied && claim.belied {
                self.lacking.note_refusal(now, position, by);
            }
            let belied = belied || claim.belied && !proved;
            *claim = Claim { offered: Some(now), has: proved, proved: proved.then_some(now), belied };
        }
        if audit.claimed && matches!(outcome, AuditOutcome::Proved | AuditOutcome::NotThere) {
            self.count_not_there(now, by, proved);
        }
        let mut offers = BTreeMap::new();
        self.see_to(now, &position, &mut offers);
        self.offer(&offers);
        if !self.surplus.is_empty() {
            self.timers.set_by(Timer::Surplus, now);
        }
    }

    fn count_not_there(&mut self, now: Time, by: Position, proved: bool) {
        let Some(member) = self.members.get_mut(&by) else { return };
        member.not_there = if proved { 0 } else { member.not_there + 1 };
        if member.not_there >= MAX_NOT_THERE {
            self.distrust(now, by);
        }
    }

    pub(super) fn give_up_audits(&mut self, now: Time) {
        self.audits.retain(|_, audit| audit.until > now);
    }
}

impl Surplus {
    const fn new(since: Time) -> Self {
        Self { since, others: BTreeMap::new(), dropping: None, stayed: 0 }
    }
}
