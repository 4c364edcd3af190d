use crate::world::{LENGTH, MINUTE, World, publication};
use dht_core::Config;
use std::time::Duration;

#[test]
fn a_node_that_joins_gets_what_is_now_its() {
    let mut world = World::settled(Config::new(2), 8, 15);
    world.publish(300, publication(1));
    world.run(MINUTE);
    assert!(world.all_exact() && world.moved.is_empty());
    let new = world.join();
    let its: usize = world.blocks.iter().filter(|id| world.belongs(id).contains(&new)).count();
    let took = world.run_until(MINUTE, World::all_on_the_closest);
    assert!(its > 0 && took <= Duration::from_secs(10), "{its} blocks in {took:?}");
    assert_eq!(world.moved.len(), its, "what moves is what was missing");
    assert!(world.moved.iter().all(|(_, _, to)| *to == new));
    world.run_until(30 * MINUTE, World::all_exact);
    assert_eq!(world.moved.len(), its);
}

#[test]
fn after_a_node_has_gone_every_block_is_on_the_closest_again() {
    for r in [2, 3] {
        let mut world = World::settled(Config::new(r), 8, 15);
        world.publish(300, publication(1));
        let missing = world.blocks.iter().filter(|id| world.belongs(id).contains(&3)).count();
        world.stop(3);
        world.run(9 * MINUTE);
        assert_eq!(world.moved.len(), 0, "nothing moves in the grace period");
        let took = world.run_until(3 * MINUTE, World::all_exact);
        assert!(took <= MINUTE + Duration::from_secs(30), "{took:?}");
        let bytes = world.moved.len() as u64 * u64::from(LENGTH);
        assert_eq!(bytes, missing as u64 * u64::from(LENGTH), "what moves is what was missing");
    }
}

#[test]
fn a_restart_within_the_grace_period_moves_nothing() {
    let mut world = World::settled(Config::new(2), 6, 15);
    world.publish(200, publication(1));
    for node in 0..6 {
        world.stop(node);
        world.run(MINUTE);
        world.start(node);
        world.run(MINUTE);
    }
    world.run(15 * MINUTE);
    assert!(world.all_exact());
    assert_eq!(world.moved.len(), 0);
}

#[test]
fn all_nodes_restarted_at_once_find_each_other_and_move_nothing() {
    let mut world = World::settled(Config::new(2), 6, 15);
    world.publish(200, publication(1));
    (0..6).for_each(|node| world.stop(node));
    world.run(MINUTE);
    (0..6).for_each(|node| world.start(node));
    world.run(15 * MINUTE);
    assert!(world.all_exact());
    assert_eq!(world.moved.len(), 0);
}

#[test]
fn a_node_that_returns_with_old_data_gets_what_it_missed_and_no_more() {
    let mut world = World::settled(Config::new(2), 8, 15);
    world.publish(200, publication(1));
    world.stop(2);
    world.run(15 * MINUTE);
    world.publish(200, publication(2));
    world.moved.clear();
    world.start(2);
    let missed: Vec<_> = world.blocks.iter().filter(|id| world.belongs(id).contains(&2) && !world.has(2, id)).collect();
    let missed = missed.len();
    assert!(missed > 0);
    let took = world.run_until(MINUTE, World::all_on_the_closest);
    assert!(took <= Duration::from_secs(10), "{took:?}");
    world.run_until(30 * MINUTE, World::all_exact);
    assert_eq!(world.moved.len(), missed);
}

#[test]
fn two_nodes_that_die_at_once_take_only_what_both_had() {
    for r in [2, 3] {
        let mut world = World::settled(Config::new(r), 8, 15);
        world.publish(400, publication(1));
        let pair = world.belongs(&world.blocks[0]).into_iter().take(2).collect::<Vec<_>>();
        let both_had = |world: &World, id| world.belongs(id).iter().all(|node| pair.contains(node));
        let lost: Vec<_> = world.blocks.iter().filter(|id| both_had(&world, id)).copied().collect();
        assert_eq!(lost.is_empty(), r == 3, "with R = 3 nobody loses all copies");
        pair.iter().for_each(|node| world.stop(*node));
        world.run(15 * MINUTE);
        world.blocks.retain(|id| !lost.contains(id));
        assert!(world.all_exact());
        assert!(lost.iter().all(|id| world.holders(id).is_empty()));
    }
}

#[test]
fn a_hundred_nodes_come_to_rest_through_joins_and_leaves() {
    let mut world = World::settled(Config::new(2), 100, 15);
    world.publish(1_000, publication(1));
    for node in (0..100).step_by(20) {
        world.stop(node);
        world.join();
        world.run(15 * MINUTE);
    }
    world.run_until(30 * MINUTE, World::all_exact);
}

#[test]
fn a_node_alone_waits_for_others_and_shares_with_them() {
    let mut world = World::settled(Config::new(2), 1, 15);
    world.publish(50, publication(1));
    world.join();
    world.run_until(5 * MINUTE, World::all_exact);
    assert_eq!(world.moved.len(), 50);
}

#[test]
fn a_network_started_anew_over_minutes_moves_nothing() {
    let mut world = World::settled(Config::new(2), 10, 15);
    world.publish(200, publication(1));
    world.run(MINUTE);
    (0..10).for_each(|node| world.stop(node));
    world.run(60 * MINUTE);
    for node in 0..10 {
        world.start(node);
        world.run(MINUTE / 2);
    }
    world.run(15 * MINUTE);
    assert!(world.all_exact());
    assert_eq!(world.moved.len(), 0);
}
