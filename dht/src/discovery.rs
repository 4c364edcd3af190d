//! Discovery and search over UDP: Kademlia for routing only, behind the gate (`docs/protocol.md` §3).
//!
//! One task owns the swarm; everybody else sends it commands over a bounded channel.

// libp2p's event and address enums have dozens of variants, most of which are not for us.
#![allow(clippy::wildcard_enum_match_arm)]

use crate::muxer::gated_quic;
use crate::{Network, Refusals};
use chunkstore_block::BlockId;
use futures::StreamExt;
use libp2p::identity::Keypair;
use libp2p::kad::store::MemoryStore;
use libp2p::kad::{self, QueryId, QueryResult};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, identify};
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Commands waiting for the swarm's task; a full channel makes callers wait.
const COMMANDS: usize = 256;
/// Events that a slow reader may be behind.
const EVENTS: usize = 256;
/// Lookups under way; more are refused, since each holds memory and opens streams. A guess.
const MAX_LOOKUPS: usize = 1024;
/// A lookup that has not ended by then answers with what it has. Guess: several dead peers' timeouts.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(10);
/// How often a node that knows nobody dials its bootstrap peers again.
const REJOIN_INTERVAL: Duration = Duration::from_secs(2);
/// Idle connections are kept this long: a lookup then costs one round trip instead of a handshake.
const IDLE_CONNECTION: Duration = Duration::from_secs(60);
/// libp2p's own refresh walks all buckets every 5 minutes and makes spikes of traffic; ours is below.
const BOOTSTRAP_INTERVAL: Duration = Duration::from_secs(3600);
/// A node looks itself up to meet its neighbours: soon after it has met somebody new (two that join at the same moment
/// do not hear of each other otherwise), then ever more seldom. Guess, to be replaced by the simulator's figures.
const FIRST_REFRESH: Duration = Duration::from_secs(1);
const LAST_REFRESH: Duration = Duration::from_secs(300);

/// What discovery needs to know.
pub struct DiscoveryConfig {
    /// The node key.
    pub keypair: Keypair,
    /// The network to join.
    pub network: Arc<Network>,
    /// Address for QUIC; the block plane listens on the TCP port of the same number.
    pub listen: SocketAddr,
    /// Peers to dial first, each with `/p2p/<PeerId>`.
    pub bootstrap: Vec<Multiaddr>,
}

/// A peer and where its block plane listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Whom the handshake must prove.
    pub id: PeerId,
    /// TCP address of the block plane; its port is the QUIC port.
    pub address: SocketAddr,
}

/// Somebody came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// A member is connected and has said where it is.
    Up(PeerAddress),
    /// The last connection with it is closed, which need not mean that it is gone.
    Down(PeerId),
}

/// Handle to the swarm's task. Cheap to clone; the task ends when all are gone.
#[derive(Clone)]
pub struct Discovery {
    commands: mpsc::Sender<Command>,
    local: PeerId,
    refused: Arc<Refusals>,
    events: broadcast::Sender<PeerEvent>,
}

impl Discovery {
    /// Listens, starts the swarm's task and dials the bootstrap peers.
    ///
    /// # Errors
    /// [`DiscoveryError::Listen`] when the address cannot be used, [`DiscoveryError::Bootstrap`] when a bootstrap
    /// address has no `/p2p/<PeerId>`.
    pub async fn start(config: DiscoveryConfig) -> Result<(Self, JoinHandle<()>), DiscoveryError> {
        let bootstrap = config.bootstrap.iter().map(bootstrap_peer).collect::<Result<Vec<_>, _>>()?;
        let refused = Arc::new(Refusals::default());
        let mut swarm = build_swarm(&config, Arc::clone(&refused));
        listen(&mut swarm, config.listen).await?;
        let local = *swarm.local_peer_id();
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (events, _) = broadcast::channel(EVENTS);
        let protocol = kad_protocol(&config.network);
        let task = SwarmTask {
            swarm,
            inbox,
            bootstrap,
            protocol,
            lookups: HashMap::new(),
            refresh: FIRST_REFRESH,
            events: events.clone(),
        };
        Ok((Self { commands, local, refused, events }, tokio::spawn(task.run())))
    }

    /// This node's own id.
    #[must_use]
    pub fn local_peer_id(&self) -> PeerId {
        self.local
    }

    /// How many connections the gate has refused since the start.
    #[must_use]
    pub fn refused_at_gate(&self) -> u64 {
        self.refused.count()
    }

    /// Asks the network for the peers closest to a block, at most 20, in no given order and without this node.
    /// Peers that did not answer are left out.
    ///
    /// # Errors
    /// [`DiscoveryError::Busy`] with too many lookups under way, [`DiscoveryError::Stopped`] at shutdown.
    pub async fn lookup(&self, block: BlockId) -> Result<Vec<PeerAddress>, DiscoveryError> {
        self.lookup_key(block.as_bytes().to_vec()).await
    }

    /// The same for the position that is the SHA-256 of `key`.
    ///
    /// # Errors
    /// As [`Discovery::lookup`].
    pub async fn lookup_key(&self, key: Vec<u8>) -> Result<Vec<PeerAddress>, DiscoveryError> {
        self.ask(|reply| Command::Lookup(key, reply)).await?
    }

    /// Who comes and goes from now on. A reader that falls behind by more than some hundred events misses the oldest.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<PeerEvent> {
        self.events.subscribe()
    }

    /// The peers closest to a block among those in the routing table, at most 20. Costs no round trip.
    ///
    /// # Errors
    /// [`DiscoveryError::Stopped`] at shutdown.
    pub async fn known_closest(&self, block: BlockId) -> Result<Vec<PeerAddress>, DiscoveryError> {
        self.ask(|reply| Command::KnownClosest(block, reply)).await
    }

    /// The routing table: peers with their QUIC addresses.
    ///
    /// # Errors
    /// [`DiscoveryError::Stopped`] at shutdown.
    pub async fn peers(&self) -> Result<Vec<(PeerId, Multiaddr)>, DiscoveryError> {
        self.ask(Command::Peers).await
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, DiscoveryError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| DiscoveryError::Stopped)?;
        answer.await.map_err(|_| DiscoveryError::Stopped)
    }
}

enum Command {
    Lookup(Vec<u8>, LookupReply),
    KnownClosest(BlockId, oneshot::Sender<Vec<PeerAddress>>),
    Peers(oneshot::Sender<Vec<(PeerId, Multiaddr)>>),
}

type LookupReply = oneshot::Sender<Result<Vec<PeerAddress>, DiscoveryError>>;

#[derive(NetworkBehaviour)]
struct Behaviour {
    kad: kad::Behaviour<MemoryStore>,
    identify: identify::Behaviour,
}

fn kad_protocol(network: &Network) -> String {
    format!("/imira/{}/kad/1", network.id())
}

fn build_swarm(config: &DiscoveryConfig, refused: Arc<Refusals>) -> Swarm<Behaviour> {
    let network = Arc::clone(&config.network);
    #[allow(clippy::expect_used)] // Both constructors below cannot fail (their error type is Infallible).
    let swarm = SwarmBuilder::with_existing_identity(config.keypair.clone())
        .with_tokio()
        .with_other_transport(|keypair| gated_quic(keypair, network, refused))
        .expect("the transport's constructor does not fail")
        .with_behaviour(|keypair| behaviour(keypair, &config.network))
        .expect("the behaviour's constructor does not fail")
        .with_swarm_config(|swarm| swarm.with_idle_connection_timeout(IDLE_CONNECTION))
        .build();
    swarm
}

fn behaviour(keypair: &Keypair, network: &Network) -> Behaviour {
    let local = keypair.public().to_peer_id();
    #[allow(clippy::expect_used)] // The name begins with a slash, which is all that is asked of it.
    let protocol = StreamProtocol::try_from_owned(kad_protocol(network)).expect("a protocol name");
    let mut config = kad::Config::new(protocol);
    config
        .set_query_timeout(LOOKUP_DEADLINE)
        .set_periodic_bootstrap_interval(Some(BOOTSTRAP_INTERVAL))
        // Routing only: nobody's records are kept, handed on or published again.
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None);
    let mut kad = kad::Behaviour::with_config(local, MemoryStore::new(local), config);
    kad.set_mode(Some(kad::Mode::Server));
    let identify = identify::Config::new(format!("/imira/{}/1", network.id()), keypair.public())
        .with_agent_version(concat!("imira-node/", env!("CARGO_PKG_VERSION")).to_owned())
        .with_push_listen_addr_updates(true);
    Behaviour { kad, identify: identify::Behaviour::new(identify) }
}

async fn listen(swarm: &mut Swarm<Behaviour>, address: SocketAddr) -> Result<(), DiscoveryError> {
    let failed = |reason: String| DiscoveryError::Listen { address, reason };
    swarm.listen_on(quic_address(address)).map_err(|error| failed(error.to_string()))?;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { .. } => return Ok(()),
            SwarmEvent::ListenerError { error, .. } => return Err(failed(error.to_string())),
            SwarmEvent::ListenerClosed { reason, .. } => return Err(failed(format!("{reason:?}"))),
            _ => {}
        }
    }
}

/// The task that owns the swarm.
struct SwarmTask {
    swarm: Swarm<Behaviour>,
    inbox: mpsc::Receiver<Command>,
    bootstrap: Vec<(PeerId, Multiaddr)>,
    protocol: String,
    lookups: HashMap<QueryId, LookupReply>,
    /// Time from one refresh to the next.
    refresh: Duration,
    events: broadcast::Sender<PeerEvent>,
}

impl SwarmTask {
    /// Runs until all handles are gone, or until the node cannot be reached over UDP any more.
    async fn run(mut self) {
        let mut rejoin = tokio::time::interval(REJOIN_INTERVAL);
        rejoin.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut refreshed = Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(refreshed + self.refresh) => {
                    refreshed = Instant::now();
                    self.refresh();
                }
                event = self.swarm.select_next_some() => {
                    if let SwarmEvent::ListenerClosed { reason, .. } = &event {
                        tracing::error!(?reason, "the UDP listener is gone");
                        return;
                    }
                    self.handle_event(event);
                }
                command = self.inbox.recv() => match command {
                    Some(command) => self.handle_command(command),
                    None => return,
                },
                _ = rejoin.tick() => self.join_if_alone(),
            }
        }
    }

    /// Looks this node itself up: it meets its neighbours, those that have come back among them.
    fn refresh(&mut self) {
        let local = *self.swarm.local_peer_id();
        self.swarm.behaviour_mut().kad.get_closest_peers(local);
        self.refresh = (self.refresh * 2).min(LAST_REFRESH);
    }

    /// Dials the bootstrap peers while the node is connected to nobody.
    fn join_if_alone(&mut self) {
        if self.swarm.network_info().num_peers() > 0 || self.bootstrap.is_empty() {
            return;
        }
        for (peer, address) in &self.bootstrap {
            self.swarm.behaviour_mut().kad.add_address(peer, address.clone());
        }
        if let Err(error) = self.swarm.behaviour_mut().kad.bootstrap() {
            tracing::debug!(%error, "nobody to bootstrap from");
        }
    }

    fn handle_command(&mut self, command: Command) {
        match command {
            Command::Lookup(key, reply) => self.start_lookup(key, reply),
            Command::KnownClosest(block, reply) => drop(reply.send(self.known_closest(block))),
            Command::Peers(reply) => drop(reply.send(self.routing_table())),
        }
    }

    fn start_lookup(&mut self, key: Vec<u8>, reply: LookupReply) {
        if self.lookups.len() >= MAX_LOOKUPS {
            drop(reply.send(Err(DiscoveryError::Busy)));
            return;
        }
        let query = self.swarm.behaviour_mut().kad.get_n_closest_peers(key, kad::K_VALUE);
        self.lookups.insert(query, reply);
    }

    fn known_closest(&mut self, block: BlockId) -> Vec<PeerAddress> {
        let key = kad::KBucketKey::new(block.as_bytes().to_vec());
        let kad = &mut self.swarm.behaviour_mut().kad;
        let closest: Vec<PeerId> =
            kad.get_closest_local_peers(&key).take(kad::K_VALUE.get()).map(kad::KBucketKey::into_preimage).collect();
        closest.into_iter().filter_map(|id| self.known_address(id).map(|address| PeerAddress { id, address })).collect()
    }

    /// Where a peer in the routing table said last that it is.
    fn known_address(&mut self, peer: PeerId) -> Option<SocketAddr> {
        let bucket = self.swarm.behaviour_mut().kad.kbucket(peer)?;
        // The newest is last.
        let newest =
            bucket.iter().find(|entry| *entry.node.key.preimage() == peer)?.node.value.iter().last().cloned()?;
        block_plane_address(&newest)
    }

    fn routing_table(&mut self) -> Vec<(PeerId, Multiaddr)> {
        let buckets = self.swarm.behaviour_mut().kad.kbuckets();
        buckets
            .flat_map(|bucket| {
                bucket
                    .iter()
                    .filter_map(|entry| {
                        // The newest is last.
                        let address = entry.node.value.iter().last()?;
                        Some((*entry.node.key.preimage(), address.clone()))
                    })
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    fn handle_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. })) => {
                self.learn_addresses(peer_id, &info);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
                id,
                result,
                step,
                ..
            })) => {
                self.finish_lookup(id, result, step.last);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::RoutingUpdated { is_new_peer: true, .. })) => {
                self.refresh = FIRST_REFRESH;
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => {
                let _ = self.events.send(PeerEvent::Down(peer_id));
            }
            SwarmEvent::OutgoingConnectionError { peer_id, error, .. } => {
                tracing::debug!(?peer_id, %error, "dial failed");
            }
            _ => {}
        }
    }

    /// Inbound peers enter the routing table only by what they say of themselves.
    fn learn_addresses(&mut self, peer: PeerId, info: &identify::Info) {
        if !info.protocols.iter().any(|protocol| protocol.as_ref() == self.protocol) {
            return;
        }
        let kad = &mut self.swarm.behaviour_mut().kad;
        let announced = usable_addresses(&info.listen_addrs);
        if announced.is_empty() {
            return;
        }
        for address in &announced {
            kad.add_address(&peer, address.clone());
        }
        if let Some(address) = announced.iter().find_map(block_plane_address) {
            // Nobody listens before replication has begun.
            let _ = self.events.send(PeerEvent::Up(PeerAddress { id: peer, address }));
        }
        // What it had before and does not name any more is of an earlier run.
        let known = kad.kbucket(peer).into_iter().flat_map(|bucket| {
            let of_peer = bucket
                .iter()
                .filter(|entry| *entry.node.key.preimage() == peer)
                .map(|e| e.node.value.clone().into_vec());
            of_peer.flatten().collect::<Vec<_>>()
        });
        let named: BTreeSet<_> = announced.iter().filter_map(block_plane_address).collect();
        let stale: Vec<_> =
            known.filter(|address| block_plane_address(address).is_none_or(|known| !named.contains(&known))).collect();
        for address in stale {
            kad.remove_address(&peer, &address);
        }
    }

    /// The routing table has what a peer says of itself, so it comes before what others named in the lookup.
    fn with_addresses(&mut self, peers: Vec<kad::PeerInfo>) -> Vec<PeerAddress> {
        peers
            .into_iter()
            .filter_map(|kad::PeerInfo { peer_id: id, addrs }| {
                let address = self.known_address(id).or_else(|| addrs.iter().find_map(block_plane_address))?;
                Some(PeerAddress { id, address })
            })
            .collect()
    }

    fn finish_lookup(&mut self, id: QueryId, result: QueryResult, last: bool) {
        let QueryResult::GetClosestPeers(result) = result else { return };
        if !last {
            return;
        }
        let Some(reply) = self.lookups.remove(&id) else { return };
        let peers = match result {
            Ok(found) => found.peers,
            Err(kad::GetClosestPeersError::Timeout { peers, .. }) => peers,
        };
        drop(reply.send(Ok(self.with_addresses(peers))));
    }
}

/// The addresses of a peer under which the block plane can be reached. A peer that listens everywhere names its loopback
/// address too, which would lead others to themselves: it counts only where it is the only kind.
fn usable_addresses(announced: &[Multiaddr]) -> Vec<Multiaddr> {
    let usable = || announced.iter().filter_map(|address| Some((address, block_plane_address(address)?)));
    let only_loopback = usable().all(|(_, socket)| socket.ip().is_loopback());
    usable()
        .filter(|(_, socket)| (only_loopback || !socket.ip().is_loopback()) && !socket.ip().is_unspecified())
        .map(|(address, _)| address.clone())
        .collect()
}

fn quic_address(address: SocketAddr) -> Multiaddr {
    Multiaddr::from(address.ip()).with(Protocol::Udp(address.port())).with(Protocol::QuicV1)
}

/// `/ip../udp/P/quic-v1[/p2p/..]` with the UDP port read as TCP's (`docs/protocol.md` §3).
fn block_plane_address(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    let Protocol::Udp(port) = parts.next()? else { return None };
    matches!(parts.next()?, Protocol::QuicV1).then_some(SocketAddr::new(ip, port))
}

/// Takes a bootstrap address apart: whom to dial, and where.
///
/// # Errors
/// [`DiscoveryError::Bootstrap`] when it is not of the form `/ip4/A/udp/P/quic-v1/p2p/PEER`.
pub fn bootstrap_peer(address: &Multiaddr) -> Result<(PeerId, Multiaddr), DiscoveryError> {
    let mut bare = address.clone();
    match bare.pop() {
        Some(Protocol::P2p(peer)) if block_plane_address(&bare).is_some() => Ok((peer, bare)),
        _ => Err(DiscoveryError::Bootstrap(address.clone())),
    }
}

/// Why discovery could not start or answer.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// The address cannot be listened on.
    #[error("cannot listen on UDP {address}: {reason}; is another node running there?")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// What the system said.
        reason: String,
    },
    /// A bootstrap address that names no peer.
    #[error("the bootstrap address {0} is not of the form /ip4/A/udp/P/quic-v1/p2p/PEER; `imira-node init` prints it")]
    Bootstrap(Multiaddr),
    /// Too many lookups are under way.
    #[error("too many lookups are under way; try again")]
    Busy,
    /// The node is shutting down.
    #[error("the node is shutting down")]
    Stopped,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Position;

    #[test]
    fn our_positions_are_libp2ps() {
        let block = BlockId::of(b"a block");
        let key = kad::KBucketKey::new(block.as_bytes().to_vec());
        assert_eq!(Position::of_block(&block).as_bytes(), key.hashed_bytes());
        let peer = Keypair::generate_ed25519().public().to_peer_id();
        assert_eq!(Position::of_peer(&peer.to_bytes()).as_bytes(), kad::KBucketKey::from(peer).hashed_bytes());
    }

    #[test]
    fn loopback_counts_only_where_it_is_the_only_kind() {
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Multiaddr>>();
        let (local, public) = ("/ip4/127.0.0.1/udp/1/quic-v1", "/ip4/192.0.2.1/udp/1/quic-v1");
        assert_eq!(usable_addresses(&parse(&[local, public])), parse(&[public]));
        assert_eq!(usable_addresses(&parse(&[local])), parse(&[local]));
        assert!(usable_addresses(&parse(&["/ip4/127.0.0.1/tcp/1"])).is_empty());
    }

    #[test]
    fn the_block_plane_address_is_the_quic_address() {
        for (text, expected) in [
            ("/ip4/127.0.0.1/udp/7101/quic-v1", Some("127.0.0.1:7101")),
            ("/ip6/::1/udp/9/quic-v1", Some("[::1]:9")),
            ("/ip4/127.0.0.1/tcp/7101", None),
            ("/dns4/example/udp/1/quic-v1", None),
        ] {
            let address: Multiaddr = text.parse().unwrap();
            assert_eq!(block_plane_address(&address), expected.map(|text| text.parse().unwrap()), "{text}");
        }
    }
}
