use crate::world::{MINUTE, World, publication};
use dht_core::Config;

#[test]
fn what_a_full_node_lacks_is_on_the_next_closest() {
    let mut world = World::settled(Config::new(2), 8, 15);
    world.publish(200, publication(1));
    // Full from the start: node 5 can take nothing when another one goes.
    let before: Vec<_> = world.blocks.iter().filter(|id| world.has(5, id)).copied().collect();
    world.set_quota(5, before.len());
    world.stop(6);
    world.run(15 * MINUTE);
    for id in world.blocks.clone() {
        let holders = world.holders(&id);
        let takers: Vec<_> =
            world.ranked(&id).into_iter().filter(|node| *node != 5 || before.contains(&id)).take(2).collect();
        assert!(takers.iter().all(|node| holders.contains(node)), "{id} is on {holders:?}, not {takers:?}");
    }
    assert!(before.iter().all(|id| world.has(5, id)), "what it has it keeps");
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
