//! Anti-entropy: comparing with neighbours what both are to have (`docs/protocol.md` §10.3).

use super::Replicator;
use crate::members::Comparisons;
use crate::{Bucket, Digest, Entry, MAX_DIGEST_ENTRIES, Output, Position, Prefix, Time, timers::Timer};
use chunkstore_block::{BlockId, MAX_BLOCK_BYTES};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Comparisons under way.
const MAX_SYNCS: usize = 8;

/// Digests asked of one peer at a time: a descent through 100,000 blocks takes some thousand answers.
const MAX_ASKED: usize = 4;

/// A comparison ends after so long with what it has found: a peer may answer with what differs for ever. A hundred thousand blocks that
/// all differ take some thousand answers.
const MAX_DESCENT: Duration = Duration::from_secs(600);

/// Digests asked for in a comparison: so many for each block that either side has, and so many besides; never more than the third.
/// Blocks are evenly spread, so that even one in 256 that differs takes fewer than one for each.
const MAX_DIGESTS: (u64, u64, u64) = (4, 64, 1_000_000);

/// Without an answer for so long, a comparison is given up until the next.
const STUCK: Duration = Duration::from_secs(30);

/// When too much else is under way, or the peer's deletion orders are still being applied.
const LATER: Duration = Duration::from_millis(500);

/// After the first comparison of a burst, and after the second.
const BURST_DELAYS: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(2)];

/// Ids of one `refs` request (`docs/protocol.md` §4.2).
const MAX_REFERENCE_IDS: usize = 256;

/// Blocks with other references found in one comparison.
const MAX_DIFFERENT: usize = 4_096;

/// A comparison under way.
#[derive(Debug)]
pub(super) struct Descent {
    /// Prefixes that differ and have not been asked for; the last is next, so that there are never many.
    pending: Vec<Prefix>,
    asked: BTreeSet<Prefix>,
    /// What the peer is to have and lacks.
    lacking: Found,
    /// What it has with other references.
    different: Vec<BlockId>,
    wanted: usize,
    began: Time,
    digests: u64,
    most_digests: u64,
    /// It ends before all that differs was seen.
    short: bool,
}

impl Descent {
    fn new(now: Time, lacking: Found) -> Self {
        Self {
            pending: vec![Prefix::ALL],
            asked: BTreeSet::new(),
            lacking,
            different: Vec::new(),
            wanted: 0,
            began: now,
            digests: 0,
            most_digests: MAX_DIGESTS.1,
            short: false,
        }
    }

    /// Blocks found lacking so far.
    pub(super) fn lacking(&self) -> usize {
        self.lacking.entries.len()
    }

    /// Both sides say how many blocks there are.
    fn set_counts(&mut self, ours: &[Bucket], theirs: &[Bucket]) {
        let blocks: u64 = ours.iter().chain(theirs).map(|bucket| u64::from(bucket.count)).sum();
        self.most_digests = blocks.saturating_mul(MAX_DIGESTS.0).saturating_add(MAX_DIGESTS.1).min(MAX_DIGESTS.2);
    }

    /// What to ask for next; `None` if nothing is to be or may be asked now.
    fn next(&mut self, now: Time) -> Option<Prefix> {
        if self.digests >= self.most_digests || now.since(self.began) >= MAX_DESCENT {
            self.short |= !self.pending.is_empty();
            self.pending.clear();
        }
        let prefix = self.pending.pop_if(|_| self.asked.len() < MAX_ASKED)?;
        self.digests += 1;
        self.asked.insert(prefix);
        Some(prefix)
    }
}

/// The first blocks behind `after`, wrapping round, of those that a comparison finds lacking, in whatever order it finds them. A peer that
/// takes none of them is thus asked to take others the next time.
#[derive(Debug)]
struct Found {
    after: Option<Position>,
    most: usize,
    /// Those that are not behind `after` come last.
    entries: BTreeMap<(bool, Position), Entry>,
    /// There were more.
    cut: bool,
}

impl Found {
    const fn new(after: Option<Position>, most: usize) -> Self {
        Self { after, most, entries: BTreeMap::new(), cut: false }
    }

    /// The parts of a prefix in which positions come in this order.
    fn parts(&self, prefix: &Prefix) -> impl Iterator<Item = (Position, Position)> + use<> {
        let (start, end) = prefix.range();
        let parts = match self.after.and_then(|after| Some((after, after.next()?))) {
            Some((after, next)) => [Some((start.max(next), end)), Some((start, end.min(after)))],
            None => [Some((start, end)), None],
        };
        parts.into_iter().flatten().filter(|(start, end)| start <= end)
    }

    /// False if it is behind the last that can be taken, and so is all that follows.
    fn add(&mut self, position: Position, entry: Entry) -> bool {
        let key = self.key(&position);
        let full = self.entries.len() >= self.most;
        if full && self.entries.last_key_value().is_some_and(|(last, _)| *last < key) {
            self.cut = true;
            return false;
        }
        self.entries.insert(key, entry);
        if self.entries.len() > self.most {
            self.entries.pop_last();
            self.cut = true;
        }
        true
    }

    /// Whether the comparison would have found it.
    fn has_looked_at(&self, position: &Position) -> bool {
        let key = self.key(position);
        !self.cut || self.entries.last_key_value().is_some_and(|(last, _)| key <= *last)
    }

    fn key(&self, position: &Position) -> (bool, Position) {
        (self.after.is_some_and(|after| *position <= after), *position)
    }

    /// Where the next comparison goes on.
    fn last_if_cut(&self) -> Option<Position> {
        self.entries.last_key_value().filter(|_| self.cut).map(|((_, position), _)| *position)
    }
}

impl Replicator {
    pub(super) fn begin_sync(&mut self, now: Time, peer: Position) {
        let Some(member) = self.members.get(&peer).filter(|member| member.neighbour && member.talks()) else { return };
        if !member.is_caught_up() {
            self.note_begun(now, peer);
            self.catch_up(now, peer);
            self.timers.set(Timer::Sync(peer), now + LATER);
            return;
        }
        if self.syncs.len() >= MAX_SYNCS || self.syncs.contains_key(&peer) {
            self.timers.set(Timer::Sync(peer), now + LATER);
            return;
        }
        self.counts.syncs += 1;
        let after = member.lacking_after;
        self.note_begun(now, peer);
        let lacking = Found::new(after, self.config.limits.lacking);
        self.syncs.insert(peer, Descent::new(now, lacking));
        self.go_on(now, peer);
    }

    fn note_begun(&mut self, now: Time, peer: Position) {
        let interval = self.config.sync_interval;
        if let Some(compared) = self.members.get_mut(&peer).and_then(|member| member.compared.as_mut()) {
            compared.begin(now, interval);
        }
    }

    /// Compares with the node by then, if it is a neighbour that can be asked.
    pub(super) fn sync_by(&mut self, node: &Position, time: Time) {
        if self.members.get(node).is_some_and(|member| member.neighbour && member.talks()) {
            self.timers.set_by(Timer::Sync(*node), time);
        }
    }

    pub(super) fn digest(&mut self, now: Time, from: Position, prefix: Prefix, digest: Digest) {
        self.answered(now, from);
        if !self.syncs.get_mut(&from).is_some_and(|sync| sync.asked.remove(&prefix)) {
            return;
        }
        match digest {
            Digest::Children(theirs) => self.compare_children(now, from, &prefix, &theirs),
            Digest::Entries(theirs) => self.compare_entries(now, from, &prefix, &theirs),
        }
        self.go_on(now, from);
        self.pull(now);
    }

    fn compare_children(&mut self, now: Time, peer: Position, prefix: &Prefix, theirs: &[Bucket]) {
        let Some(children) = prefix.children() else { return };
        let mut ours = [Bucket::default(); crate::prefix::CHILDREN];
        for (position, entry) in self.shared(peer, prefix.range()) {
            ours[prefix.child_of(position)].add(entry);
        }
        let mut differing = Vec::new();
        for ((child, ours), theirs) in children.iter().zip(ours).zip(theirs) {
            if ours == *theirs {
                continue;
            }
            if theirs.count == 0 {
                self.note_lacking(now, peer, child, &BTreeMap::new());
            } else {
                differing.push(*child);
            }
        }
        if let Some(sync) = self.syncs.get_mut(&peer) {
            if *prefix == Prefix::ALL {
                sync.set_counts(&ours, theirs);
            }
            // The last is asked for next: so they come in ascending order.
            sync.pending.extend(differing.into_iter().rev());
        }
    }

    fn compare_entries(&mut self, now: Time, peer: Position, prefix: &Prefix, theirs: &[Entry]) {
        let theirs = theirs.iter().take(MAX_DIGEST_ENTRIES).map(|entry| (entry.position(), entry));
        let theirs: BTreeMap<_, _> = theirs.filter(|(position, _)| prefix.contains(position)).collect();
        let (mut wanted, mut different) = (0, Vec::new());
        for (position, entry) in &theirs {
            match self.holdings.get(position).copied() {
                Some(ours) if ours.digest != entry.digest => different.push(entry.id),
                Some(_) => {}
                None if self.wants(now, *position, entry, peer) => wanted += 1,
                None => {}
            }
        }
        if let Some(sync) = self.syncs.get_mut(&peer) {
            sync.wanted += wanted;
            let room = MAX_DIFFERENT.saturating_sub(sync.different.len());
            sync.different.extend(different.into_iter().take(room));
        }
        self.note_lacking(now, peer, prefix, &theirs);
    }

    fn wants(&mut self, now: Time, position: Position, entry: &Entry, peer: Position) -> bool {
        entry.length as usize <= MAX_BLOCK_BYTES
            && self.is_mine(&position)
            && self.is_surely_of(now, &position, &self.local)
            && self.want(now, position, (entry.id, entry.length), peer, false)
    }

    /// Notes what of ours in `prefix` is not among `theirs`.
    fn note_lacking(&mut self, now: Time, peer: Position, prefix: &Prefix, theirs: &BTreeMap<Position, &Entry>) {
        // Out of the map for as long as it is added to, so that the rest of this can be asked.
        let Some(mut sync) = self.syncs.remove(&peer) else { return };
        self.find_lacking(now, peer, &mut sync.lacking, prefix, theirs);
        self.syncs.insert(peer, sync);
    }

    fn find_lacking(
        &self,
        now: Time,
        peer: Position,
        found: &mut Found,
        prefix: &Prefix,
        theirs: &BTreeMap<Position, &Entry>,
    ) {
        for part in found.parts(prefix) {
            let lacking = self.shared(peer, part).filter(|(position, _)| !theirs.contains_key(position));
            let mut lacking = lacking.filter(|(position, _)| self.is_surely_of(now, position, &peer));
            while let Some((position, entry)) = lacking.next()
                && found.add(*position, *entry)
            {}
        }
    }

    /// A neighbour that answers pings and compares nothing keeps its ranks, and nobody would know what it has: for as long as that lasts, others
    /// are to have what is its.
    pub(super) fn stand_in_for_the_mute(&mut self, now: Time) {
        let patience = self.config.grace.max(MAX_DESCENT);
        let pause = self.config.sync_interval;
        let mute: Vec<_> = self
            .members
            .iter_mut()
            .filter(|(_, member)| member.neighbour && member.talks())
            .filter(|(_, member)| member.compared.is_some_and(|compared| compared.are_in_vain(now, patience)))
            .filter(|(_, member)| member.stood_in_for.is_none_or(|time| now.since(time) >= pause))
            .map(|(node, member)| {
                member.stood_in_for = Some(now);
                (node, member.lacking_after)
            })
            .collect();
        for (peer, after) in mute {
            let mut found = Found::new(after, self.config.limits.lacking);
            self.find_lacking(now, peer, &mut found, &Prefix::ALL, &BTreeMap::new());
            if let Some(member) = self.members.get_mut(&peer) {
                member.lacking_after = found.last_if_cut();
            }
            self.offer_in_place_of(now, peer, found.entries.into_values().collect());
        }
    }

    /// What this node has in `range` and both are to have. The peer's answer names besides what it has and need not have: there the two
    /// differ until that copy is dropped, which costs some metadata and no blocks. What this node has and need not have is
    /// offered apart from comparisons.
    fn shared(&self, peer: Position, range: (Position, Position)) -> impl Iterator<Item = (&Position, &Entry)> {
        let both = move |closest: &[Position]| closest.contains(&self.local) && closest.contains(&peer);
        self.holdings.select(&self.ring, self.config.replication, range, both)
    }

    /// Asks for what is next, or ends the comparison.
    fn go_on(&mut self, now: Time, peer: Position) {
        while let Some(prefix) = self.syncs.get_mut(&peer).and_then(|sync| sync.next(now)) {
            if !self.push(Output::AskDigest { peer, prefix }) {
                return self.abandon_sync(now, peer);
            }
            self.counts.digests += 1;
        }
        match self.syncs.get(&peer) {
            Some(sync) if sync.asked.is_empty() => self.end_sync(now, peer),
            Some(_) => self.timers.set(Timer::SyncStuck(peer), now + STUCK),
            None => {}
        }
    }

    fn end_sync(&mut self, now: Time, peer: Position) {
        let Some(sync) = self.syncs.remove(&peer) else { return };
        self.timers.cancel(Timer::SyncStuck(peer));
        if !sync.short && sync.wanted == 0 && sync.lacking.entries.is_empty() && sync.different.is_empty() {
            self.audit_one_of(now, peer);
        }
        if let Some(member) = self.members.get_mut(&peer) {
            member.lacking_after = sync.lacking.last_if_cut();
            member.compared = Some(Comparisons::new(now));
        }
        let different: BTreeSet<_> = sync.different.iter().map(Position::of_block).collect();
        let lacks = |position: &Position| sync.lacking.entries.contains_key(&sync.lacking.key(position));
        self.note_seen(now, peer, |position| {
            !sync.short && sync.lacking.has_looked_at(position) && !lacks(position) && !different.contains(position)
        });
        self.offer_lacking(now, peer, sync.lacking.entries.into_values().collect());
        self.offer_different(now, peer, &sync.different);
        self.ask_references(peer, &sync.different);
        let burst = self.members.get_mut(&peer).map_or(0, |member| {
            let burst = member.burst;
            member.burst = burst.saturating_sub(1);
            usize::from(burst)
        });
        let delay = match burst.checked_sub(1).and_then(|left| BURST_DELAYS.get(left)) {
            Some(delay) => *delay,
            None => self.jittered(self.config.sync_interval),
        };
        self.timers.set_by(Timer::Sync(peer), now + delay);
    }

    pub(super) fn ask_references(&mut self, peer: Position, ids: &[BlockId]) {
        for ids in ids.chunks(MAX_REFERENCE_IDS) {
            self.push(Output::AskReferences { peer, ids: ids.to_vec() });
        }
    }

    pub(super) fn abandon_sync(&mut self, now: Time, peer: Position) {
        self.syncs.remove(&peer);
        self.timers.cancel(Timer::SyncStuck(peer));
        let delay = self.jittered(self.config.sync_interval);
        self.timers.set_by(Timer::Sync(peer), now + delay);
    }
}
