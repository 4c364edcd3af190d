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
    write_raw(&folder, "meta", b"format", &7_u32.to_be_bytes());
    let error = Store::open(folder.path(), &StoreConfig::new(MIB)).unwrap_err();
    assert!(error.to_string().ends_with(" holds a block store of format 7; this program reads format 1"), "{error}");
}

#[test]
fn a_database_that_is_not_a_block_store_is_refused() {
    let folder = TempDir::new().unwrap();
    write_raw(&folder, "default", b"somebody", b"else");
    let error = Store::open(folder.path(), &StoreConfig::new(MIB)).unwrap_err();
    assert!(matches!(&error, StoreError::Format { found, .. } if found == "unknown"), "{error}");
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let error = Store::open(file.join("store"), &StoreConfig::new(MIB)).unwrap_err();
    assert!(matches!(&error, StoreError::Folder { path, .. } if *path == file.join("store")), "{error}");
}

/// Writes into the database past the store, which is closed.
fn write_raw(folder: &TempDir, table: &str, key: &[u8], value: &[u8]) {
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    let tables = rocksdb::DB::list_cf(&options, folder.path()).unwrap_or_else(|_| vec!["default".to_owned()]);
    let db = rocksdb::DB::open_cf(&options, folder.path(), tables).unwrap();
    db.put_cf(db.cf_handle(table).unwrap(), key, value).unwrap();
}
