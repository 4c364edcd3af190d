use crate::world::{MINUTE, World, publication};
use dht_core::Config;
use std::{collections::BTreeSet, time::Duration};

#[test]
fn a_deletion_reaches_everybody_within_pings_and_moves_nothing() {
    let mut world = World::settled(Config::new(2), 8, 15);
    world.publish(200, publication(1));
    world.run(MINUTE);
    world.delete(0, publication(1));
    world.run_until(MINUTE / 2, |world| world.blocks.iter().all(|id| world.holders(id).is_empty()));
    world.run(10 * MINUTE);
    assert!(world.blocks.iter().all(|id| world.holders(id).is_empty()));
    assert_eq!(world.moved.len(), 0, "nothing of it is fetched back");
}

#[test]
fn what_was_deleted_while_a_node_was_away_does_not_return_with_it() {
    let mut world = World::settled(Config::new(2), 8, 15);
    world.publish(200, publication(1));
    world.stop(4);
    world.run(20 * MINUTE);
    world.delete(0, publication(1));
    world.run(MINUTE);
    world.moved.clear();
    world.start(4);
    world.run(MINUTE / 2);
    assert!(world.blocks.iter().all(|id| world.holders(id).is_empty()));
    assert_eq!(world.moved.len(), 0);
    // An order given before the node that knows it was restarted counts as well.
    world.publish(10, publication(2));
    world.delete(0, publication(2));
    world.stop(0);
    world.start(0);
    world.run(MINUTE);
    assert!(world.blocks.iter().all(|id| world.holders(id).is_empty()));
}

#[test]
fn a_block_of_two_publications_outlives_one_and_references_spread() {
    let mut world = World::settled(Config::new(3), 6, 15);
    world.publish(1, publication(1));
    let id = world.blocks[0];
    let holders = world.holders(&id);
    world.put(holders[0], id, BTreeSet::from([publication(1), publication(2)]));
    let both = BTreeSet::from([publication(1), publication(2)]);
    world.run_until(2 * MINUTE, |world| holders.iter().all(|node| world.references(*node, &id) == both));
    world.delete(5, publication(1));
    world.run(Duration::from_secs(30));
    assert!(holders.iter().all(|node| world.references(*node, &id) == BTreeSet::from([publication(2)])));
    assert_eq!(world.moved.len(), 0);
}
