//! The index format from outside: what is written is read again, and nothing else is.

#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy's own exception ends at helpers of tests

use std::collections::BTreeMap;
use std::ops::Range;

use chunkstore_block::{
    BlockId, Encoded, File, Fragment, Index, IndexBuilder, IndexError, Limits, LoadedIndex, Loader, MAX_LEVEL, Part,
    Rendition, RenditionKind, Run, encode,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index as Pick;

/// Pages this small make trees of three levels and more from a few hundred entries.
const SMALL: Limits = Limits { page_bytes: 700 };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read_again(index in indexes(), page_bytes in prop::sample::select(vec![700, 2_000, 1 << 20])) {
        let encoded = encode(&index, &Limits { page_bytes }).unwrap();
        prop_assert!(encoded.root.bytes.len() <= page_bytes);
        prop_assert!(encoded.pages.iter().all(|page| page.bytes.len() <= page_bytes));
        let loaded = load(&encoded).unwrap();
        prop_assert_eq!(&loaded.index, &index);
        prop_assert_eq!(loaded.key.block_id(), encoded.root.id);
        let mut pages: Vec<_> = encoded.pages.iter().map(|page| page.id).collect();
        pages.sort();
        prop_assert_eq!(loaded.pages, pages);
    }

    #[test]
    fn a_range_is_what_a_naive_reader_takes(index in indexes(), file in any::<Pick>(), from in any::<Pick>(), to in any::<Pick>()) {
        prop_assume!(!index.files.is_empty());
        let file = file.get(&index.files);
        let ends = file.size() as usize + 3;
        let range = from.index(ends) as u64..to.index(ends) as u64;
        let parts: Vec<_> = index.file_parts(file, range.clone()).collect();
        prop_assert_eq!(parts, naive_parts(&index, file, range));
    }

    #[test]
    fn the_same_content_always_gives_the_same_bytes(index in indexes(), page_bytes in prop::sample::select(vec![700, 1 << 20])) {
        let limits = Limits { page_bytes };
        let encoded = encode(&index, &limits).unwrap();
        let read = load(&encoded).unwrap().index;
        for again in [index.clone(), rebuilt_backwards(&index), read] {
            prop_assert_eq!(&encode(&again, &limits).unwrap(), &encoded);
        }
    }

    /// The pieces are the overlapping blocks and no others, and all but the two at the ends are whole.
    #[test]
    fn a_range_at_any_depth_has_a_surplus_at_its_ends_only(
        index in indexes(), page_bytes in prop::sample::select(vec![300, 700, 1 << 20]),
        file in any::<Pick>(), from in any::<Pick>(), to in any::<Pick>(),
    ) {
        prop_assume!(!index.files.is_empty());
        // So that 300 bytes are room enough for an index block.
        let index = Index { renditions: Vec::new(), ..index };
        let encoded = encode(&index, &Limits { page_bytes }).unwrap();
        prop_assert!(page_bytes > 300 || index.fragments.len() < 60 || levels(&encoded).0 >= 2, "three levels");
        let read = load(&encoded).unwrap().index;
        let file = file.get(&read.files);
        let ends = file.size() as usize + 3;
        let range = from.index(ends) as u64..to.index(ends) as u64;
        let parts: Vec<_> = read.file_parts(file, range.clone()).collect();
        prop_assert_eq!(&parts, &naive_parts(&index, file, range));
        prop_assert!(parts.iter().skip(1).all(|part| part.skip == 0));
        prop_assert!(parts.iter().rev().skip(1).all(|part| part.skip + part.take == part.block_length));
    }

    #[test]
    fn a_changed_byte_never_makes_another_index_that_is_written_differently(
        index in indexes(), block in any::<Pick>(), place in any::<Pick>(), flip in 1..=255_u8,
    ) {
        let encoded = encode(&index, &SMALL).unwrap();
        let block = block.index(encoded.pages.len() + 1);
        let changed = with_changed_byte(encoded, block, place, flip);
        if let Ok(loaded) = load(&changed) {
            // It says something else, truthfully. Then it is the one way to say so.
            prop_assert_eq!(encode(&loaded.index, &SMALL).unwrap().root.id, changed.root.id);
        }
    }

    #[test]
    fn any_bytes_are_refused_or_read_without_a_panic(bytes in vec(any::<u8>(), 0..300)) {
        prop_assert!(Loader::new(BlockId::of(&bytes), &bytes).is_err());
    }
}

#[test]
fn three_levels_and_more_are_read() {
    let index = numbered_index(2_000, 300);
    let encoded = encode(&index, &SMALL).unwrap();
    let (fragments, files) = levels(&encoded);
    assert!((2..=u64::from(MAX_LEVEL)).contains(&fragments) && files >= 1, "levels {fragments} and {files}");
    assert_eq!(load(&encoded).unwrap().index, index);
}

#[test]
fn lists_are_inline_where_they_fit_and_the_fragments_make_way_first() {
    let at = |fragments, files| levels(&encode(&numbered_index(fragments, files), &SMALL).unwrap());
    assert_eq!(at(0, 0), (0, 0));
    assert_eq!(at(10, 3), (0, 0));
    assert_eq!(at(100, 3), (1, 0));
    assert_eq!(at(100, 50), (1, 1));
    let no_fragments = Index { fragments: Vec::new().into(), files: empty_files(100), ..numbered_index(0, 0) };
    assert_eq!(levels(&encode(&no_fragments, &SMALL).unwrap()), (0, 1));
}

#[test]
fn what_fits_in_no_tree_is_refused() {
    let error = encode(&numbered_index(100, 0), &Limits { page_bytes: 60 }).unwrap_err();
    assert!(matches!(error, IndexError::TooLong { field: "page", limit: 60, .. }), "{error}");
    let error = encode(&numbered_index(0, 0), &Limits { page_bytes: 50 }).unwrap_err();
    assert!(matches!(error, IndexError::TooLong { field: "index", limit: 50, .. }), "{error}");
}

#[test]
fn a_fragment_is_listed_once_and_consecutive_orders_are_one_run() {
    let mut builder = IndexBuilder::new();
    let ids: Vec<_> = (0..4_u8).map(|number| BlockId::of(&[number])).collect();
    let orders: Vec<_> = ids.iter().map(|id| builder.push_fragment(*id, 10).unwrap()).collect();
    assert_eq!(orders, [1, 2, 3, 4]);
    assert_eq!(builder.push_fragment(ids[1], 10), Ok(2));
    let error = builder.push_fragment(ids[1], 11).unwrap_err();
    assert_eq!(error, IndexError::TwoLengths { id: ids[1], first: 10, second: 11 });
    builder.add_file("b.mp4", "video/mp4", [4, 1, 2, 3, 3]).unwrap();
    builder.add_file("a", "text/plain", []).unwrap();
    let index = builder.finish([0; 32], 0, Vec::new()).unwrap();
    let runs: Vec<_> = index.file("b.mp4").unwrap().runs.iter().map(|run| (run.first_order, run.blocks)).collect();
    assert_eq!(runs, [(4, 1), (1, 3), (3, 1)]);
    assert_eq!(index.file("b.mp4").unwrap().size(), 50);
    assert_eq!(index.file("a").unwrap().size(), 0);
    assert_eq!(index.file("c"), None);
}

#[test]
fn what_the_format_does_not_allow_is_refused_by_the_writer() {
    let refused = |change: fn(&mut Index)| {
        let mut index = numbered_index(10, 3);
        change(&mut index);
        encode(&index, &Limits::default()).unwrap_err()
    };
    let first_run = |change: fn(&mut Run)| {
        let mut index = numbered_index(10, 3);
        change(&mut index.files[0].runs[0]);
        encode(&index, &Limits::default()).unwrap_err()
    };
    assert!(matches!(refused(|i| i.files.swap(0, 1)), IndexError::Unsorted { .. }));
    assert!(matches!(refused(|i| i.files[1] = i.files[0].clone()), IndexError::Unsorted { .. }));
    assert!(matches!(refused(|i| i.files[0].media_type = "a b".into()), IndexError::MediaType(_)));
    assert!(matches!(refused(|i| i.fragments = vec![i.fragments[0]; 10].into()), IndexError::RepeatedFragment(_)));
    assert!(matches!(first_run(|run| run.blocks = 11), IndexError::Run { .. }));
    assert!(matches!(first_run(|run| run.first_order = u32::MAX), IndexError::Run { .. }));
    assert!(matches!(first_run(|run| run.bytes += 1), IndexError::RunBytes { .. }));
    assert!(matches!(first_run(|run| run.first_order = 0), IndexError::Zero { field: "run.first_order" }));
    assert!(matches!(first_run(|run| run.blocks = 0), IndexError::Zero { field: "run.blocks" }));
    assert!(matches!(refused(|i| i.renditions = vec![rendition(0); 65]), IndexError::Limit { .. }));
    assert!(matches!(refused(|i| i.renditions[0].name = "n".repeat(65)), IndexError::Limit { .. }));
    assert!(matches!(refused(|i| i.renditions[0].playlist = "/p".into()), IndexError::Path { .. }));
    let length = |length| vec![Fragment { id: BlockId::of(b""), length }].into_iter().collect();
    for wrong in [0, (1 << 20) + 1] {
        let index = Index { fragments: length(wrong), files: Vec::new(), ..numbered_index(0, 0) };
        assert!(encode(&index, &Limits::default()).is_err());
    }
}

#[test]
fn paths_are_names_joined_by_single_slashes() {
    let long = "p".repeat(255);
    for path in ["a", "a/b.m4s", ".a", "a..b", "…/ü", "a b", &long] {
        assert_eq!(chunkstore_block::check_path(path), Ok(()), "{path:?}");
    }
    let longer = "p".repeat(256);
    for path in ["", "/a", "a/", "a//b", ".", "a/../b", "a/.", "a\\b", "a?b", "a#b", "a\nb", "a\u{85}b", &longer] {
        assert!(chunkstore_block::check_path(path).is_err(), "{path:?}");
    }
}

#[test]
fn blocks_that_lie_about_what_is_below_them_are_refused() {
    let encoded = encode(&numbered_index(100, 3), &SMALL).unwrap();
    let mut loader = Loader::new(encoded.root.id, &encoded.root.bytes).unwrap();
    let wanted = loader.wanted().unwrap();
    let page = encoded.pages.iter().find(|page| page.id == wanted.id).unwrap();
    assert!(matches!(loader.supply(wanted.id, &page.bytes[1..]), Err(IndexError::Mismatch { .. })));
    assert!(matches!(loader.supply(encoded.root.id, &encoded.root.bytes), Err(IndexError::NotWanted(_))));
    assert_eq!(loader.wanted(), Some(wanted), "an error changes nothing");
    assert_eq!(loader.supply(wanted.id, &page.bytes), Ok(()));
    assert!(matches!(loader.supply(wanted.id, &page.bytes), Err(IndexError::NotWanted(_))));
    assert!(matches!(loader.finish(), Err(IndexError::Incomplete { .. })));
}

/// Pages that are what their ids say, but not what the entries that name them say.
#[test]
fn each_lie_about_a_page_has_its_own_error() {
    let fault = |block: usize, old: &[u8], new: &[u8]| {
        let mut encoded = encode(&numbered_index(60, 40), &SMALL).unwrap();
        let all = encoded.pages.len();
        let bytes = if block < all { &mut encoded.pages[block].bytes } else { &mut encoded.root.bytes };
        assert!(bytes.windows(old.len()).any(|window| window == old), "the test changes nothing");
        replace(bytes, old, new);
        load(&mend(encoded)).unwrap_err()
    };
    let page = b"imira-page\x01\x01\x02\x00\x03\x00";
    assert!(matches!(fault(0, page, b"imira-page\x01\x01\x02\x00\x03\x01"), IndexError::Items { .. }));
    assert!(matches!(fault(0, page, b"imira-page\x01\x01\x02\x01\x03\x00"), IndexError::Items { .. }));
    assert!(matches!(fault(0, page, b"imira-page\x01\x02\x02\x00\x03\x00"), IndexError::Version { .. }));
    let root = usize::MAX;
    let first_id = *encode(&numbered_index(60, 40), &SMALL).unwrap().pages[0].id.as_bytes();
    let second_id = *encode(&numbered_index(60, 40), &SMALL).unwrap().pages[1].id.as_bytes();
    assert!(matches!(fault(root, &first_id, &second_id), IndexError::RepeatedPage(_)));
    assert!(matches!(fault(root, b"\x06\x84\x01\x18\x3c", b"\x06\x84\x01\x18\x3d"), IndexError::Sum { .. }));
    assert!(matches!(fault(root, b"\x06\x84\x01", b"\x06\x84\x02"), IndexError::Level { .. }));
    assert!(matches!(fault(root, b"\x06\x84\x01", b"\x06\x84\x05"), IndexError::Limit { .. }));
    assert!(matches!(fault(root, b"v/00000", b"u/00000"), IndexError::FirstPath { .. }));
    let two = [&second_id[..], b"\x19"].concat();
    let length = encode(&numbered_index(60, 40), &SMALL).unwrap().pages[1].bytes.len() as u16;
    let claimed = [&two[..], &length.to_be_bytes()].concat();
    let longer = [&two[..], &(length + 1).to_be_bytes()].concat();
    assert!(matches!(fault(root, &claimed, &longer), IndexError::PageLength { .. }));
}

/// Hand-written index blocks, each with one fault, and the error that must name it.
#[test]
fn each_fault_has_its_own_error() {
    let start = "a8006b696d6972612d696e6465780101020003"; // kind, version 1, cipher 0, key 3
    let source = format!("5820{}", "00".repeat(32));
    let good = format!("{start}{source}0400058006840000008007830000 80").replace(' ', "");
    let refuse = |hex: String| {
        let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap();
        Loader::new(BlockId::of(&bytes), &bytes).map(|_| ()).unwrap_err()
    };
    let bytes = data_encoding::HEXLOWER.decode(good.as_bytes()).unwrap();
    assert_eq!(Loader::new(BlockId::of(&bytes), &bytes).unwrap().finish().unwrap().index.duration_ms, 0);
    let with = |old: &str, new: &str| {
        assert!(good.contains(old), "{old}");
        refuse(good.replacen(old, new, 1))
    };
    assert!(matches!(with("6b696d6972612d696e646578", "6a696d6972612d70616765"), IndexError::Kind { .. }));
    assert_eq!(with("780101", "780102"), IndexError::Version { field: "index.version", found: 2 });
    assert_eq!(with("020003", "020103"), IndexError::Cipher { found: 1 });
    assert_eq!(with("a8006b", "a7006b"), IndexError::MissingKey { field: "index", key: 7 });
    assert_eq!(refuse(format!("{good}00")), IndexError::Trailing { field: "index", bytes: 1 });
    assert!(matches!(with("a8006b", "a9006b"), IndexError::Cbor { field: "index", .. }));
    assert!(matches!(with("a8006b", "bf006b"), IndexError::Indefinite { field: "index" }));
    assert_eq!(with("040005", "050004"), IndexError::MissingKey { field: "index", key: 4 });
    assert_eq!(with("040005", "03000500"), IndexError::NotCanonical { field: "index" });
    assert_eq!(with("04000580", "0418000580"), IndexError::NotCanonical { field: "index" });
    assert!(matches!(with("04000580", "04600580"), IndexError::Cbor { field: "index.duration_ms", .. }));
    let field = "fragments.count";
    assert_eq!(with("0684000000", "0684000100"), IndexError::Sum { field, claimed: 1, actual: 0 });
    let field = "fragments.bytes";
    assert_eq!(with("0684000000", "0684000001"), IndexError::Limit { field, found: 1, limit: 0 });
}

fn load(encoded: &Encoded) -> Result<LoadedIndex, IndexError> {
    let pages: BTreeMap<_, _> = encoded.pages.iter().map(|page| (page.id, &page.bytes)).collect();
    let mut loader = Loader::new(encoded.root.id, &encoded.root.bytes)?;
    while let Some(page) = loader.wanted() {
        let Some(bytes) = pages.get(&page.id) else { return Err(IndexError::Incomplete { missing: 1 }) };
        loader.supply(page.id, bytes)?;
    }
    loader.finish()
}

/// Changes a byte of a page or of the index block, and mends all ids above it, as a liar would.
fn with_changed_byte(mut encoded: Encoded, block: usize, place: Pick, flip: u8) -> Encoded {
    let Some(page) = encoded.pages.get_mut(block) else {
        *place.get_mut_of(&mut encoded.root.bytes) ^= flip;
        encoded.root.id = BlockId::of(&encoded.root.bytes);
        return encoded;
    };
    *place.get_mut_of(&mut page.bytes) ^= flip;
    mend(encoded)
}

/// Gives every page the id of its bytes, and the blocks above it that id.
fn mend(mut encoded: Encoded) -> Encoded {
    for page in 0..encoded.pages.len() {
        let (old, new) = (encoded.pages[page].id, BlockId::of(&encoded.pages[page].bytes));
        encoded.pages[page].id = new;
        let above = encoded.pages.iter_mut().chain([&mut encoded.root]);
        above.for_each(|above| replace(&mut above.bytes, old.as_bytes(), new.as_bytes()));
    }
    encoded.root.id = BlockId::of(&encoded.root.bytes);
    encoded
}

trait PickMut {
    fn get_mut_of<'a>(&self, bytes: &'a mut [u8]) -> &'a mut u8;
}

impl PickMut for Pick {
    fn get_mut_of<'a>(&self, bytes: &'a mut [u8]) -> &'a mut u8 {
        let place = self.index(bytes.len());
        &mut bytes[place]
    }
}

fn replace(bytes: &mut [u8], old: &[u8], new: &[u8]) {
    if let Some(place) = bytes.windows(old.len()).position(|window| window == old) {
        bytes[place..place + new.len()].copy_from_slice(new);
    }
}

/// Through the builder again, with the files added in the opposite order.
fn rebuilt_backwards(index: &Index) -> Index {
    let mut builder = IndexBuilder::new();
    for fragment in index.fragments.iter() {
        builder.push_fragment(fragment.id, fragment.length).unwrap();
    }
    for file in index.files.iter().rev() {
        let orders = file.runs.iter().flat_map(|run| run.first_order..run.first_order + run.blocks);
        builder.add_file(&file.path, &file.media_type, orders).unwrap();
    }
    builder.finish(index.source_sha256, index.duration_ms, index.renditions.clone()).unwrap()
}

/// Levels of the two lists, found by counting down the pages.
fn levels(encoded: &Encoded) -> (u64, u64) {
    let level_of = |kind: u8| {
        let start = [&b"\xa5\x00\x6aimira-page\x01\x01\x02"[..], &[kind], b"\x03"].concat();
        let levels =
            encoded.pages.iter().filter(|page| page.bytes.starts_with(&start)).map(|page| page.bytes[start.len()]);
        levels.max().map_or(0, |level| u64::from(level) + 1)
    };
    (level_of(0), level_of(1))
}

/// Looks at every fragment of the file.
fn naive_parts(index: &Index, file: &File, range: Range<u64>) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut start = 0;
    for run in &file.runs {
        for order in run.first_order..run.first_order + run.blocks {
            let fragment = index.fragments.by_order(order).unwrap();
            let end = start + u64::from(fragment.length);
            let (from, to) = (range.start.max(start), range.end.min(end));
            if from < to {
                let (skip, take) = ((from - start) as u32, (to - from) as u32);
                parts.push(Part { order, id: fragment.id, block_length: fragment.length, skip, take });
            }
            start = end;
        }
    }
    parts
}

fn indexes() -> impl Strategy<Value = Index> {
    (
        0..150_usize,
        vec(1..2_000_u32, 150),
        vec(vec((any::<Pick>(), 1..9_u32), 0..6), 0..40),
        any::<[u8; 32]>(),
        any::<u64>(),
        0..4_u8,
    )
        .prop_map(|(fragments, lengths, files, source, duration_ms, renditions)| {
            let mut builder = IndexBuilder::new();
            for (number, length) in lengths.iter().enumerate().take(fragments) {
                builder.push_fragment(BlockId::of(&number.to_be_bytes()), *length).unwrap();
            }
            for (number, runs) in files.iter().enumerate() {
                let orders = runs.iter().filter(|_| fragments > 0).flat_map(|(first, blocks)| {
                    let first = first.index(fragments) as u32 + 1;
                    first..(first + blocks).min(fragments as u32 + 1)
                });
                builder.add_file(&format!("{}/file-{number}.m4s", number % 3), "video/iso.segment", orders).unwrap();
            }
            builder.finish(source, duration_ms, (0..renditions).map(rendition).collect()).unwrap()
        })
}

fn numbered_index(fragments: u32, files: u32) -> Index {
    let mut builder = IndexBuilder::new();
    for number in 0..fragments {
        builder.push_fragment(BlockId::of(&number.to_be_bytes()), 1 + number).unwrap();
    }
    for number in 0..files {
        let order = 1 + number % fragments;
        builder
            .add_file(&format!("v/{number:05}.m4s"), "video/iso.segment", order..(order + 3).min(fragments + 1))
            .unwrap();
    }
    builder.finish([9; 32], 5_000, vec![rendition(1)]).unwrap()
}

fn empty_files(files: u32) -> Vec<File> {
    let file = |number| File { path: format!("{number:05}"), media_type: "text/vtt".into(), runs: Vec::new() };
    (0..files).map(file).collect()
}

fn rendition(number: u8) -> Rendition {
    let is_video = number < 2;
    let video = |value: u64| is_video.then_some(value);
    Rendition {
        kind: [RenditionKind::Video, RenditionKind::Video, RenditionKind::Audio, RenditionKind::Text]
            [usize::from(number % 4)],
        name: format!("r{number}"),
        codecs: "avc1.64001f".into(),
        peak_bandwidth_bps: 3_000_000,
        average_bandwidth_bps: 2_500_000,
        width_px: video(1_280),
        height_px: video(720),
        frame_rate_numerator: video(30_000),
        frame_rate_denominator: video(1_001),
        channels: (!is_video).then_some(2),
        sample_rate_hz: (!is_video).then_some(48_000),
        language: (number == 2).then(|| "de-AT".into()),
        playlist: format!("r{number}/media.m3u8"),
        mp4: is_video.then(|| format!("r{number}.mp4")),
    }
}
