use std::collections::BTreeSet;
use std::env;
use std::path::Path;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::worker::chance::Chance;
use crate::worker::event::Event;
use crate::worker::promises::Promises;
use crate::worker::{self, Part};

/// `make soak` sets it.
const SOAK: &str = "IMIRA_SOAK";
const ROUNDS: u64 = 50;
const SOAK_ROUNDS: u64 = 1_000;

/// A process that puts, refers, removes and deletes with four threads is killed at moments that it cannot know, also in
/// the middle of its housekeeping. Everything that it acknowledged, in any round, must hold: blocks and references are
/// there and intact, removed blocks and those of deleted publications are gone.
#[test]
fn everything_acknowledged_survives_kill_9() {
    let seed = worker::first_seed();
    let rounds = if env::var_os(SOAK).is_some() { SOAK_ROUNDS } else { ROUNDS };
    let folder = TempDir::new().unwrap();
    let mut promises = Promises::default();
    let mut held = BTreeSet::new();
    for round in seed..seed + rounds {
        run_child_and_kill(folder.path(), round, &mut promises);
        let found = worker::inspect(folder.path(), !round).unwrap();
        worker::assert_kept(&promises.settle(&found), &format!("round {round} of seed {seed}"));
        held.extend(found.holdings.into_iter().map(|holding| holding.id));
    }
    let (acknowledged, (deleted, forgotten)) = (promises.acknowledged(), promises.deletions());
    let seen =
        format!("{acknowledged} acknowledgements, {} blocks, {deleted} deletions, {forgotten} pruned", held.len());
    let is_enough = acknowledged > 4 * rounds && held.len() as u64 > rounds && deleted > rounds / 4 && forgotten > 0;
    assert!(is_enough, "the test has seen too little to mean anything: {seen}");
    eprintln!("{seen}");
}

/// Kills after so many acknowledgements and a little later; or, if the number is 0, while the store is being opened.
fn run_child_and_kill(folder: &Path, seed: u64, promises: &mut Promises) {
    let mut chance = Chance::new(seed);
    let kill_after = chance.magnitude(7) - 1;
    let (mut child, events) = worker::start(Part::Write, folder, seed);
    if kill_after == 0 {
        thread::sleep(Duration::from_micros(chance.below(40_000)));
        child.kill().unwrap();
    }
    let mut done = 0;
    for event in events {
        promises.note(&event);
        match event {
            Event::Done(_) => done += 1,
            Event::Failed(reason) => panic!("round {seed}: the store failed: {reason}"),
            Event::Begins(_) | Event::Deleted(_) | Event::Holds(_) | Event::Sound => continue,
        }
        if done == kill_after {
            thread::sleep(Duration::from_micros(chance.below(3_000))); // the moment is what the test is about
            child.kill().unwrap(); // SIGKILL; the loop goes on to the end of the pipe
        }
    }
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(done >= kill_after, "round {seed}: the child ended by itself: {} {said}", output.status);
}
