use crate::world::{LENGTH, MINUTE, World, block, publication};
use chunkstore_block::BlockId;
use dht_core::{
    Config, Entry, EntryDigest, Input, Limits, OfferAnswer, Output, Position, PullOutcome, Replicator, Time,
};
use std::time::Duration;

#[test]
fn repair_keeps_to_its_rate() {
    let rate = 20 * u64::from(LENGTH);
    let mut world = World::settled(Config { repair_bytes_per_s: Some(rate), ..Config::new(2) }, 2, 15);
    // The first mebibyte may come at once.
    world.publish(3_000, publication(1));
    world.stop(1);
    world.run(20 * MINUTE);
    world.join();
    world.run(Duration::from_secs(30));
    let (first, last) = (world.pulls[0].0, world.pulls[world.pulls.len() - 1].0);
    let burst = 1_048_576 / u64::from(LENGTH);
    let allowed = burst + last.since(first).as_secs() * 20 + 20;
    let pulled = world.pulls.len() as u64;
    assert!(pulled > burst && pulled <= allowed, "{pulled} pulls, {allowed} allowed");
}

#[test]
fn blocks_with_the_fewest_copies_come_first() {
    // The node hears of ten blocks from two holders, then of twenty from one of them, and may pull one at a time.
    let local = Position::of_peer(b"local");
    let (a, b) = (Position::of_peer(b"a"), Position::of_peer(b"b"));
    let mut replicator = Replicator::new(Config { pulls_under_way: 1, ..Config::new(3) }, local, Time::ZERO);
    let status = |from| Input::Status { from, room: true, epoch: 1, orders: 0 };
    replicator.handle_input(Time::ZERO, status(a));
    replicator.handle_input(Time::ZERO, status(b));
    replicator.handle_input(Time::ZERO, Input::Room(false));
    let offer = |numbers: std::ops::Range<u32>| numbers.map(|n| (block(n), LENGTH)).collect::<Vec<_>>();
    replicator.offered(Time::ZERO, a, &[]);
    replicator.handle_input(Time::ZERO, Input::Room(true));
    replicator.offered(Time::ZERO, a, &offer(0..1));
    replicator.offered(Time::ZERO, a, &offer(1..11));
    replicator.offered(Time::ZERO, b, &offer(1..11));
    replicator.offered(Time::ZERO, b, &offer(11..31));
    let mut order: Vec<BlockId> = Vec::new();
    while let Some(output) = replicator.poll_output() {
        if let Output::Pull { id, from, .. } = output {
            order.push(id);
            let entry = Entry { id, length: LENGTH, digest: EntryDigest::of(&id, &[]) };
            replicator.handle_input(Time::ZERO, Input::Held(entry));
            replicator.handle_input(Time::ZERO, Input::Pulled { id, from, outcome: PullOutcome::Stored });
        }
    }
    let expected_last: Vec<_> = offer(1..11).into_iter().map(|(id, _)| id).collect();
    assert_eq!(order.len(), 31);
    assert!(order[21..].iter().all(|id| expected_last.contains(id)), "those with two copies come last");
}

/// A node that wants eight blocks at most, and two others; the one that offers first never gives anything.
fn hoarded() -> (Replicator, Position, Position) {
    let (local, hoarder, other) =
        (Position::of_peer(b"local"), Position::of_peer(b"hoarder"), Position::of_peer(b"other"));
    let limits = Limits { wants: 8, ..Limits::default() };
    let mut replicator = Replicator::new(Config { limits, ..Config::new(3) }, local, Time::ZERO);
    replicator.handle_input(Time::ZERO, Input::Status { from: hoarder, room: true, epoch: 1, orders: u64::MAX });
    replicator.handle_input(Time::ZERO, Input::Status { from: other, room: true, epoch: 1, orders: 0 });
    (replicator, hoarder, other)
}

fn offer(replicator: &mut Replicator, now: Time, from: Position, numbers: std::ops::Range<u32>) -> usize {
    let offer: Vec<_> = numbers.map(|n| (block(n), LENGTH)).collect();
    let answers = replicator.offered(now, from, &offer);
    answers.iter().filter(|answer| **answer == OfferAnswer::WillPull).count()
}

#[test]
fn one_holder_alone_does_not_fill_all_wants() {
    let (mut replicator, hoarder, other) = hoarded();
    assert_eq!(offer(&mut replicator, Time::ZERO, hoarder, 0..100), 4, "half of the places");
    assert_eq!(offer(&mut replicator, Time::ZERO, other, 100..200), 2, "half of what is left");
    assert_eq!(offer(&mut replicator, Time::ZERO, other, 0..4), 4, "what is wanted already takes no place");
    assert_eq!(offer(&mut replicator, Time::ZERO, other, 200..300), 0, "its half is taken");
}

#[test]
fn a_want_does_not_wait_for_ever_for_the_orders_of_its_holder() {
    let (mut replicator, hoarder, _) = hoarded();
    assert_eq!(offer(&mut replicator, Time::ZERO, hoarder, 0..4), 4);
    for (seconds, wants) in [(1..119, 4), (119..125, 0)] {
        for second in seconds {
            let now = Time::from_millis(second * 1_000);
            replicator.handle_timeout(now);
            while let Some(output) = replicator.poll_output() {
                assert!(!matches!(output, Output::Pull { .. }), "its orders are not in force");
            }
            // It goes on giving orders, and is never done.
            replicator.handle_input(now, Input::Orders { from: hoarder, epoch: 1, next: second });
        }
        assert_eq!(replicator.queues().wants, wants);
    }
}

#[test]
fn a_pull_that_fails_here_is_tried_again_after_ten_seconds() {
    let (mut replicator, _, other) = hoarded();
    assert_eq!(offer(&mut replicator, Time::ZERO, other, 0..1), 1);
    let mut pulls = Vec::new();
    for second in 0..25 {
        let now = Time::from_millis(second * 1_000);
        replicator.handle_timeout(now);
        while let Some(output) = replicator.poll_output() {
            if let Output::Pull { id, from, .. } = output {
                assert_eq!(from, other, "the holder is not marked");
                pulls.push(second);
                replicator.handle_input(now, Input::Pulled { id, from, outcome: PullOutcome::Failed });
            }
        }
        // Said at every tick, it hurries nothing.
        replicator.handle_input(now, Input::Room(true));
    }
    assert_eq!(pulls, [0, 10, 20]);
    assert_eq!(replicator.health().failed_pulls, 0);
}
