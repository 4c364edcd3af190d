//! The vectors of the second implementation (`tests/python/vectors`), made from `docs/protocol.md` alone: what this one makes of the
//! same keys and nonces has the same bytes. Tests that need what a module keeps to itself are in that module; here are the reading
//! of the files, and placement and replication.

use crate::core::{Bucket, EntryDigest, Position, Prefix, Regions, Time, closest};
use crate::{Keypair, PeerId};
use chunkstore_block::{BlockId, NetworkId, PlatformFingerprint, PublicationId, Reference};
use data_encoding::HEXLOWER;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// A file of vectors.
pub(crate) fn load(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/python/vectors");
    let text = std::fs::read_to_string(folder.join(name).with_extension("json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The rows of a list, at least one.
pub(crate) fn rows(list: &Value) -> &[Value] {
    let rows = list.as_array().unwrap();
    assert!(!rows.is_empty(), "an empty list tests nothing");
    rows
}

/// A text.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// Bytes in hex.
pub(crate) fn bytes(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(text(value).as_bytes()).unwrap()
}

/// So many bytes in hex.
pub(crate) fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().unwrap()
}

/// A number.
pub(crate) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

/// A network id.
pub(crate) fn network_id(value: &Value) -> NetworkId {
    NetworkId::from_bytes(array(value))
}

/// A node's key; what the second implementation makes of it is what this one does.
pub(crate) fn node(described: &Value) -> (Keypair, PeerId) {
    let keypair = Keypair::ed25519_from_bytes(array::<32>(&described["secret"])).unwrap();
    let peer = keypair.public().to_peer_id();
    assert_eq!(keypair.public().encode_protobuf(), bytes(&described["public"]));
    assert_eq!(peer.to_bytes(), bytes(&described["peer_id"]));
    assert_eq!(peer.to_base58(), text(&described["peer_id_base58"]));
    (keypair, peer)
}

fn position(value: &Value) -> Position {
    Position::from_bytes(array(value))
}

fn reference(value: &Value) -> Reference {
    let bytes = array::<48>(value);
    let (platform, publication) = bytes.split_at(32);
    Reference {
        platform: PlatformFingerprint::from_bytes(platform.try_into().unwrap()),
        publication: PublicationId::from_bytes(publication.try_into().unwrap()),
    }
}

#[test]
fn nodes_and_blocks_have_their_positions_and_rankings() {
    let vector = load("replication");
    let mut nodes = Vec::new();
    for row in rows(&vector["nodes"]) {
        let peer = bytes(&row["peer_id"]);
        let at = Position::of_peer(&peer);
        assert_eq!(at, position(&row["position"]));
        nodes.push((peer, at));
    }
    for row in rows(&vector["blocks"]) {
        let at = Position::of_block(&BlockId::from_bytes(array(&row["block_id"])));
        assert_eq!(at, position(&row["position"]));
        let ranking = rows(&row["ranking"]);
        let ranked = closest(&at, &nodes, nodes.len());
        assert_eq!(ranked, ranking.iter().map(|node| bytes(&node["peer_id"])).collect::<Vec<_>>());
        for node in ranking {
            // A distance is the position of whoever is so far from 0.
            let distance = Position::from_bytes([0; 32]).distance(&position(&node["distance"]));
            assert_eq!(at.distance(&Position::of_peer(&bytes(&node["peer_id"]))), distance);
        }
    }
}

/// Block, digest and length of an entry, in the order of positions.
fn entries(vector: &Value) -> Vec<(Position, EntryDigest, Vec<u8>)> {
    let mut entries = Vec::new();
    for row in rows(&vector["entries"]) {
        let id = BlockId::from_bytes(array(&row["block_id"]));
        let mut references: Vec<_> = rows(&row["references"]).iter().map(reference).collect();
        references.sort();
        let digest = EntryDigest::of(&id, &references);
        assert_eq!(digest.as_bytes(), &array(&row["digest"]));
        let length = number(&row["length"]) as u32;
        let entry = [&id.as_bytes()[..], digest.as_bytes(), &length.to_be_bytes()].concat();
        assert_eq!(entry, bytes(&row["entry"]));
        entries.push((Position::of_block(&id), digest, entry));
    }
    entries.sort_by_key(|(position, ..)| *position);
    entries
}

#[test]
fn entries_prefixes_and_sums_are_the_same() {
    let vector = load("replication");
    let entries = entries(&vector);
    for row in rows(&vector["digests"]) {
        let prefix = Prefix::from_wire(number(&row["bits"]), &bytes(&row["prefix"])).unwrap();
        assert_eq!(prefix.to_wire(), bytes(&row["prefix"]));
        let below = bucket(&prefix, &entries);
        assert_eq!((u64::from(below.count), below.sum.to_be_bytes()), (number(&row["count"]), array(&row["sum"])));
        let listed = entries.iter().filter(|(at, ..)| prefix.contains(at)).flat_map(|(.., entry)| entry.clone());
        assert_eq!(listed.collect::<Vec<_>>(), bytes(&row["entries"]));
        let children = prefix.children().unwrap().map(|child| bucket(&child, &entries));
        let wire =
            children.iter().flat_map(|child| [&child.count.to_be_bytes()[..], &child.sum.to_be_bytes()].concat());
        assert_eq!(wire.collect::<Vec<_>>(), bytes(&row["children"]));
    }
}

fn bucket(prefix: &Prefix, entries: &[(Position, EntryDigest, Vec<u8>)]) -> Bucket {
    let within = entries.iter().filter(|(at, ..)| prefix.contains(at));
    within.fold(Bucket::default(), |bucket, (_, digest, _)| Bucket {
        count: bucket.count + 1,
        sum: bucket.sum.wrapping_add(u128::from_be_bytes(*digest.as_bytes())),
    })
}

#[test]
fn a_region_is_as_large_as_the_document_says() {
    for row in rows(&load("replication")["regions"]) {
        let target = position(&row["target"]);
        let mut nodes: Vec<_> = rows(&row["nodes"]).iter().map(position).collect();
        // A lookup names 20 others at most, so of 21 one is this node; otherwise this node is farther than all.
        let local = if nodes.len() > 20 { nodes.pop().unwrap() } else { inverted(&target, 0) };
        let mut regions = Regions::new(local, number(&row["nearest"]) as usize, Duration::from_secs(60));
        let now = Time::from_millis(1);
        regions.learn(now, &target, &nodes);
        let bits = number(&row["bits"]) as u16;
        assert!(regions.find(now, &inverted(&target, bits)).is_some(), "{bits} bits in common");
        if let Some(fewer) = bits.checked_sub(1) {
            assert!(regions.find(now, &inverted(&target, fewer)).is_none(), "{fewer} bits in common");
        }
    }
}

/// A position with exactly so many leading bits in common.
fn inverted(target: &Position, bits: u16) -> Position {
    let mut bytes = *target.as_bytes();
    for bit in bits..256 {
        bytes[usize::from(bit / 8)] ^= 0x80 >> (bit % 8);
    }
    Position::from_bytes(bytes)
}
