//! Indexes with their blocks, in `vectors/`, for other implementations of `docs/index-format.md` ("Test vectors").
//!
//! `IMIRA_WRITE_VECTORS=1 cargo nextest run --workspace -E 'binary(vectors)'` writes them anew. The format is frozen,
//! so blocks that change are a mistake.

#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy's own exception ends at helpers of tests

mod blocks;
mod cases;
mod cbor;

use std::fs;
use std::path::PathBuf;

use blocks::Blocks;
use cases::Case;
use chunkstore_block::{
    BlockId, Encoded, EncodedBlock, File, Index, IndexBuilder, IndexError, Limits, LoadedIndex, Loader, Rendition,
    RenditionKind, encode,
};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};

#[test]
fn a_small_index_has_the_recorded_bytes() {
    check("small", &small(), [0, 0], Limits::default());
}

#[test]
fn a_paged_index_has_the_recorded_bytes() {
    check("paged", &paged(), [2, 1], Limits { page_bytes: 1_000 });
}

/// A small fan-out makes deep trees of few entries: the index block and three levels of pages below it.
#[test]
fn a_deep_index_has_the_recorded_bytes() {
    check("deep", &deep(), [3, 2], Limits { page_bytes: 320 });
}

#[test]
fn what_must_be_refused_is_refused_for_the_reason_given() {
    let cases = cases::refused();
    compare("refused", &cases.iter().map(case_json).collect());
    for case in cases {
        let error = load(&case.blocks).expect_err(case.name);
        assert_eq!(Some(name_of(&error)), case.reason, "{}: {error}", case.name);
    }
}

#[test]
fn what_looks_odd_and_is_right_is_read() {
    let cases = cases::accepted();
    compare("accepted", &cases.iter().map(case_json).collect());
    for case in cases {
        load(&case.blocks).expect(case.name);
    }
}

/// `tests/python/test_vectors.py` says the same of both (`TooLarge`).
#[test]
fn what_is_too_large_for_a_vector_is_refused() {
    let refusal = |blocks: Blocks| load(&blocks).err().map(|error| name_of(&error));
    assert_eq!(refusal(Blocks::of(&vec![0; 1_048_577])), Some("length"));
    assert_eq!(refusal(cases::with_runs(32_768)), None);
    assert_eq!(refusal(cases::with_runs(32_769)), Some("limit"));
}

fn check(name: &str, index: &Index, levels: [u8; 2], limits: Limits) {
    let encoded = encode(index, &limits).unwrap();
    let recorded = compare(name, &vector(index, &encoded, levels, limits));
    assert_eq!(read(&recorded), *index);
}

/// Compares with what is recorded under this name, or records it.
fn compare(name: &str, vector: &Value) -> Value {
    // Not env!: a target folder that several clones share may hold a test that was compiled in another one.
    let package = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let path = package.join("vectors").join(format!("{name}.json"));
    let written = format!("{vector:#}\n");
    if std::env::var_os("IMIRA_WRITE_VECTORS").is_some() {
        fs::write(&path, &written).unwrap();
    }
    let recorded = fs::read_to_string(&path).unwrap();
    assert!(written == recorded, "{name}.json says something else; the format is frozen");
    serde_json::from_str(&recorded).unwrap()
}

fn load(blocks: &Blocks) -> Result<LoadedIndex, IndexError> {
    let bytes_of = |id: &BlockId| &blocks.blocks[id];
    let mut loader = Loader::new(blocks.key, bytes_of(&blocks.key))?;
    while let Some(page) = loader.wanted() {
        loader.supply(page.id, bytes_of(&page.id))?;
    }
    loader.finish()
}

/// Reads an index from the recorded blocks alone.
fn read(vector: &Value) -> Index {
    let blocks = vector["blocks"].as_object().unwrap().iter();
    let blocks =
        blocks.map(|(id, hex)| (id.parse().unwrap(), HEXLOWER.decode(hex.as_str().unwrap().as_bytes()).unwrap()));
    let key = vector["content_key"].as_str().unwrap().parse().unwrap();
    load(&Blocks { key, blocks: blocks.collect() }).unwrap().index
}

/// What `docs/index-format.md`, "Names of refusals", calls an error of the reader.
fn name_of(error: &IndexError) -> &'static str {
    use IndexError as E;
    match error {
        E::Mismatch { .. } => "hash",
        E::Kind { .. } => "kind",
        E::Version { .. } => "version",
        E::Cipher { .. } => "cipher",
        E::Value { .. } => "value",
        E::Level { .. } => "level",
        E::Sum { .. } | E::FileSize { .. } => "sum",
        E::PageLength { .. } => "length",
        E::RepeatedPage(_) | E::RepeatedFragment(_) => "twice",
        E::Path { .. } => "path",
        E::MediaType(_) => "media-type",
        E::Unsorted { .. } | E::FirstPath { .. } => "order",
        E::Run { .. } | E::RunBytes { .. } => "run",
        E::Limit { field, .. } | E::Zero { field } => name_of_number(field),
        E::Cbor { .. }
        | E::Indefinite { .. }
        | E::Items { .. }
        | E::MissingKey { .. }
        | E::UnknownKey { .. }
        | E::NotCanonical { .. }
        | E::Trailing { .. } => "encoding",
        E::NotWanted(_) | E::Incomplete { .. } | E::TwoLengths { .. } | E::TooLong { .. } => {
            panic!("no fault of a content: {error}")
        }
    }
}

/// The same for a number that is zero or too large.
fn name_of_number(field: &str) -> &'static str {
    match field.rsplit_once('.').unwrap() {
        ("run", _) => "run",
        (_, "level") => "level",
        (_, "length") => "length",
        (_, "entries") | ("page entry", "count") => "empty",
        (_, "bytes") => "sum",
        _ => "limit",
    }
}

fn case_json(case: &Case) -> Value {
    let mut json = json!({
        "name": case.name,
        "reason": case.reason,
        "content_key": case.blocks.key.to_string(),
        "blocks": blocks_json(case.blocks.blocks.iter().map(|(id, bytes)| (*id, &bytes[..]))),
    });
    json.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    json
}

fn vector(index: &Index, encoded: &Encoded, levels: [u8; 2], limits: Limits) -> Value {
    let blocks = [&encoded.root].into_iter().chain(&encoded.pages);
    let some_files = index.files.iter().step_by(13).chain(index.files.last());
    json!({
        "content_key": encoded.root.id.to_string(),
        "page_bytes": limits.page_bytes,
        "levels": levels,
        "blocks": blocks_json(blocks.map(|EncodedBlock { id, bytes }| (*id, &bytes[..]))),
        "index": index_json(index),
        "ranges": some_files.flat_map(|file| ranges_json(index, file)).collect::<Value>(),
    })
}

fn blocks_json<'a>(blocks: impl Iterator<Item = (BlockId, &'a [u8])>) -> Value {
    blocks.map(|(id, bytes)| (id.to_string(), HEXLOWER.encode(bytes))).collect()
}

/// The ends of a file, the seams between its blocks, and what reaches past its end.
fn ranges_json(index: &Index, file: &File) -> Vec<Value> {
    let (size, seam) = (file.size(), file.runs.first().map_or(0, |run| run.bytes));
    let around_seam = [seam.saturating_sub(1), seam, seam + 1];
    let ranges = [[0, size], [0, 0], [0, 1], [size.saturating_sub(1), size], [size / 3, size / 2], [size, size]];
    let past = [[size / 2, u64::MAX], [size + 1, size + 2]];
    let at_seam = around_seam.map(|start| [start, start + 1]);
    let both_sides = [[around_seam[0], around_seam[2]]];
    let all = ranges.into_iter().chain(past).chain(at_seam).chain(both_sides);
    all.map(|[start, end]| range_json(index, file, start, end)).collect()
}

fn range_json(index: &Index, file: &File, start: u64, end: u64) -> Value {
    let parts = index.file_parts(file, start..end);
    let parts = parts.map(|part| json!([part.order, part.id.to_string(), part.skip, part.take]));
    json!({ "path": file.path, "start": start, "end": end, "parts": parts.collect::<Value>() })
}

fn index_json(index: &Index) -> Value {
    let fragments = index.fragments.iter().map(|fragment| json!([fragment.id.to_string(), fragment.length]));
    let files = index.files.iter().map(|file| {
        let runs = file.runs.iter().map(|run| json!([run.first_order, run.blocks, run.bytes]));
        json!([file.path, file.media_type, file.size(), runs.collect::<Vec<_>>()])
    });
    json!({
        "source_sha256": HEXLOWER.encode(&index.source_sha256),
        "duration_ms": index.duration_ms,
        "renditions": index.renditions.iter().map(rendition_json).collect::<Vec<_>>(),
        "fragments": fragments.collect::<Vec<_>>(),
        "files": files.collect::<Vec<_>>(),
    })
}

/// With the keys of the format as names, and only those that are there.
fn rendition_json(rendition: &Rendition) -> Value {
    let mut json = json!({
        "0": rendition.kind as u8, "1": rendition.name, "2": rendition.codecs, "3": rendition.peak_bandwidth_bps,
        "4": rendition.average_bandwidth_bps, "5": rendition.width_px, "6": rendition.height_px,
        "7": rendition.frame_rate_numerator, "8": rendition.frame_rate_denominator, "9": rendition.channels,
        "10": rendition.sample_rate_hz, "11": rendition.language, "12": rendition.playlist, "13": rendition.mp4,
    });
    json.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    json
}

fn small() -> Index {
    let mut builder = IndexBuilder::new();
    for number in 1..=5_u32 {
        builder.push_fragment(BlockId::of(&number.to_be_bytes()), 200_000 * number).unwrap();
    }
    builder.add_file("720p/media.m3u8", "application/vnd.apple.mpegurl", [1]).unwrap();
    builder.add_file("720p/1.m4s", "video/iso.segment", [2, 3]).unwrap();
    builder.add_file("720p/2.m4s", "video/iso.segment", [5]).unwrap();
    builder.add_file("720p.mp4", "video/mp4", [4, 2, 3, 5]).unwrap();
    builder.add_file("empty.vtt", "text/vtt", []).unwrap();
    builder.finish([0x11; 32], 7_200_000, vec![video(), audio()]).unwrap()
}

fn paged() -> Index {
    let mut builder = IndexBuilder::new();
    for number in 1..=600_u32 {
        builder.push_fragment(BlockId::of(&number.to_be_bytes()), 1_000 + number).unwrap();
    }
    for number in 0..60_u32 {
        builder
            .add_file(&format!("720p/{number:03}.m4s"), "video/iso.segment", 1 + 10 * number..=10 + 10 * number)
            .unwrap();
    }
    builder.finish([0x22; 32], 240_000, vec![video(), audio()]).unwrap()
}

/// Its last file is two tracks interleaved, as in an MP4.
fn deep() -> Index {
    let mut builder = IndexBuilder::new();
    for number in 1..=280_u32 {
        builder.push_fragment(BlockId::of(&number.to_be_bytes()), 1 + number * 7_919 % 1_000).unwrap();
    }
    for number in 0..40_u32 {
        builder.add_file(&format!("v/{number:02}.m4s"), "video/mp4", 1 + 7 * number..=7 + 7 * number).unwrap();
    }
    let interleaved = (0..12).flat_map(|turn| [1 + 11 * turn, 2 + 11 * turn, 141 + 11 * turn]);
    builder.add_file("v/all.mp4", "video/mp4", interleaved).unwrap();
    builder.finish([0x33; 32], u64::MAX, Vec::new()).unwrap()
}

fn video() -> Rendition {
    Rendition {
        kind: RenditionKind::Video,
        name: "720p".into(),
        codecs: "avc1.64001f".into(),
        peak_bandwidth_bps: 3_300_000,
        average_bandwidth_bps: 3_000_000,
        width_px: Some(1_280),
        height_px: Some(720),
        frame_rate_numerator: Some(30_000),
        frame_rate_denominator: Some(1_001),
        channels: None,
        sample_rate_hz: None,
        language: None,
        playlist: "720p/media.m3u8".into(),
        mp4: Some("720p.mp4".into()),
    }
}

fn audio() -> Rendition {
    Rendition {
        kind: RenditionKind::Audio,
        name: "audio-en".into(),
        codecs: "mp4a.40.2".into(),
        peak_bandwidth_bps: 130_000,
        average_bandwidth_bps: 128_000,
        width_px: None,
        height_px: None,
        frame_rate_numerator: None,
        frame_rate_denominator: None,
        channels: Some(2),
        sample_rate_hz: Some(48_000),
        language: Some("en".into()),
        playlist: "audio-en/media.m3u8".into(),
        mp4: None,
    }
}
