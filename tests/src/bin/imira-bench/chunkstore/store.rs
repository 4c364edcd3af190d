//! Runs of the store. Each has a store of its own, in the folder `store`, made before the clock starts.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Result, anyhow, ensure};
use chunkstore::Store;

use super::adapter;
use super::pool::{Block, Pool};
use crate::measure::{Run, Stopwatch, proc_value, settle};

/// Writers where only the result counts.
const FILLERS: usize = 16;

/// Puts the pool into a new store. The wall clock stops at the last acknowledgement, the CPU clock when the store is closed, since
/// what a store puts off has to be paid too.
pub(super) fn put(folder: &Path, pool: &Pool, writers: usize) -> Result<Run> {
    let path = path(folder);
    let store = adapter::open(&path)?;
    settle(folder)?;
    let watch = Stopwatch::start();
    put_all(&store, pool.blocks(), writers)?;
    let seconds = watch.seconds();
    drop(store);
    let run = Run { seconds, ..watch.stop(pool.bytes()) };
    remove(folder)?;
    Ok(run)
}

/// Bytes that this process had written to disk for the pool, after the store has been closed, opened and closed: opening
/// makes a store write properly what it had in a log only.
pub(super) fn bytes_written(folder: &Path, pool: &Pool) -> Result<u64> {
    let path = path(folder);
    let store = adapter::open(&path)?;
    let before = proc_value("io", "write_bytes")?;
    put_all(&store, pool.blocks(), FILLERS)?;
    drop(store);
    drop(adapter::open(&path)?);
    settle(folder)?;
    let written = proc_value("io", "write_bytes")? - before;
    remove(folder)?;
    Ok(written)
}

/// A store with the pool, opened anew, so that no body is in a buffer of its own.
pub(super) fn filled(folder: &Path, pool: &Pool) -> Result<Store> {
    let path = path(folder);
    let store = adapter::open(&path)?;
    put_all(&store, pool.blocks(), FILLERS)?;
    drop(store);
    settle(folder)?;
    adapter::open(&path)
}

pub(super) fn read(store: &Store, pool: &Pool, order: &[usize]) -> Result<Run> {
    let watch = Stopwatch::start();
    for &place in order {
        let block = &pool.blocks()[place];
        let body = adapter::read(store, &block.id)?;
        ensure!(body.len() == block.body.len(), "a block of another length was read");
    }
    Ok(watch.stop(pool.bytes()))
}

pub(super) fn scrub(store: &Store, pool: &Pool) -> Result<Run> {
    let watch = Stopwatch::start();
    let bytes = adapter::scrub(store)?;
    ensure!(bytes == pool.bytes(), "the scrub has read {bytes} bytes");
    Ok(watch.stop(pool.bytes()))
}

fn put_all(store: &Store, blocks: &[Block], writers: usize) -> Result<()> {
    in_parallel(writers, blocks.len(), |place| adapter::put(store, blocks[place].id, &blocks[place].body))
}

/// Calls `work` with each of the numbers below `count`, by so many threads.
pub(super) fn in_parallel(threads: usize, count: usize, work: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    let worker = || loop {
        match next.fetch_add(1, Ordering::Relaxed) {
            number if number < count => work(number)?,
            _ => return Ok(()),
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow!("a thread panicked"))?)
    })
}

pub(super) fn remove(folder: &Path) -> Result<()> {
    fs::remove_dir_all(path(folder))?;
    settle(folder)
}

fn path(folder: &Path) -> PathBuf {
    folder.join("store")
}
