use chunkstore::Store;

use super::{block, flip_a_bit, new_store, open, put, reference};

#[test]
fn damaged_blocks_are_found_marked_and_told() {
    let (folder, store) = new_store();
    let blocks: Vec<_> = (0..10).map(|seed| block(seed, 50_000)).collect();
    for (id, bytes) in &blocks {
        put(&store, *id, bytes, &[reference(1)]).unwrap();
    }
    flip_a_bit(&folder, &blocks[4].1);
    for threads in [1, 4] {
        store.restart_scrub().unwrap();
        let scrubbed = store.scrub(u64::MAX, threads).unwrap();
        assert_eq!((scrubbed.blocks, scrubbed.bytes), (10, 500_000));
        assert_eq!(scrubbed.damaged, [blocks[4].0]);
        assert!(scrubbed.is_round_complete);
    }
    assert!(!store.has(&blocks[4].0).unwrap());
    flip_a_bit(&folder, &blocks[4].1); // back again: a bad cable
    store.scrub(u64::MAX, 1).unwrap();
    assert!(store.has(&blocks[4].0).unwrap());
    assert_eq!(store.usage().damaged_blocks, 0);
}

#[test]
fn a_scrub_goes_on_where_it_stopped_also_after_a_restart() {
    let (folder, store) = new_store();
    for seed in 0..10 {
        let (id, bytes) = block(seed, 50_000);
        put(&store, id, &bytes, &[reference(1)]).unwrap();
    }
    let step = |store: &Store| store.scrub(150_000, 1).unwrap();
    assert_eq!(step(&store).blocks, 3);
    assert_eq!(step(&store).blocks, 3);
    drop(store);
    let store = open(&folder);
    let rest = store.scrub(u64::MAX, 1).unwrap();
    assert_eq!((rest.blocks, rest.is_round_complete), (4, true));
    assert_eq!(store.scrub(u64::MAX, 1).unwrap().blocks, 10, "from the beginning");
}
