//! Discovery and search over UDP: Kademlia for routing only, behind the gate (`docs/protocol.md` §3).
//!
//! One task owns the swarm; everybody else sends it commands over a bounded channel.

// libp2p's event and address enums have dozens of variants, most of which are not for us.
#![allow(clippy::wildcard_enum_match_arm)]

use crate::addresses::{AddressPolicy, PoliteDials, block_plane_address, quic_address};
use crate::core::Position;
use crate::muxer::gated_quic;
use crate::{MembershipError, Network, Refusals};
use chunkstore_block::BlockId;
use futures::StreamExt;
use libp2p::core::transport::TransportError;
use libp2p::core::upgrade;
use libp2p::identity::Keypair;
use libp2p::kad::store::MemoryStore;
use libp2p::kad::{self, QueryId, QueryResult};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, connection_limits, identify};
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Commands waiting for the swarm's task; a full channel makes callers wait.
const COMMANDS: usize = 256;
/// Lookups under way; more are refused, since each holds memory and opens streams. A guess.
const MAX_LOOKUPS: usize = 1024;
/// A lookup that has not ended by then answers with what it has, and says so. libp2p waits 10 s for a peer that does not answer:
/// a lookup that meets some at the same time comes to its end, also when it meets them a little later.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(15);
/// A lookup asks for so many peers (libp2p's k).
const LOOKUP_PEERS: usize = kad::K_VALUE.get();
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
/// Events that wait for a subscriber; one that is further behind learns that it has missed some. All of
/// [`MAX_INCOMING`] and [`MAX_OUTGOING`] may come and go at once.
const EVENTS: usize = 2048;
/// Connections that are being set up. Strangers can hold these places, each for the gate's 0.7 s, but not those of members.
const MAX_PENDING_INCOMING: u32 = 256;
/// Dials under way: some lookups at a time, each of which dials three.
const MAX_PENDING_OUTGOING: u32 = 256;
/// Connections of members, each with some 0.6 MiB of windows at the worst. Those that we dialled have places of their own: whoever fills
/// the others cannot shut us off from the nodes that we chose.
const MAX_INCOMING: u32 = 512;
const MAX_OUTGOING: u32 = 512;
/// Both sides may dial at once, and a peer that is killed and started again, perhaps many times, comes back before its old
/// connections have timed out (10 s).
const MAX_CONNECTIONS_PER_PEER: u32 = 16;
/// A QUIC handshake and the gate, over the slowest of lines.
const PROBE_DEADLINE: Duration = Duration::from_secs(3);
/// Probes under way; those that ask for them are bounded, too.
const MAX_PROBES: usize = 64;

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
    /// Whether peers' addresses may be loopback, private or the like. `None`: if all of this node's own are.
    pub allow_private_addresses: Option<bool>,
}

/// A peer and where its block plane listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Whom the handshake must prove.
    pub id: PeerId,
    /// TCP address of the block plane; its port is the QUIC port.
    pub address: SocketAddr,
}

/// What a lookup found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Those of the peers that can be dialled, with their addresses; in no given order.
    pub peers: Vec<PeerAddress>,
    /// All that were named, at most 20, also those that have no address that can be used.
    pub named: Vec<PeerId>,
    /// Whether the lookup came to its end. One that was cut off may have missed anybody.
    pub is_complete: bool,
}

impl Found {
    /// The positions of all that were named, if that says who is closest to the target: fewer than 20 are all there are, but
    /// only at the end of the lookup. `None` of one that was cut off with fewer.
    #[must_use]
    pub fn closest(&self) -> Option<Vec<Position>> {
        let is_known = self.is_complete || self.named.len() >= LOOKUP_PEERS;
        is_known.then(|| self.named.iter().map(|peer| Position::of_peer(&peer.to_bytes())).collect())
    }
}

/// Lookups that came to an end since the start.
#[derive(Debug, Default)]
pub struct LookupCounts {
    ended: AtomicU64,
    requests: AtomicU64,
}

impl LookupCounts {
    /// How many ended.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// How many requests they took together.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    fn note(&self, stats: &kad::QueryStats) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(stats.num_requests().into(), Ordering::Relaxed);
    }
}

/// A change of who is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// A member is connected and has said where it listens. Comes again when it listens elsewhere.
    Up(PeerAddress),
    /// The last connection with it has ended, which happens to idle ones too: it need not be down.
    Down(PeerId),
}

/// Handle to the swarm's task. Cheap to clone; the task ends when all are gone.
#[derive(Clone)]
pub struct Discovery {
    commands: mpsc::Sender<Command>,
    local: PeerId,
    refused: Arc<Refusals>,
    counts: Arc<LookupCounts>,
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
        let policy = AddressPolicy::new(config.allow_private_addresses, config.listen);
        let mut swarm = build_swarm(&config, Arc::clone(&refused), policy.clone());
        listen_on(&mut swarm, config.listen).await?;
        policy.listens_on(swarm.listeners());
        let local = *swarm.local_peer_id();
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let events = broadcast::Sender::new(EVENTS);
        let counts = Arc::new(LookupCounts::default());
        let task = SwarmTask {
            swarm,
            inbox,
            bootstrap,
            protocol: kad_protocol(&config.network),
            policy,
            lookups: HashMap::new(),
            counts: Arc::clone(&counts),
            refresh: FIRST_REFRESH,
            remotes: HashMap::new(),
            probes: HashMap::new(),
            up: HashMap::new(),
            events: events.clone(),
            refused: Arc::clone(&refused),
        };
        Ok((Self { commands, local, refused, counts, events }, tokio::spawn(task.run())))
    }

    /// Who comes and goes from now on; [`Discovery::connected`] tells who is there already. A subscriber that is 2,048
    /// events behind gets `Lagged`, and should ask for them again.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<PeerEvent> {
        self.events.subscribe()
    }

    /// The members that are connected now and have said where they listen, in no given order.
    ///
    /// # Errors
    /// [`DiscoveryError::Stopped`] at shutdown.
    pub async fn connected(&self) -> Result<Vec<PeerAddress>, DiscoveryError> {
        self.ask(Command::Connected).await
    }

    /// This node's own id.
    #[must_use]
    pub fn local_peer_id(&self) -> PeerId {
        self.local
    }

    /// What lookups have cost.
    #[must_use]
    pub fn lookup_counts(&self) -> &LookupCounts {
        &self.counts
    }

    /// How many connections the gate has refused since the start.
    #[must_use]
    pub fn refused_at_gate(&self) -> u64 {
        self.refused.count()
    }

    /// The same, for each reason.
    #[must_use]
    pub fn refusals(&self) -> &Arc<Refusals> {
        &self.refused
    }

    /// Asks the network for the peers closest to a block, at most 20, in no given order and without this node.
    /// Peers that did not answer are left out.
    ///
    /// # Errors
    /// [`DiscoveryError::Busy`] with too many lookups under way, [`DiscoveryError::Stopped`] at shutdown.
    pub async fn lookup(&self, block: BlockId) -> Result<Found, DiscoveryError> {
        self.lookup_key(block.as_bytes().to_vec()).await
    }

    /// As [`Discovery::lookup`], for any key: the peers closest to SHA-256 of its bytes.
    ///
    /// # Errors
    /// As [`Discovery::lookup`].
    pub async fn lookup_key(&self, key: Vec<u8>) -> Result<Found, DiscoveryError> {
        self.ask(|reply| Command::Lookup(key, reply)).await?
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

    /// Whether a new connection to a peer comes to stand, made from a port that it has not heard from: one that it has dialled itself
    /// proves nothing of what its router lets in. The connection is not kept.
    pub(crate) async fn can_reach(&self, peer: PeerAddress) -> bool {
        let probe = self.ask(|reply| Command::Probe(peer, reply));
        matches!(tokio::time::timeout(PROBE_DEADLINE, probe).await, Ok(Ok(true)))
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
    Connected(oneshot::Sender<Vec<PeerAddress>>),
    Probe(PeerAddress, oneshot::Sender<bool>),
}

type LookupReply = oneshot::Sender<Result<Found, DiscoveryError>>;

#[derive(NetworkBehaviour)]
struct Behaviour {
    // First, since it refuses before the others have made anything for a connection.
    limits: connection_limits::Behaviour,
    kad: kad::Behaviour<MemoryStore>,
    identify: identify::Behaviour,
}

fn kad_protocol(network: &Network) -> String {
    format!("/imira/{}/kad/1", network.id())
}

fn build_swarm(config: &DiscoveryConfig, refused: Arc<Refusals>, policy: AddressPolicy) -> Swarm<Behaviour> {
    let network = Arc::clone(&config.network);
    #[allow(clippy::expect_used)] // Both constructors below cannot fail (their error type is Infallible).
    let swarm = SwarmBuilder::with_existing_identity(config.keypair.clone())
        .with_tokio()
        .with_other_transport(|keypair| PoliteDials::new(gated_quic(keypair, network, refused), policy))
        .expect("the transport's constructor does not fail")
        .with_behaviour(|keypair| behaviour(keypair, &config.network))
        .expect("the behaviour's constructor does not fail")
        .with_swarm_config(|swarm| {
            let swarm = swarm.with_idle_connection_timeout(IDLE_CONNECTION);
            // The request goes with the name of its protocol: a round trip less for each.
            swarm.with_substream_upgrade_protocol_override(upgrade::Version::V1Lazy)
        })
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
    Behaviour {
        limits: connection_limits::Behaviour::new(connection_limits()),
        kad,
        identify: identify::Behaviour::new(identify),
    }
}

fn connection_limits() -> connection_limits::ConnectionLimits {
    connection_limits::ConnectionLimits::default()
        .with_max_pending_incoming(Some(MAX_PENDING_INCOMING))
        .with_max_pending_outgoing(Some(MAX_PENDING_OUTGOING))
        .with_max_established_incoming(Some(MAX_INCOMING))
        .with_max_established_outgoing(Some(MAX_OUTGOING))
        .with_max_established_per_peer(Some(MAX_CONNECTIONS_PER_PEER))
}

async fn listen_on(swarm: &mut Swarm<Behaviour>, address: SocketAddr) -> Result<(), DiscoveryError> {
    let failed = |reason: String| DiscoveryError::Listen { address, reason };
    swarm.listen_on(quic_address(address)).map_err(|error| match error {
        // Says nothing itself of what it wraps.
        TransportError::Other(error) => failed(error.to_string()),
        error @ TransportError::MultiaddrNotSupported(_) => failed(error.to_string()),
    })?;
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
    policy: AddressPolicy,
    lookups: HashMap<QueryId, LookupReply>,
    counts: Arc<LookupCounts>,
    /// Time from one refresh to the next.
    refresh: Duration,
    /// The other ends of open connections.
    remotes: HashMap<ConnectionId, IpAddr>,
    /// Dials that are made only to see whether they work.
    probes: HashMap<ConnectionId, oneshot::Sender<bool>>,
    /// Those of whom [`PeerEvent::Up`] was said, and not [`PeerEvent::Down`].
    up: HashMap<PeerId, PeerAddress>,
    events: broadcast::Sender<PeerEvent>,
    refused: Arc<Refusals>,
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
            Command::Probe(peer, reply) => self.start_probe(peer, reply),
            Command::Connected(reply) => drop(reply.send(self.up.values().copied().collect())),
        }
    }

    fn start_probe(&mut self, peer: PeerAddress, reply: oneshot::Sender<bool>) {
        let dial = DialOpts::peer_id(peer.id)
            .condition(PeerCondition::Always)
            .addresses(vec![quic_address(peer.address)])
            .allocate_new_port()
            .build();
        let connection = dial.connection_id();
        if self.probes.len() < MAX_PROBES && self.swarm.dial(dial).is_ok() {
            self.probes.insert(connection, reply);
        }
        // Otherwise the reply is dropped, which says that it did not work.
    }

    /// Answers a probe, if this was one.
    fn finish_probe(&mut self, connection: ConnectionId, stands: bool) {
        let Some(reply) = self.probes.remove(&connection) else { return };
        // Whoever asked may have given up.
        let _ = reply.send(stands);
        if stands {
            self.swarm.close_connection(connection);
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
        closest.into_iter().filter_map(|id| Some(PeerAddress { id, address: self.known_address(id)? })).collect()
    }

    /// Where a peer of the routing table listens. Looks at one bucket, never at the whole table.
    fn known_address(&mut self, peer: PeerId) -> Option<SocketAddr> {
        let bucket = self.swarm.behaviour_mut().kad.kbucket(peer)?;
        let entry = bucket.iter().find(|entry| *entry.node.key.preimage() == peer)?;
        // The newest is last.
        block_plane_address(entry.node.value.iter().last()?)
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
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                connection_id,
                peer_id,
                info,
            })) => {
                self.learn_addresses(connection_id, peer_id, &info);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
                id,
                result,
                stats,
                step,
            })) => {
                self.finish_lookup(id, result, &stats, step.last);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::RoutingUpdated { is_new_peer: true, .. })) => {
                self.refresh = FIRST_REFRESH;
            }
            SwarmEvent::ConnectionEstablished { connection_id, endpoint, .. } => {
                let remote = block_plane_address(endpoint.get_remote_address());
                self.remotes.extend(remote.map(|socket| (connection_id, socket.ip())));
                self.finish_probe(connection_id, true);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, cause, .. } => {
                self.note_closed(peer_id, connection_id, num_established);
                if let Some(error) = cause.as_ref().and_then(|cause| MembershipError::within(cause)) {
                    tracing::info!(peer = %peer_id, %error, "disconnected");
                    self.refused.note(error.reason());
                    self.swarm.behaviour_mut().kad.remove_peer(&peer_id);
                }
            }
            SwarmEvent::NewListenAddr { .. } | SwarmEvent::ExpiredListenAddr { .. } => {
                self.policy.listens_on(self.swarm.listeners());
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error, .. } => {
                self.finish_probe(connection_id, false);
                tracing::debug!(?peer_id, %error, "dial failed");
                // Dialled again at every lookup otherwise, for nothing.
                if let (Some(peer), true) = (peer_id, is_no_member(&error)) {
                    self.swarm.behaviour_mut().kad.remove_peer(&peer);
                }
            }
            _ => {}
        }
    }

    /// Inbound peers enter the routing table only by what they say of themselves.
    fn learn_addresses(&mut self, connection: ConnectionId, peer: PeerId, info: &identify::Info) {
        if !info.protocols.iter().any(|protocol| protocol.as_ref() == self.protocol) {
            return;
        }
        let announced = self.policy.usable_of(&info.listen_addrs);
        if announced.is_empty() {
            return;
        }
        self.enter(peer, &announced);
        let sockets: Vec<_> = announced.iter().filter_map(block_plane_address).collect();
        // Of several addresses the one that it is connected by is known to work.
        let remote = self.remotes.get(&connection).copied();
        let by_remote = sockets.iter().find(|socket| Some(socket.ip()) == remote);
        if let Some(address) = by_remote.or(sockets.first()).copied() {
            self.note_up(PeerAddress { id: peer, address });
        }
    }

    fn enter(&mut self, peer: PeerId, announced: &[Multiaddr]) {
        let kad = &mut self.swarm.behaviour_mut().kad;
        for address in announced {
            kad.add_address(&peer, address.clone());
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

    fn note_up(&mut self, peer: PeerAddress) {
        if self.swarm.is_connected(&peer.id) && self.up.insert(peer.id, peer) != Some(peer) {
            self.tell(PeerEvent::Up(peer));
        }
    }

    fn note_closed(&mut self, peer: PeerId, connection: ConnectionId, remaining: u32) {
        self.remotes.remove(&connection);
        if remaining == 0 && self.up.remove(&peer).is_some() {
            self.tell(PeerEvent::Down(peer));
        }
    }

    /// Without a subscriber nobody is told, which is no error.
    fn tell(&self, event: PeerEvent) {
        drop(self.events.send(event));
    }

    /// The routing table has what a peer says of itself, so it comes before what others named in the lookup.
    fn with_addresses(&mut self, peers: Vec<kad::PeerInfo>) -> Vec<PeerAddress> {
        peers
            .into_iter()
            .filter_map(|kad::PeerInfo { peer_id: id, addrs }| {
                let known = self.known_address(id);
                let address = known.or_else(|| addrs.iter().find_map(|address| self.policy.usable(address)))?;
                Some(PeerAddress { id, address })
            })
            .collect()
    }

    fn finish_lookup(&mut self, id: QueryId, result: QueryResult, stats: &kad::QueryStats, last: bool) {
        let QueryResult::GetClosestPeers(result) = result else { return };
        if !last {
            return;
        }
        let Some(reply) = self.lookups.remove(&id) else { return };
        self.counts.note(stats);
        let (named, is_complete) = outcome(result);
        // Before those are left out that have no address that can be used: they are there all the same.
        let ids = named.iter().map(|peer| peer.peer_id).collect();
        drop(reply.send(Ok(Found { named: ids, peers: self.with_addresses(named), is_complete })));
    }
}

/// Whom a lookup named, and whether it came to its end.
fn outcome(result: kad::GetClosestPeersResult) -> (Vec<kad::PeerInfo>, bool) {
    match result {
        Ok(found) => (found.peers, true),
        Err(kad::GetClosestPeersError::Timeout { peers, .. }) => (peers, false),
    }
}

/// Whether the gate is what refused a peer that was dialled, since it is not a member.
fn is_no_member(error: &DialError) -> bool {
    let DialError::Transport(attempts) = error else { return false };
    attempts.iter().any(|(_, error)| MembershipError::within(error).is_some())
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

/// Whom a bootstrap address names, and where its block plane listens; `None` for one of another form.
#[must_use]
pub fn peer_address(address: &Multiaddr) -> Option<PeerAddress> {
    let (id, bare) = bootstrap_peer(address).ok()?;
    Some(PeerAddress { id, address: block_plane_address(&bare)? })
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

    /// A lookup that the deadline cut off was taken for one that had named all nodes there are.
    #[test]
    fn a_lookup_that_was_cut_off_tells_who_is_closest_only_if_it_named_twenty() {
        let peers = |count| (0..count).map(|_| Keypair::generate_ed25519().public().to_peer_id()).collect::<Vec<_>>();
        let infos =
            |count| peers(count).into_iter().map(|peer_id| kad::PeerInfo { peer_id, addrs: Vec::new() }).collect();
        let ended = outcome(Ok(kad::GetClosestPeersOk { key: Vec::new(), peers: infos(3) }));
        let cut_off = outcome(Err(kad::GetClosestPeersError::Timeout { key: Vec::new(), peers: infos(3) }));
        assert_eq!((ended.0.len(), ended.1, cut_off.0.len(), cut_off.1), (3, true, 3, false));
        for (named, is_complete, known) in [(0, true, true), (3, true, true), (19, false, false), (20, false, true)] {
            // None of them has an address that can be used, which says nothing about who is there.
            let found = Found { peers: Vec::new(), named: peers(named), is_complete };
            assert_eq!(found.closest().map(|nodes| nodes.len()), known.then_some(named), "{named}, {is_complete}");
        }
    }

    #[test]
    fn our_positions_are_libp2ps() {
        let block = BlockId::of(b"a block");
        let key = kad::KBucketKey::new(block.as_bytes().to_vec());
        assert_eq!(Position::of_block(&block).as_bytes(), key.hashed_bytes());
        let peer = Keypair::generate_ed25519().public().to_peer_id();
        assert_eq!(Position::of_peer(&peer.to_bytes()).as_bytes(), kad::KBucketKey::from(peer).hashed_bytes());
    }

    #[tokio::test]
    async fn a_dial_that_the_gate_ended_for_want_of_a_certificate_is_known_as_such() {
        let listen: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let open = Arc::new(Network::generate().unwrap());
        let members = crate::Membership::new(
            open.id(),
            vec![crate::Authority::generate().unwrap().public()],
            None,
            Arc::new(|| 0),
        );
        let asking = Arc::new((*open).clone().with_membership(Arc::new(members.unwrap())));
        let swarm = |network| {
            let config = DiscoveryConfig {
                keypair: Keypair::generate_ed25519(),
                network,
                listen,
                bootstrap: Vec::new(),
                allow_private_addresses: Some(true),
            };
            build_swarm(&config, Arc::default(), AddressPolicy::new(Some(true), listen))
        };
        let (mut without, mut dialler) = (swarm(open), swarm(asking));
        listen_on(&mut without, listen).await.unwrap();
        let address = without.listeners().next().unwrap().clone();
        tokio::spawn(async move { while without.next().await.is_some() {} });
        dialler.dial(address).unwrap();
        let error = loop {
            if let SwarmEvent::OutgoingConnectionError { error, .. } = dialler.select_next_some().await {
                break error;
            }
        };
        assert!(is_no_member(&error), "{error:?}");
        assert!(!is_no_member(&DialError::Aborted));
    }
}
