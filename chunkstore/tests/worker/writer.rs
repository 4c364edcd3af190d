//! The child that works on a store until it dies.

use std::collections::BTreeSet;
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use chunkstore::{Presence, Store, StoreError};
use chunkstore_block::BlockId;

use super::chance::Chance;
use super::event::{Action, Event};
use super::publication::{PRUNE_BEFORE_SECONDS, Publication};
use super::{BLOCK_BITS, body, put};

const WRITERS: usize = 4;
/// From here on a writer removes as often as it stores, so that long tests do not fill the machine.
const MANY_BLOCKS: usize = 30;

/// Steps of the housekeeping, small so that the end comes in the middle of it.
const RECLAIM_BYTES: u64 = 1 << 20;
const COLLECT_REFERENCES: usize = 2;
const SCRUB_BYTES: u64 = 1 << 16;

/// Each thread ends with its first error, and the housekeeping with the last writer.
pub(super) fn write_until_death(store: &Store, seed: u64) -> Result<(), StoreError> {
    let writers = Writer::all(store, seed)?;
    let working = AtomicUsize::new(writers.len());
    thread::scope(|scope| {
        for mut writer in writers {
            scope.spawn(|| {
                end_with_an_error(move || writer.step());
                working.fetch_sub(1, Ordering::Relaxed);
            });
        }
        scope.spawn(|| {
            end_with_an_error(|| match working.load(Ordering::Relaxed) {
                0 => Err(StoreError::Stopped),
                _ => keep_house(store),
            });
        });
    });
    Ok(())
}

fn end_with_an_error(mut step: impl FnMut() -> Result<(), StoreError>) {
    loop {
        if let Err(error) = step() {
            return Event::Failed(error.to_string()).say();
        }
    }
}

/// A step of each work.
fn keep_house(store: &Store) -> Result<(), StoreError> {
    let collected = store.collect(COLLECT_REFERENCES)?;
    let pruned = store.prune(PRUNE_BEFORE_SECONDS)?;
    let reclaimed = store.reclaim(RECLAIM_BYTES)?;
    let scrubbed = store.scrub(SCRUB_BYTES, 1)?;
    if !scrubbed.damaged.is_empty() {
        // Without power damage cannot be marked, which is an error. So this is damage.
        Event::Failed(format!("the scrub found {:?} damaged", scrubbed.damaged)).say();
        process::exit(1);
    }
    if collected.is_done && pruned == 0 && reclaimed.is_done {
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// One of the threads that write. No two touch the same block or the same publication that can be deleted.
struct Writer<'a> {
    store: &'a Store,
    number: usize,
    chance: Chance,
    mine: Vec<Mine>,
    /// Those that can be deleted.
    publications: Vec<Publication>,
    /// Blocks that went and may come back.
    dropped: Vec<Recipe>,
}

/// A block that is there until its writer takes it away.
struct Mine {
    id: BlockId,
    publications: BTreeSet<Publication>,
    /// Unknown if an earlier child put it.
    recipe: Option<Recipe>,
}

#[derive(Clone, Copy)]
struct Recipe {
    seed: u64,
    length: usize,
}

impl<'a> Writer<'a> {
    /// They go on with what an earlier child left.
    fn all(store: &'a Store, seed: u64) -> Result<Vec<Self>, StoreError> {
        let new = |number| {
            let chance = Chance::new(seed.wrapping_mul(WRITERS as u64) + number as u64);
            Self { store, number, chance, mine: Vec::new(), publications: Vec::new(), dropped: Vec::new() }
        };
        let mut writers: Vec<_> = (0..WRITERS).map(new).collect();
        let listed = store.list(None, usize::MAX)?;
        let all: BTreeSet<_> = listed.iter().flat_map(|stored| &stored.references).map(Publication::of).collect();
        let mut alive = BTreeSet::new();
        for publication in all {
            if !store.is_deleted(&publication.reference())? {
                alive.insert(publication);
                writers.iter_mut().for_each(|writer| writer.take_over_publication(publication));
            }
        }
        for stored in listed {
            let publications = stored.references.iter().map(Publication::of);
            let alive = publications.filter(|publication| alive.contains(publication)).collect();
            writers[owner(&stored.id)].take_over_block(stored.id, alive);
        }
        Ok(writers)
    }

    fn take_over_publication(&mut self, publication: Publication) {
        if publication.can_be_deleted() && publication.is_used_by(self.number, WRITERS) {
            self.publications.push(publication);
        }
    }

    /// A block that only other writers' publications keep may go at any time.
    fn take_over_block(&mut self, id: BlockId, mut publications: BTreeSet<Publication>) {
        publications.retain(|publication| publication.is_used_by(self.number, WRITERS));
        if !publications.is_empty() {
            self.mine.push(Mine { id, publications, recipe: None });
        }
    }

    fn step(&mut self) -> Result<(), StoreError> {
        let removals = if self.mine.len() < MANY_BLOCKS { 1 } else { 7 };
        match self.chance.below(16) {
            0..2 if !self.mine.is_empty() => self.refer(),
            choice if choice >= 16 - removals => self.remove(None),
            2 if !self.dropped.is_empty() => {
                let recipe = self.dropped.swap_remove(0);
                self.store(recipe)
            }
            3..5 if !self.publications.is_empty() => self.delete(),
            _ => {
                let recipe = self.new_block();
                self.store(recipe)
            }
        }
    }

    /// There are only so many short blocks, so another writer may come upon the same one: each has some to itself.
    fn new_block(&mut self) -> Recipe {
        let length = block_length(&mut self.chance);
        loop {
            let seed = self.chance.next();
            if length >= 8 || owner(&BlockId::of(&body(seed, length))) == self.number {
                return Recipe { seed, length };
            }
        }
    }

    fn some_publication(&mut self) -> Publication {
        match self.chance.below(8) {
            0..3 => Publication::permanent(self.chance.next() as u8),
            3..7 if !self.publications.is_empty() => *self.chance.pick(&self.publications),
            _ => {
                let publication = Publication::new(&mut self.chance, self.number, WRITERS);
                self.publications.push(publication);
                publication
            }
        }
    }

    fn store(&mut self, recipe: Recipe) -> Result<(), StoreError> {
        let Recipe { seed, length } = recipe;
        let body = body(seed, length);
        let (id, publication) = (BlockId::of(&body), self.some_publication());
        acknowledged(Action::Put { id, length, publication }, || {
            put(self.store, id, &body, &[publication.reference()])
        })?;
        let place = self.mine.iter().position(|mine| mine.id == id).unwrap_or_else(|| {
            self.mine.push(Mine { id, publications: BTreeSet::new(), recipe: None });
            self.mine.len() - 1
        });
        self.mine[place].publications.insert(publication);
        self.mine[place].recipe = Some(recipe);
        if self.chance.holds(192) { Ok(()) } else { self.remove(Some(place)) }
    }

    fn refer(&mut self) -> Result<(), StoreError> {
        let place = self.chance.below(self.mine.len() as u64) as usize;
        let (id, publication) = (self.mine[place].id, self.some_publication());
        acknowledged(Action::Refer { id, publication }, || {
            let presences = self.store.add_references(&[id], &[publication.reference()])?;
            assert_eq!(presences, [Presence::Have]);
            Ok(())
        })?;
        self.mine[place].publications.insert(publication);
        Ok(())
    }

    /// Removes the block at this place, or any.
    fn remove(&mut self, place: Option<usize>) -> Result<(), StoreError> {
        if self.mine.is_empty() {
            return Ok(());
        }
        let place = place.unwrap_or_else(|| self.chance.below(self.mine.len() as u64) as usize);
        let Mine { id, recipe, .. } = self.mine.swap_remove(place);
        self.dropped.extend(recipe);
        acknowledged(Action::Remove { id }, || self.store.remove(&id).map(|was_there| assert!(was_there)))
    }

    fn delete(&mut self) -> Result<(), StoreError> {
        let place = self.chance.below(self.publications.len() as u64) as usize;
        let publication = self.publications.swap_remove(place);
        acknowledged(Action::Delete { publication }, || {
            self.store.delete(publication.deletion()).map(|is_news| assert!(is_news))
        })?;
        self.forget(publication);
        // Some come back while they are being collected.
        while self.chance.holds(128)
            && let Some(recipe) = self.dropped.pop()
        {
            self.store(recipe)?;
        }
        Ok(())
    }

    fn forget(&mut self, publication: Publication) {
        self.mine.retain_mut(|mine| {
            mine.publications.remove(&publication);
            let is_kept = !mine.publications.is_empty();
            self.dropped.extend(mine.recipe.filter(|_| !is_kept));
            is_kept
        });
    }
}

fn acknowledged(action: Action, act: impl FnOnce() -> Result<(), StoreError>) -> Result<(), StoreError> {
    Event::Begins(action.clone()).say();
    act()?;
    Event::Done(action).say();
    Ok(())
}

/// Which writer has a block that an earlier child left, or a short one.
fn owner(id: &BlockId) -> usize {
    usize::from(id.as_bytes()[0]) % WRITERS
}

/// From 1 B to 1 MiB, both included and every order of magnitude.
fn block_length(chance: &mut Chance) -> usize {
    match chance.below(16) {
        0 => 1 << BLOCK_BITS,
        1..4 => 1 + chance.below(1 << BLOCK_BITS) as usize,
        _ => chance.magnitude(BLOCK_BITS) as usize,
    }
}
