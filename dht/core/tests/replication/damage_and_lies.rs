use crate::world::{MINUTE, World, publication};
use dht_core::{Config, Input};

#[test]
fn a_damaged_copy_is_fetched_again() {
    let mut world = World::settled(Config::new(2), 6, 15);
    world.publish(100, publication(1));
    let id = world.blocks[17];
    let node = world.holders(&id)[0];
    world.lose(node, id);
    let took = world.run_until(MINUTE, World::all_exact);
    assert!(took.as_secs() <= 15, "{took:?}");
    assert_eq!(world.moved.len(), 1);
}

#[test]
fn a_holder_that_only_claims_is_found_out_and_its_blocks_go_elsewhere() {
    let mut world = World::settled(Config::new(2), 8, 15);
    world.publish(200, publication(1));
    world.lose_silently(3);
    world.run_until(20 * MINUTE, World::all_on_the_closest);
    let distrusting = (0..8).filter(|node| world.health(*node).distrusted == 1).count();
    assert!(distrusting > 0);
}

#[test]
fn wrong_bytes_make_a_peer_distrusted_for_an_hour() {
    let mut world = World::settled(Config::new(2), 5, 15);
    let liar = world.nodes[3].position;
    world.input(0, Input::Wrong(liar));
    world.run(MINUTE);
    assert_eq!(world.health(0).distrusted, 1);
    assert!(!world.replicator(0).holders(&liar, 5).contains(&liar));
    world.run(58 * MINUTE);
    assert!(!world.replicator(0).holders(&liar, 5).contains(&liar));
    world.run(2 * MINUTE);
    assert!(world.replicator(0).holders(&liar, 5).contains(&liar));
}

#[test]
fn what_only_liars_took_stays_where_it_was_uploaded_until_honest_nodes_have_it() {
    // With a fifth of the nodes lying, some blocks of a film were put on liars alone. The node that put one is too far away to be
    // compared with them, and so to find them out: that they have it was all that it ever heard.
    let mut world = World::settled(Config::new(3), 60, 15);
    let id = crate::world::block(7);
    let ranked = world.ranked(&id);
    let (ingest, liars) = (ranked[40], [0, 1, 2, 4].map(|rank| ranked[rank]));
    liars.iter().for_each(|liar| world.lose_silently(*liar));
    for node in ranked[..3].iter().chain([&ingest]) {
        world.put(*node, id, [publication(1)].into());
    }
    world.blocks.push(id);
    world.run_until(15 * MINUTE, World::all_on_the_closest);
    world.run_until(15 * MINUTE, |world| !world.has(ingest, &id));
    // Also when those who distrust a liar give it another chance.
    for _ in 0..30 {
        world.run(5 * MINUTE);
        assert!(world.all_on_the_closest(), "{:?}", world.holders(&id));
    }
}
