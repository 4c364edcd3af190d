//! The store on a disk that is full, by itself or because of somebody else: what it has acknowledged stays, and it goes on.

#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy's own exception ends at helpers of tests

mod disk;
mod shelf;

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use chunkstore::{Store, StoreError};

use disk::{clear, fill, free_bytes, on_each_disk};
use shelf::{Shelf, delete, delete_all, open, put, reference};

const DISK_MIB: u64 = 192;
/// What the store takes ahead, when it has room again.
const PREALLOCATED_BYTES: u64 = 16 << 20;
const STORE: &str = "store";
/// Where the child of the test that kills it finds its store.
const CHILD_FOLDER: &str = "IMIRA_TEST_CHILD_FOLDER";
const CHILD: &str = "child_fills_the_disk";
/// RocksDB looks every 5 seconds whether there is room again.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn everything_acknowledged_outlives_a_full_disk() {
    on_each_disk("everything_acknowledged_outlives_a_full_disk", DISK_MIB, |disk| {
        let (store, shelf) = full_store(disk);
        shelf.check(&store);
        drop(store);
        shelf.check(&open(&disk.join(STORE)).unwrap());
    });
}

/// A process that is killed on a full disk instead of closing the store.
#[test]
fn everything_acknowledged_outlives_kill_9_on_a_full_disk() {
    on_each_disk("everything_acknowledged_outlives_kill_9_on_a_full_disk", DISK_MIB, |disk| {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", CHILD, "--nocapture", "--test-threads=1"])
            .env(CHILD_FOLDER, disk.join(STORE))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut shelf = Shelf::default();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            match line.unwrap().rsplit_once("done ") {
                Some((_, "all")) => child.kill().unwrap(), // SIGKILL
                Some((_, id)) => shelf.add(id.parse().unwrap(), reference(1)),
                None => {}
            }
        }
        child.wait().unwrap();
        assert!(shelf.0.len() > 100, "the test has seen too little to mean anything: {}", shelf.0.len());
        let store = open(&disk.join(STORE)).unwrap();
        shelf.check(&store);
        assert_disk_full(&put_until_refused(&store, &mut shelf));
        shelf.check(&store);
    });
}

/// Does nothing when run as a test.
#[test]
fn child_fills_the_disk() {
    let Some(folder) = env::var_os(CHILD_FOLDER).map(PathBuf::from) else { return };
    let store = open(&folder).unwrap();
    let say = |word: &dyn std::fmt::Display| writeln!(std::io::stdout().lock(), "done {word}").unwrap();
    let errors = Shelf::default().fill(&store, 0, reference(1), |id| say(id));
    errors.iter().for_each(assert_disk_full);
    say(&"all");
    thread::sleep(PATIENCE); // until it is killed
}

/// Again and again, without a restart: full, a publication of 2,000 blocks deleted, room again.
#[test]
fn deletions_make_room_on_a_full_disk() {
    on_each_disk("deletions_make_room_on_a_full_disk", DISK_MIB, |disk| {
        let store = open(&disk.join(STORE)).unwrap();
        let mut shelf = Shelf::default();
        for round in 0..6_u8 {
            let film = reference(2 * round);
            for seed in 0..2_000 {
                let id = put(&store, 1 << 40 | u64::from(round) << 32 | seed, 20_000, film).unwrap();
                shelf.add(id, film);
            }
            let rest = reference(2 * round + 1);
            shelf.fill(&store, u64::from(round) << 32, rest, |_| {}).iter().for_each(assert_disk_full);
            let free = free_bytes(disk);
            delete_all(&store, film, u64::from(round) + 1).unwrap();
            shelf.drop_publication(film);
            assert!(
                free_bytes(disk) > free + 2_000 * 20_000 - PREALLOCATED_BYTES,
                "from {free} to {}",
                free_bytes(disk)
            );
            shelf.check(&store);
            delete_all(&store, rest, 100 + u64::from(round)).unwrap();
            shelf.drop_publication(rest);
        }
        put_some(&store, &mut shelf);
        drop(store);
        let store = open(&disk.join(STORE)).unwrap();
        shelf.check(&store);
        assert_eq!(store.usage().blocks, shelf.0.len() as u64);
    });
}

/// Not a byte is left on the disk: orders to delete are taken all the same, and give back what they free.
#[test]
fn a_publication_is_deleted_while_somebody_else_has_the_whole_disk() {
    on_each_disk("a_publication_is_deleted_while_somebody_else_has_the_whole_disk", DISK_MIB, |disk| {
        let store = open(&disk.join(STORE)).unwrap();
        let mut shelf = Shelf::default();
        for seed in 0..2_000 {
            shelf.add(put(&store, seed, 20_000, reference(1)).unwrap(), reference(1));
            shelf.add(put(&store, 1 << 32 | seed, 9_000, reference(2)).unwrap(), reference(2));
        }
        fill(disk, 0);
        assert_disk_full(&put_until_refused(&store, &mut shelf));
        delete_all(&store, reference(1), 1).unwrap();
        shelf.drop_publication(reference(1));
        assert!(free_bytes(disk) > 2_000 * 20_000 - PREALLOCATED_BYTES, "{}", free_bytes(disk));
        shelf.check(&store);
        drop(store);
        let store = open(&disk.join(STORE)).unwrap();
        shelf.check(&store);
        assert_eq!(store.usage().blocks, shelf.0.len() as u64);
        clear(disk);
        put_some(&store, &mut shelf);
        shelf.check(&store);
    });
}

/// Somebody else fills the disk, and changes go on that need no room for bodies, until the index must be flushed and cannot.
#[test]
fn an_index_that_cannot_be_flushed_loses_nothing_and_recovers() {
    on_each_disk("an_index_that_cannot_be_flushed_loses_nothing_and_recovers", DISK_MIB, |disk| {
        let store = open(&disk.join(STORE)).unwrap();
        let mut shelf = Shelf::default();
        let ids: Vec<_> = (0..1_500).map(|seed| put(&store, seed, 5_000, reference(1)).unwrap()).collect();
        ids.iter().for_each(|id| shelf.add(*id, reference(1)));
        fill(disk, 0);
        let error = refer_until_refused(&store, &mut shelf, &ids);
        assert_disk_full(&error);
        shelf.check(&store);
        // Nothing is appended while the index is behind: it would not be in the books.
        for _ in 0..50 {
            assert!(delete(&store, reference(200), 1).is_err());
            assert!(put(&store, 1 << 40, 5_000, reference(3)).is_err());
        }
        drop(copy_and_open(disk, &shelf));
        clear(disk);
        put_some(&store, &mut shelf);
        shelf.check(&store);
        drop(store);
        let store = open(&disk.join(STORE)).unwrap();
        shelf.check(&store);
        delete_all(&store, reference(1), 1).unwrap();
        shelf.drop_publication(reference(1));
        shelf.check(&store);
    });
}

#[test]
fn a_store_on_a_full_disk_opens_or_says_why_not() {
    on_each_disk("a_store_on_a_full_disk_opens_or_says_why_not", DISK_MIB, |disk| {
        let store = open(&disk.join(STORE)).unwrap();
        let mut shelf = Shelf::default();
        let ids: Vec<_> = (0..500).map(|seed| put(&store, seed, 30_000, reference(1)).unwrap()).collect();
        ids.iter().for_each(|id| shelf.add(*id, reference(1)));
        drop(store);
        for left_bytes in [0, 4 << 10, 100 << 10, 1 << 20, 3 << 20] {
            fill(disk, left_bytes);
            match open(&disk.join(STORE)) {
                Ok(store) => shelf.check(&store),
                Err(error) => assert_disk_full(&error),
            }
            match open(&disk.join("new")) {
                Ok(_) => assert!(left_bytes > 0),
                Err(error) => assert_disk_full(&error),
            }
            clear(disk);
            shelf.check(&open(&disk.join(STORE)).unwrap());
            drop(open(&disk.join("new")).unwrap());
            std::fs::remove_dir_all(disk.join("new")).unwrap();
        }
    });
}

/// A disk full of blocks; four threads were told so.
fn full_store(disk: &Path) -> (Store, Shelf) {
    let store = open(&disk.join(STORE)).unwrap();
    let mut shelf = Shelf::default();
    let errors = shelf.fill(&store, 0, reference(1), |_| {});
    errors.iter().for_each(assert_disk_full);
    assert!(shelf.0.len() > 100, "the test has seen too little to mean anything: {}", shelf.0.len());
    (store, shelf)
}

#[track_caller]
fn assert_disk_full(error: &StoreError) {
    let said = error.to_string();
    assert!(matches!(error, StoreError::DiskFull { .. }), "{said}");
    assert!(said.contains("is full") && said.contains("make room on it"), "{said}");
}

/// What a put is answered in the end.
fn put_until_refused(store: &Store, shelf: &mut Shelf) -> StoreError {
    for seed in 1_u64 << 50.. {
        match put(store, seed, 100_000, reference(99)) {
            Ok(id) => shelf.add(id, reference(99)),
            Err(error) => return error,
        }
    }
    unreachable!("the disk is endless")
}

/// There is room again, and the store finds out.
fn put_some(store: &Store, shelf: &mut Shelf) {
    let deadline = Instant::now() + PATIENCE;
    let first = loop {
        match put(store, 1 << 51, 100_000, reference(98)) {
            Ok(id) => break id,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        thread::sleep(Duration::from_millis(50)); // nothing tells when RocksDB has recovered
    };
    shelf.add(first, reference(98));
    for seed in 1..50 {
        shelf.add(put(store, 1 << 51 | seed, 100_000, reference(98)).unwrap(), reference(98));
    }
}

/// Adds references until the store refuses; those acknowledged go on the shelf.
fn refer_until_refused(store: &Store, shelf: &mut Shelf, ids: &[chunkstore_block::BlockId]) -> StoreError {
    for number in 2..=200 {
        for ids in ids.chunks(100) {
            match store.add_references(ids, &[reference(number)]) {
                Ok(_) => ids.iter().for_each(|id| shelf.add(*id, reference(number))),
                Err(error) => return error,
            }
        }
    }
    panic!("the index was never too large for its memory");
}

/// What a start after a crash at this moment would find: the store's folder as it is, on a disk with room.
fn copy_and_open(disk: &Path, shelf: &Shelf) -> Store {
    let copy = disk.parent().unwrap().join("copy");
    let copied = Command::new("cp").arg("-a").arg(disk.join(STORE)).arg(&copy).status().unwrap();
    assert!(copied.success());
    let store = open(&copy).unwrap();
    shelf.check(&store);
    store
}
