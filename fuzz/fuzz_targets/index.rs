//! The index decoder: whatever the bytes, it answers with an index that encodes to the same bytes, or with an error.
#![no_main]

use chunkstore_block::{BlockId, ContentKey, Limits, Loader, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let id = BlockId::of(bytes);
    let Ok(loader) = Loader::new(ContentKey::from(id), bytes) else { return };
    let Ok(loaded) = loader.finish() else { return };
    for file in &loaded.index.files {
        let size = file.size();
        for range in [0..size, size / 3..size / 2, size..size] {
            let taken: u64 = loaded.index.file_parts(file, range.clone()).map(|part| u64::from(part.take)).sum();
            assert_eq!(taken, range.end - range.start);
        }
    }
    // Canonical form: what was read is written as it came.
    let again = encode(&loaded.index, &Limits::default()).expect("what was read can be written");
    assert_eq!(again.root.id, id);
});
