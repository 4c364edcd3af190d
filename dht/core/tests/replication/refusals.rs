use crate::world::{LENGTH, MINUTE, World, publication};
use chunkstore_block::BlockId;
use dht_core::{Config, OfferAnswer};
use std::collections::BTreeSet;

/// A block that only the closest has; the next closest is to fetch it.
fn a_block_with_one_copy(change: impl FnOnce(&mut World, &[usize])) -> (World, BlockId, Vec<usize>) {
    let mut world = World::settled(Config::new(2), 8, 15);
    let id = crate::world::block(11);
    let ranked = world.ranked(&id);
    change(&mut world, &ranked);
    world.put(ranked[0], id, [publication(1)].into());
    world.blocks.push(id);
    (world, id, ranked)
}

#[test]
fn another_has_the_block_in_the_place_of_one_that_refuses_it() {
    // It counted as a holder for ever, and there was one copy.
    let (mut world, id, ranked) = a_block_with_one_copy(|world, ranked| world.nodes[ranked[1]].unpinned = true);
    world.run_until(5 * MINUTE, |world| world.has(ranked[2], &id));
    world.run(60 * MINUTE);
    assert_eq!(world.holders(&id).len(), 2, "nothing spreads any farther");
    world.nodes[ranked[1]].unpinned = false;
    world.run_until(90 * MINUTE, World::all_exact);
}

#[test]
fn another_has_the_block_in_the_place_of_one_that_only_says_that_it_fetches_it() {
    let (mut world, id, ranked) = a_block_with_one_copy(|world, ranked| world.nodes[ranked[1]].idle = true);
    world.run(9 * MINUTE);
    assert_eq!(world.holders(&id), [ranked[0]], "it is given the grace period");
    world.run_until(5 * MINUTE, |world| world.has(ranked[2], &id));
    world.nodes[ranked[1]].idle = false;
    world.run_until(30 * MINUTE, World::all_exact);
}

#[test]
fn one_that_fetches_slowly_is_waited_for() {
    let config = Config { repair_bytes_per_s: Some(u64::from(LENGTH) / 2), ..Config::new(2) };
    let mut world = World::settled(config, 4, 15);
    world.publish(8_000, publication(1));
    let missing = world.blocks.iter().filter(|id| world.belongs(id).contains(&3)).count();
    world.stop(3);
    world.run(22 * MINUTE);
    assert!(!world.all_on_the_closest(), "it takes longer than the grace period");
    world.run(25 * MINUTE);
    assert!(world.all_on_the_closest());
    // Each holder sees progress all the time, since pulls do not go by position.
    let moved = world.moved.len();
    assert!(moved * 20 <= missing * 21, "{moved} moved where {missing} were missing");
}

#[test]
fn a_block_that_is_unwanted_from_one_holder_is_fetched_from_another() {
    // A holder without an acceptable reference, by mistake or malice, kept the block from coming from anybody for an hour.
    let mut world = World::settled(Config::new(3), 8, 15);
    let id = crate::world::block(11);
    let ranked = world.ranked(&id);
    world.put(ranked[0], id, BTreeSet::new());
    world.run(5 * MINUTE);
    assert_eq!(world.holders(&id).len(), 1, "nothing refers to it");
    assert_eq!(world.offer(ranked[0], ranked[1], id), OfferAnswer::NotMine, "from this one it is not wanted");
    let pulls = world.pulls.len();
    world.put(ranked[2], id, [publication(1)].into());
    world.run_until(2 * MINUTE, |world| world.has(ranked[1], &id));
    assert!(world.pulls.len() <= pulls + 4, "nobody fetches it in vain again");
}

#[test]
fn others_have_what_a_node_is_to_have_that_only_answers_pings() {
    let (mut world, id, ranked) = a_block_with_one_copy(|world, ranked| world.nodes[ranked[1]].mute = true);
    world.run_until(15 * MINUTE, |world| world.has(ranked[2], &id));
    world.run(60 * MINUTE);
    assert_eq!(world.holders(&id).len(), 2, "nothing spreads any farther");
    world.nodes[ranked[1]].mute = false;
    world.run_until(40 * MINUTE, World::all_exact);
}

#[test]
fn who_is_compared_with_once_in_a_while_is_not_taken_for_mute() {
    // With comparisons less often than the grace period is long, everybody stood in for everybody.
    let mut world = World::settled(Config { sync_interval: 15 * MINUTE, ..Config::new(2) }, 8, 15);
    world.publish(500, publication(1));
    let moved = world.moved.len();
    world.run(240 * MINUTE);
    assert_eq!(world.moved.len(), moved);
    assert!(world.all_exact());
}

#[test]
fn another_has_the_references_in_the_place_of_a_full_node_that_cannot_take_them() {
    // The full node has the block, and so nobody was offered it; of the other publication there was one copy.
    let mut world = World::settled(Config::new(2), 8, 15);
    let id = crate::world::block(11);
    let ranked = world.ranked(&id);
    world.put(ranked[0], id, [publication(1)].into());
    world.set_quota(ranked[0], 1);
    world.put(ranked[1], id, [publication(2)].into());
    world.run(10 * MINUTE);
    let of_the_second = |world: &World| {
        let holders = world.holders(&id).into_iter();
        holders.filter(|node| world.references(*node, &id).contains(&publication(2))).collect::<Vec<_>>()
    };
    assert_eq!(of_the_second(&world), BTreeSet::from([ranked[1], ranked[2]]).into_iter().collect::<Vec<_>>());
    world.run(60 * MINUTE);
    assert_eq!(of_the_second(&world).len(), 2, "nothing spreads any farther");
    world.set_quota(ranked[0], usize::MAX);
    world.blocks.push(id);
    world.run_until(40 * MINUTE, World::all_exact);
    assert_eq!(of_the_second(&world).len(), 2);
}
