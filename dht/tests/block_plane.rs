//! The block plane over real sockets: what members can do and what strangers cannot.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod holders;
mod plane;

use bytes::Bytes;
use chunkstore_block::{BlockId, MAX_BLOCK_BYTES};
use dht::{ClientLimits, Keypair, Network, NetworkKey, PeerAddress, ServerLimits, Status, TransferError};
use futures::StreamExt;
use plane::{Meddling, Memory, Proxy, block, client, client_with, network, put, references, serve, serve_with};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn blocks_of_every_length_go_there_and_back() {
    let network = network();
    let served = serve(&network, Memory::default()).await;
    let client = client(&network);
    // Around the edges of a Noise message (65,519 bytes of plaintext with the envelope and head in the first).
    for length in [1, 65_000, 65_400, 65_450, 65_519, 131_038, MAX_BLOCK_BYTES - 1, MAX_BLOCK_BYTES] {
        let (id, body) = block(length);
        put(&client, served.peer, (id, body.clone())).await.unwrap();
        assert_eq!(client.get(served.peer, id).await.unwrap(), body, "length {length}");
    }
    let (known, other) = (block(1).0, BlockId::of(b"other"));
    assert_eq!(client.has(served.peer, vec![known, other]).await.unwrap(), [true, false]);
    let marked = client.add_references(served.peer, vec![other, known], references(), "allowed".into()).await.unwrap();
    assert_eq!(marked, [false, true]);
}

#[tokio::test]
async fn many_requests_at_once_share_a_few_connections() {
    let network = network();
    let served = serve(&network, Memory::default()).await;
    let proxy = Proxy::start(served.peer.address, Meddling::default()).await;
    let through = proxy.in_front_of(served.peer);
    let client = client(&network);
    let (id, body) = block(300_000);
    put(&client, through, (id, body.clone())).await.unwrap();
    let fetches = (0..64).map(|_| client.get(through, id));
    for fetched in futures::future::join_all(fetches).await {
        assert_eq!(fetched.unwrap(), body);
    }
    assert!(proxy.connections.load(Ordering::Relaxed) <= 4, "a pool of 4 connections for each peer");
}

#[tokio::test]
async fn refusals_carry_their_status() {
    let network = network();
    let served = serve(&network, Memory::default()).await;
    let client = client(&network);
    let missing = client.get(served.peer, BlockId::of(b"never stored")).await.unwrap_err();
    assert_eq!(missing.status(), Some(Status::NotFound));
    let (id, body) = block(10);
    let unauthorised = client.put(served.peer, id, body.clone(), references(), "forged".into()).await.unwrap_err();
    assert_eq!(unauthorised.status(), Some(Status::Refused));
    let empty = put(&client, served.peer, block(0)).await.unwrap_err();
    assert_eq!(empty.status(), Some(Status::Malformed));
    let mismatch = put(&client, served.peer, (BlockId::of(b"else"), body)).await.unwrap_err();
    assert_eq!(mismatch.status(), Some(Status::Mismatch));
}

/// An audit reads a whole block, and did so outside the budget: any number of them at a time.
#[tokio::test]
async fn an_audit_needs_room_for_the_block_that_it_reads() {
    let network = network();
    let served = serve_with(&network, Memory::default(), cramped()).await;
    let error = client(&network).audit(served.peer, block(1).0, [0; 32]).await.unwrap_err();
    assert_eq!(error.status(), Some(Status::Busy), "{error}");
}

/// A put that found no room was cut off, which looked to the peer as if the node had crashed.
#[tokio::test]
async fn a_put_that_finds_no_room_is_answered_busy_and_the_connection_goes_on() {
    let network = network();
    let served = serve_with(&network, Memory::default(), cramped()).await;
    let proxy = Proxy::start(served.peer.address, Meddling::default()).await;
    let (through, client) = (proxy.in_front_of(served.peer), client(&network));
    for length in [MAX_BLOCK_BYTES, 200_000] {
        let error = put(&client, through, block(length)).await.unwrap_err();
        assert_eq!(error.status(), Some(Status::Busy), "{error}");
        put(&client, through, block(50_000)).await.unwrap();
    }
    assert_eq!(client.has(served.peer, vec![block(200_000).0, block(50_000).0]).await.unwrap(), [false, true]);
    assert_eq!(proxy.connections.load(Ordering::Relaxed), 1);
    assert!(served.bodies.most_held_bytes() <= 100_000);
}

#[tokio::test]
async fn a_lying_holder_is_caught() {
    let network = network();
    let served = serve(&network, Memory { lie: Some(Bytes::from_static(b"not it")), ..Memory::default() }).await;
    let error = client(&network).get(served.peer, BlockId::of(b"it")).await.unwrap_err();
    assert!(matches!(error, TransferError::WrongBytes), "{error}");
}

#[tokio::test]
async fn another_network_key_is_refused_within_a_second() {
    let ours = network();
    let served = serve(&ours, Memory::default()).await;
    let stranger = Arc::new(Network::new(ours.id(), vec![NetworkKey::generate().unwrap()]).unwrap());
    let begun = Instant::now();
    assert!(client(&stranger).get(served.peer, BlockId::of(b"x")).await.is_err());
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(served.refused.count(), 1);
}

#[tokio::test]
async fn a_silent_stranger_is_disconnected_within_a_second_and_is_told_nothing() {
    let network = network();
    let served = serve(&network, Memory::default()).await;
    let mut stranger = TcpStream::connect(served.peer.address).await.unwrap();
    let begun = Instant::now();
    let mut heard = Vec::new();
    stranger.read_to_end(&mut heard).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(heard.is_empty());
}

#[tokio::test]
async fn another_version_is_disconnected_and_is_told_nothing() {
    let network = network();
    let served = serve(&network, Memory::default()).await;
    let proxy = Proxy::start(served.peer.address, Meddling::default()).await;
    put(&client(&network), proxy.in_front_of(served.peer), block(1)).await.unwrap();
    // The preamble and the first Noise message: 32 bytes of key and 16 of tag, with their length.
    let begun = proxy.forth.recorded.lock().unwrap()[..29 + 2 + 48].to_vec();
    for (version, is_answered) in [(1, true), (0, false), (2, false), (255, false)] {
        let mut said = begun.clone();
        said[4] = version;
        let mut dialler = TcpStream::connect(served.peer.address).await.unwrap();
        let since = Instant::now();
        dialler.write_all(&said).await.unwrap();
        let mut heard = Vec::new();
        // Whether the end comes as an end or as a reset, it comes.
        drop(dialler.read_to_end(&mut heard).await);
        assert_eq!(!heard.is_empty(), is_answered, "version {version}");
        assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    }
    put(&client(&network), served.peer, block(2)).await.unwrap();
}

#[tokio::test]
async fn rotation_works_with_the_previous_key() {
    let old = Network::generate().unwrap();
    let during = Network::new(old.id(), vec![NetworkKey::generate().unwrap(), old.keys()[0].clone()]).unwrap();
    let (old, during) = (Arc::new(old), Arc::new(during));
    let served_old = serve(&old, Memory::default()).await;
    let served_during = serve(&during, Memory::default()).await;
    put(&client(&during), served_old.peer, block(5)).await.unwrap();
    put(&client(&old), served_during.peer, block(5)).await.unwrap();
}

#[tokio::test]
async fn the_wrong_peer_at_the_right_address_is_noticed() {
    let network = network();
    let served = serve(&network, Memory::default()).await;
    let elsewhere = PeerAddress { id: Keypair::generate_ed25519().public().to_peer_id(), ..served.peer };
    let error = client(&network).get(elsewhere, BlockId::of(b"x")).await.unwrap_err();
    assert!(matches!(error, TransferError::Handshake(_)), "{error}");
}

#[tokio::test]
async fn a_dead_pooled_connection_is_replaced() {
    let network = network();
    let served = serve(&network, Memory::default()).await;
    let proxy = Proxy::start(served.peer.address, Meddling::default()).await;
    let through = proxy.in_front_of(served.peer);
    let client = client(&network);
    put(&client, through, block(7)).await.unwrap();
    proxy.cut_all();
    assert_eq!(client.get(through, block(7).0).await.unwrap(), block(7).1);
}

/// Flips one bit at every byte of what the dialler sends: handshake, request, block.
#[tokio::test]
async fn a_changed_byte_anywhere_on_the_wire_is_never_accepted() {
    let network = network();
    let served = serve_with(&network, Memory::default(), impatient()).await;
    let clean = Proxy::start(served.peer.address, Meddling::default()).await;
    put(&client(&network), clean.in_front_of(served.peer), small(u64::MAX)).await.unwrap();
    let total = clean.forth.bytes.load(Ordering::Relaxed);
    assert!(total > 300, "the proxy saw only {total} bytes");
    // All exchanges are of this length, so that the last byte of the block and of its tag have their turn.
    let again = Proxy::start(served.peer.address, Meddling::default()).await;
    put(&client(&network), again.in_front_of(served.peer), small(u64::MAX - 1)).await.unwrap();
    assert_eq!(again.forth.bytes.load(Ordering::Relaxed), total);
    let attempts = (0..total).map(|at| {
        let (network, peer) = (Arc::clone(&network), served.peer);
        async move {
            let proxy = Proxy::start(peer.address, Meddling { change_forth: Some(at), ..Meddling::default() }).await;
            let outcome = put(&client(&network), proxy.in_front_of(peer), small(at)).await;
            (at, outcome, small(at).0)
        }
    });
    // The attempts wait for deadlines, so they run side by side.
    let mut outcomes: Vec<_> = futures::stream::iter(attempts).buffer_unordered(128).collect().await;
    outcomes.sort_by_key(|(at, ..)| *at);
    let check = client(&network);
    for (at, outcome, id) in outcomes {
        assert!(outcome.is_err(), "accepted with byte {at} changed");
        assert_eq!(check.has(served.peer, vec![id]).await.unwrap(), [false], "stored with byte {at} changed");
    }
}

/// A block of 40 bytes, another one for each number.
fn small(number: u64) -> (BlockId, Bytes) {
    let body = Bytes::from(number.to_be_bytes().repeat(5));
    (BlockId::of(&body), body)
}

/// Flips one bit at every byte of what the listener sends: handshake, hello, block.
#[tokio::test]
async fn a_changed_byte_anywhere_in_an_answer_is_never_accepted() {
    let network = network();
    let served = serve(&network, Memory::default()).await;
    let (id, body) = block(70);
    put(&client(&network), served.peer, (id, body)).await.unwrap();
    let clean = Proxy::start(served.peer.address, Meddling::default()).await;
    client(&network).get(clean.in_front_of(served.peer), id).await.unwrap();
    let total = clean.back.bytes.load(Ordering::Relaxed);
    assert!(total > 300, "the proxy saw only {total} bytes");
    let attempts = (0..total).map(|at| {
        let (network, peer) = (Arc::clone(&network), served.peer);
        async move {
            let proxy = Proxy::start(peer.address, Meddling { change_back: Some(at), ..Meddling::default() }).await;
            let asked = tokio::time::timeout(PATIENCE, client(&network).get(proxy.in_front_of(peer), id)).await;
            (at, asked.map(|answer| answer.is_ok()))
        }
    });
    let outcomes: Vec<_> = futures::stream::iter(attempts).buffer_unordered(128).collect().await;
    for (at, outcome) in outcomes {
        // A length that was made larger is waited for, until the deadline of a frame.
        assert_ne!(outcome, Ok(true), "accepted with byte {at} changed");
    }
}

#[tokio::test]
async fn a_recorded_conversation_cannot_be_replayed() {
    let network = network();
    let served = serve(&network, Memory::default()).await;
    let proxy = Proxy::start(served.peer.address, Meddling::default()).await;
    let (id, body) = block(500);
    put(&client(&network), proxy.in_front_of(served.peer), (id, body)).await.unwrap();
    let recorded = proxy.forth.recorded.lock().unwrap().clone();
    assert_eq!(recorded.len() as u64, proxy.forth.bytes.load(Ordering::Relaxed));
    served.handler.blocks.lock().unwrap().clear();

    let mut replaying = TcpStream::connect(served.peer.address).await.unwrap();
    let begun = Instant::now();
    replaying.write_all(&recorded).await.unwrap();
    let mut heard = Vec::new();
    // Whether the end comes as an end or as a reset, it comes.
    drop(replaying.read_to_end(&mut heard).await);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(served.refused.count(), 1);
    assert_eq!(client(&network).has(served.peer, vec![id]).await.unwrap(), [false]);
}

#[tokio::test]
async fn a_connection_carries_several_requests_at_a_time() {
    let network = network();
    let served = serve(&network, Memory::default()).await;
    let proxy = Proxy::start(served.peer.address, Meddling::default()).await;
    let through = proxy.in_front_of(served.peer);
    let client = client_with(&network, ClientLimits { connections_per_peer: 1, under_way: 16 });
    let blocks: Vec<_> = [1, 70_000, 300_000, MAX_BLOCK_BYTES].into_iter().map(block).collect();
    for block in &blocks {
        put(&client, through, block.clone()).await.unwrap();
    }
    let fetches = (0..48).map(|at| {
        let (id, body) = &blocks[at % blocks.len()];
        let client = &client;
        async move { assert_eq!(client.get(through, *id).await.unwrap(), *body) }
    });
    futures::future::join_all(fetches).await;
    assert_eq!(proxy.connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn whoever_stops_waiting_leaves_the_connection_to_the_others() {
    let network = network();
    let served = serve(&network, Memory::default()).await;
    let proxy = Proxy::start(served.peer.address, Meddling::default()).await;
    let through = proxy.in_front_of(served.peer);
    let client = client_with(&network, ClientLimits { connections_per_peer: 1, under_way: 4 });
    let (id, body) = block(MAX_BLOCK_BYTES);
    put(&client, through, (id, body.clone())).await.unwrap();
    for _ in 0..20 {
        let mut given_up = Box::pin(client.get(through, id));
        // Far enough to have asked.
        assert!(futures::poll!(&mut given_up).is_pending());
        let waits = client.get(through, id);
        drop(given_up);
        assert_eq!(waits.await.unwrap(), body);
    }
    assert_eq!(proxy.connections.load(Ordering::Relaxed), 1);
}

/// Longer than anything here takes that comes at all.
const PATIENCE: Duration = Duration::from_secs(5);

/// A node that has room for 100 KB of bodies, and waits for no more.
fn cramped() -> ServerLimits {
    let room = Duration::from_millis(10);
    ServerLimits { body_bytes: 100_000, body_bytes_per_member: 100_000, room, ..ServerLimits::default() }
}

/// A node that soon gives up a frame that does not come.
fn impatient() -> ServerLimits {
    ServerLimits { frame: Duration::from_secs(2), ..ServerLimits::default() }
}
