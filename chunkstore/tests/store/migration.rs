use std::fs;
use std::path::Path;

use bytes::Bytes;
use chunkstore::{Store, StoreConfig};
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
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
