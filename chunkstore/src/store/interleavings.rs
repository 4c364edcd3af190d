//! Many interleavings of everything that changes a store: puts (by uploads and by other nodes), references, deletions,
//! collection, reclaiming, emptying of segments, pruning, removals, flushes and crashes.
//!
//! Each actor looks at the index, as its thread would, and what it decided then is applied some time later. A crash
//! leaves the index as it was last flushed, the records that were synced, and any of those that were not. What must
//! hold is said without the catalog, in [`Truth`]: no block is lost that a live publication needs, and what is collected
//! leaves nothing behind. Every failure names its seed: `IMIRA_TEST_SEED=n` repeats it alone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::env;
use std::sync::Arc;

use chunkstore_block::{BlockId, PlatformFingerprint, PublicationId, Reference};

use super::catalog::{self, Catalog, Extent, Holds, Outcome, Written};
use super::index::MemoryIndex;
use super::record::{Deletion, Op, PAGE_BYTES, Place};

const RUNS: u64 = 100_000;
const SOAK_RUNS: u64 = 2_000_000;
const STEPS: u64 = 60;
const BLOCKS: u64 = 5;
const PUBLICATIONS: u64 = 4;
/// A segment ends after so many pages.
const SEGMENT_PAGES: u32 = 12;

#[test]
fn no_referenced_block_is_lost_and_no_orphan_is_left() {
    if let Ok(seed) = env::var("IMIRA_TEST_SEED") {
        return run(seed.parse().unwrap());
    }
    let runs = if env::var_os("IMIRA_SOAK").is_some() { SOAK_RUNS } else { RUNS };
    std::thread::scope(|scope| {
        for half in 0..2 {
            scope.spawn(move || (0..runs / 2).for_each(|number| run(2 * number + half)));
        }
    });
}

fn run(seed: u64) {
    let outcome = std::panic::catch_unwind(|| {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.finish();
    });
    assert!(outcome.is_ok(), "IMIRA_TEST_SEED={seed}");
}

/// What was promised, kept without the catalog's help.
#[derive(Clone, Debug, Default)]
struct Truth {
    /// For each block the publications for which it was acknowledged and not removed.
    promised: BTreeMap<BlockId, BTreeSet<Reference>>,
    deleted: BTreeSet<Reference>,
    /// Those among them whose tombstones are gone, too.
    ever_deleted: BTreeSet<Reference>,
    /// Those whose authority was kept and that were not deleted since.
    admitted: BTreeSet<Reference>,
}

/// A record on the disk.
#[derive(Clone, Debug)]
struct Record {
    op: Op,
    at: Written,
    /// Its body is what its id says.
    is_right: bool,
}

/// What an actor has decided and not done yet.
#[derive(Clone, Debug)]
enum Decision {
    Write(Op),
    Lie(Op),
    /// Pages that were dead when the index was last flushed.
    Punch(Vec<Extent>),
    Forget(Vec<Extent>),
    RemoveSegment(u32),
    DropJournal(u32),
    Swept(Reference),
}

struct World {
    /// Every record is printed: a single run.
    is_told: bool,
    chance: Chance,
    catalog: Catalog<MemoryIndex>,
    index: Arc<MemoryIndex>,
    /// The index as it was last flushed.
    flushed: MemoryIndex,
    disk: BTreeMap<Place, Record>,
    /// Appended, not synced and not applied yet.
    queue: VecDeque<Record>,
    next: Place,
    sequence: u64,
    decisions: Vec<Decision>,
    truth: Truth,
}

impl World {
    fn new(seed: u64) -> Self {
        let (catalog, index) = load(MemoryIndex::default());
        let mut world = Self {
            is_told: env::var_os("IMIRA_TEST_SEED").is_some(),
            chance: Chance(seed),
            catalog,
            index,
            flushed: MemoryIndex::default(),
            disk: BTreeMap::new(),
            queue: VecDeque::new(),
            next: Place { segment: 1, page: 1 },
            sequence: 0,
            decisions: Vec::new(),
            truth: Truth::default(),
        };
        assert!(world.catalog.finish_loading().unwrap());
        world.flush();
        world
    }

    fn step(&mut self) {
        match self.chance.below(24) {
            0..10 if !self.decisions.is_empty() => self.carry_out(),
            0..2 => self.crash(),
            2 => self.flush(),
            _ => self.decide(),
        }
        if self.chance.below(8) == 0 {
            self.check();
        }
    }

    fn decide(&mut self) {
        let decision = match self.chance.below(23) {
            0..6 => Some(Decision::Write(self.put())),
            6 => Some(Decision::Lie(self.put())),
            7..9 => Some(Decision::Write(Op::Refer { references: self.publications(), ids: self.ids() })),
            9 => Some(Decision::Write(self.delete())),
            10..12 => self.collect(),
            12 => Some(Decision::Write(Op::Remove { ids: vec![self.id()] })),
            13 => self.damage(),
            14..17 => self.reclaim(),
            17..19 => self.empty(),
            19 => Some(Decision::Write(self.admit())),
            20 => Some(Decision::Write(Op::Drop { id: self.id(), references: self.publications() })),
            _ => self.prune(),
        };
        self.decisions.extend(decision);
    }

    /// Does what somebody decided, not always what was decided first.
    fn carry_out(&mut self) {
        let index = self.chance.below(self.decisions.len() as u64) as usize;
        match self.decisions.remove(index) {
            Decision::Write(op) => self.write(op, true),
            Decision::Lie(op) => self.write(op, false),
            Decision::Punch(extents) => {
                for extent in &extents {
                    self.disk.remove(&extent.place);
                }
                self.decisions.push(Decision::Forget(extents));
            }
            Decision::Forget(extents) => self.catalog.reclaimed(&extents).unwrap(),
            Decision::RemoveSegment(segment) => {
                self.disk.retain(|place, _| place.segment != segment);
                self.catalog.forget_segment(segment).unwrap();
            }
            Decision::DropJournal(segment) => self.drop_journal(segment),
            Decision::Swept(publication) => self.catalog.swept(&publication).unwrap(),
        }
    }

    /// Appends; what is in the queue is synced, applied and acknowledged now or later.
    fn write(&mut self, op: Op, is_right: bool) {
        let record = self.append(op, is_right);
        self.queue.push_back(record);
        if self.chance.below(3) > 0 {
            self.drain();
        }
    }

    /// Waits for what was handed in.
    fn drain(&mut self) {
        while let Some(record) = self.queue.pop_front() {
            let outcome = self.apply(&record);
            self.log_references(&record.op, &outcome);
        }
    }

    /// As `Store::put` does when its record is not the one that counts, or replaces another one that named references.
    fn log_references(&mut self, op: &Op, outcome: &Outcome) {
        if let (Op::Put { id, .. }, Outcome::Had) = (op, outcome) {
            let references = catalog::references(&*self.index, id, usize::MAX).unwrap();
            let record = self.append(Op::Refer { references, ids: vec![*id] }, true);
            self.queue.push_back(record);
        }
    }

    fn append(&mut self, op: Op, is_right: bool) -> Record {
        let pages = op.pages().min(3);
        if self.next.page + pages > SEGMENT_PAGES {
            self.next = Place { segment: self.next.segment + 1, page: 1 };
        }
        self.sequence += 1;
        let at = Written { place: self.next, pages, sequence: self.sequence, body_at: self.sequence as u32 };
        let record = Record { op, at, is_right };
        self.disk.insert(self.next, record.clone());
        self.next.page += pages;
        record
    }

    fn apply(&mut self, record: &Record) -> Outcome {
        if !record.is_right {
            self.catalog.discard(record.at).unwrap();
            return Outcome::Ignored;
        }
        let outcome = self.catalog.apply(&record.op, record.at).unwrap();
        self.truth.note(&record.op, &outcome);
        if let Op::Prune { publications } = &record.op {
            let is_gone = |publication: &&Reference| !catalog::is_deleted(&*self.index, publication).unwrap();
            publications.iter().filter(is_gone).for_each(|publication| self.truth.forget(publication));
        }
        if self.is_told {
            eprintln!("{:?} {:?} -> {outcome:?}", record.at.place, record.op);
        }
        outcome
    }

    /// Of what was not synced any part may be left. All else that is not on disk is gone, decisions too.
    fn crash(&mut self) {
        (self.catalog, self.index) = load(self.flushed.clone());
        for decision in std::mem::take(&mut self.decisions) {
            // Some have got as far as the queue.
            if let Decision::Write(op) | Decision::Lie(op) = &decision {
                let record = self.append(op.clone(), matches!(decision, Decision::Write(_)));
                self.queue.push_back(record);
            }
        }
        let mut unacknowledged = BTreeSet::new();
        for record in std::mem::take(&mut self.queue) {
            if self.chance.below(2) == 0 {
                self.disk.remove(&record.at.place);
            } else {
                unacknowledged.insert(record.at.sequence);
            }
        }
        self.replay(&unacknowledged);
    }

    fn replay(&mut self, unacknowledged: &BTreeSet<u64>) {
        let applied = self.catalog.applied();
        let is_new = |record: &&Record| record.at.sequence > applied.sequence;
        let records: Vec<_> = self.disk.values().filter(is_new).cloned().collect();
        let mut unlogged = Vec::new();
        for record in records {
            assert!(record.at.place >= applied.next || applied.sequence == 0, "{record:?} lies before {applied:?}");
            if unacknowledged.contains(&record.at.sequence) {
                let outcome = self.apply(&record); // from now on it is promised
                unlogged.push((record.op, outcome));
            } else if record.is_right {
                self.catalog.apply(&record.op, record.at).unwrap();
            } else {
                self.catalog.discard(record.at).unwrap();
            }
        }
        assert!(!self.catalog.finish_loading().unwrap());
        self.flush();
        self.check();
        // Whoever puts again is told that it is there, and promised it.
        for (op, outcome) in unlogged {
            self.log_references(&op, &outcome);
        }
        self.drain();
    }

    fn flush(&mut self) {
        self.flushed = (*self.index).clone();
    }

    fn put(&mut self) -> Op {
        let number = self.chance.below(BLOCKS);
        Op::Put { id: id(number), length: 1 + number as u32 * 3_000, references: self.publications() }
    }

    fn delete(&mut self) -> Op {
        let publication = publication(self.chance.below(PUBLICATIONS));
        let sequence = 1 + self.chance.below(4);
        Op::Delete(Deletion { publication, sequence, at_seconds: self.chance.below(2), order: Vec::new() })
    }

    fn admit(&mut self) -> Op {
        let publication = publication(self.chance.below(PUBLICATIONS));
        Op::Admit { publication, authority: vec![self.chance.below(9) as u8; 3_000] }
    }

    fn collect(&mut self) -> Option<Decision> {
        let publication = catalog::unswept(&*self.index, None).unwrap()?;
        let limit = 1 + self.chance.below(3) as usize;
        let ids = catalog::blocks_of(&*self.index, &publication, limit).unwrap();
        // `Store::collect` waits for what it handed in: nothing of the publication can be on its way.
        let is_sweep = |op: &Op| matches!(op, Op::Sweep { publication: other, .. } if *other == publication);
        let is_under_way = |decision: &Decision| matches!(decision, Decision::Write(op) if is_sweep(op));
        if self.decisions.iter().any(is_under_way) {
            return None;
        }
        Some(if ids.is_empty() {
            Decision::Swept(publication)
        } else {
            Decision::Write(Op::Sweep { publication, ids })
        })
    }

    fn damage(&mut self) -> Option<Decision> {
        let id = self.id();
        let location = catalog::find(&*self.index, &id).unwrap()?;
        let is_damaged = self.chance.below(3) > 0;
        Some(Decision::Write(Op::Damage { id, place: location.place, is_damaged }))
    }

    fn reclaim(&mut self) -> Option<Decision> {
        let dead = catalog::dead(&*self.index, Place { segment: 0, page: 0 }, 3).unwrap();
        // Every record of such a segment is applied.
        let reached = self.catalog.applied().next.segment;
        let sealed = self.catalog.segments().iter().filter(|(segment, _)| **segment < reached);
        let unneeded: Vec<_> =
            sealed.filter(|(_, books)| books.live == 0 && books.journal == 0).map(|(segment, _)| *segment).collect();
        self.flush();
        if let Some(segment) = unneeded.first().filter(|_| self.chance.below(2) == 0) {
            return Some(Decision::RemoveSegment(*segment));
        }
        (!dead.is_empty()).then_some(Decision::Punch(dead))
    }

    /// Moves one record of a segment.
    fn empty(&mut self) -> Option<Decision> {
        let segment = 1 + self.chance.below(u64::from(self.next.segment)) as u32;
        if segment >= self.next.segment {
            return None;
        }
        let kept = catalog::layout(&*self.index, Place { segment, page: 0 }, 2).unwrap();
        let kept = kept.into_iter().find(|kept| kept.place.segment == segment)?;
        let Holds::Block(id) = kept.holds else { return Some(Decision::DropJournal(segment)) };
        let location = catalog::find(&*self.index, &id).unwrap()?;
        let references = catalog::references(&*self.index, &id, usize::MAX).unwrap();
        Some(Decision::Write(Op::Move { id, length: location.length, from: kept.place, references }))
    }

    /// Writes anew what is still true of a segment's first record without a body, and lets that go: as `Store` does, one
    /// after the other.
    fn drop_journal(&mut self, segment: u32) {
        let kept = catalog::layout(&*self.index, Place { segment, page: 0 }, 10).unwrap();
        let Some(kept) =
            kept.into_iter().find(|kept| kept.place.segment == segment && matches!(kept.holds, Holds::Journal(_)))
        else {
            return;
        };
        match self.disk[&kept.place].op.clone() {
            Op::Refer { references, ids } => {
                for id in ids {
                    let all = catalog::references(&*self.index, &id, usize::MAX).unwrap();
                    let still: Vec<_> =
                        references.iter().copied().filter(|reference| all.contains(reference)).collect();
                    if !still.is_empty() {
                        self.write(Op::Refer { references: still, ids: vec![id] }, true);
                        self.drain();
                    }
                }
            }
            Op::Delete(deletion) => {
                if let Some(deletion) = catalog::deletion(&*self.index, &deletion.publication).unwrap() {
                    self.write(Op::Delete(deletion), true);
                    self.drain();
                }
            }
            Op::Admit { publication, .. } => {
                if let Some((_, authority)) = catalog::authority(&*self.index, &publication).unwrap() {
                    self.write(Op::Admit { publication, authority }, true);
                    self.drain();
                }
            }
            Op::Put { .. }
            | Op::Move { .. }
            | Op::Sweep { .. }
            | Op::Remove { .. }
            | Op::Prune { .. }
            | Op::Damage { .. }
            | Op::Drop { .. } => panic!("{kept:?} need not stay"),
        }
        self.catalog.drop_journal(&kept).unwrap();
    }

    fn prune(&mut self) -> Option<Decision> {
        let before = self.chance.below(3);
        let (publications, _) = catalog::prunable(&*self.index, None, before, 10).unwrap();
        (!publications.is_empty()).then_some(Decision::Write(Op::Prune { publications }))
    }

    /// Ends everything that is under way, collects, and looks whether anything is left that should not be.
    fn finish(&mut self) {
        self.decisions.clear();
        self.drain();
        self.collect_all();
        self.check();
        let promised: BTreeMap<_, _> = self.truth.alive();
        let found: BTreeMap<_, _> = self.stored();
        assert_eq!(found, promised, "no orphan, no reference to what was deleted");
        self.check_rebuilt(&promised);
        // Everything is deleted and forgotten: nothing must stay.
        for number in 0..PUBLICATIONS {
            let deletion = Deletion { publication: publication(number), sequence: 9, at_seconds: 0, order: Vec::new() };
            self.write(Op::Delete(deletion), true);
        }
        self.drain();
        self.collect_all();
        self.write(Op::Prune { publications: (0..PUBLICATIONS).map(publication).collect() }, true);
        self.drain();
        let totals = self.catalog.totals();
        let kept = (totals.blocks, totals.references, totals.live_pages, totals.journal_pages, totals.damaged);
        assert_eq!(kept, (0, 0, 0, 0, 0), "no room is lost for good");
    }

    fn collect_all(&mut self) {
        while let Some(publication) = catalog::unswept(&*self.index, None).unwrap() {
            let ids = catalog::blocks_of(&*self.index, &publication, 2).unwrap();
            if ids.is_empty() {
                self.catalog.swept(&publication).unwrap();
            } else {
                self.write(Op::Sweep { publication, ids }, true);
                self.drain();
            }
        }
    }

    /// Without the index, everything that is promised is found in the segments. But for a publication that was deleted and
    /// pruned and came again, which platforms do not do: its deletion may be left where the prune is not.
    fn check_rebuilt(&self, promised: &BTreeMap<BlockId, BTreeSet<Reference>>) {
        let (mut catalog, index) = load(MemoryIndex::default());
        for record in self.disk.values() {
            if record.is_right {
                catalog.apply(&record.op, record.at).unwrap();
            } else {
                catalog.discard(record.at).unwrap();
            }
        }
        for (id, references) in promised {
            let found: BTreeSet<_> = catalog::references(&*index, id, usize::MAX).unwrap().into_iter().collect();
            let expected = references - &self.truth.ever_deleted;
            assert!(found.is_superset(&expected), "{id} was rebuilt with {found:?} and not {expected:?}");
        }
        for publication in &self.truth.admitted - &self.truth.ever_deleted {
            assert!(catalog::authority(&*index, &publication).unwrap().is_some(), "{publication:?} lost its authority");
        }
    }

    fn check(&self) {
        let stored = self.stored();
        for (id, references) in self.truth.alive() {
            let found = stored.get(&id).cloned().unwrap_or_default();
            assert!(found.is_superset(&references), "{id} has {found:?} and not {references:?}");
        }
        for (id, references) in &stored {
            assert!(!references.is_empty(), "{id} is an orphan");
            let promised = self.truth.promised.get(id).cloned().unwrap_or_default();
            assert!(promised.is_superset(references), "{id} has {references:?}, of which only {promised:?} were given");
            let location = catalog::find(&*self.index, id).unwrap().unwrap();
            let record = self.disk.get(&location.place).unwrap_or_else(|| panic!("the record of {id} was given back"));
            let (Op::Put { id: held, .. } | Op::Move { id: held, .. }) = &record.op else { panic!("{record:?}") };
            assert!(held == id && record.is_right && record.at.body_at == location.body_at);
        }
        for publication in &self.truth.admitted {
            assert!(
                catalog::authority(&*self.index, publication).unwrap().is_some(),
                "{publication:?} has no authority"
            );
        }
        self.check_books(&stored);
    }

    fn check_books(&self, stored: &BTreeMap<BlockId, BTreeSet<Reference>>) {
        let totals = self.catalog.totals();
        assert_eq!(totals.blocks, stored.len() as u64);
        assert_eq!(totals.references, stored.values().map(|references| references.len() as u64).sum::<u64>());
        let all = Place { segment: 0, page: 0 };
        let (mut live, mut journal) = (0, 0);
        for kept in catalog::layout(&*self.index, all, usize::MAX).unwrap() {
            assert!(self.disk.contains_key(&kept.place), "what must stay was given back");
            *if matches!(kept.holds, Holds::Block(_)) { &mut live } else { &mut journal } += u64::from(kept.pages);
        }
        let dead = catalog::dead(&*self.index, all, usize::MAX).unwrap();
        let dead: u64 = dead.iter().map(|extent| u64::from(extent.pages)).sum();
        assert_eq!((totals.live_pages, totals.journal_pages, totals.dead_pages), (live, journal, dead));
        let books = self.catalog.segments().values().fold((0, 0, 0), |sum, books| {
            (sum.0 + u64::from(books.live), sum.1 + u64::from(books.journal), sum.2 + u64::from(books.dead))
        });
        assert_eq!(books, (live, journal, dead));
        assert!(totals.used_bytes() >= (live + journal + dead) * PAGE_BYTES);
    }

    fn stored(&self) -> BTreeMap<BlockId, BTreeSet<Reference>> {
        let blocks = catalog::list(&*self.index, None, usize::MAX).unwrap();
        blocks.into_iter().map(|block| (block.id, block.references.into_iter().collect())).collect()
    }

    fn id(&mut self) -> BlockId {
        id(self.chance.below(BLOCKS))
    }

    fn ids(&mut self) -> Vec<BlockId> {
        (0..1 + self.chance.below(2)).map(|_| self.id()).collect()
    }

    fn publications(&mut self) -> Vec<Reference> {
        (0..1 + self.chance.below(2)).map(|_| publication(self.chance.below(PUBLICATIONS))).collect()
    }
}

impl Truth {
    /// What an acknowledgement promises.
    fn note(&mut self, op: &Op, outcome: &Outcome) {
        match (op, outcome) {
            (Op::Put { id, references, .. }, Outcome::Stored | Outcome::Had) => self.promise(*id, references),
            (Op::Refer { references, ids }, Outcome::Present(present)) => {
                for (id, _) in ids.iter().zip(present).filter(|(_, is_there)| **is_there) {
                    self.promise(*id, references);
                }
            }
            (Op::Delete(deletion), _) => {
                self.admitted.remove(&deletion.publication);
                self.deleted.insert(deletion.publication);
                self.ever_deleted.insert(deletion.publication);
            }
            (Op::Admit { publication, .. }, Outcome::Done) => drop(self.admitted.insert(*publication)),
            (Op::Drop { id, .. }, Outcome::Gone(1)) => drop(self.promised.remove(id)),
            (Op::Remove { ids }, _) => ids.iter().for_each(|id| drop(self.promised.remove(id))),
            _ => {}
        }
    }

    /// The tombstone is gone, and all references with it.
    fn forget(&mut self, publication: &Reference) {
        if self.deleted.remove(publication) {
            for references in self.promised.values_mut() {
                references.remove(publication);
            }
        }
    }

    fn promise(&mut self, id: BlockId, references: &[Reference]) {
        let alive = references.iter().filter(|reference| !self.deleted.contains(*reference));
        self.promised.entry(id).or_default().extend(alive);
    }

    /// What must be there.
    fn alive(&self) -> BTreeMap<BlockId, BTreeSet<Reference>> {
        let alive = |references: &BTreeSet<Reference>| references - &self.deleted;
        let all = self.promised.iter().map(|(id, references)| (*id, alive(references)));
        all.filter(|(_, references)| !references.is_empty()).collect()
    }
}

fn load(index: MemoryIndex) -> (Catalog<MemoryIndex>, Arc<MemoryIndex>) {
    let index = Arc::new(index);
    (Catalog::load(Arc::clone(&index)).unwrap(), index)
}

fn id(number: u64) -> BlockId {
    BlockId::from_bytes([number as u8; 32])
}

fn publication(number: u64) -> Reference {
    Reference {
        platform: PlatformFingerprint::from_bytes([(number / 2) as u8; 32]),
        publication: PublicationId::from_bytes([number as u8; 16]),
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}
