use crate::world::{MINUTE, World, publication};
use chunkstore_block::BlockId;
use dht_core::{Config, Limits};

/// A node goes, and one that was full from the start is to take its place. Everything is on the closest of the others after `minutes`.
fn a_full_node_is_stood_in_for(config: Config, blocks: u32, minutes: u32) -> World {
    let mut world = World::settled(config, 8, 15);
    world.publish(blocks, publication(1));
    let ranked = world.ranked(&world.blocks[0]);
    let (gone, full) = (ranked[1], ranked[2]);
    let before: Vec<_> = world.blocks.iter().filter(|id| world.has(full, id)).copied().collect();
    world.set_quota(full, before.len());
    world.stop(gone);
    let lacks = |id: &BlockId| world.belongs(id).contains(&full) && !before.contains(id);
    assert!(world.blocks.iter().filter(|id| lacks(id)).count() * 20 > world.blocks.len(), "it matters that it is full");
    world.run(minutes * MINUTE);
    for id in world.blocks.clone() {
        let holders = world.holders(&id);
        let takers = world.ranked(&id).into_iter().filter(|node| *node != full || before.contains(&id));
        let takers: Vec<_> = takers.take(2).collect();
        assert!(takers.iter().all(|node| holders.contains(node)), "{id} is on {holders:?}, not {takers:?}");
    }
    assert!(before.iter().all(|id| world.has(full, id)), "what it has it keeps");
    world
}

#[test]
fn what_a_full_node_lacks_is_on_the_next_closest() {
    let mut world = a_full_node_is_stood_in_for(Config::new(2), 200, 15);
    let moved = world.moved.len();
    world.run(60 * MINUTE);
    assert_eq!(world.moved.len(), moved, "nothing comes and goes");
}

#[test]
fn a_node_with_room_again_gets_what_is_its_and_the_stand_ins_drop_theirs() {
    let mut world = World::settled(Config::new(2), 8, 15);
    world.publish(200, publication(1));
    // A block's second holder goes, and the third in the ranking, whose place it would be, is full.
    let ranked = world.ranked(&world.blocks[0]);
    let (gone, full) = (ranked[1], ranked[2]);
    let count = world.blocks.iter().filter(|id| world.has(full, id)).count();
    world.set_quota(full, count);
    world.stop(gone);
    world.run(15 * MINUTE);
    assert!(world.has(ranked[3], &world.blocks[0]), "somebody stands in");
    world.set_quota(full, usize::MAX);
    world.run_until(30 * MINUTE, World::all_exact);
}

#[test]
fn what_a_full_node_lacks_is_found_however_much_it_is() {
    // Every comparison found the same first blocks, and the others were never offered to anybody.
    let limits = Limits { lacking: 4, overflow: 8, ..Limits::default() };
    a_full_node_is_stood_in_for(Config { limits, ..Config::new(2) }, 600, 40);
}

/// A block whose `full` closest are full and lack it, on the next two, which stand in for them. Four more have room.
fn full_ones_and_two_stand_ins(full: usize) -> (World, BlockId, Vec<usize>) {
    let mut world = World::settled(Config::new(2), full + 6, 15);
    let id = crate::world::block(3);
    let ranked = world.ranked(&id);
    ranked[..full].iter().for_each(|node| world.set_quota(*node, 0));
    ranked[full..full + 2].iter().for_each(|node| world.put(*node, id, [publication(1)].into()));
    world.run(15 * MINUTE);
    assert_eq!(world.holders(&id).len(), 2, "two stand-ins are enough");
    (world, id, ranked)
}

#[test]
fn a_stand_in_that_dies_is_replaced_though_all_the_closest_are_full() {
    // The other stand-in offered the block to nodes closer than itself only.
    for (full, dies, stays) in [(2, 2, 3), (2, 3, 2), (12, 12, 13)] {
        let (mut world, id, ranked) = full_ones_and_two_stand_ins(full);
        world.stop(ranked[dies]);
        // The grace period, and the time in which it is noticed: stand-ins are no neighbours of each other.
        world.run(13 * MINUTE);
        assert!(world.has(ranked[stays], &id) && world.has(ranked[full + 2], &id), "it is on {:?}", world.holders(&id));
    }
}

#[test]
fn who_dies_before_it_has_the_block_is_not_waited_for() {
    // Found by the simulator: one candidate after another died, and each had its grace period although it had nothing to come back with.
    let (mut world, id, ranked) = full_ones_and_two_stand_ins(2);
    world.stop(ranked[2]);
    world.run(9 * MINUTE + MINUTE / 2);
    world.stop(ranked[4]);
    world.run(4 * MINUTE);
    assert!(world.has(ranked[3], &id) && world.has(ranked[5], &id), "it is on {:?}", world.holders(&id));
}

#[test]
fn a_stand_in_whose_copy_is_damaged_gets_another() {
    let (mut world, id, ranked) = full_ones_and_two_stand_ins(2);
    world.lose(ranked[2], id);
    world.run_until(11 * MINUTE, |world| world.has(ranked[2], &id));
}
