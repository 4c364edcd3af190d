//! Nodes in one process, with certificates and a clock that tests set.

// Each test file uses a part of it.
#![allow(dead_code)]

use crate::holders::{Asked, Empty};
use chunkstore_block::BlockId;
use dht::{
    Authority, BlockClient, BlockServer, Certificate, Discovery, DiscoveryConfig, GatedConnection, Keypair, Membership,
    Multiaddr, Network, PeerAddress, PeerEvent, PeerId, RefusalReason, Refusals, RevocationList, Serial, gated_quic,
};
use futures::StreamExt;
use libp2p::core::Endpoint;
use libp2p::core::transport::{DialOpts, ListenerId, PortUse, Transport, TransportEvent};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};
use tokio::sync::broadcast::Receiver;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The time at which everything begins, seconds since 1970.
pub(crate) const NOW: u64 = 1_800_000_000;
/// Asked for by tests that want an answer, whichever.
pub(crate) static ANY_BLOCK: LazyLock<BlockId> = LazyLock::new(|| BlockId::of(b"any block"));

pub(crate) fn new_key() -> (Keypair, PeerId) {
    let keypair = Keypair::generate_ed25519();
    let peer = keypair.public().to_peer_id();
    (keypair, peer)
}

/// A network with one authority; `keypair` is the node whose certificate is under test, `good` one that is in order.
pub(crate) struct Setup {
    pub(crate) network: Network,
    pub(crate) authority: Authority,
    pub(crate) keypair: Keypair,
    pub(crate) good: Keypair,
    pub(crate) clock: Arc<AtomicU64>,
    member: Arc<Network>,
}

impl Setup {
    pub(crate) fn new() -> Self {
        let (network, authority) = (Network::generate().unwrap(), Authority::generate().unwrap());
        let (keypair, _) = new_key();
        let (good, peer) = new_key();
        let clock = Arc::new(AtomicU64::new(NOW));
        let certificate = authority.issue(network.id(), peer, 0, u64::MAX).unwrap();
        let reader = Arc::clone(&clock);
        let clock_of_member = Arc::new(move || reader.load(Ordering::Relaxed));
        let members =
            Membership::new(network.id(), vec![authority.public()], Some(certificate), clock_of_member).unwrap();
        let members = members.with_recheck(Duration::from_millis(50));
        let member = Arc::new(network.clone().with_membership(Arc::new(members)));
        Self { network, authority, keypair, good, clock, member }
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.keypair.public().to_peer_id()
    }

    /// The network as the good node knows it, always the same.
    pub(crate) fn member(&self) -> Arc<Network> {
        Arc::clone(&self.member)
    }

    /// The network as the node under test knows it: it asks nobody for a certificate and shows this one.
    pub(crate) fn knows(&self, shown: Option<Certificate>) -> Arc<Network> {
        let members = Membership::open(self.network.id());
        shown.into_iter().for_each(|certificate| members.set_certificate(certificate));
        Arc::new(self.network.clone().with_membership(Arc::new(members)))
    }

    /// The same for a node that asks for certificates, by a clock that stands still.
    pub(crate) fn by_fixed_clock(&self, shown: Certificate) -> Arc<Network> {
        let authorities = vec![self.authority.public()];
        let members = Membership::new(self.network.id(), authorities, Some(shown), Arc::new(|| NOW)).unwrap();
        Arc::new(self.network.clone().with_membership(Arc::new(members)))
    }

    pub(crate) fn list(&self, number: u64, serials: &[Serial]) -> RevocationList {
        let serials = serials.iter().copied().collect();
        RevocationList::sign(&self.authority, self.network.id(), number, serials).unwrap()
    }

    pub(crate) fn revoke(&self, number: u64, serials: &[Serial]) {
        self.member.membership().offer_revocations(self.list(number, serials).as_bytes()).unwrap();
    }
}

/// The key of the node that is in order.
pub(crate) fn new_key_of(setup: &Setup) -> Keypair {
    setup.good.clone()
}

/// Free for UDP and TCP: a port that is free for one may be the local end of somebody's connection in the other.
fn free_address() -> SocketAddr {
    loop {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        if std::net::UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}

/// A node of both planes, or of the block plane only.
pub(crate) struct Node {
    pub(crate) peer: PeerAddress,
    pub(crate) client: BlockClient,
    pub(crate) refused: Arc<Refusals>,
    discovery: Option<Discovery>,
    stop: CancellationToken,
    served: tokio::task::JoinHandle<()>,
    swarm: Option<tokio::task::JoinHandle<()>>,
}

impl Node {
    pub(crate) async fn serve(network: &Arc<Network>, keypair: Keypair) -> Self {
        Self::serve_on("127.0.0.1:0".parse().unwrap(), network, keypair).await
    }

    async fn serve_on(address: SocketAddr, network: &Arc<Network>, keypair: Keypair) -> Self {
        let id = keypair.public().to_peer_id();
        let client = BlockClient::new(keypair.clone(), Arc::clone(network)).unwrap();
        let server = BlockServer::bind(address, keypair, Arc::clone(network)).await.unwrap();
        let peer = PeerAddress { id, address: server.local_addr().unwrap() };
        let (refused, stop) = (server.refused(), CancellationToken::new());
        let served = tokio::spawn(server.run(Arc::new(Asked(Empty)), stop.clone()));
        Self { peer, client, refused, discovery: None, stop, served, swarm: None }
    }

    pub(crate) async fn start(network: &Arc<Network>, keypair: Keypair, bootstrap: &[&Node]) -> Self {
        let bootstrap = bootstrap.iter().map(|node| node.multiaddr()).collect();
        Self::start_on(free_address(), network, keypair, bootstrap).await
    }

    pub(crate) async fn start_on(
        address: SocketAddr,
        network: &Arc<Network>,
        keypair: Keypair,
        bootstrap: Vec<Multiaddr>,
    ) -> Self {
        let mut node = Self::serve_on(address, network, keypair.clone()).await;
        let begun = Instant::now();
        let (discovery, swarm) = loop {
            let config = DiscoveryConfig {
                keypair: keypair.clone(),
                network: Arc::clone(network),
                listen: address,
                bootstrap: bootstrap.clone(),
                allow_private_addresses: None,
            };
            match Discovery::start(config).await {
                Ok(started) => break started,
                // QUIC gives the port back a moment after its owner has been dropped.
                Err(error) => assert!(begun.elapsed() < Duration::from_secs(5), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        (node.discovery, node.swarm) = (Some(discovery), Some(swarm));
        node
    }

    pub(crate) fn discovery(&self) -> &Discovery {
        self.discovery.as_ref().expect("this node has no discovery")
    }

    pub(crate) fn multiaddr(&self) -> Multiaddr {
        let PeerAddress { id, address } = self.peer;
        format!("/ip4/{}/udp/{}/quic-v1/p2p/{id}", address.ip(), address.port()).parse().unwrap()
    }

    /// Ends all of it; its address is free afterwards.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        drop(self.discovery.take());
        (&mut self.served).await.unwrap();
        if let Some(swarm) = &mut self.swarm {
            swarm.await.unwrap();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(crate) async fn next(events: &mut Receiver<PeerEvent>) -> PeerEvent {
    tokio::time::timeout(Duration::from_secs(20), events.recv()).await.expect("no event came").unwrap()
}

/// Waits for what has no event of its own.
pub(crate) async fn wait_until(true_now: impl Fn() -> bool) {
    let begun = Instant::now();
    while !true_now() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it never came true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

struct Listener {
    address: Multiaddr,
    refused: Arc<Refusals>,
    passed: mpsc::Receiver<(PeerId, GatedConnection)>,
}

async fn listen(network: Arc<Network>, keypair: &Keypair) -> Listener {
    let refused = Arc::new(Refusals::default());
    let mut transport = gated_quic(keypair, network, Arc::clone(&refused)).boxed();
    transport.listen_on(ListenerId::next(), "/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()).unwrap();
    let address = loop {
        if let Some(TransportEvent::NewAddress { listen_addr, .. }) = transport.next().await {
            break listen_addr;
        }
    };
    let (report, passed) = mpsc::channel(4);
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
    Listener { address, refused, passed }
}

/// The good node and the one under test, which shows `shown`, meet at the gate; the good one refuses by this reason. How long
/// that took.
pub(crate) async fn gate_refuses(
    setup: &Setup,
    shown: Option<Certificate>,
    bad_dials: bool,
    reason: RefusalReason,
) -> Duration {
    let (good, bad) = (setup.member(), setup.knows(shown));
    let dial = DialOpts { role: Endpoint::Dialer, port_use: PortUse::Reuse };
    let dialler_refused = Arc::new(Refusals::default());
    let (listener_side, dialler_side) = if bad_dials {
        ((good, &setup.good), (bad, &setup.keypair))
    } else {
        ((bad, &setup.keypair), (good, &setup.good))
    };
    let mut listener = listen(listener_side.0, listener_side.1).await;
    let mut dialler = gated_quic(dialler_side.1, dialler_side.0, Arc::clone(&dialler_refused)).boxed();
    let begun = Instant::now();
    let dialled = dialler.dial(listener.address.clone(), dial).unwrap().await;
    if bad_dials {
        // The dialler has sent its certificate last, and learns by the close what became of it.
        wait_until(|| listener.refused.count() == 1).await;
        assert_eq!(listener.refused.count_of(reason), 1, "{:?}", listener.refused);
    } else {
        assert!(dialled.is_err(), "the good one let it in");
        assert_eq!(dialler_refused.count_of(reason), 1, "{dialler_refused:?}");
    }
    let took = begun.elapsed();
    assert!(listener.passed.try_recv().is_err(), "the listener has a connection");
    took
}

pub(crate) async fn gate_accepts(setup: &Setup, shown: Option<Certificate>) {
    let mut listener = listen(setup.member(), &setup.good).await;
    let mut dialler = gated_quic(&setup.keypair, setup.knows(shown), Arc::default()).boxed();
    let dial = DialOpts { role: Endpoint::Dialer, port_use: PortUse::Reuse };
    let _connection = dialler.dial(listener.address.clone(), dial).unwrap().await.unwrap();
    let (peer, _) = listener.passed.recv().await.unwrap();
    assert_eq!(peer, setup.peer());
}
