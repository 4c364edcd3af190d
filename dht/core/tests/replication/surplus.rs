use crate::world::{MINUTE, World, publication};
use dht_core::{Config, OfferAnswer};
use std::time::Duration;

#[test]
fn a_surplus_copy_stays_until_those_who_outrank_it_are_old_and_proved() {
    let mut world = World::settled(Config::new(2), 6, 15);
    world.publish(200, publication(1));
    let before: Vec<_> = world.blocks.iter().map(|id| world.holders(id)).collect();
    let new = world.join();
    world.run_until(MINUTE, World::all_on_the_closest);
    world.run(8 * MINUTE);
    for (id, before) in world.blocks.iter().zip(&before) {
        assert!(before.iter().all(|node| world.has(*node, id)), "dropped for a node younger than the minimum age");
    }
    let took = world.run_until(5 * MINUTE, World::all_exact);
    assert!(took >= Duration::from_secs(60), "{took:?}");
    let dropped: u64 = (0..6).map(|node| world.health(node).dropped).sum();
    let its = world.blocks.iter().filter(|id| world.has(new, id)).count() as u64;
    assert_eq!(dropped, its);
    assert!((0..6).map(|node| world.health(node).audits).sum::<u64>() >= 2 * dropped, "each drop rests on two proofs");
}

#[test]
fn a_surplus_copy_stays_when_nobody_who_outranks_it_can_prove() {
    let mut world = World::settled(Config::new(2), 6, 15);
    world.publish(100, publication(1));
    let new = world.join();
    world.run(5 * MINUTE);
    // It answers as before, but its disk is empty.
    world.lose_silently(new);
    let before: usize = world.blocks.iter().map(|id| world.holders(id).len()).sum();
    world.run(8 * MINUTE);
    let after: usize = world.blocks.iter().map(|id| world.holders(id).len()).sum();
    assert!(after >= before, "{after} copies of {before}");
}

#[test]
fn offers_of_blocks_that_are_not_ours_are_refused() {
    let mut world = World::settled(Config::new(2), 30, 15);
    let id = crate::world::block(7);
    let ranked = world.ranked(&id);
    let (near, far) = (ranked[5], ranked[6]);
    let from = ranked[0];
    world.put(from, id, [publication(1)].into());
    assert_eq!(world.offer(from, far, id), OfferAnswer::NotMine);
    assert_eq!(world.offer(from, near, id), OfferAnswer::WillPull);
    assert_eq!(world.offer(near, from, id), OfferAnswer::Have);
}

#[test]
fn a_stray_copy_far_from_home_comes_home_and_goes() {
    // Found by the simulator: the node that had it knew nobody there, offered it to those who seemed closest, and kept it for ever.
    let mut world = World::settled(Config::new(2), 150, 15);
    for number in 0..20 {
        let id = crate::world::block(number);
        let far = *world.ranked(&id).last().unwrap();
        world.put(far, id, [publication(1)].into());
        world.blocks.push(id);
    }
    world.run_until(5 * MINUTE, World::all_on_the_closest);
    world.run_until(30 * MINUTE, World::all_exact);
}
