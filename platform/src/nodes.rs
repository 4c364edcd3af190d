//! The live node list: who is up, how loaded, and where its delivery listener is.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use control_api::{ClientError, NodeClient, NodeId, NodeStatus};
use futures::future::join_all;
use rand::Rng;
use reqwest::Url;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::choice::{self, Candidate, Place};
use crate::config::{Config, NodeAddress};

/// How often each node is asked for its state.
const POLL_EVERY: Duration = Duration::from_secs(2);

/// A node that takes longer to say how it is, is down.
const POLL_TIMEOUT: Duration = Duration::from_secs(1);

/// The nodes of all configured networks. Cloning shares the list.
#[derive(Clone)]
pub struct NodeList {
    entries: Arc<[Arc<Entry>]>,
    /// When the down nodes were last asked out of turn. One caller asks; those who wait meanwhile profit.
    asked_again: Arc<Mutex<Option<Instant>>>,
}

/// Between two rounds of asking out of turn; a network that is down is not asked by every viewer.
const ASK_AGAIN_EVERY: Duration = Duration::from_millis(300);

/// One configured node.
struct Entry {
    /// Network id that the node must be a member of.
    network: String,
    address: NodeAddress,
    client: NodeClient,
    /// `None` while the node is down.
    status: RwLock<Option<Arc<NodeStatus>>>,
}

/// A node that was up a moment ago, with the state that it reported.
#[derive(Clone)]
pub struct Node {
    entry: Arc<Entry>,
    status: Arc<NodeStatus>,
}

impl Node {
    /// Who the node is.
    #[must_use]
    pub fn peer_id(&self) -> &NodeId {
        &self.status.peer_id
    }

    /// What it said last.
    #[must_use]
    pub fn status(&self) -> &NodeStatus {
        &self.status
    }

    /// For requests to it.
    #[must_use]
    pub fn client(&self) -> &NodeClient {
        &self.entry.client
    }

    fn candidate(&self) -> Candidate {
        let storage = &self.status.storage;
        Candidate {
            load: self.status.load,
            free_bytes: storage.quota_bytes.saturating_sub(storage.used_bytes),
            place: self.entry.address.place,
        }
    }
}

impl NodeList {
    /// The nodes of a configuration, all down until they are first asked.
    pub fn new(config: &Config) -> Result<Self, ClientError> {
        let mut entries: Vec<Arc<Entry>> = Vec::new();
        for network in &config.networks {
            for address in &network.nodes {
                entries.push(Arc::new(Entry {
                    network: network.id.clone(),
                    address: address.clone(),
                    client: match entries.first() {
                        // One pool of connections for all.
                        Some(first) => first.client.at(&address.control)?,
                        None => NodeClient::new(&address.control)?,
                    },
                    status: RwLock::new(None),
                }));
            }
        }
        Ok(Self { entries: entries.into(), asked_again: Arc::default() })
    }

    /// Asks every node once; takes at most [`POLL_TIMEOUT`].
    pub async fn poll_once(&self) {
        join_all(self.entries.iter().map(|entry| entry.poll())).await;
    }

    /// Starts a task for each node that asks it every [`POLL_EVERY`] until `stop`.
    pub fn keep_polling(&self, tasks: &TaskTracker, stop: &CancellationToken) {
        for entry in self.entries.iter() {
            tasks.spawn(keep_polling(Arc::clone(entry), stop.clone()));
        }
    }

    /// The nodes to ask for an upload, best first.
    pub fn upload_order(&self, network: &str, rng: &mut impl Rng) -> Vec<Node> {
        let nodes = self.up(network);
        let candidates: Vec<Candidate> = nodes.iter().map(Node::candidate).collect();
        pick(&nodes, &choice::upload_order(&candidates, rng))
    }

    /// The nodes to ask for playback, best first, without those whose `PeerId` is in `avoid`.
    pub fn playback_order(
        &self,
        network: &str,
        avoid: &[String],
        near: Option<Place>,
        rng: &mut impl Rng,
    ) -> Vec<Node> {
        let mut nodes = self.up(network);
        nodes.retain(|node| !avoid.iter().any(|avoided| avoided == node.peer_id().as_str()));
        let candidates: Vec<Candidate> = nodes.iter().map(Node::candidate).collect();
        pick(&nodes, &choice::playback_order(&candidates, near, rng))
    }

    /// Asks the nodes that are down, out of turn: one may have come back since the last poll, and a viewer who would
    /// otherwise be turned away waits for it. At most once every [`ASK_AGAIN_EVERY`], however many viewers wait.
    pub async fn ask_down_nodes(&self) {
        let mut asked = self.asked_again.lock().await;
        if asked.is_some_and(|before| before.elapsed() < ASK_AGAIN_EVERY) {
            return;
        }
        join_all(self.entries.iter().filter(|entry| entry.get().is_none()).map(|entry| entry.poll())).await;
        *asked = Some(Instant::now());
    }

    /// Takes a node out until it answers the next poll.
    pub fn mark_down(&self, node: &Node) {
        node.entry.set(None);
    }

    /// The origins of the delivery listeners of all nodes that are up, each once.
    #[must_use]
    pub fn delivery_origins(&self) -> Vec<String> {
        let origins: BTreeSet<String> =
            self.entries.iter().filter_map(|entry| entry.get()).filter_map(|status| origin(&status)).collect();
        origins.into_iter().collect()
    }

    fn up(&self, network: &str) -> Vec<Node> {
        self.entries
            .iter()
            .filter(|entry| entry.network == network)
            .filter_map(|entry| entry.get().map(|status| Node { entry: Arc::clone(entry), status }))
            .collect()
    }
}

impl Entry {
    async fn poll(&self) {
        let answer = tokio::time::timeout(POLL_TIMEOUT, self.client.node()).await;
        let status = answer.ok().and_then(Result::ok).filter(|status| self.is_ours(status));
        self.set(status.map(Arc::new));
    }

    fn is_ours(&self, status: &NodeStatus) -> bool {
        let ours = status.network_id.to_string() == self.network;
        if !ours {
            tracing::warn!(
                control = %self.address.control, network = %status.network_id,
                "node is a member of another network; correct config.toml"
            );
        }
        ours && status.load.is_finite()
    }

    fn get(&self) -> Option<Arc<NodeStatus>> {
        self.status.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, status: Option<Arc<NodeStatus>>) {
        let is_up = status.is_some();
        let before = {
            // Nothing can panic while the lock is held.
            let mut current = self.status.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, status)
        };
        match (before.is_some(), is_up) {
            (false, true) => tracing::info!(control = %self.address.control, "node is up"),
            (true, false) => tracing::warn!(control = %self.address.control, "node is down"),
            _ => {}
        }
    }
}

async fn keep_polling(entry: Arc<Entry>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(POLL_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => entry.poll().await,
        }
    }
}

fn pick(nodes: &[Node], order: &[usize]) -> Vec<Node> {
    order.iter().map(|&index| nodes[index].clone()).collect()
}

/// Only what parses as an http(s) URL goes into a header.
fn origin(status: &NodeStatus) -> Option<String> {
    let url = Url::parse(&status.delivery_url).ok()?;
    matches!(url.scheme(), "http" | "https").then(|| url.origin().ascii_serialization())
}
