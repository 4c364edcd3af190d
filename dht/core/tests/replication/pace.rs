use crate::world::{LENGTH, MINUTE, World, block, publication};
use chunkstore_block::BlockId;
use dht_core::{Config, Entry, EntryDigest, Input, Output, Position, Replicator, Time};
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
            replicator.handle_input(Time::ZERO, Input::Pulled { id, from, outcome: dht_core::PullOutcome::Stored });
        }
    }
    let expected_last: Vec<_> = offer(1..11).into_iter().map(|(id, _)| id).collect();
    assert_eq!(order.len(), 31);
    assert!(order[21..].iter().all(|id| expected_last.contains(id)), "those with two copies come last");
}
