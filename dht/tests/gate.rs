//! The gate over real QUIC sockets: strangers, another key, and a relay between two members.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use dht::{
    Discovery, DiscoveryConfig, GatedConnection, Keypair, Multiaddr, Network, NetworkKey, PeerId, Refusals, gated_quic,
};
use futures::StreamExt;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use libp2p::core::Endpoint;
use libp2p::core::muxing::StreamMuxerExt;
use libp2p::core::transport::{DialOpts, ListenerId, PortUse, Transport, TransportEvent};
use libp2p::quic;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_secs(1);

fn any_port() -> Multiaddr {
    "/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()
}

fn dial_options() -> DialOpts {
    DialOpts { role: Endpoint::Dialer, port_use: PortUse::Reuse }
}

/// A member's listener: its address, its count of refusals, and whatever passes the gate.
struct Member {
    address: Multiaddr,
    peer: PeerId,
    refused: Arc<Refusals>,
    passed: tokio::sync::mpsc::Receiver<(PeerId, GatedConnection)>,
}

async fn member(network: &Arc<Network>) -> Member {
    let keypair = Keypair::generate_ed25519();
    let refused = Arc::new(Refusals::default());
    let mut transport = gated_quic(&keypair, Arc::clone(network), Arc::clone(&refused)).boxed();
    transport.listen_on(ListenerId::next(), any_port()).unwrap();
    let (address, upgrades) = (first_address(&mut transport).await, tokio::sync::mpsc::channel(4));
    let (report, passed) = upgrades;
    tokio::spawn(async move {
        while let Some(event) = transport.next().await {
            if let TransportEvent::Incoming { upgrade, .. } = event {
                let report = report.clone();
                tokio::spawn(async move {
                    if let Ok(connection) = upgrade.await {
                        drop(report.send(connection).await);
                    }
                });
            }
        }
    });
    Member { address, peer: keypair.public().to_peer_id(), refused, passed }
}

async fn first_address<T>(transport: &mut T) -> Multiaddr
where
    T: Transport + Unpin + futures::Stream<Item = TransportEvent<T::ListenerUpgrade, T::Error>>,
{
    loop {
        if let Some(TransportEvent::NewAddress { listen_addr, .. }) = transport.next().await {
            return listen_addr;
        }
    }
}

/// A QUIC endpoint without any key: what a stranger can build from libp2p alone.
fn stranger() -> (PeerId, libp2p::core::transport::Boxed<(PeerId, quic::Connection)>) {
    let keypair = Keypair::generate_ed25519();
    let transport = quic::tokio::Transport::new(quic::Config::new(&keypair)).boxed();
    (keypair.public().to_peer_id(), transport)
}

/// Waits until the other end closes the connection.
async fn closed(mut connection: quic::Connection) -> Duration {
    let begun = Instant::now();
    let wait = poll_fn(|cx| match Pin::new(&mut connection).poll_inbound_unpin(cx) {
        std::task::Poll::Ready(Err(_)) => std::task::Poll::Ready(()),
        std::task::Poll::Ready(Ok(_)) => panic!("the member opens a stream to a stranger"),
        std::task::Poll::Pending => std::task::Poll::Pending,
    });
    tokio::time::timeout(Duration::from_secs(5), wait).await.expect("never disconnected");
    begun.elapsed()
}

#[tokio::test]
async fn members_pass_and_their_streams_carry_bytes_both_ways() {
    let network = Arc::new(Network::generate().unwrap());
    let mut listener = member(&network).await;
    let keypair = Keypair::generate_ed25519();
    let mut transport = gated_quic(&keypair, Arc::clone(&network), Arc::new(Refusals::default())).boxed();
    let (peer, mut dialled) = transport.dial(listener.address.clone(), dial_options()).unwrap().await.unwrap();
    assert_eq!(peer, listener.peer);
    let (_, mut accepted) = listener.passed.recv().await.unwrap();
    // Streams opened by either end, several of them, so that stream numbers matter.
    for round in 0..3_u8 {
        let (mut a, mut b) = open_pair(&mut dialled, &mut accepted, round).await;
        exchange(&mut a, &mut b).await;
        let (mut b, mut a) = open_pair(&mut accepted, &mut dialled, round).await;
        exchange(&mut b, &mut a).await;
    }
}

type Stream = dht::SealedStream<quic::Stream>;

async fn open_pair(opener: &mut GatedConnection, acceptor: &mut GatedConnection, mark: u8) -> (Stream, Stream) {
    let mut ours = poll_fn(|cx| opener.poll_outbound_unpin(cx)).await.unwrap();
    // QUIC shows a stream to the other end with its first bytes.
    ours.write_all(&[mark]).await.unwrap();
    ours.flush().await.unwrap();
    let mut theirs = poll_fn(|cx| acceptor.poll_inbound_unpin(cx)).await.unwrap();
    let mut got = [0];
    theirs.read_exact(&mut got).await.unwrap();
    assert_eq!(got, [mark]);
    (ours, theirs)
}

async fn exchange(ours: &mut Stream, theirs: &mut Stream) {
    ours.write_all(b"question").await.unwrap();
    ours.close().await.unwrap();
    let mut heard = Vec::new();
    theirs.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"question");
    theirs.write_all(b"answer").await.unwrap();
    theirs.close().await.unwrap();
    heard.clear();
    ours.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"answer");
}

#[tokio::test]
async fn a_silent_stranger_is_disconnected_within_a_second() {
    let network = Arc::new(Network::generate().unwrap());
    let mut listener = member(&network).await;
    let (_, mut transport) = stranger();
    let (_, connection) = transport.dial(listener.address.clone(), dial_options()).unwrap().await.unwrap();
    let took = closed(connection).await;
    assert!(took < WITHIN, "{took:?}");
    assert_eq!(listener.refused.count(), 1);
    assert!(listener.passed.try_recv().is_err());
}

#[tokio::test]
async fn a_stranger_that_talks_other_protocols_gets_no_answer() {
    let network = Arc::new(Network::generate().unwrap());
    let mut listener = member(&network).await;
    let (_, mut transport) = stranger();
    let (_, mut connection) = transport.dial(listener.address.clone(), dial_options()).unwrap().await.unwrap();
    let mut stream = poll_fn(|cx| connection.poll_outbound_unpin(cx)).await.unwrap();
    // Multistream-select, as any libp2p peer begins.
    stream
        .write_all(b"\x13/multistream/1.0.0\n\x0f/ipfs/id/1.0.0\n and more bytes than a gate's first message has")
        .await
        .unwrap();
    let mut heard = Vec::new();
    drop(tokio::time::timeout(WITHIN, stream.read_to_end(&mut heard)).await);
    assert!(heard.is_empty(), "a stranger was answered: {heard:?}");
    assert!(closed(connection).await < WITHIN);
    assert!(listener.passed.try_recv().is_err());
}

#[tokio::test]
async fn a_daemon_with_another_key_is_refused_within_a_second() {
    let ours = Arc::new(Network::generate().unwrap());
    let theirs = Arc::new(Network::new(ours.id(), vec![NetworkKey::generate().unwrap()]).unwrap());
    let mut listener = member(&ours).await;
    let refused = Arc::new(Refusals::default());
    let mut transport = gated_quic(&Keypair::generate_ed25519(), theirs, Arc::clone(&refused)).boxed();
    let begun = Instant::now();
    assert!(transport.dial(listener.address.clone(), dial_options()).unwrap().await.is_err());
    assert!(begun.elapsed() < WITHIN, "{:?}", begun.elapsed());
    assert_eq!((refused.count(), listener.refused.count()), (1, 1));
    assert!(listener.passed.try_recv().is_err());
}

/// Alice, a member, is made to dial the relay in the belief that it is a member; the relay dials Bob, a member, and
/// passes every byte of the gate on, in both directions. Neither lets it in, since the proofs name its own `PeerId`.
#[tokio::test]
async fn a_relay_between_two_members_completes_nothing_and_is_disconnected_within_a_second() {
    let network = Arc::new(Network::generate().unwrap());
    let mut bob = member(&network).await;
    let (relay_peer, mut relay) = stranger();
    relay.listen_on(ListenerId::next(), any_port()).unwrap();
    let relay_address = first_address(&mut relay).await;

    let alice_refused = Arc::new(Refusals::default());
    let mut alice = gated_quic(&Keypair::generate_ed25519(), Arc::clone(&network), Arc::clone(&alice_refused)).boxed();
    let alice_dials = tokio::spawn(alice.dial(relay_address, dial_options()).unwrap());
    tokio::spawn(async move { while alice.next().await.is_some() {} });

    let to_bob = relay.dial(bob.address.clone(), dial_options()).unwrap();
    let from_alice = loop {
        if let Some(TransportEvent::Incoming { upgrade, .. }) = relay.next().await {
            break upgrade;
        }
    };
    tokio::spawn(async move { while relay.next().await.is_some() {} });
    let begun = Instant::now();
    let ((_, mut from_alice), (bob_peer, mut to_bob)) = tokio::try_join!(from_alice, to_bob).unwrap();
    assert_eq!(bob_peer, bob.peer);

    let alices = poll_fn(|cx| from_alice.poll_inbound_unpin(cx)).await.unwrap();
    let bobs = poll_fn(|cx| to_bob.poll_outbound_unpin(cx)).await.unwrap();
    let relayed = relay_stream(alices, bobs).await;
    assert!(relayed.0 >= 61, "the relay passed the first message on: {relayed:?}");
    assert!(relayed.1 >= 75, "the relay passed the answer on: {relayed:?}");

    assert!(alice_dials.await.unwrap().is_err(), "Alice took the relay {relay_peer} for a member");
    assert!(closed(from_alice).await < WITHIN);
    assert!(closed(to_bob).await < WITHIN);
    assert!(begun.elapsed() < WITHIN, "{:?}", begun.elapsed());
    assert_eq!((alice_refused.count(), bob.refused.count()), (1, 1));
    assert!(bob.passed.try_recv().is_err(), "Bob took the relay for a member");
}

/// Passes bytes both ways until both directions end; how many each carried.
async fn relay_stream(alice: quic::Stream, bob: quic::Stream) -> (usize, usize) {
    let (mut from_alice, mut to_alice) = alice.split();
    let (mut from_bob, mut to_bob) = bob.split();
    async fn pass(from: &mut (impl futures::AsyncRead + Unpin), to: &mut (impl futures::AsyncWrite + Unpin)) -> usize {
        let (mut buffer, mut total) = ([0; 1024], 0);
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            total += count;
            if to.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
        drop(to.close().await);
        total
    }
    tokio::join!(pass(&mut from_alice, &mut to_bob), pass(&mut from_bob, &mut to_alice))
}

#[tokio::test]
async fn three_members_find_one_another_and_a_stranger_finds_nobody() {
    let network = Arc::new(Network::generate().unwrap());
    let (first, first_address) = discovery(&network, &[]).await;
    let (second, _) = discovery(&network, std::slice::from_ref(&first_address)).await;
    let (third, _) = discovery(&network, std::slice::from_ref(&first_address)).await;
    let theirs = Arc::new(Network::new(network.id(), vec![NetworkKey::generate().unwrap()]).unwrap());
    let (stranger, _) = discovery(&theirs, std::slice::from_ref(&first_address)).await;
    for node in [&first, &second, &third] {
        wait_for_peers(node, 2).await;
    }
    let block = chunkstore_block::BlockId::of(b"a block");
    assert_eq!(second.lookup(block).await.unwrap().peers.len(), 2);
    assert_eq!(third.known_closest(block).await.unwrap().len(), 2);
    assert!(stranger.lookup(block).await.unwrap().peers.is_empty());
    let begun = Instant::now();
    while first.refused_at_gate() == 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "the stranger was never refused");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let strangers_id = stranger.local_peer_id();
    for node in [&first, &second, &third] {
        assert!(node.peers().await.unwrap().iter().all(|(peer, _)| *peer != strangers_id));
    }
}

#[tokio::test]
async fn two_members_find_each_other_by_lookup_too() {
    let network = Arc::new(Network::generate().unwrap());
    let (first, address) = discovery(&network, &[]).await;
    let (second, _) = discovery(&network, std::slice::from_ref(&address)).await;
    for (node, other) in [(&first, &second), (&second, &first)] {
        wait_for_peers(node, 1).await;
        let found = node.lookup(chunkstore_block::BlockId::of(b"a block")).await.unwrap();
        assert_eq!(found.peers.iter().map(|peer| peer.id).collect::<Vec<_>>(), [other.local_peer_id()]);
        assert!(found.is_complete);
    }
}

async fn discovery(network: &Arc<Network>, bootstrap: &[Multiaddr]) -> (Discovery, Multiaddr) {
    let keypair = Keypair::generate_ed25519();
    let peer = keypair.public().to_peer_id();
    let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let config = DiscoveryConfig {
        keypair,
        network: Arc::clone(network),
        listen,
        bootstrap: bootstrap.to_vec(),
        allow_private_addresses: None,
    };
    let (discovery, _task) = Discovery::start(config).await.unwrap();
    (discovery, format!("/ip4/127.0.0.1/udp/{port}/quic-v1/p2p/{peer}").parse().unwrap())
}

async fn wait_for_peers(node: &Discovery, count: usize) {
    let begun = Instant::now();
    while node.peers().await.unwrap().len() < count {
        assert!(begun.elapsed() < Duration::from_secs(20), "only {:?}", node.peers().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
