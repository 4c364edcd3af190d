//! Puts the parts together, runs them, and stops them.

use crate::away::Alive;
use crate::backend::{About, Backend, Node};
use crate::blocks::{Blocks, Durable, Holder};
use crate::cached::Cached;
use crate::config::Config;
use crate::deletions::Deletions;
use crate::descriptors;
use crate::files::DataDir;
use crate::housekeeping::{Housekeeper, Rates};
use crate::ingest::Ingest;
use crate::membership;
use crate::operator::control_url;
use crate::receipts::Receipts;
use crate::reload::{Reload, Reloader};
use crate::replication::Replication;
use crate::seen::SeenUntil;
use crate::uploads::{Restored, Uploads};
use anyhow::{Context, Result, anyhow, ensure};
use axum::Router;
use chunkstore::Store;
use chunkstore_block::NetworkId;
use control_api::{
    AppConfig, AppState, AuthorityVerifier, Clock, DeletionVerifier, Gate, NodeClient, NodeId, PinnedKeys,
    RequestVerifier, ServeOptions, SystemClock, TransferGauge, control_router, delivery_router, only_hosts, serve,
    serve_with,
};
use dht::core::{Position, Replicator, Time};
use dht::{BlockClient, BlockServer, Discovery, DiscoveryConfig, Membership, Multiaddr, Peers};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// After the signal to stop, responses and requests under way have this long. With what is written after it, and what is waited for at the
/// very end, a stop takes less than 5 s.
const GRACE: Duration = Duration::from_secs(3);
/// Connections that wait to be accepted. One for which there is no room there tries again after a second, so a burst of strangers must not fill
/// it; as many as Linux allows by itself.
const BACKLOG: u32 = 4_096;
/// How often the routing table is compared with the file that remembers it.
const REMEMBER_EVERY: Duration = Duration::from_millis(500);
/// Peers that are remembered; any one that answers is enough.
const REMEMBERED_PEERS: usize = 64;

/// What an operator does whose kernel cannot confine FFmpeg.
pub(crate) const UNCONFINED: &str = "Use Linux 5.13 or later with Landlock (CONFIG_SECURITY_LANDLOCK, and landlock in the boot option lsm=); or set \
                                     confine_ffmpeg = false, which trusts every decoder of FFmpeg with this node.";

/// Runs the node until SIGINT or SIGTERM.
pub(crate) async fn run(data: DataDir, config: Config, reload: Reload) -> Result<()> {
    chunkstore::check_processor()?;
    if config.confine_ffmpeg {
        transcode::check_confinement().context(UNCONFINED)?;
    }
    let certificate = data.delivery_certificate(&config)?.map(Arc::new);
    let alive = Alive::new(data.alive_path());
    alive.check(SystemClock.unix_seconds(), &data.store_path())?;
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    // It answers while the store is being opened, which takes long after a crash or with an old store.
    let gate = Gate::default();
    let control = match listen(config.control, "control") {
        Ok(control) => control,
        Err(error) => return Err(runs_already(&data, &config).await.unwrap_or(error)),
    };
    let guarded = guarded(gate.router(), &config);
    let control = tokio::spawn(serve(control, guarded, stop.clone().cancelled_owned()));
    let mut parts = Parts::open(&data, &config, &stop).await?;

    let delivery = listen(config.delivery, "delivery")?;
    let node = Arc::new(build_node(&data, &config, &parts, &stop, &tasks)?);
    node.housekeeper.start(&tasks);
    let receipts = Arc::clone(&node.receipts);
    let state = build_state(&config, &parts, Arc::clone(&node))?;
    let meter = Arc::clone(state.meter());
    tasks.spawn(Arc::clone(&receipts).keep_writing(Arc::clone(&meter), stop.clone()));
    tasks.spawn(Arc::clone(&parts.uploads).sweep());
    node.process_again(std::mem::take(&mut parts.restored.received));
    let vital = Vital { tasks: tasks.clone(), stop: stop.clone(), broken: CancellationToken::new() };
    vital.spawn("replication", parts.replication.clone().run());
    vital.spawn("blocks over TCP", parts.server.run(parts.holder, stop.clone()));
    // Before anybody is told that the node is up. Until here a signal ends the process at once, which nothing minds.
    let mut signals = Signals::new()?;
    gate.open(control_router(Arc::clone(&state)));
    vital.watch("the control listener", control);
    let options = ServeOptions {
        certificate: certificate.clone(),
        connections: delivery_connections(&config),
        connections_per_address: config.delivery_connections_per_address,
    };
    let stopped = stop.clone().cancelled_owned();
    vital.spawn("the delivery listener", serve_with(options, delivery, delivery_router(Arc::clone(&state)), stopped));
    let (started_with, listeners) = (config.clone(), Arc::clone(&state));
    let reloader =
        Reloader { data: data.clone(), reload, node, state, certificate, config: config.clone(), started_with };
    tasks.spawn(reloader.run(stop.clone()));
    tasks.spawn(membership::watch(
        data.clone(),
        Arc::clone(&parts.membership),
        parts.peers.discovery().local_peer_id(),
        stop.clone(),
    ));
    let replication = parts.replication.clone();
    let known = move || replication.knows_what_was_deleted().then(|| SystemClock.unix_seconds());
    tasks.spawn(alive.keep_noting(known, stop.clone()));
    tasks.spawn(remember_peers(data, parts.peers.discovery().clone(), stop.clone()));
    tracing::info!(
        peer_id = %parts.node_id, network = %parts.network_id, listen = %config.listen, delivery = %config.delivery,
        control = %config.control, "node is up"
    );

    let broken = tokio::select! {
        () = vital.broken.cancelled() => true,
        // Not awaited at the end: it stops when the last handle to it goes.
        _ = parts.discovery => {
            tracing::error!("discovery has ended");
            true
        }
        () = signals.wait() => false,
    };
    tracing::info!("stopping");
    stop.cancel();
    listeners.end_events();
    tasks.close();
    if tokio::time::timeout(GRACE, tasks.wait()).await.is_err() {
        tracing::warn!("stopped before everything under way was done");
    }
    tokio::task::spawn_blocking(move || receipts.write(&meter)).await?;
    ensure!(!broken, "a part of the node ended by itself; its log says which");
    Ok(())
}

/// As many as the operator wants, if there are descriptors for them.
fn delivery_connections(config: &Config) -> u32 {
    let (wanted, possible) = (config.delivery_connections, descriptors::for_viewers());
    if possible < wanted {
        tracing::warn!(
            possible,
            wanted,
            "the limit on open files is too low for delivery_connections; raise it (LimitNOFILE= in the systemd unit, ulimit -n)"
        );
    }
    wanted.min(possible)
}

/// Parts without which the node is of no use: when one ends, the node does, so that whoever watches it starts it again.
struct Vital {
    tasks: TaskTracker,
    stop: CancellationToken,
    broken: CancellationToken,
}

impl Vital {
    fn spawn(&self, what: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        self.watch(what, tokio::spawn(part));
    }

    fn watch(&self, what: &'static str, part: JoinHandle<()>) {
        let (stop, broken) = (self.stop.clone(), self.broken.clone());
        self.tasks.spawn(async move {
            let outcome = part.await;
            if !stop.is_cancelled() {
                tracing::error!(what, panicked = outcome.is_err(), "a part of the node has ended");
                broken.cancel();
            }
        });
    }
}

/// What is opened before anything is served.
struct Parts {
    node_id: NodeId,
    network_id: NetworkId,
    durable: Durable,
    peers: Peers,
    server: BlockServer,
    holder: Arc<Holder>,
    housekeeper: Housekeeper,
    uploads: Arc<Uploads>,
    restored: Restored,
    deletions: Arc<Deletions>,
    replication: Replication,
    staging: PathBuf,
    clock: Arc<dyn Clock>,
    keys: PinnedKeys,
    discovery: JoinHandle<()>,
    membership: Arc<Membership>,
}

impl Parts {
    async fn open(data: &DataDir, config: &Config, stop: &CancellationToken) -> Result<Self> {
        let keypair = data.keypair()?;
        let network = Arc::new(data.network()?);
        let network_id = network.id();
        let peer_id = keypair.public().to_peer_id();
        membership::check_own(network.membership(), peer_id)?;
        let local = Position::of_peer(&peer_id.to_bytes());
        let node_id: NodeId = peer_id.to_base58().parse()?;
        let keys = data.platform_keys()?;
        if keys.is_empty() {
            tracing::warn!(
                "no platform key is pinned: this node takes no uploads and serves no viewers; put a platform's \
                 platform.pub.pem into its folder platforms/"
            );
        }
        let store = config.store();
        let path = data.store_path();
        let durable = Durable::new(tokio::task::spawn_blocking(move || Store::open(&path, &store)).await??);

        let server =
            BlockServer::bind(config.listen, keypair.clone(), Arc::clone(&network)).await.with_context(|| {
                format!(
                    "cannot listen on TCP {}, this node's listen address; is something else using it?",
                    config.listen
                )
            })?;
        let client = BlockClient::new(keypair.clone(), Arc::clone(&network))?;
        let mut bootstrap = config.bootstrap()?;
        bootstrap.extend(data.remembered_peers());
        let membership = Arc::clone(network.membership());
        let discovery = DiscoveryConfig {
            keypair,
            network,
            listen: config.listen,
            bootstrap,
            allow_private_addresses: config.allow_private_addresses,
        };
        let (handle, discovery) = Discovery::start(discovery).await?;
        let peers = Peers::new(handle, client, config.replication);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let housekeeper = Housekeeper::new(
            durable.clone(),
            peers.clone(),
            Arc::clone(&clock),
            Rates::of(config),
            data.scrub_path(),
            stop.clone(),
        );
        let (staging, records) = (data.staging()?, data.uploads()?);
        let uploads = Uploads::new(staging.clone(), records, config.upload_bytes_per_s, stop.clone());
        let uploads = Arc::new(uploads);
        let deletions = open_deletions(&durable, &keys, network_id, &clock, &uploads, &housekeeper).await?;
        let authorities = Arc::new(AuthorityVerifier::new(keys.clone(), network_id));
        let replication = Replication::new(
            Replicator::new(config.replicator(u64::from_be_bytes(dht::random_bytes()?)), local, Time::ZERO),
            durable.clone(),
            peers.clone(),
            Arc::clone(&deletions),
            Arc::clone(&authorities),
            data.remembered_peers().iter().filter_map(dht::peer_address).collect(),
            stop.clone(),
        );
        let restored = restore_uploads(&uploads, &authorities, &durable, &clock).await?;
        let holder = Arc::new(Holder::new(durable.clone(), authorities, replication.clone(), Arc::clone(&clock)));
        Ok(Self {
            node_id,
            network_id,
            durable,
            peers,
            server,
            holder,
            housekeeper,
            uploads,
            restored,
            deletions,
            replication,
            staging,
            clock,
            keys,
            discovery,
            membership,
        })
    }
}

async fn restore_uploads(
    uploads: &Arc<Uploads>,
    authorities: &Arc<AuthorityVerifier>,
    durable: &Durable,
    clock: &Arc<dyn Clock>,
) -> Result<Restored> {
    let (uploads, authorities) = (Arc::clone(uploads), Arc::clone(authorities));
    let (durable, now) = (durable.clone(), clock.unix_seconds());
    tokio::task::spawn_blocking(move || uploads.restore(&authorities, durable.store(), now)).await?
}

async fn open_deletions(
    durable: &Durable,
    keys: &PinnedKeys,
    network: NetworkId,
    clock: &Arc<dyn Clock>,
    uploads: &Arc<Uploads>,
    housekeeper: &Housekeeper,
) -> Result<Arc<Deletions>> {
    let epoch = u64::from_be_bytes(dht::random_bytes()?);
    let verifier = DeletionVerifier::new(keys.clone(), network);
    let (durable, keys, clock) = (durable.clone(), keys.clone(), Arc::clone(clock));
    let (uploads, housekeeper) = (Arc::clone(uploads), housekeeper.clone());
    let open = move || Deletions::open(durable, (&keys, verifier), clock, uploads, housekeeper, epoch);
    Ok(Arc::new(tokio::task::spawn_blocking(open).await??))
}

/// What uploads may cost, by the operator's word.
fn transcode_limits(config: &Config) -> transcode::Limits {
    let max_duration = Duration::from_secs(config.max_video_seconds);
    transcode::Limits { max_duration, confined: config.confine_ffmpeg, ..transcode::Limits::default() }
}

fn build_node(
    data: &DataDir,
    config: &Config,
    parts: &Parts,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<Node> {
    let ingest = Ingest {
        durable: parts.durable.clone(),
        peers: parts.peers.clone(),
        keep_until_proved: config.keep_until_proved,
        limits: transcode_limits(config),
        ladder: transcode::Ladder::default(),
        transcodes: Arc::new(Semaphore::new(config.transcodes)),
        stop: stop.clone(),
    };
    Ok(Node {
        about: About {
            peer_id: parts.node_id.clone(),
            network_id: parts.network_id,
            started: parts.clock.unix_seconds(),
            replication: config.replication,
            delivery_url: config.delivery_url(),
            max_upload_bytes: config.max_upload_bytes.into(),
            data: parts.staging.clone(),
            port: config.listen.port(),
            refused: parts.server.refused(),
            platforms: parts.keys.clone(),
        },
        blocks: Blocks {
            cached: Cached::new(config.cache_bytes),
            durable: parts.durable.clone(),
            peers: parts.peers.clone(),
        },
        housekeeper: parts.housekeeper.clone(),
        deletions: Arc::clone(&parts.deletions),
        replication: parts.replication.clone(),
        uploads: Arc::clone(&parts.uploads),
        ingest: Arc::new(ingest),
        transfers: TransferGauge::default(),
        clock: Arc::clone(&parts.clock),
        tasks: tasks.clone(),
        seen: SeenUntil::open(&data.seen_path())?,
        receipts: Arc::new(Receipts::open(
            data.receipts_path(),
            data.keypair()?,
            parts.node_id.clone(),
            parts.network_id,
        )?),
        contents: Node::new_contents(),
    })
}

fn build_state(config: &Config, parts: &Parts, node: Arc<Node>) -> Result<Arc<AppState<Backend>>> {
    let verifier = RequestVerifier::new(
        parts.keys.clone(),
        parts.node_id.clone(),
        parts.network_id,
        node.about.started,
        config.max_upload_bytes,
    )
    .with_seen_until(node.seen.latest());
    node.seen.accept(verifier.largest_accepted());
    let app = AppConfig {
        node_id: parts.node_id.clone(),
        delivery_url: config.delivery_url(),
        allowed_origins: config.cors_origins.clone(),
    };
    let transfers = node.transfers.clone();
    let state = AppState::new(&app, Backend(node), verifier, Arc::clone(&parts.clock), transfers)?;
    for token in &parts.restored.tokens {
        state.restore_upload_token(token.digest, token.grant, token.expires)?;
    }
    Ok(Arc::new(state))
}

/// Keeps the data folder's list of peers like the routing table, until `stop`.
async fn remember_peers(data: DataDir, discovery: Discovery, stop: CancellationToken) {
    let mut written = data.remembered_peers();
    let mut stopping = false;
    while !stopping {
        stopping = tokio::time::timeout(REMEMBER_EVERY, stop.cancelled()).await.is_ok();
        let Ok(peers) = discovery.peers().await else { return };
        let named = peers.into_iter().filter_map(|(peer, address)| address.with_p2p(peer).ok());
        let mut peers: Vec<Multiaddr> = named.take(REMEMBERED_PEERS).collect();
        // The table's order changes with every connection.
        peers.sort();
        // Nobody there is no reason to forget who was.
        if peers.is_empty() || peers == written {
            continue;
        }
        let (folder, kept) = (data.clone(), peers.clone());
        match tokio::task::spawn_blocking(move || folder.remember_peers(&kept)).await {
            Ok(Ok(())) => written = peers,
            Err(_) => return,
            Ok(Err(error)) => tracing::warn!(error = format!("{error:#}"), "peers are not remembered"),
        }
    }
}

/// On an address of this machine alone only browsers come with names, and a page must not get in by one that was made to mean this
/// machine. Elsewhere the platform may know the node by any name, unless the operator says which.
fn guarded(router: Router, config: &Config) -> Router {
    match config.control.ip().is_loopback() || !config.control_names.is_empty() {
        true => only_hosts(router, &config.control_names),
        false => router,
    }
}

fn listen(address: SocketAddr, what: &str) -> Result<TcpListener> {
    bind(address)
        .with_context(|| format!("cannot listen on {address}, this node's {what} address; is something else using it?"))
}

/// Whether it is this very node that has the control address.
async fn runs_already(data: &DataDir, config: &Config) -> Option<anyhow::Error> {
    let control = control_url(config);
    let there = NodeClient::new(&control).ok()?.node().await.ok()?;
    let own = data.keypair().ok()?.public().to_peer_id();
    (there.peer_id.as_str() == own.to_base58())
        .then(|| anyhow!("this node runs already; `imira-node status --control {control}` shows how it is"))
}

/// As tokio's own `bind`, with a longer queue.
fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The signals that stop the node.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for one of them, also if it came before.
    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests;
