//! A process that works on a store until it dies, and what its acknowledgements promise. Shared by the tests that kill
//! the process and those that cut the power; each runs its own test program again, with the test [`PART`] alone.

pub(crate) mod chance;
pub(crate) mod event;
pub(crate) mod promises;

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use chunkstore::{Presence, Room, Store, StoreConfig, StoreError};
use chunkstore_block::{BlockId, PlatformFingerprint, PublicationId, Reference};

use chance::Chance;
use event::{Action, Event};
use promises::Holding;

/// The test in which the child does its part. Without the variables below it does nothing.
pub(crate) const PART: &str = "child_does_its_part";
const CHILD_PART: &str = "IMIRA_TEST_CHILD_PART";
const CHILD_FOLDER: &str = "IMIRA_TEST_CHILD_FOLDER";
const CHILD_SEED: &str = "IMIRA_TEST_CHILD_SEED";

/// Takes the place of the clock's seed, to see a failure again.
const SEED: &str = "IMIRA_TEST_SEED";

const QUOTA_BYTES: u64 = 1 << 34;
const WRITERS: usize = 4;
/// From here on a writer removes as often as it stores, so that long tests do not fill the machine.
const MANY_BLOCKS: usize = 30;
/// 1 MiB.
const BLOCK_BITS: u64 = 20;

/// What a child is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Puts, refers and removes until it dies, and says so before and after.
    Write,
    /// Says what the store holds, tries it out and ends.
    Inspect,
}

/// Another one in every run, so that many runs see much. Failures print it.
pub(crate) fn first_seed() -> u64 {
    let seed = match env::var(SEED) {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64 & 0xffff_ffff,
    };
    eprintln!("{SEED}={seed}");
    seed
}

/// Starts this test program again, as a child that says [`Event`]s.
pub(crate) fn start(part: Part, folder: &Path, seed: u64) -> (Child, impl Iterator<Item = Event> + use<>) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", PART, "--nocapture", "--test-threads=1"])
        .env(CHILD_PART, format!("{part:?}"))
        .env(CHILD_FOLDER, folder)
        .env(CHILD_SEED, seed.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let events = events(child.stdout.take().unwrap());
    (child, events)
}

/// What a store holds, by a process of its own that opens it, reads everything and tries it out; or why it cannot.
pub(crate) fn inspect(folder: &Path, seed: u64) -> Result<Vec<Holding>, String> {
    let (child, events) = start(Part::Inspect, folder, seed);
    let events: Vec<Event> = events.collect();
    let output = child.wait_with_output().unwrap();
    if !output.status.success() || events.last() != Some(&Event::Sound) {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("the store is not sound: {:?} {} {said}", events.last(), output.status));
    }
    Ok(events.into_iter().filter_map(Event::into_holding).collect())
}

/// `broken` is what [`promises::Promises::settle`] gave. Prints the first of many.
pub(crate) fn assert_kept(broken: &[String], when: &str) {
    let first = &broken[..broken.len().min(10)];
    assert!(broken.is_empty(), "{when}: {} promises are broken:\n{}", broken.len(), first.join("\n"));
}

fn events(stdout: ChildStdout) -> impl Iterator<Item = Event> {
    BufReader::new(stdout).lines().filter_map(|line| Event::parse(&line.unwrap()))
}

/// The child's side.
pub(crate) fn do_part() {
    let Ok(part) = env::var(CHILD_PART) else { return };
    let folder = env::var(CHILD_FOLDER).unwrap();
    let seed: u64 = env::var(CHILD_SEED).unwrap().parse().unwrap();
    // The power may be off already, which is no panic.
    let store = match open(Path::new(&folder)) {
        Ok(store) => store,
        Err(error) => return Event::Failed(format!("open: {error}")).say(),
    };
    if part == format!("{:?}", Part::Write) {
        write_until_death(&store, seed);
    } else {
        holdings(&store).into_iter().for_each(|holding| Event::Holds(holding).say());
        assert_usable(&store, seed);
        Event::Sound.say();
    }
}

fn open(folder: &Path) -> Result<Store, StoreError> {
    // Small segments, so that some are finished, emptied and removed.
    Store::open(folder, &StoreConfig { segment_bytes: 4 << 20, ..StoreConfig::new(QUOTA_BYTES) })
}

/// The one place that stores a block.
fn put(store: &Store, id: BlockId, body: &Bytes, references: &[Reference]) -> Result<(), StoreError> {
    store.put(id, body.clone(), references, Room::Upload).map(drop)
}

fn write_until_death(store: &Store, seed: u64) {
    let listed = store.list(None, usize::MAX).unwrap_or_default();
    thread::scope(|scope| {
        for number in 0..WRITERS {
            let chance = Chance::new(seed.wrapping_mul(WRITERS as u64) + number as u64);
            let mine = listed.iter().map(|stored| stored.id).filter(|id| owner(id) == number).collect();
            let mut writer = Writer { store, number, chance, mine, removed: Vec::new() };
            scope.spawn(move || writer.work());
        }
        scope.spawn(|| keep_house(store));
    });
}

/// Gives space back all the time, so that the end comes in the middle of it.
fn keep_house(store: &Store) {
    loop {
        match store.reclaim(1 << 20) {
            Ok(reclaimed) if reclaimed.is_done => thread::sleep(Duration::from_millis(1)),
            Ok(_) => {}
            Err(error) => return Event::Failed(error.to_string()).say(),
        }
    }
}

/// One of the threads that write. No two touch the same block.
struct Writer<'a> {
    store: &'a Store,
    number: usize,
    chance: Chance,
    mine: Vec<BlockId>,
    /// Seeds and lengths of blocks that were removed and may come back.
    removed: Vec<(u64, usize)>,
}

impl Writer<'_> {
    fn work(&mut self) {
        loop {
            if let Err(error) = self.step() {
                return Event::Failed(error.to_string()).say();
            }
        }
    }

    fn step(&mut self) -> Result<(), StoreError> {
        let removals = if self.mine.len() < MANY_BLOCKS { 1 } else { 7 };
        match self.chance.below(14) {
            0..2 if !self.mine.is_empty() => self.refer(),
            choice if choice >= 14 - removals => self.remove(None),
            2 if !self.removed.is_empty() => {
                let (seed, length) = self.removed.swap_remove(0);
                self.store(seed, length)
            }
            _ => {
                let (seed, length) = self.new_block();
                self.store(seed, length)
            }
        }
    }

    /// There are only so many short blocks, so another writer may come upon the same one: each has some to itself.
    fn new_block(&mut self) -> (u64, usize) {
        let length = block_length(&mut self.chance);
        loop {
            let seed = self.chance.next();
            if length >= 8 || owner(&BlockId::of(&body(seed, length))) == self.number {
                return (seed, length);
            }
        }
    }

    fn store(&mut self, seed: u64, length: usize) -> Result<(), StoreError> {
        let body = body(seed, length);
        let (id, number) = (BlockId::of(&body), self.chance.next() as u8);
        acknowledged(Action::Put { id, length, reference: number }, || {
            put(self.store, id, &body, &[reference(number)])
        })?;
        if !self.mine.contains(&id) {
            self.mine.push(id);
        }
        if self.chance.holds(192) {
            return Ok(());
        }
        self.removed.push((seed, length));
        self.remove(self.mine.iter().position(|one| *one == id))
    }

    fn refer(&mut self) -> Result<(), StoreError> {
        let (id, number) = (*self.chance.pick(&self.mine), self.chance.next() as u8);
        acknowledged(Action::Refer { id, reference: number }, || {
            let presences = self.store.add_references(&[id], &[reference(number)])?;
            assert_eq!(presences, [Presence::Have]);
            Ok(())
        })
    }

    /// Removes the block at this place, or any.
    fn remove(&mut self, place: Option<usize>) -> Result<(), StoreError> {
        if self.mine.is_empty() {
            return Ok(());
        }
        let place = place.unwrap_or_else(|| self.chance.below(self.mine.len() as u64) as usize);
        let id = self.mine.swap_remove(place);
        acknowledged(Action::Remove { id }, || self.store.remove(&id).map(|was_there| assert!(was_there)))
    }
}

fn acknowledged(action: Action, act: impl FnOnce() -> Result<(), StoreError>) -> Result<(), StoreError> {
    Event::Begins(action.clone()).say();
    act()?;
    Event::Done(action).say();
    Ok(())
}

/// Reads everything that the store says it has. Panics on a damaged block and on wrong books.
fn holdings(store: &Store) -> Vec<Holding> {
    let listed = store.list(None, usize::MAX).unwrap();
    let usage = store.usage();
    assert_eq!(usage.blocks, listed.len() as u64);
    assert_eq!(usage.block_bytes, listed.iter().map(|stored| u64::from(stored.length)).sum::<u64>());
    let read = |id| store.read(&id).unwrap().unwrap_or_else(|| panic!("{id} is listed and not there"));
    listed
        .into_iter()
        .map(|stored| {
            let body = read(stored.id);
            assert_eq!((BlockId::of(&body), body.len()), (stored.id, stored.length as usize));
            assert_eq!(store.references(&stored.id).unwrap(), stored.references);
            let references = stored.references.iter().map(|reference| reference.publication.as_bytes()[0]).collect();
            Holding { id: stored.id, length: body.len(), references }
        })
        .collect()
}

/// A store that came through is one that can be used.
fn assert_usable(store: &Store, seed: u64) {
    let body = body(!seed, 70_000);
    let id = BlockId::of(&body);
    put(store, id, &body, &[reference(1)]).unwrap();
    assert_eq!(store.read(&id).unwrap(), Some(body));
    assert!(store.remove(&id).unwrap());
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

/// Bytes that depend on the seed and do not compress.
fn body(seed: u64, length: usize) -> Bytes {
    let mut chance = Chance::new(seed);
    let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| chance.next().to_le_bytes()).collect();
    bytes.truncate(length);
    bytes.into()
}

fn reference(number: u8) -> Reference {
    Reference {
        platform: PlatformFingerprint::from_bytes([number / 16; 32]),
        publication: PublicationId::from_bytes([number; 16]),
    }
}

impl Event {
    /// In one write, so that the lines of the writers do not mix and none is printed in part.
    fn say(&self) {
        writeln!(std::io::stdout().lock(), "{self}").unwrap();
    }
}
