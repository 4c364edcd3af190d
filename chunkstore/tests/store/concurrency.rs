use std::sync::Barrier;
use std::thread;

use chunkstore::{PutOutcome, Store, StoreConfig, StoreError};
use tempfile::TempDir;

use super::{block, new_store, put, reference, used_by};

const THREADS: u8 = 8;

#[test]
fn of_many_puts_of_one_block_one_stores_it_and_all_references_stay() {
    let (_folder, store) = new_store();
    let (id, bytes) = block(1, 50_000);
    let outcomes = in_parallel(|number| put(&store, id, &bytes, &[reference(number)]).unwrap());
    assert_eq!(outcomes.iter().filter(|&&outcome| outcome == PutOutcome::Stored).count(), 1);
    assert_eq!(store.references(&id).unwrap().len(), usize::from(THREADS));
    assert_eq!((store.usage().block_bytes, store.usage().blocks), (50_000, 1));
}

#[test]
fn puts_across_the_quota_stop_at_it() {
    let folder = TempDir::new().unwrap();
    let store = Store::open(
        folder.path(),
        &StoreConfig { repair_reserve_bytes: 0, ..StoreConfig::new(4 * used_by(10_000, 1) + 5_000) },
    )
    .unwrap();
    let outcomes = in_parallel(|number| {
        let (id, bytes) = block(number.into(), 10_000);
        match put(&store, id, &bytes, &[reference(1)]) {
            Ok(_) => 1,
            Err(StoreError::Full { .. }) => 0,
            Err(error) => panic!("{error}"),
        }
    });
    assert_eq!(outcomes.iter().sum::<u64>(), 4);
    assert_eq!((store.usage().block_bytes, store.usage().blocks), (40_000, 4));
    assert_eq!(store.usage().used_bytes, 4 * used_by(10_000, 1));
    assert_eq!(store.list(None, 100).unwrap().len(), 4);
}

#[test]
fn puts_references_and_removals_of_the_same_blocks_leave_the_books_right() {
    let (_folder, store) = new_store();
    let blocks: Vec<_> = (0..3).map(|seed| block(seed, 6_000)).collect();
    let ids: Vec<_> = blocks.iter().map(|(id, _)| *id).collect();
    in_parallel(|number| {
        for round in 0..20 {
            let (id, bytes) = &blocks[(usize::from(number) + round) % 3];
            match number % 3 {
                0 => drop(put(&store, *id, bytes, &[reference(number)]).unwrap()),
                1 => drop(store.add_references(&ids, &[reference(number)]).unwrap()),
                _ => drop(store.remove(id).unwrap()),
            }
            assert!(store.read(id).unwrap().is_none_or(|read| read == bytes));
        }
    });
    let listed = store.list(None, 100).unwrap();
    assert_eq!(store.usage().blocks, listed.len() as u64);
    assert_eq!(store.usage().block_bytes, 6_000 * listed.len() as u64);
    for id in ids {
        assert_eq!(store.has(&id).unwrap(), store.read(&id).unwrap().is_some());
        assert!(store.has(&id).unwrap() || store.references(&id).unwrap().is_empty(), "no reference without a block");
    }
}

/// Runs `work` in all threads at once and returns what each gave.
fn in_parallel<T: Send>(work: impl Fn(u8) -> T + Sync) -> Vec<T> {
    let start = Barrier::new(THREADS.into());
    let run = &|number| {
        start.wait();
        work(number)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|number| scope.spawn(move || run(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
