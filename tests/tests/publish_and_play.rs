//! A real video from upload to playback: every block on exactly its two closest nodes, every node able to serve it,
//! and any one node expendable.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use chunkstore_block::{BlockId, ContentKey, LoadedIndex, Loader, MAX_BLOCK_BYTES};
use dht::{BlockClient, Keypair};
use e2e::{Node, NodeOptions, Platform, Published, Stage, clip, run_tool};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Of the clip, which has 24 frames a second.
const SECONDS: u32 = 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_published_video_is_where_it_belongs_and_outlives_any_node() {
    let (stage, mut nodes, platform) = three_that_have_what_is_their_own().await;
    let published = platform.publish(&clip(&stage.path(""), SECONDS));
    let loaded = load_index(&platform, &published.key).await;

    assert_exact_placement(&nodes, &published.key, &loaded).await;
    assert_blocks_are_what_their_names_say(&stage, &nodes).await;
    assert_fragment_list(&platform, &published, &loaded).await;
    for node in &nodes {
        assert!(node.staging().is_empty(), "left in staging: {:?}", node.staging());
    }
    assert_plays(&published.hls);
    assert_plays(&published.hls.replace("/play/", "/proxy/"));
    for rung in loaded.index.renditions.iter().filter_map(|rendition| rendition.mp4.as_ref()) {
        assert_plays(&format!("{}/play/{}/files/{rung}", platform.url, published.key));
        assert_plays(&format!("{}/proxy/{}/files/{rung}", platform.url, published.key));
    }

    for lost in 0..nodes.len() {
        nodes[lost].process.kill();
        assert_plays(&published.hls);
        nodes[lost].restart();
        for node in &nodes {
            node.wait_for_peers(2).await;
        }
    }
    assert_exact_placement(&nodes, &published.key, &loaded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_serves_every_block_and_keeps_what_was_asked_for_in_a_bounded_cache() {
    let (stage, nodes, platform) = three_that_have_what_is_their_own().await;
    let published = platform.publish(&clip(&stage.path(""), SECONDS));
    let loaded = load_index(&platform, &published.key).await;
    let http = reqwest::Client::new();
    for chosen in &nodes {
        let avoid: Vec<_> = nodes
            .iter()
            .filter(|node| node.address.id != chosen.address.id)
            .map(|node| format!("avoid={}", node.address.id))
            .collect();
        let before = chosen.client.node().await.unwrap().cache;
        let stored: BTreeSet<_> = chosen.stored().await.into_iter().map(|block| block.id).collect();
        let mut foreign = 0;
        let play = async |id: BlockId| {
            let url = format!("{}/play/{}/blocks/{id}?{}", platform.url, published.key, avoid.join("&"));
            let response = http.get(url).send().await.unwrap().error_for_status().unwrap();
            assert_eq!(response.headers()["imira-node"].to_str().unwrap(), chosen.address.id.to_base58());
            assert_eq!(BlockId::of(&response.bytes().await.unwrap()), id);
        };
        for fragment in loaded.index.fragments.iter() {
            play(fragment.id).await;
            foreign += u64::from(!stored.contains(&fragment.id));
        }
        let after = chosen.client.node().await.unwrap().cache;
        for fragment in loaded.index.fragments.iter() {
            play(fragment.id).await;
        }
        // From its own disk or from another node, everything came to stay.
        let again = chosen.client.node().await.unwrap().cache;
        assert_eq!((again.hits - after.hits, again.misses), (loaded.index.fragments.len() as u64, after.misses));
        assert!(foreign > 0, "with three nodes and R = 2 every node lacks some blocks");
        assert!(after.used_bytes > before.used_bytes && after.used_bytes <= after.capacity_bytes, "{after:?}");
        // What was fetched is not stored: the durable store still holds its own blocks only.
        assert_eq!(chosen.stored().await.len(), stored.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_stops_within_seconds_and_comes_back_with_its_blocks() {
    let (stage, mut nodes, platform) = Stage::with_platform(3).await;
    let published = platform.publish(&clip(&stage.path(""), SECONDS));
    let before = nodes[0].stored().await.len();
    let took = nodes[0].process.stop(Duration::from_secs(5));
    assert!(took < Duration::from_secs(5));
    nodes[0].restart();
    nodes[0].wait_for_peers(2).await;
    assert_eq!(nodes[0].stored().await.len(), before);
    assert_plays(&published.hls);
}

/// Copies are where they belong at once: the node that the video is uploaded to keeps none of others' blocks.
async fn three_that_have_what_is_their_own() -> (Stage, Vec<Node>, Platform) {
    let options = || NodeOptions { settings: vec![("keep_until_proved", "false".into())], ..NodeOptions::default() };
    Stage::with_platform_and((0..3).map(|_| options()).collect()).await
}

async fn load_index(platform: &Platform, key: &ContentKey) -> LoadedIndex {
    let get = async |path: String| {
        let response = reqwest::get(format!("{}/play/{key}/{path}", platform.url)).await.unwrap();
        response.error_for_status().unwrap().bytes().await.unwrap()
    };
    let mut loader = Loader::new(*key, &get("index".into()).await).unwrap();
    while let Some(page) = loader.wanted() {
        loader.supply(page.id, &get(format!("pages/{}", page.id)).await).unwrap();
    }
    loader.finish().unwrap()
}

/// Works out the two closest nodes of every block with nothing but SHA-256 and XOR, and compares.
async fn assert_exact_placement(nodes: &[Node], key: &ContentKey, loaded: &LoadedIndex) {
    let mut expected: BTreeMap<BlockId, BTreeSet<String>> = BTreeMap::new();
    let ids = loaded.index.fragments.iter().map(|fragment| fragment.id);
    for id in ids.chain(loaded.pages.iter().copied()).chain([key.block_id()]) {
        let block: [u8; 32] = Sha256::digest(id.as_bytes()).into();
        let mut ranked: Vec<_> = nodes
            .iter()
            .map(|node| {
                let peer: [u8; 32] = Sha256::digest(node.address.id.to_bytes()).into();
                let distance: Vec<u8> = block.iter().zip(peer).map(|(a, b)| a ^ b).collect();
                (distance, node.address.id.to_base58())
            })
            .collect();
        ranked.sort();
        expected.insert(id, ranked.into_iter().take(2).map(|(_, name)| name).collect());
    }
    let mut found: BTreeMap<BlockId, BTreeSet<String>> = BTreeMap::new();
    for node in nodes {
        for block in node.stored().await {
            assert_eq!(block.references.len(), 1, "one publication, one reference");
            found.entry(block.id).or_default().insert(node.address.id.to_base58());
        }
    }
    assert!(expected.len() > 10, "only {} blocks", expected.len());
    assert_eq!(found, expected);
}

/// Reads every stored block over the block plane, from the durable store of the node that lists it.
async fn assert_blocks_are_what_their_names_say(stage: &Stage, nodes: &[Node]) {
    let client = BlockClient::new(Keypair::generate_ed25519(), Arc::new(stage.network())).unwrap();
    for node in nodes {
        for block in node.stored().await {
            let body = client.get(node.address, block.id).await.unwrap();
            let digest: [u8; 32] = Sha256::digest(&body).into();
            assert_eq!(digest, *block.id.as_bytes());
            assert_eq!(body.len() as u64, block.length);
            assert!(body.len() <= MAX_BLOCK_BYTES);
        }
    }
}

async fn assert_fragment_list(platform: &Platform, published: &Published, loaded: &LoadedIndex) {
    let listed = platform.get(&format!("/api/contents/{}/fragments", published.id)).await;
    assert_eq!(listed["content_key"].as_str().unwrap(), published.key.to_string());
    let listed = listed["fragments"].as_array().unwrap();
    let fragments = &loaded.index.fragments;
    assert_eq!(listed.len(), fragments.len());
    for (place, (entry, fragment)) in listed.iter().zip(fragments.iter()).enumerate() {
        assert_eq!(entry["order"].as_u64().unwrap(), place as u64 + 1);
        assert_eq!(entry["sha256"].as_str().unwrap(), fragment.id.to_string());
        assert_eq!(entry["length"].as_u64().unwrap(), u64::from(fragment.length));
    }
}

/// Decodes everything at a URL with the real FFmpeg; all frames, no complaint.
fn assert_plays(url: &str) {
    // Segments come by 307 from other hosts than the playlist: without this FFmpeg reports that it cannot keep the
    // platform's connection for them. Other formats do not know the option.
    let hls: &[&str] = if url.ends_with(".m3u8") { &["-http_persistent", "0"] } else { &[] };
    let decode = [&["-nostdin", "-v", "error", "-xerror"], hls, &["-i", url, "-map", "0", "-f", "null", "-"]].concat();
    let decoded = run_tool("ffmpeg", &decode);
    let complaints = String::from_utf8_lossy(&decoded.stderr);
    assert!(decoded.status.success() && complaints.is_empty(), "{url}: {complaints}");
    let count =
        ["-select_streams", "v:0", "-count_packets", "-show_entries", "stream=nb_read_packets", "-of", "csv=p=0"];
    let counted = run_tool("ffprobe", &[&["-v", "error"], hls, &count, &[url]].concat());
    let counted = String::from_utf8_lossy(&counted.stdout);
    let frames = counted.lines().next().unwrap_or_default().trim_end_matches(',');
    assert_eq!(frames, (SECONDS * 24).to_string(), "{url}");
}
