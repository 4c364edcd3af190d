use std::env;
use std::fs;
use std::io::Write;
use std::process::Command;

use chunkstore::{Deletion, Store, StoreConfig};
use tempfile::TempDir;

use super::{block, fill, new_store, open, put, reference, segments};

/// Copies a store as a power cut would leave it: the segments as they are, the index as it was last flushed.
fn crashed_copy(folder: &TempDir) -> TempDir {
    let copy = TempDir::new().unwrap();
    for part in ["segments", "index"] {
        fs::create_dir(copy.path().join(part)).unwrap();
        for entry in fs::read_dir(folder.path().join(part)).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, copy.path().join(part).join(path.file_name().unwrap())).unwrap();
        }
    }
    fs::copy(folder.path().join("format"), copy.path().join("format")).unwrap();
    copy
}

#[test]
fn what_the_index_never_wrote_is_read_from_the_segments() {
    let (folder, store) = new_store();
    let (kept, gone) = (block(1, 100_000), block(2, 100_000));
    put(&store, kept.0, &kept.1, &[reference(1), reference(2)]).unwrap();
    put(&store, gone.0, &gone.1, &[reference(1)]).unwrap();
    store.delete(Deletion { publication: reference(1), sequence: 3, at_seconds: 5, order: b"order".to_vec() }).unwrap();
    store.collect(100).unwrap();
    let copy = crashed_copy(&folder);
    let after = open(&copy);
    assert_eq!(after.read(&kept.0).unwrap(), Some(kept.1));
    assert_eq!(after.references(&kept.0).unwrap(), [reference(2)]);
    assert!(!after.has(&gone.0).unwrap());
    assert!(after.is_deleted(&reference(1)).unwrap());
    assert_eq!(after.usage(), store.usage());
}

#[test]
fn a_lost_index_is_built_again() {
    let (folder, store) = new_store();
    let blocks: Vec<_> = (0..20).map(|seed| block(seed, 10_000)).collect();
    for (id, bytes) in &blocks {
        put(&store, *id, bytes, &[reference(1)]).unwrap();
    }
    store.remove(&blocks[3].0).unwrap();
    super::reclaim_all(&store);
    let before = (store.usage(), store.list(None, 100).unwrap());
    drop(store);
    fs::remove_dir_all(folder.path().join("index")).unwrap();
    let store = open(&folder);
    assert_eq!(store.list(None, 100).unwrap(), before.1);
    assert_eq!(store.usage().blocks, before.0.blocks);
}

/// The last record is torn at every page, and at some bytes of its header: what was written before it stays, what is written after it is read.
#[test]
fn a_torn_record_is_passed_over() {
    let (folder, store) = new_store();
    let (first, last, next) = (block(1, 20_000), block(2, 20_000), block(3, 20_000));
    put(&store, first.0, &first.1, &[reference(1)]).unwrap();
    put(&store, last.0, &last.1, &[reference(1)]).unwrap();
    let copy = crashed_copy(&folder);
    let segment = segments(&copy).pop().unwrap();
    let whole = fs::read(&segment).unwrap();
    let (begin, end) = (7 * 4_096, 12 * 4_096); // behind two pages of headers and five of the first record; it has five, too
    for cut in [begin, begin + 1, begin + 75, begin + 76, begin + 4_096, begin + 3 * 4_096, end - 500] {
        let again = crashed_copy(&copy);
        let mut torn = whole.clone();
        torn[cut..].fill(0);
        fs::write(segments(&again).pop().unwrap(), torn).unwrap();
        let store = open(&again);
        assert_eq!(store.read(&first.0).unwrap().as_ref(), Some(&first.1), "{cut}");
        assert!(store.read(&last.0).unwrap().is_none(), "{cut}");
        put(&store, next.0, &next.1, &[reference(1)]).unwrap();
        let copy = crashed_copy(&again);
        let store = open(&copy);
        assert_eq!(store.read(&next.0).unwrap().as_ref(), Some(&next.1), "{cut}");
    }
}

/// Somebody stores a block whose bytes are a whole segment of records, and the record that holds it is damaged.
#[test]
fn records_inside_a_body_are_not_taken_for_records() {
    let (forged, store) = new_store();
    let (fake, bytes) = block(1, 5_000);
    put(&store, fake, &bytes, &[reference(1)]).unwrap();
    drop(store);
    let body = fs::read(segments(&forged).pop().unwrap()).unwrap();
    let (folder, store) = new_store();
    // The header of the real record is 124 bytes long: with so much padding the forged records lie on pages.
    let body = bytes::Bytes::from([vec![0; 4_096 - 124], body].concat());
    let id = chunkstore_block::BlockId::of(&body);
    put(&store, id, &body, &[reference(2)]).unwrap();
    let copy = crashed_copy(&folder);
    let segment = segments(&copy).pop().unwrap();
    let mut damaged = fs::read(&segment).unwrap();
    damaged[2 * 4_096] ^= 1; // behind the headers
    fs::write(&segment, damaged).unwrap();
    let store = open(&copy);
    assert_eq!(store.list(None, 10).unwrap(), []);
}

/// One bad sector in the first page of a segment loses nothing.
#[test]
fn a_segment_is_read_by_its_second_header() {
    let (folder, store) = new_store();
    let (id, bytes) = block(1, 20_000);
    put(&store, id, &bytes, &[reference(1)]).unwrap();
    for damaged in [0, 4_096] {
        let copy = crashed_copy(&folder);
        let segment = segments(&copy).pop().unwrap();
        let mut file = fs::read(&segment).unwrap();
        file[damaged..damaged + 4_096].fill(0xff);
        fs::write(&segment, file).unwrap();
        assert!(open(&copy).read(&id).unwrap().as_ref() == Some(&bytes), "{damaged}");
    }
}

/// A start that builds the index is killed when part of it has been written: the next one begins again.
#[test]
fn a_half_built_index_is_built_again() {
    let (folder, store) = new_store();
    let (id, bytes) = block(1, 20_000);
    put(&store, id, &bytes, &[reference(1)]).unwrap();
    drop(store);
    // The mark of one that is being built (`docs/store.md`, table `meta`).
    let index = folder.path().join("index");
    let tables = rocksdb::DB::list_cf(&rocksdb::Options::default(), &index).unwrap();
    let database = rocksdb::DB::open_cf(&rocksdb::Options::default(), &index, tables).unwrap();
    let blocks = database.cf_handle("blocks").unwrap();
    database.delete_cf(blocks, id.as_bytes()).unwrap();
    database.put_cf(database.cf_handle("meta").unwrap(), b"rebuilding", b"").unwrap();
    drop(database);
    assert!(open(&folder).read(&id).unwrap() == Some(bytes));
}

#[test]
fn a_clean_start_reads_no_records() {
    let folder = TempDir::new().unwrap();
    let store = Store::open(folder.path(), &StoreConfig::new(1 << 30)).unwrap();
    fill(&store, 0..20, 500_000);
    drop(store);
    let said = Command::new(env::current_exe().unwrap())
        .args(["--exact", OPENING, "--nocapture", "--test-threads=1"])
        .env(OPENING_FOLDER, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let words: Vec<_> = said.lines().find_map(|line| line.split_once(OPENED)).unwrap().1.split(' ').collect();
    let [read, blocks] = words[..] else { panic!("{said}") };
    let read: u64 = read.parse().unwrap();
    assert_eq!(blocks, "20");
    assert!((1..1_000_000).contains(&read), "{read} bytes were read to open a store of 10 MB");
}

const OPENING: &str = "replay::child_opens_a_store";
const OPENING_FOLDER: &str = "IMIRA_TEST_CHILD_OPENS";
const OPENED: &str = "opened: ";

/// Says how many bytes it has read to open a store, and how many blocks that has: other tests read in their process, too.
/// Does nothing when run as a test.
#[test]
fn child_opens_a_store() {
    let Some(folder) = env::var_os(OPENING_FOLDER) else { return };
    let before = bytes_read();
    let store = Store::open(folder, &StoreConfig::new(1 << 30)).unwrap();
    let read = bytes_read() - before;
    writeln!(std::io::stdout(), "{OPENED}{read} {}", store.usage().blocks).unwrap();
}

/// Bytes that this process has read by system calls.
fn bytes_read() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}
