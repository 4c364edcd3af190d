//! Puts the parts together, runs them, and stops them.

use crate::backend::{About, Backend, Node};
use crate::blocks::{Blocks, Durable, Holder};
use crate::config::Config;
use crate::files::DataDir;
use crate::ingest::Ingest;
use crate::uploads::Uploads;
use anyhow::{Context, Result};
use chunkstore::{Cache, Store, StoreConfig};
use control_api::{
    AppConfig, AppState, AuthorityVerifier, Clock, NodeId, RequestVerifier, SystemClock, TransferGauge, control_router,
    delivery_router,
};
use dht::{BlockClient, BlockServer, Discovery, DiscoveryConfig, Multiaddr, Peers};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// After the signal to stop, responses and requests under way have this long.
const GRACE: Duration = Duration::from_secs(4);
/// How often the routing table is compared with the file that remembers it.
const REMEMBER_EVERY: Duration = Duration::from_millis(500);
/// Peers that are remembered; any one that answers is enough.
const REMEMBERED_PEERS: usize = 64;

/// Runs the node until SIGINT or SIGTERM.
pub(crate) async fn run(data: DataDir) -> Result<()> {
    chunkstore::check_processor()?;
    let config = data.config()?;
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let parts = Parts::open(&data, &config).await?;

    let control = listen(config.control, "control").await?;
    let delivery = listen(config.delivery, "delivery").await?;
    let state = build_state(&data, &config, &parts, &stop, &tasks)?;
    tasks.spawn(parts.server.run(parts.holder, stop.clone()));
    tasks.spawn(serve(control, control_router(Arc::clone(&state)), stop.clone()));
    tasks.spawn(serve(delivery, delivery_router(state), stop.clone()));
    tasks.spawn(remember_peers(data, parts.peers.discovery().clone(), stop.clone()));
    tracing::info!(
        peer_id = %parts.node_id, network = %parts.network_id, listen = %config.listen, delivery = %config.delivery,
        control = %config.control, "node is up"
    );

    wait_for_signal().await?;
    tracing::info!("stopping");
    stop.cancel();
    tasks.close();
    if tokio::time::timeout(GRACE, tasks.wait()).await.is_err() {
        tracing::warn!("stopped before everything under way was done");
    }
    Ok(())
}

/// What is opened before anything is served.
struct Parts {
    node_id: NodeId,
    network_id: chunkstore_block::NetworkId,
    durable: Durable,
    peers: Peers,
    server: BlockServer,
    holder: Arc<Holder>,
    clock: Arc<dyn Clock>,
}

impl Parts {
    async fn open(data: &DataDir, config: &Config) -> Result<Self> {
        let keypair = data.keypair()?;
        let network = Arc::new(data.network()?);
        let network_id = network.id();
        let node_id: NodeId = keypair.public().to_peer_id().to_base58().parse()?;
        let keys = data.platform_keys()?;
        if keys.is_empty() {
            tracing::warn!("no platform key is pinned: this node takes no uploads and serves no viewers");
        }
        let store = StoreConfig::new(config.quota_bytes);
        let path = data.store_path();
        let durable = Durable::new(tokio::task::spawn_blocking(move || Store::open(&path, &store)).await??);

        let server = BlockServer::bind(config.listen, keypair.clone(), Arc::clone(&network))
            .await
            .with_context(|| format!("cannot listen for blocks on TCP {}", config.listen))?;
        let client = BlockClient::new(keypair.clone(), Arc::clone(&network))?;
        let mut bootstrap = config.bootstrap()?;
        bootstrap.extend(data.remembered_peers());
        let discovery = DiscoveryConfig { keypair, network, listen: config.listen, bootstrap };
        let (discovery, _task) = Discovery::start(discovery).await?;
        let peers = Peers::new(discovery, client, config.replication);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let authorities = AuthorityVerifier::new(keys, network_id);
        let holder = Arc::new(Holder::new(durable.clone(), authorities, Arc::clone(&clock)));
        Ok(Self { node_id, network_id, durable, peers, server, holder, clock })
    }
}

fn build_state(
    data: &DataDir,
    config: &Config,
    parts: &Parts,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<Arc<AppState<Backend>>> {
    let started = parts.clock.unix_seconds();
    let staging = data.fresh_staging()?;
    let ingest = Ingest {
        durable: parts.durable.clone(),
        peers: parts.peers.clone(),
        limits: transcode::Limits::default(),
        ladder: transcode::Ladder::default(),
        transcodes: Arc::new(Semaphore::new(config.transcodes)),
        stop: stop.clone(),
    };
    let transfers = TransferGauge::default();
    let node = Node {
        about: About {
            peer_id: parts.node_id.clone(),
            network_id: parts.network_id,
            started,
            replication: config.replication,
            quota_bytes: config.quota_bytes,
            delivery_url: config.delivery_url.clone(),
            max_upload_bytes: config.max_upload_bytes,
            data: staging.clone(),
        },
        blocks: Blocks {
            durable: parts.durable.clone(),
            cache: Cache::new(config.cache_bytes),
            peers: parts.peers.clone(),
        },
        uploads: Uploads::new(staging),
        ingest: Arc::new(ingest),
        transfers: transfers.clone(),
        tasks: tasks.clone(),
        contents: Node::new_contents(),
    };
    let verifier = RequestVerifier::new(
        data.platform_keys()?,
        parts.node_id.clone(),
        parts.network_id,
        started,
        config.max_upload_bytes,
    );
    let app = AppConfig {
        node_id: parts.node_id.clone(),
        delivery_url: config.delivery_url.clone(),
        allowed_origins: config.cors_origins.clone(),
    };
    let state = AppState::new(&app, Backend(Arc::new(node)), verifier, Arc::clone(&parts.clock), transfers)?;
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
        let peers: Vec<Multiaddr> = named.take(REMEMBERED_PEERS).collect();
        // Nobody there is no reason to forget who was.
        if peers.is_empty() || peers == written {
            continue;
        }
        match data.remember_peers(&peers) {
            Ok(()) => written = peers,
            Err(error) => tracing::warn!(error = format!("{error:#}"), "peers are not remembered"),
        }
    }
}

async fn listen(address: SocketAddr, what: &str) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} ({what} in config.toml); is something else using it?"))
}

async fn serve(listener: TcpListener, router: axum::Router, stop: CancellationToken) {
    let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "an HTTP listener ended");
    }
}

async fn wait_for_signal() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
