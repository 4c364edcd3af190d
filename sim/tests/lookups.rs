//! What an upload costs in lookups.

use chunkstore_block::BlockId;
use dht_core::{Position, Regions, Ring, Time};
use std::time::Duration;

#[test]
fn placement_of_ten_thousand_blocks_takes_at_most_200_lookups() {
    for network in 0..5_u64 {
        let nodes: Vec<_> = (0..1_000_u64)
            .map(|node| Position::of_peer(&[network.to_be_bytes(), node.to_be_bytes()].concat()))
            .collect();
        let mut ring = Ring::default();
        nodes.iter().for_each(|node| assert!(ring.insert(*node)));
        let local = nodes[0];
        let mut regions = Regions::new(local, 4, Duration::from_secs(60));
        let mut lookups = 0;
        for block in 0..10_000_u64 {
            let block = Position::of_block(&BlockId::of(&block.to_be_bytes()));
            if regions.find(Time::ZERO, &block).is_none() {
                lookups += 1;
                let mut named = ring.closest(&block, 21);
                named.retain(|node| *node != local);
                named.truncate(20);
                regions.learn(Time::ZERO, &block, &named);
            }
            let named = regions.find(Time::ZERO, &block).unwrap();
            let mut known = Ring::default();
            named.iter().for_each(|node| _ = known.insert(*node));
            assert_eq!(known.closest(&block, 2), ring.closest(&block, 2));
        }
        assert!(lookups <= 200, "{lookups} lookups in network {network}");
    }
}
