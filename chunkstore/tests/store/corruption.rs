use std::fs;
use std::path::PathBuf;

use chunkstore::{PutOutcome, StoreError};
use tempfile::TempDir;

use super::{block, new_store, open};

#[test]
fn a_flipped_bit_on_disk_is_an_error_and_never_wrong_bytes() {
    let (folder, store) = new_store();
    let (damaged, whole) = (block(1, 100_000), block(2, 100_000));
    for (id, bytes) in [&damaged, &whole] {
        store.put(*id, bytes, &[]).unwrap();
    }
    drop(store);
    drop(open(&folder)); // recovery moves the bodies from the log to a blob file
    flip_a_bit(&folder, &damaged.1);
    let store = open(&folder);
    let error = store.read(&damaged.0).unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt { id, .. } if *id == damaged.0), "{error}");
    assert_eq!(store.read(&whole.0).unwrap(), Some(whole.1));
    // A put that brings the right bytes mends it, and counts nothing twice.
    let usage = store.usage();
    assert_eq!(store.put(damaged.0, &damaged.1, &[]).unwrap(), PutOutcome::Had);
    assert_eq!(store.read(&damaged.0).unwrap(), Some(damaged.1));
    assert_eq!(store.usage(), usage);
}

#[test]
fn a_lost_blob_file_is_an_error_and_not_an_absent_block() {
    let (folder, store) = new_store();
    let (id, bytes) = block(1, 100_000);
    store.put(id, &bytes, &[]).unwrap();
    drop(store);
    drop(open(&folder));
    for path in blob_files(&folder) {
        fs::remove_file(path).unwrap();
    }
    let opened = chunkstore::Store::open(folder.path(), &chunkstore::StoreConfig::new(1 << 20));
    match opened {
        Ok(store) => assert!(store.read(&id).is_err()),
        Err(error) => assert!(matches!(error, StoreError::Database(_)), "{error}"),
    }
}

/// Flips a bit in the middle of where `body` lies in a blob file.
fn flip_a_bit(folder: &TempDir, body: &[u8]) {
    let mut flipped = 0;
    for path in blob_files(folder) {
        let mut bytes = fs::read(&path).unwrap();
        if let Some(start) = bytes.windows(64).position(|window| window == &body[..64]) {
            bytes[start + body.len() / 2] ^= 1;
            fs::write(&path, bytes).unwrap();
            flipped += 1;
        }
    }
    assert_eq!(flipped, 1, "the body lies in exactly one blob file");
}

fn blob_files(folder: &TempDir) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "blob")).collect()
}
