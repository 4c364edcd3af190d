//! A process that works on a store until it dies, and what its acknowledgements promise. Shared by the tests that kill
//! the process and those that cut the power; each runs its own test program again, with the test [`PART`] alone.

pub(crate) mod chance;
pub(crate) mod event;
mod inspection;
pub(crate) mod promises;
mod publication;
mod writer;

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use chunkstore::{Room, Store, StoreConfig, StoreError};
use chunkstore_block::{BlockId, Reference};

use chance::Chance;
use event::Event;
use promises::Found;

/// The test in which the child does its part. Without the variables below it does nothing.
pub(crate) const PART: &str = "child_does_its_part";
const CHILD_PART: &str = "IMIRA_TEST_CHILD_PART";
const CHILD_FOLDER: &str = "IMIRA_TEST_CHILD_FOLDER";
const CHILD_SEED: &str = "IMIRA_TEST_CHILD_SEED";

/// Takes the place of the clock's seed, to see a failure again.
const SEED: &str = "IMIRA_TEST_SEED";

const QUOTA_BYTES: u64 = 1 << 34;
/// 1 MiB.
const BLOCK_BITS: u64 = 20;

/// What a child is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Puts, refers, removes and deletes until it dies, and says so before and after; with housekeeping all the time.
    Write,
    /// Collects what was deleted, says what the store holds then, tries it out and ends.
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

/// What is in a store, by a process of its own that opens it, reads everything and tries it out; or why it cannot.
pub(crate) fn inspect(folder: &Path, seed: u64) -> Result<Found, String> {
    let (child, events) = start(Part::Inspect, folder, seed);
    let events: Vec<Event> = events.collect();
    let output = child.wait_with_output().unwrap();
    if !output.status.success() || events.last() != Some(&Event::Sound) {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("the store is not sound: {:?} {} {said}", events.last(), output.status));
    }
    Ok(Found::new(events))
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
    if part == format!("{:?}", Part::Inspect) {
        return inspection::inspect(&store, seed);
    }
    if let Err(error) = writer::write_until_death(&store, seed) {
        Event::Failed(error.to_string()).say();
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

/// Bytes that depend on the seed and do not compress.
fn body(seed: u64, length: usize) -> Bytes {
    let mut chance = Chance::new(seed);
    let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| chance.next().to_le_bytes()).collect();
    bytes.truncate(length);
    bytes.into()
}

impl Event {
    /// In one write, so that the lines of the writers do not mix and none is printed in part.
    fn say(&self) {
        writeln!(std::io::stdout().lock(), "{self}").unwrap();
    }
}
