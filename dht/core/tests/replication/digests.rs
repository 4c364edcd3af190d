use crate::world::{LENGTH, block, publication};
use dht_core::{
    Bucket, Config, Digest, Entry, EntryDigest, Input, OfferAnswer, Output, Position, Prefix, Replicator, Time,
};
use proptest::prelude::*;
use std::{collections::BTreeSet, time::Duration};

/// Two nodes that have exactly these blocks, and know each other and nobody else.
fn pair(ours: &BTreeSet<u32>, theirs: &BTreeSet<u32>) -> [(Position, Replicator); 2] {
    let names = [Position::of_peer(b"a"), Position::of_peer(b"b")];
    let make = |index: usize, blocks: &BTreeSet<u32>| {
        let mut replicator = Replicator::new(Config::new(2), names[index], Time::ZERO);
        let from = names[1 - index];
        blocks.iter().for_each(|number| replicator.handle_input(Time::ZERO, Input::Held(entry(*number))));
        replicator
            .handle_input(Time::ZERO, Input::Found { target: names[index], near: names[index], nodes: vec![from] });
        replicator.handle_input(Time::ZERO, Input::Status { from, room: true, epoch: 1, orders: 0 });
        (names[index], replicator)
    };
    [make(0, ours), make(1, theirs)]
}

fn entry(number: u32) -> Entry {
    let id = block(number);
    Entry { id, length: LENGTH, digest: EntryDigest::of(&id, &[publication(1)]) }
}

/// What one comparison of the first node with the second makes it pull and offer, and the digests that it took.
fn compare(ours: &BTreeSet<u32>, theirs: &BTreeSet<u32>) -> (BTreeSet<Position>, BTreeSet<Position>, usize) {
    let [(local, mut asker), (peer, other)] = pair(ours, theirs);
    let (mut pulled, mut offered, mut digests) = (BTreeSet::new(), BTreeSet::new(), 0);
    let now = Time::from_millis(200);
    asker.handle_timeout(now);
    while let Some(output) = asker.poll_output() {
        let input = match output {
            Output::AskDigest { prefix, .. } => {
                digests += 1;
                Input::Digest { from: peer, prefix, digest: other.summarize(&local, &prefix) }
            }
            Output::Offer { entries, .. } => {
                assert!(entries.len() <= 1_024);
                offered.extend(entries.iter().map(Entry::position));
                Input::Offered {
                    to: peer,
                    answers: entries.iter().map(|entry| (entry.id, OfferAnswer::WillPull)).collect(),
                }
            }
            Output::Pull { id, from, .. } => {
                pulled.insert(Position::of_block(&id));
                Input::Pulled { id, from, outcome: dht_core::PullOutcome::NotThere }
            }
            Output::Ping(_)
            | Output::Lookup(_)
            | Output::AskReferences { .. }
            | Output::Audit { .. }
            | Output::AskOrders { .. }
            | Output::Drop { .. } => continue,
        };
        asker.handle_input(now, input);
    }
    (pulled, offered, digests)
}

fn positions<'a>(numbers: impl Iterator<Item = &'a u32>) -> BTreeSet<Position> {
    numbers.map(|number| Position::of_block(&block(*number))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_comparison_finds_exactly_the_difference(
        common in prop::collection::btree_set(0_u32..100_000, 0..3_000),
        a in prop::collection::btree_set(100_000_u32..101_000, 0..400),
        b in prop::collection::btree_set(101_000_u32..102_000, 0..400),
    ) {
        let (ours, theirs): (BTreeSet<_>, BTreeSet<_>) = (&common | &a, &common | &b);
        let (pulled, offered, digests) = compare(&ours, &theirs);
        prop_assert_eq!(pulled, positions(b.iter()));
        prop_assert_eq!(offered, positions(a.iter()));
        prop_assert!(!(a.is_empty() && b.is_empty()) || digests == 1, "equal sets take one digest, not {}", digests);
    }

    #[test]
    fn summaries_are_equal_where_the_sets_are(
        common in prop::collection::btree_set(0_u32..100_000, 0..1_000), more in 100_000_u32..200_000, bits in 0_u16..12,
    ) {
        let larger: BTreeSet<_> = common.iter().copied().chain([more]).collect();
        let [(a, first), (b, second)] = pair(&common, &larger);
        let position = Position::of_block(&block(more));
        let prefix = Prefix::of(&position, bits);
        prop_assert_ne!(first.summarize(&b, &prefix), second.summarize(&a, &prefix));
        for child in prefix.children().unwrap().iter().filter(|child| !child.contains(&position)) {
            prop_assert_eq!(first.summarize(&b, child), second.summarize(&a, child));
        }
    }
}

#[test]
fn up_to_256_entries_are_listed_and_more_are_summed() {
    for (count, listed) in [(256, true), (257, false)] {
        let [(a, _), (_, replicator)] = pair(&BTreeSet::new(), &(0..count).collect());
        let digest = replicator.summarize(&a, &Prefix::ALL);
        assert_eq!(matches!(digest, Digest::Entries(_)), listed);
        if let Digest::Children(buckets) = digest {
            assert_eq!(buckets.iter().map(|bucket| bucket.count).sum::<u32>(), count);
        }
    }
}

/// Digests asked of a peer that answers every one with sixteen sums that differ, `pace` after the other, and how long it went on.
fn descend(blocks: u32, count: u32, pace: Duration) -> (u64, Duration) {
    let [(_, mut asker), (peer, _)] = pair(&(0..blocks).collect(), &BTreeSet::new());
    let begin = Time::from_millis(200);
    asker.handle_timeout(begin);
    let (mut now, mut digests, mut waiting) = (begin, 0, Vec::new());
    loop {
        while let Some(output) = asker.poll_output() {
            if let Output::AskDigest { prefix, .. } = output {
                digests += 1;
                assert!(digests < 10_000, "it goes on and on");
                waiting.push(prefix);
            }
        }
        let Some(prefix) = waiting.pop() else { return (digests, now.since(begin)) };
        now = now + pace;
        let digest = Digest::Children([Bucket { count, sum: 1 }; 16]);
        asker.handle_input(now, Input::Digest { from: peer, prefix, digest });
    }
}

#[test]
fn a_peer_that_always_differs_ends_the_comparison_by_what_it_costs() {
    // Sixteen times as many at each of 64 levels: the comparison went on for ever, and eight of them left no place for others.
    let (digests, _) = descend(1_000, 1, Duration::from_micros(1));
    assert_eq!(digests, 4 * (1_000 + 16) + 64);
}

#[test]
fn a_peer_that_always_differs_ends_the_comparison_in_time() {
    let (digests, took) = descend(1_000, u32::MAX, Duration::from_millis(100));
    assert!(took <= Duration::from_secs(601), "{digests} digests in {took:?}");
}
