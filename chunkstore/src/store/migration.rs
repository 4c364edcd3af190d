//! Converts a store of format 1: one RocksDB database in the store's folder, bodies in its blob files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chunkstore_block::{BlockId, Reference};
use rocksdb::{ColumnFamily, DB, Direction, ErrorKind, IteratorMode, Options};

use super::record::reference;
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

/// Whether a store of format 1 is in the folder. What cannot be read is an error: it is no sign that nothing is there.
pub(super) fn is_format_1(path: &Path) -> Result<bool, StoreError> {
    if !is_database(path)? {
        return Ok(false);
    }
    let tables = DB::list_cf(&Options::default(), path)?;
    Ok([BLOCKS, REFERENCES, LENGTHS, META].iter().all(|table| tables.iter().any(|found| found == table)))
}

fn is_database(path: &Path) -> Result<bool, StoreError> {
    let current = path.join(CURRENT);
    current.try_exists().map_err(|source| StoreError::folder(&current, source))
}

/// Takes over what a store of format 1 in the same folder still has, and removes it. Begun again, it goes on.
pub(super) fn finish(path: &Path, store: &Store) -> Result<(), StoreError> {
    // In a folder of ours it can be nothing else, whatever can still be read of it.
    if is_database(path)? {
        take_over(path, store)?;
        rename(&path.join(CURRENT), &path.join(CONVERTED))?;
    }
    if path.join(CONVERTED).exists() { remove_old(path) } else { Ok(()) }
}

fn take_over(path: &Path, store: &Store) -> Result<(), StoreError> {
    let old = DB::open_cf(&Options::default(), path, [BLOCKS, REFERENCES, LENGTHS, META])?;
    let table = |name| old.cf_handle(name).ok_or_else(|| missing(path));
    let (blocks, references, lengths) = (table(BLOCKS)?, table(REFERENCES)?, table(LENGTHS)?);
    tracing::info!(path = %path.display(), "a block store of format 1 is converted; this reads all of it");
    let (mut count, mut bytes, mut reported) = (0_u64, 0_u64, Instant::now());
    for entry in old.iterator_cf(lengths, IteratorMode::Start) {
        let (key, _) = entry?;
        let id = BlockId::from_bytes(key.as_ref().try_into().map_err(|_| missing(path))?);
        let kept_for = kept_for(&old, references, &key, path)?;
        match old.get_cf(blocks, &key) {
            _ if kept_for.is_empty() => tracing::warn!(block = %id, "a block that nothing refers to is left out"),
            Ok(Some(body)) if BlockId::of(&body) == id => {
                (count, bytes) = (count + 1, bytes + body.len() as u64);
                store.adopt(id, &body, &kept_for)?;
            }
            Ok(_) => tracing::error!(block = %id, "a block is damaged and is left out"),
            Err(error) if error.kind() == ErrorKind::Corruption => {
                tracing::error!(block = %id, %error, "a block is damaged and is left out");
            }
            Err(error) => return Err(error.into()),
        }
        if reported.elapsed() >= REPORT_EVERY {
            reported = Instant::now();
            tracing::info!(blocks = count, bytes, "converting the block store");
        }
    }
    tracing::info!(blocks = count, bytes, "the block store is converted");
    Ok(())
}

/// The references of a block.
fn kept_for(old: &DB, table: &ColumnFamily, block: &[u8], path: &Path) -> Result<Vec<Reference>, StoreError> {
    let mut kept_for = Vec::new();
    for entry in old.iterator_cf(table, IteratorMode::From(block, Direction::Forward)) {
        let (key, _) = entry?;
        let Some(rest) = key.strip_prefix(block) else { break };
        kept_for.push(reference(rest.try_into().map_err(|_| missing(path))?));
    }
    Ok(kept_for)
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
