//! How many gets per second one [`Cache`] answers, by the number of threads that ask, while nobody writes and while a
//! thread inserts blocks that push others out. The figures in `docs/store.md` are from here:
//! `cargo build --workspace --examples`, then `examples/cache_gets` in the target folder.

#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chunkstore::Cache;
use chunkstore_block::{BlockId, MAX_BLOCK_BYTES};

/// Blocks in the cache: 256 MiB, the default of a node.
const BLOCKS: u32 = 256;
const ROUND: Duration = Duration::from_secs(1);

fn main() {
    println!("threads  inserts/s  million gets/s");
    for writes in [false, true] {
        for threads in [1, 2, 8] {
            measure(threads, writes);
        }
    }
}

fn measure(threads: u64, writes: bool) {
    let cache = Cache::new(u64::from(BLOCKS) * MAX_BLOCK_BYTES as u64);
    let ids: Vec<_> = (0..BLOCKS).map(id).collect();
    for id in &ids {
        cache.insert(*id, block());
    }
    let (stop, begin) = (AtomicBool::new(false), Barrier::new(threads as usize + 1));
    let (gets, inserts) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for offset in 0..threads as usize {
            let (cache, ids, stop, begin, gets) = (&cache, &ids, &stop, &begin, &gets);
            scope.spawn(move || {
                begin.wait();
                gets.fetch_add(get_until(cache, ids, offset, stop), Ordering::Relaxed);
            });
        }
        if writes {
            scope.spawn(|| inserts.store(insert_until(&cache, &stop), Ordering::Relaxed));
        }
        begin.wait();
        std::thread::sleep(ROUND);
        stop.store(true, Ordering::Relaxed);
    });
    let millions = gets.into_inner() as f64 / ROUND.as_secs_f64() / 1e6;
    println!("{threads:7}  {:9}  {millions:14.1}", inserts.into_inner());
}

fn get_until(cache: &Cache, ids: &[BlockId], offset: usize, stop: &AtomicBool) -> u64 {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..64 {
            black_box(cache.get(&ids[(offset + count as usize) % ids.len()]));
            count += 1;
        }
    }
    count
}

/// New blocks, each of which pushes one out.
fn insert_until(cache: &Cache, stop: &AtomicBool) -> u64 {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        cache.insert(id(BLOCKS + count), block());
        count += 1;
    }
    u64::from(count)
}

fn id(number: u32) -> BlockId {
    BlockId::of(&number.to_be_bytes())
}

/// Touched memory of its own, as a block that was read.
fn block() -> Bytes {
    vec![7; MAX_BLOCK_BYTES].into()
}
