//! Ports and other nodes: whether this node can be reached.

use super::{Finding, Running};
use crate::config::Config;
use crate::files::DataDir;
use bytes::Bytes;
use chunkstore_block::{BlockId, Reference};
use control_api::types::{NodeStatus, NotReady, Reachability, Readiness};
use control_api::{DeliveryClient, NodeClient, NodeId};
use dht::{
    BlockClient, BlockHandler, BlockServer, Discovery, DiscoveryConfig, Keypair, PeerId, Peers, PutRequest, Reached,
    Refusal, Status,
};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const WHAT: &str = "reachability";
/// Dials to the bootstrap peers have ended by then, one way or the other.
const MEET_DEADLINE: Duration = Duration::from_secs(10);

pub(super) async fn examine(running: &Running, data: DataDir, config: &Config, keypair: Keypair) -> Vec<Finding> {
    match running {
        Running::Yes(client, status) => vec![
            Finding::well("ports", "the node is running and has them"),
            peers(status, config),
            delivery(&client.delivery(), &status.delivery_url, &status.peer_id).await,
            ask_the_node(client, config).await,
        ],
        Running::Somebody(who) => vec![Finding::failure(
            "ports",
            who.clone(),
            "Give this node a control address of its own in config.toml, or say where it is: --control",
        )],
        Running::No => {
            let mut findings = ports(config);
            findings.push(match findings.iter().all(|finding| finding.state == super::State::Well) {
                true => be_reached(data, config, keypair).await,
                false => Finding::unknown(WHAT, "it can be told only once the ports are free", "Mend that first."),
            });
            findings
        }
    }
}

/// The addresses of a node that is not running.
pub(super) fn ports(config: &Config) -> Vec<Finding> {
    let tcp = |address| TcpListener::bind(address).map(drop);
    let udp = |address| UdpSocket::bind(address).map(drop);
    let Config { listen, delivery, control, .. } = *config;
    let outcomes = [
        ("listen", "UDP", listen, udp(listen)),
        ("listen", "TCP", listen, tcp(listen)),
        ("delivery", "TCP", delivery, tcp(delivery)),
        ("control", "TCP", control, tcp(control)),
    ];
    let failed = outcomes.into_iter().filter_map(|(name, protocol, address, outcome)| {
        let error = outcome.err()?;
        Some(Finding::failure(
            "ports",
            format!("{protocol} {address} ({name}) cannot be listened on: {error}"),
            "Stop what else uses it, or choose another address in config.toml. A node that runs and whose control listener does not \
             answer uses them, too.",
        ))
    });
    let mut findings: Vec<_> = failed.collect();
    if findings.is_empty() {
        findings.push(Finding::well("ports", "the node is not running, and its addresses are free"));
    }
    findings
}

fn peers(status: &NodeStatus, config: &Config) -> Finding {
    match (status.peers, config.bootstrap.is_empty()) {
        (0, true) => Finding::warning(
            "peers",
            "it knows no other node, and has nobody to begin with",
            "Name a member in bootstrap in config.toml, unless this is the network's first node.",
        ),
        (0, false) => Finding::failure(
            "peers",
            "it has reached none of the nodes in bootstrap",
            "Are they up, do their addresses stand there as `init` printed them, and is the network file the same?",
        ),
        (peers, _) => Finding::well("peers", format!("it knows {peers} other nodes")),
    }
}

/// Whether viewers who follow the node's own word come to it. They may where the node itself may not: some routers let nobody in by their own
/// public address.
pub(super) async fn delivery(client: &DeliveryClient, url: &str, own: &NodeId) -> Finding {
    const WHAT: &str = "delivery_url";
    let says = match client.who_answers(url).await {
        Ok(Some(node)) if node == *own => return Finding::well(WHAT, format!("this node answers at {url}")),
        Ok(Some(node)) => format!("at {url}, where viewers are sent, another node answers: {node}"),
        Ok(None) => format!("what answers at {url}, where viewers are sent, is no node"),
        Err(error) => format!("at {url}, where viewers are sent, nothing answers this machine: {error}"),
    };
    let remedy = "Set delivery_url in config.toml to the address that viewers reach this node by, and let nothing else answer there. Try it from \
                  another network: some routers let nobody in from inside.";
    Finding::warning(WHAT, says, remedy)
}

/// What the running node itself says.
pub(super) async fn readiness(client: &NodeClient) -> Vec<Finding> {
    const WHAT: &str = "readyz";
    let remedy = "Until then GET /readyz answers 503.";
    match client.readiness().await {
        Ok(Readiness { ready: true, .. }) => vec![Finding::well(WHAT, "the node can do all of its work")],
        Ok(Readiness { reasons, .. }) => reasons
            .into_iter()
            .map(|NotReady { reason, detail }| {
                let says = format!("{reason}: {detail}");
                match reason.as_str() {
                    // The first nodes of a network are so for a while.
                    "no-platform" | "too-few-nodes" | "starting" => Finding::warning(WHAT, says, remedy),
                    _ => Finding::failure(WHAT, says, remedy),
                }
            })
            .collect(),
        Err(error) => vec![Finding::unknown(WHAT, error.to_string(), "See the node's log.")],
    }
}

async fn ask_the_node(client: &NodeClient, config: &Config) -> Finding {
    match client.reachability().await {
        Ok(Reachability { asked, tcp: Some(tcp), udp: Some(udp), .. }) => {
            let by = asked.map_or_else(|| "another node".to_owned(), |peer| peer.to_string());
            judge(config.listen, &by, tcp, udp)
        }
        Ok(Reachability { reason, .. }) => nobody_told(&reason.unwrap_or_default()),
        Err(error) => nobody_told(&error.to_string()),
    }
}

/// Listens where the node would, meets others, and has itself called back.
async fn be_reached(data: DataDir, config: &Config, keypair: Keypair) -> Finding {
    let stop = CancellationToken::new();
    let _stops = stop.clone().drop_guard();
    let outcome = async {
        let network = Arc::new(data.network()?);
        network.membership().own_end(keypair.public().to_peer_id(), network.membership().now())?;
        let mut bootstrap = config.bootstrap()?;
        bootstrap.extend(data.remembered_peers());
        anyhow::ensure!(!bootstrap.is_empty(), "this node knows no other one that could be asked");
        let server = BlockServer::bind(config.listen, keypair.clone(), Arc::clone(&network)).await?;
        tokio::spawn(server.run(Arc::new(Deaf), stop));
        let client = BlockClient::new(keypair.clone(), Arc::clone(&network))?;
        let discovery = DiscoveryConfig {
            keypair,
            network,
            listen: config.listen,
            bootstrap,
            allow_private_addresses: config.allow_private_addresses,
        };
        let (discovery, _swarm) = Discovery::start(discovery).await?;
        meet_somebody(&discovery).await?;
        Ok(Peers::new(discovery, client, config.replication).reached_from_outside(config.listen.port()).await?)
    };
    match outcome.await {
        Ok((asked, Reached { tcp, udp })) => judge(config.listen, &asked.to_string(), tcp, udp),
        Err(error) => nobody_told(&format!("{error:#}")),
    }
}

async fn meet_somebody(discovery: &Discovery) -> anyhow::Result<()> {
    let mut events = discovery.subscribe();
    if !discovery.connected().await?.is_empty() {
        return Ok(());
    }
    match tokio::time::timeout(MEET_DEADLINE, events.recv()).await {
        Ok(_) => Ok(()),
        Err(_) => anyhow::bail!("none of the nodes in bootstrap, and of those met before, answers over UDP"),
    }
}

pub(super) fn judge(listen: SocketAddr, by: &str, tcp: bool, udp: bool) -> Finding {
    let port = listen.port();
    let remedy = |protocol: &str| {
        format!(
            "Open {protocol} port {port} in this machine's firewall, and where a router stands before it, forward {protocol} {port} to \
             this machine, on the same port. Other nodes find no copies here otherwise."
        )
    };
    match (tcp, udp) {
        (true, true) => Finding::well(WHAT, format!("{by} reached this node over TCP and UDP at port {port}")),
        (true, false) => Finding::failure(WHAT, format!("{by} could not reach it over UDP (TCP works)"), remedy("UDP")),
        (false, true) => Finding::failure(WHAT, format!("{by} could not reach it over TCP (UDP works)"), remedy("TCP")),
        (false, false) => {
            Finding::failure(WHAT, format!("{by} could not reach it, over TCP nor UDP"), remedy("both TCP and UDP"))
        }
    }
}

fn nobody_told(reason: &str) -> Finding {
    Finding::unknown(
        WHAT,
        format!("only another node can tell, and none did: {reason}"),
        "See that another member is up and named in bootstrap, then ask again, not sooner than after 10 s.",
    )
}

/// Listens, and gives nothing: the doctor only wants to be reached.
struct Deaf;

fn nothing() -> Refusal {
    Refusal::new(Status::Unsupported, "this node is being examined and serves nothing now")
}

impl BlockHandler for Deaf {
    async fn get(&self, _: BlockId) -> Result<Bytes, Refusal> {
        Err(nothing())
    }

    async fn put(&self, _: PeerId, _: PutRequest) -> Result<(), Refusal> {
        Err(nothing())
    }

    async fn add_references(
        &self,
        _: PeerId,
        _: Vec<BlockId>,
        _: Vec<Reference>,
        _: String,
    ) -> Result<Vec<bool>, Refusal> {
        Err(nothing())
    }

    async fn has(&self, _: Vec<BlockId>) -> Result<Vec<bool>, Refusal> {
        Err(nothing())
    }
}
