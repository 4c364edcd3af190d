//! Converts a store of format 1: one RocksDB database in the store's folder, bodies in its blob files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chunkstore_block::BlockId;
use rocksdb::{DB, Direction, IteratorMode, Options};

use super::record::{ID_BYTES, reference};
use super::segments::sync_folder;
use super::{Store, StoreError};

/// Tables of format 1: block id -> body; block id, reference -> nothing; block id -> length; the format's number.
const BLOCKS: &str = "blocks";
const REFERENCES: &str = "references";
const LENGTHS: &str = "lengths";
const META: &str = "meta";

/// The file by which a folder is a RocksDB database, and its name once everything is converted.
const CURRENT: &str = "CURRENT";
const CONVERTED: &str = "CURRENT.converted";

const REPORT_EVERY: Duration = Duration::from_secs(10);

/// Whether a store of format 1 is in the folder.
pub(super) fn is_format_1(path: &Path) -> bool {
    let tables = DB::list_cf(&Options::default(), path).unwrap_or_default();
    [BLOCKS, REFERENCES, LENGTHS, META].iter().all(|table| tables.iter().any(|found| found == table))
}

/// Takes over what a store of format 1 in the same folder still has, and removes it. Begun again, it goes on.
pub(super) fn finish(path: &Path, store: &Store) -> Result<(), StoreError> {
    if is_format_1(path) {
        take_over(path, store)?;
        rename(&path.join(CURRENT), &path.join(CONVERTED))?;
    }
    if path.join(CONVERTED).exists() { remove_old(path) } else { Ok(()) }
}

fn take_over(path: &Path, store: &Store) -> Result<(), StoreError> {
    let old = DB::open_cf(&Options::default(), path, [BLOCKS, REFERENCES, LENGTHS, META])?;
    let table = |name| old.cf_handle(name).ok_or_else(|| missing(path));
    let (blocks, references) = (table(BLOCKS)?, table(REFERENCES)?);
    tracing::info!(path = %path.display(), "a block store of format 1 is converted; this reads all of it");
    let (mut count, mut bytes, mut reported) = (0_u64, 0_u64, Instant::now());
    for entry in old.iterator_cf(blocks, IteratorMode::Start) {
        let (key, body) = entry?;
        let id = BlockId::from_bytes(key.as_ref().try_into().map_err(|_| missing(path))?);
        let mut kept_for = Vec::new();
        for entry in old.iterator_cf(references, IteratorMode::From(&key, Direction::Forward)) {
            let (reference_key, _) = entry?;
            let Some(rest) = reference_key.strip_prefix(&*key) else { break };
            debug_assert_eq!(reference_key.len() - rest.len(), ID_BYTES);
            kept_for.push(reference(rest.try_into().map_err(|_| missing(path))?));
        }
        if BlockId::of(&body) != id {
            tracing::error!(block = %id, "a block is damaged and is left out");
        } else if kept_for.is_empty() {
            tracing::warn!(block = %id, "a block that nothing refers to is left out");
        } else {
            (count, bytes) = (count + 1, bytes + body.len() as u64);
            store.adopt(id, &body, &kept_for)?;
        }
        if reported.elapsed() >= REPORT_EVERY {
            reported = Instant::now();
            tracing::info!(blocks = count, bytes, "converting the block store");
        }
    }
    tracing::info!(blocks = count, bytes, "the block store is converted");
    Ok(())
}

/// Removes the old database's files; the one that tells of them last.
fn remove_old(path: &Path) -> Result<(), StoreError> {
    let files = fs::read_dir(path).map_err(|source| StoreError::folder(path, source))?;
    for file in files {
        let file: PathBuf = file.map_err(|source| StoreError::folder(path, source))?.path();
        if file.file_name().and_then(|name| name.to_str()).is_some_and(is_old_file) {
            fs::remove_file(&file).map_err(|source| StoreError::folder(&file, source))?;
        }
    }
    let last = path.join(CONVERTED);
    fs::remove_file(&last).map_err(|source| StoreError::folder(&last, source))?;
    sync_folder(path)
}

/// The names that RocksDB gives its files.
fn is_old_file(name: &str) -> bool {
    const NAMES: [&str; 3] = ["IDENTITY", "LOCK", "LOG"];
    const PREFIXES: [&str; 3] = ["LOG.old.", "MANIFEST-", "OPTIONS-"];
    const SUFFIXES: [&str; 4] = [".sst", ".blob", ".log", ".dbtmp"];
    NAMES.contains(&name)
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(|source| StoreError::folder(from, source))?;
    from.parent().map_or(Ok(()), sync_folder)
}

fn missing(path: &Path) -> StoreError {
    StoreError::Format { path: path.to_owned(), found: "1, but damaged".to_owned(), expected: super::folder::FORMAT }
}
