//! Indexes with their blocks, in `vectors/`, for other implementations of `docs/index-format.md`.
//!
//! `IMIRA_WRITE_VECTORS=1 cargo test -p chunkstore-block --test vectors` writes them anew. The format is frozen, so a
//! vector that changes is a mistake.

#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy's own exception ends at helpers of tests

use std::fs;
use std::path::PathBuf;

use chunkstore_block::{
    BlockId, Encoded, EncodedBlock, Index, IndexBuilder, Limits, Loader, Rendition, RenditionKind, encode,
};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};

#[test]
fn a_small_index_has_the_recorded_bytes() {
    check("small", &small(), Limits::default());
}

/// Pages of 1,000 bytes: fragments at level 2, files at level 1.
#[test]
fn a_paged_index_has_the_recorded_bytes() {
    check("paged", &paged(), Limits { page_bytes: 1_000 });
}

fn check(name: &str, index: &Index, limits: Limits) {
    let encoded = encode(index, &limits).unwrap();
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors").join(format!("{name}.json"));
    let written = format!("{:#}\n", vector(index, &encoded, limits));
    if std::env::var_os("IMIRA_WRITE_VECTORS").is_some() {
        fs::write(&path, &written).unwrap();
    }
    let recorded = fs::read_to_string(&path).unwrap();
    assert_eq!(written, recorded, "the format is frozen");
    assert_eq!(read(&serde_json::from_str(&recorded).unwrap()), *index);
}

/// Reads an index from the recorded blocks alone.
fn read(vector: &Value) -> Index {
    let bytes_of =
        |id: &BlockId| HEXLOWER.decode(vector["blocks"][id.to_string()].as_str().unwrap().as_bytes()).unwrap();
    let root: BlockId = vector["content_key"].as_str().unwrap().parse().unwrap();
    let mut loader = Loader::new(root, &bytes_of(&root)).unwrap();
    while let Some(page) = loader.wanted() {
        loader.supply(page.id, &bytes_of(&page.id)).unwrap();
    }
    loader.finish().unwrap().index
}

fn vector(index: &Index, encoded: &Encoded, limits: Limits) -> Value {
    let blocks = [&encoded.root].into_iter().chain(&encoded.pages);
    let hex = |block: &EncodedBlock| (block.id.to_string(), json!(HEXLOWER.encode(&block.bytes)));
    json!({
        "content_key": encoded.root.id.to_string(),
        "page_bytes": limits.page_bytes,
        "blocks": blocks.map(hex).collect::<serde_json::Map<_, _>>(),
        "index": index_json(index),
    })
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
