//! The reference: one plain file.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use chunkstore_block::MAX_BLOCK_BYTES;
use rustix::fs::{FallocateFlags, fallocate};
use sha2::{Digest as _, Sha256};

use super::pool::Pool;
use crate::measure::{Run, Stopwatch, settle};

/// Appends each block of the pool to a new preallocated file and syncs it before the next one.
pub(super) fn append(folder: &Path, pool: &Pool) -> Result<Run> {
    let path = path(folder);
    let mut file = File::create_new(&path)?;
    fallocate(&file, FallocateFlags::empty(), 0, pool.bytes())?;
    settle(folder)?;
    let watch = Stopwatch::start();
    for block in pool.blocks() {
        file.write_all(&block.body)?;
        file.sync_data()?;
    }
    let run = watch.stop(pool.bytes());
    drop(file);
    fs::remove_file(&path)?;
    settle(folder)?;
    Ok(run)
}

/// A file with all blocks of a pool one after the other, in the page cache.
pub(super) struct PlainFile {
    file: File,
    offsets: Vec<u64>,
}

impl PlainFile {
    pub(super) fn write(folder: &Path, pool: &Pool) -> Result<Self> {
        let mut file = File::options().read(true).write(true).create_new(true).open(path(folder))?;
        let mut offsets = Vec::with_capacity(pool.blocks().len());
        let mut end = 0;
        for block in pool.blocks() {
            file.write_all(&block.body)?;
            offsets.push(end);
            end += block.body.len() as u64;
        }
        settle(folder)?;
        Ok(Self { file, offsets })
    }

    /// Reads each block into the same buffer and compares its hash.
    pub(super) fn read_and_hash(&self, pool: &Pool, order: &[usize]) -> Result<Run> {
        let mut buffer = vec![0; MAX_BLOCK_BYTES];
        let watch = Stopwatch::start();
        for &place in order {
            let block = &pool.blocks()[place];
            let body = &mut buffer[..block.body.len()];
            self.file.read_exact_at(body, self.offsets[place])?;
            ensure!(Sha256::digest(body)[..] == block.id.as_bytes()[..], "the plain file holds other bytes");
        }
        Ok(watch.stop(pool.bytes()))
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join("plain")
}

/// Hashes the bodies where they are.
pub(super) fn hash(pool: &Pool) -> Run {
    let watch = Stopwatch::start();
    for block in pool.blocks() {
        std::hint::black_box(Sha256::digest(&block.body));
    }
    watch.stop(pool.bytes())
}
