use std::fs;

use chunkstore::{Store, StoreConfig, StoreError};
use tempfile::TempDir;

use super::{MIB, new_store, open};

#[test]
fn a_second_opening_says_who_has_the_folder() {
    let (folder, store) = new_store();
    let error = Store::open(folder.path(), &StoreConfig::new(MIB)).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }));
    let expected = format!("another imira-node uses {}; ", folder.path().display());
    assert!(error.to_string().starts_with(&expected), "{error}");
    drop(store);
    open(&folder);
}

#[test]
fn an_unknown_format_is_refused_by_its_number() {
    let (folder, store) = new_store();
    drop(store);
    fs::write(folder.path().join("format"), "7\n").unwrap();
    let error = Store::open(folder.path(), &StoreConfig::new(MIB)).unwrap_err();
    let expected = " holds a block store of format 7; this program reads format 2 and converts format 1";
    assert!(error.to_string().ends_with(expected), "{error}");
}

#[test]
fn a_folder_that_is_not_a_block_store_is_refused_and_left_alone() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("holiday.jpg"), b"somebody else's").unwrap();
    let error = Store::open(folder.path(), &StoreConfig::new(MIB)).unwrap_err();
    assert!(matches!(&error, StoreError::Format { found, .. } if found == "unknown"), "{error}");
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    let other = TempDir::new().unwrap();
    drop(rocksdb::DB::open(&options, other.path()).unwrap());
    let error = Store::open(other.path(), &StoreConfig::new(MIB)).unwrap_err();
    assert!(matches!(&error, StoreError::Format { found, .. } if found == "unknown"), "{error}");
    assert!(!other.path().join("format").exists());
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let error = Store::open(file.join("store"), &StoreConfig::new(MIB)).unwrap_err();
    assert!(matches!(&error, StoreError::Folder { path, .. } if *path == file.join("store")), "{error}");
}

/// RocksDB decides it when it is compiled (`docs/store.md`, "Costs"), and says so in its own log.
#[cfg(target_arch = "x86_64")]
#[test]
fn rocksdb_computes_checksums_in_hardware() {
    let (folder, _store) = new_store();
    let log = fs::read_to_string(folder.path().join("index/LOG")).unwrap();
    let line = log.lines().find(|line| line.contains("Fast CRC32 supported")).unwrap();
    assert!(line.ends_with("Fast CRC32 supported: Supported on x86"), "{line}");
}
