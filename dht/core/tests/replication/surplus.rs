use crate::world::{MINUTE, World, publication};
use chunkstore_block::BlockId;
use dht_core::{Config, Limits, OfferAnswer};
use std::{collections::BTreeSet, time::Duration};

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
    let mut world = World::settled(Config::new(2), 60, 15);
    let id = crate::world::block(7);
    let ranked = world.ranked(&id);
    let (near, far) = (ranked[17], ranked[59]);
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

/// The two closest are full and have a block for one publication, the next two have it for another.
fn two_publications_of_a_block() -> (World, BlockId, Vec<usize>) {
    let mut world = World::settled(Config::new(2), 6, 15);
    let id = crate::world::block(7);
    let ranked = world.ranked(&id);
    for (rank, node) in ranked.iter().take(4).enumerate() {
        world.put(*node, id, [publication(if rank < 2 { 1 } else { 2 })].into());
        if rank < 2 {
            world.set_quota(*node, 1);
        }
    }
    world.blocks.push(id);
    (world, id, ranked)
}

#[test]
fn a_surplus_copy_stays_while_a_closer_one_lacks_a_reference_of_it() {
    // The two closest proved the bytes, the others dropped theirs, and then the first publication was deleted: the block of the second
    // was gone.
    let (mut world, id, ranked) = two_publications_of_a_block();
    world.run(60 * MINUTE);
    let of_one: Vec<_> = world.drops.iter().filter(|(_, node, _)| *node == ranked[2]).map(|(time, ..)| *time).collect();
    assert!(of_one.len() > 3, "it is tried again, not {} times", of_one.len());
    let often = of_one.windows(2).all(|pair| pair[1].since(pair[0]) >= 2 * MINUTE);
    assert!(often, "no faster than five times in the life of a proof: {of_one:?}");
    world.delete(5, publication(1));
    world.run(30 * MINUTE);
    let holders = world.holders(&id);
    assert!(holders.len() >= 2, "{holders:?}");
    assert!(holders.iter().all(|node| world.references(*node, &id) == BTreeSet::from([publication(2)])));
}

#[test]
fn an_offered_block_that_is_here_gets_the_references_of_the_offerer() {
    // Too far away to be compared with: the offer alone tells of the other copy.
    let mut world = World::settled(Config::new(2), 60, 15);
    let id = crate::world::block(7);
    let ranked = world.ranked(&id);
    ranked[..2].iter().for_each(|node| world.put(*node, id, [publication(1)].into()));
    world.put(ranked[59], id, [publication(2)].into());
    world.blocks.push(id);
    world.run_until(30 * MINUTE, World::all_exact);
    let both = BTreeSet::from([publication(1), publication(2)]);
    assert!(ranked[..2].iter().all(|node| world.references(*node, &id) == both));
}

#[test]
fn a_surplus_copy_goes_when_the_closer_ones_have_room_for_its_references() {
    let (mut world, id, ranked) = two_publications_of_a_block();
    world.run(30 * MINUTE);
    assert!(world.has(ranked[2], &id) && world.has(ranked[3], &id));
    ranked[..2].iter().for_each(|node| world.set_quota(*node, usize::MAX));
    // A refusal counts for the life of a proof, and then there are proofs.
    world.run_until(15 * MINUTE, World::all_exact);
    let both = BTreeSet::from([publication(1), publication(2)]);
    assert!(ranked[..2].iter().all(|node| world.references(*node, &id) == both));
}

#[test]
fn proofs_are_of_the_copy_with_the_references_that_it_had() {
    let (mut world, id, ranked) = two_publications_of_a_block();
    let surplus = ranked[2];
    world.run_until(30 * MINUTE, |world| world.drops.iter().any(|(_, node, _)| *node == surplus));
    let before = world.health(surplus).audits;
    world.put(surplus, id, [publication(2), publication(3)].into());
    world.run(3 * MINUTE);
    assert_eq!(world.health(surplus).audits, before + 2, "both closer nodes prove anew");
}

#[test]
fn all_surplus_copies_have_their_turn_however_many_there_are() {
    // The lowest positions took all places, for ever where they could not go, and the others were never seen to.
    let limits = Limits { surplus: 4, ..Limits::default() };
    let mut world = World::settled(Config { limits, ..Config::new(2) }, 30, 15);
    let stray = 12;
    for number in 0..80 {
        let id = crate::world::block(number);
        let ranked = world.ranked(&id);
        if ranked[..20].contains(&stray) {
            continue;
        }
        world.blocks.push(id);
        world.put(stray, id, [publication(1)].into());
    }
    world.blocks.sort_by_key(dht_core::Position::of_block);
    // Nobody takes the lowest ones, and they stay.
    let stuck: Vec<_> = world.blocks.drain(..6).collect();
    for id in &stuck {
        world.ranked(id)[..18].iter().for_each(|node| world.nodes[*node].refuses.push(*id));
    }
    assert!(world.blocks.len() > 12);
    world.run_until(180 * MINUTE, World::all_exact);
    assert!(stuck.iter().all(|id| world.has(stray, id)));
}

#[test]
fn a_proof_that_cannot_be_checked_tells_nothing() {
    let mut world = World::settled(Config::new(2), 6, 15);
    let id = crate::world::block(7);
    world.blocks.push(id);
    let ranked = world.ranked(&id);
    ranked[..3].iter().for_each(|node| world.put(*node, id, [publication(1)].into()));
    world.nodes[ranked[2]].unchecking = true;
    world.run(30 * MINUTE);
    let health = world.health(ranked[2]);
    assert!(health.audits > 2 && health.audits < 2 * 30 * 12 + 2, "tried again, and not at once: {}", health.audits);
    assert_eq!((health.failed_audits, health.distrusted, health.dropped), (0, 0, 0));
    world.nodes[ranked[2]].unchecking = false;
    world.run_until(MINUTE, World::all_exact);
}
