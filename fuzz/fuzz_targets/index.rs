//! The index decoder, over whole trees of pages: whatever the blocks, it answers with an index that can be written and
//! read again, or with an error; and all ranges of its files hold.
#![no_main]

use chunkstore_block::{Limits, LoadedIndex, encode};
use fuzz::{Blocks, check_parts};
use libfuzzer_sys::fuzz_target;

/// An index may have many files; so many are looked at.
const MAX_FILES: usize = 20;

fuzz_target!(|bytes: &[u8]| {
    let Some((from, rest)) = bytes.split_first_chunk() else { return };
    let Some((to, rest)) = rest.split_first_chunk() else { return };
    let Some(blocks) = Blocks::parse(rest) else { return };
    let Ok(loaded) = blocks.load() else { return };
    check_ranges(&loaded, u64::from_be_bytes(*from), u64::from_be_bytes(*to));
    check_written_again(&blocks, &loaded);
});

fn check_ranges(loaded: &LoadedIndex, from: u64, to: u64) {
    for file in loaded.index.files.iter().take(MAX_FILES) {
        let size = file.size();
        let inside = from % size.max(1)..to % size.saturating_add(1);
        for range in [0..size, size / 3..size / 2, size..size, from..to, inside] {
            check_parts(&loaded.index, file, range);
        }
    }
}

fn check_written_again(blocks: &Blocks, loaded: &LoadedIndex) {
    let encoded = encode(&loaded.index, &Limits::default()).expect("what was read can be written");
    if loaded.pages.is_empty() {
        // Canonical form: what was read is written as it came.
        assert_eq!(encoded.root.id, blocks.root());
    }
    assert_eq!(Blocks::of(encoded).load().expect("what was written is read").index, loaded.index);
}
