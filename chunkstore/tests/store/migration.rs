use std::env;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use chunkstore::{Deletion, Room, Store, StoreConfig};
use chunkstore_block::{BlockId, PlatformFingerprint, PublicationId, Reference};
use tempfile::TempDir;

/// A store as version 0.1.0 wrote it (format 1): blocks of these lengths, some in the database's log, some in tables, some in blob files.
const LENGTHS: [usize; 6] = [1, 100, 4_095, 4_096, 20_000, 5_001];

#[test]
fn a_store_of_format_1_is_converted_with_everything_in_it() {
    let folder = unpacked("format-1");
    for _ in 0..2 {
        let store = Store::open(folder.path(), &StoreConfig::new(1 << 20)).unwrap();
        for length in LENGTHS {
            let bytes = body(length);
            let id = BlockId::of(&bytes);
            assert_eq!(store.read(&id).unwrap(), Some(bytes), "{length}");
            assert_eq!(store.references(&id).unwrap(), [reference(1), reference((length % 3) as u8 + 2)]);
        }
        // A seventh had no reference, an eighth was removed.
        assert_eq!(store.usage().blocks, LENGTHS.len() as u64);
    }
    let mut left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["format", "imira.lock", "index", "segments"]);
}

/// It is interrupted after part of the blocks have been taken over, and when only the old files are left to be removed.
#[test]
fn an_interrupted_conversion_goes_on() {
    let folder = unpacked("format-1");
    drop(Store::open(folder.path(), &StoreConfig::new(1 << 20)).unwrap());
    copy_folder(&fixture("format-1"), folder.path());
    drop(Store::open(folder.path(), &StoreConfig::new(1 << 20)).unwrap());
    copy_folder(&fixture("format-1"), folder.path());
    fs::rename(folder.path().join("CURRENT"), folder.path().join("CURRENT.converted")).unwrap();
    let store = Store::open(folder.path(), &StoreConfig::new(1 << 20)).unwrap();
    assert_eq!(store.usage().blocks, LENGTHS.len() as u64);
    assert!(!folder.path().join("IDENTITY").exists());
}

/// The disk fails when the conversion has been interrupted: what is left of the old store is not taken for nothing.
#[test]
fn an_old_store_that_cannot_be_read_is_an_error() {
    let folder = unpacked("format-1");
    drop(Store::open(folder.path(), &StoreConfig::new(1 << 20)).unwrap());
    copy_folder(&fixture("format-1"), folder.path());
    fs::write(folder.path().join("MANIFEST-000014"), b"nonsense").unwrap();
    assert!(Store::open(folder.path(), &StoreConfig::new(1 << 20)).is_err());
}

/// One bad block does not keep the others from being converted.
#[test]
fn a_damaged_block_of_format_1_is_left_out() {
    let folder = unpacked("format-1");
    let blobs = folder.path().join("000009.blob");
    let mut bytes = fs::read(&blobs).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&blobs, bytes).unwrap();
    let store = Store::open(folder.path(), &StoreConfig::new(1 << 20)).unwrap();
    assert_eq!(store.usage().blocks, LENGTHS.len() as u64 - 1);
}

/// A store as this format's first version wrote it, killed with part of its records not yet in the index: blocks of these lengths,
/// the third removed, publication 5 deleted.
#[test]
fn a_store_of_format_2_is_opened_with_everything_in_it() {
    let folder = unpacked("format-2");
    for _ in 0..2 {
        let store = Store::open(folder.path(), &StoreConfig::new(1 << 20)).unwrap();
        for (place, length) in LENGTHS.into_iter().enumerate() {
            let bytes = body(length);
            let id = BlockId::of(&bytes);
            let expected = Some(bytes).filter(|_| place != 2);
            assert!(store.read(&id).unwrap() == expected, "{length}");
            let references: &[_] = if place == 2 { &[] } else { &[reference(1), reference(place as u8 + 10)] };
            assert_eq!(store.references(&id).unwrap(), references);
        }
        let order =
            Deletion { publication: reference(5), sequence: 77, at_seconds: 1_795_000_000, order: b"order".into() };
        assert_eq!(store.deletions(&order.publication.platform, 0, 10).unwrap(), [order]);
    }
}

/// Writes that fixture when `IMIRA_WRITE_FIXTURE` is set. Not to be done again once a version with the format is released.
#[test]
fn write_the_fixture_of_format_2() {
    if env::var_os("IMIRA_WRITE_FIXTURE").is_none() {
        return;
    }
    let (folder, fixture) = (TempDir::new().unwrap(), fixture("format-2"));
    for half in [0..3, 3..6] {
        let store = Store::open(folder.path(), &StoreConfig::new(1 << 20)).unwrap();
        for place in half.clone() {
            let bytes = body(LENGTHS[place]);
            let id = BlockId::of(&bytes);
            store.put(id, bytes, &[reference(1)], Room::Upload).unwrap();
            store.add_references(&[id], &[reference(place as u8 + 10)]).unwrap();
        }
        if half.start == 3 {
            store.remove(&BlockId::of(&body(LENGTHS[2]))).unwrap();
            let (publication, order) = (reference(5), b"order".to_vec());
            store.delete(Deletion { publication, sequence: 77, at_seconds: 1_795_000_000, order }).unwrap();
            copy_store(folder.path(), &fixture);
        }
    }
}

/// What matters of a store, without RocksDB's logs of what it does and without the segment's zeros.
fn copy_store(from: &Path, to: &Path) {
    for part in ["segments", "index"] {
        fs::create_dir_all(to.join(part)).unwrap();
        for entry in fs::read_dir(from.join(part)).unwrap() {
            let name = entry.unwrap().file_name();
            let text = name.to_string_lossy();
            if !["LOG", "OPTIONS", "LOCK"].iter().any(|other| text.starts_with(other)) {
                let mut bytes = fs::read(from.join(part).join(&name)).unwrap();
                let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                bytes.truncate(if part == "segments" { end.next_multiple_of(4_096) } else { bytes.len() });
                fs::write(to.join(part).join(&name), bytes).unwrap();
            }
        }
    }
    fs::copy(from.join("format"), to.join("format")).unwrap();
}

fn body(length: usize) -> Bytes {
    (0..length).map(|place| ((place * place) as u64 + length as u64) as u8).collect()
}

fn reference(number: u8) -> Reference {
    Reference {
        platform: PlatformFingerprint::from_bytes([number; 32]),
        publication: PublicationId::from_bytes([number; 16]),
    }
}

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store/fixtures").join(name)
}

fn unpacked(name: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    copy_folder(&fixture(name), folder.path());
    folder
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir(&target).unwrap();
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
