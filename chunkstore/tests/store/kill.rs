use std::collections::BTreeSet;
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use chunkstore::{Store, StoreConfig};
use chunkstore_block::BlockId;
use tempfile::TempDir;

use super::{block, put, reference};

/// The folder that the child writes to, and the first seed of its blocks.
const CHILD_FOLDER: &str = "IMIRA_TEST_CHILD_FOLDER";
const CHILD_SEED: &str = "IMIRA_TEST_CHILD_SEED";
const QUOTA_BYTES: u64 = 1 << 34;
const ROUNDS: u64 = 10;
const WRITERS: u64 = 4;

/// A process that stores blocks is killed at moments that it cannot know: between two acknowledgements of four writers.
/// Every block that it acknowledged, in any round, must be there with its bytes and its reference.
#[test]
fn every_acknowledged_block_survives_kill_9() {
    let folder = TempDir::new().unwrap();
    let mut acknowledged = BTreeSet::new();
    for round in 0..ROUNDS {
        let kill_after = 1 + (round * 7) % 23; // differs from round to round, so that logs and flushes are hit anywhere
        acknowledged.extend(run_child_and_kill(folder.path(), round, kill_after as usize));
        let store = Store::open(folder.path(), &StoreConfig::new(QUOTA_BYTES)).unwrap();
        for id in &acknowledged {
            assert!(store.read(id).unwrap().is_some(), "round {round}: {id} is gone");
            assert_eq!(store.references(id).unwrap(), [reference(1)], "round {round}: {id}");
        }
        assert_books_are_right(&store);
    }
    assert!(acknowledged.len() as u64 >= ROUNDS, "the test has seen too little to mean anything");
}

/// The child's part. Does nothing when run as a test.
#[test]
fn child_that_stores_until_it_is_killed() {
    let Ok(folder) = env::var(CHILD_FOLDER) else { return };
    let seed: u64 = env::var(CHILD_SEED).unwrap().parse().unwrap();
    let store = Store::open(folder, &StoreConfig::new(QUOTA_BYTES)).unwrap();
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let store = &store;
            scope.spawn(move || store_forever(store, seed + (writer << 32)));
        }
    });
}

fn store_forever(store: &Store, first_seed: u64) {
    for seed in first_seed.. {
        let (id, bytes) = block(seed, 1_000 + (seed as usize * 77_777) % 1_000_000);
        put(store, id, &bytes, &[reference(1)]).unwrap();
        let mut stdout = std::io::stdout().lock(); // so that the lines of the writers do not mix
        writeln!(stdout, "stored {id}").unwrap();
    }
}

/// Returns what the child acknowledged, the lines that were still in the pipe included.
fn run_child_and_kill(folder: &Path, round: u64, kill_after: usize) -> Vec<BlockId> {
    let mut child = start_child(folder, round);
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut ids = Vec::new();
    for line in lines {
        // The test runner may have begun the line with the test's name.
        let Some(id) = line.unwrap().split_once("stored ").map(|(_, id)| id.parse().unwrap()) else { continue };
        ids.push(id);
        if ids.len() == kill_after {
            child.kill().unwrap(); // SIGKILL; the loop goes on to the end of the pipe
        }
    }
    let status = child.wait().unwrap();
    assert!(ids.len() >= kill_after, "the child ended by itself: {status}");
    ids
}

fn start_child(folder: &Path, round: u64) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "kill::child_that_stores_until_it_is_killed", "--nocapture", "--test-threads=1"])
        .env(CHILD_FOLDER, folder)
        .env(CHILD_SEED, (round << 40).to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn assert_books_are_right(store: &Store) {
    let listed = store.list(None, usize::MAX).unwrap();
    let usage = store.usage();
    assert_eq!(usage.blocks, listed.len() as u64);
    assert_eq!(usage.block_bytes, listed.iter().map(|stored| u64::from(stored.length)).sum::<u64>());
}
