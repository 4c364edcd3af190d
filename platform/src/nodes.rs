//! The live node list: who is up, how loaded, and where its delivery listener is.
//!
//! A node is who config.toml says, or else whom it said it was first: it cannot become another from poll to poll, and no
//! two entries are the same node.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as SyncMutex, PoisonError, RwLock};
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
    shared: Arc<Shared>,
    /// When the down nodes were last asked out of turn. One caller asks; those who wait meanwhile profit.
    asked_again: Arc<Mutex<Option<Instant>>>,
}

/// What the entries know together.
struct Shared {
    /// Who each entry is, by its position; `None` until it has said so.
    identities: SyncMutex<Vec<Option<NodeId>>>,
    /// The last known delivery origin of each entry, by its position. A node that is down keeps its own: pages that were
    /// loaded meanwhile must reach it when it is back.
    origins: SyncMutex<Vec<Option<String>>>,
    /// [`NodeList::delivery_origins`], made anew when one of `origins` changes.
    listed: RwLock<Arc<str>>,
}

/// Why an answer does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Complaint {
    #[error("it is a member of network {0}; correct config.toml")]
    OtherNetwork(String),
    #[error("its load is no number")]
    NoLoad,
    #[error(
        "it says it is {said} and is known as {known}; if that is right, correct `peer_id` in config.toml, or restart the platform"
    )]
    OtherNode { said: NodeId, known: NodeId },
    #[error("it says it is {0}, which another entry of config.toml is; remove one, or give each its `peer_id`")]
    Twice(NodeId),
}

/// Between two rounds of asking out of turn; a network that is down is not asked by every viewer.
const ASK_AGAIN_EVERY: Duration = Duration::from_millis(300);

/// One configured node.
struct Entry {
    /// Network id that the node must be a member of.
    network: String,
    address: NodeAddress,
    client: NodeClient,
    /// Position in the list.
    index: usize,
    shared: Arc<Shared>,
    /// `None` while the node is down.
    status: RwLock<Option<Arc<NodeStatus>>>,
    /// What was wrong with the last answer; logged when it changes.
    complaint: SyncMutex<Option<Complaint>>,
    /// Whether it was asked before: what was never up does not go down.
    was_asked: AtomicBool,
}

/// A node that was up a moment ago, with the state that it reported.
#[derive(Clone)]
pub struct Node {
    entry: Arc<Entry>,
    status: Arc<NodeStatus>,
}

/// A node of config.toml, up or down.
pub(crate) struct Slot(Arc<Entry>);

impl Slot {
    /// The node, if it is up.
    pub(crate) fn node(&self) -> Option<Node> {
        self.0.get().map(|status| Node { entry: Arc::clone(&self.0), status })
    }

    /// Id of its network.
    pub(crate) fn network(&self) -> &str {
        &self.0.network
    }

    /// Its control listener.
    pub(crate) fn control_url(&self) -> &str {
        &self.0.address.control
    }
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

    /// Base URL of its delivery listener: the configured one, or what it said.
    #[must_use]
    pub fn delivery_url(&self) -> &str {
        self.entry.delivery_url(&self.status)
    }

    fn candidate(&self) -> Candidate {
        let storage = &self.status.storage;
        Candidate { load: self.status.load, free_bytes: storage.free_for_uploads(), place: self.entry.address.place }
    }
}

impl NodeList {
    /// The nodes of a configuration, all down until they are first asked.
    pub fn new(config: &Config) -> Result<Self, ClientError> {
        let addresses: Vec<(&str, &NodeAddress)> = config
            .networks
            .iter()
            .flat_map(|network| network.nodes.iter().map(|address| (network.id.as_str(), address)))
            .collect();
        let shared = Arc::new(Shared::new(&addresses));
        let mut entries: Vec<Arc<Entry>> = Vec::new();
        for (index, (network, address)) in addresses.into_iter().enumerate() {
            entries.push(Arc::new(Entry {
                network: network.to_owned(),
                address: address.clone(),
                client: match entries.first() {
                    // One pool of connections for all.
                    Some(first) => first.client.at(&address.control)?,
                    None => NodeClient::new(&address.control)?,
                },
                index,
                shared: Arc::clone(&shared),
                status: RwLock::new(None),
                complaint: SyncMutex::default(),
                was_asked: AtomicBool::default(),
            }));
        }
        Ok(Self { entries: entries.into(), shared, asked_again: Arc::default() })
    }

    /// Asks every node once; takes at most [`POLL_TIMEOUT`].
    pub async fn poll_once(&self) {
        let answers = join_all(self.entries.iter().map(|entry| entry.ask())).await;
        // Taken up in the order of config.toml, so that it is the second of two that is the second.
        for (entry, answer) in self.entries.iter().zip(answers) {
            entry.take_up(answer);
        }
    }

    /// Starts a task for each node that asks it every [`POLL_EVERY`] until `stop`.
    pub fn keep_polling(&self, tasks: &TaskTracker, stop: &CancellationToken) {
        for entry in self.entries.iter() {
            tasks.spawn(keep_polling(Arc::clone(entry), stop.clone()));
        }
    }

    /// All nodes of config.toml, up or down.
    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot> {
        self.entries.iter().map(|entry| Slot(Arc::clone(entry)))
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

    /// The node with this `PeerId`, if it is up.
    #[must_use]
    pub fn find(&self, network: &str, peer_id: &str) -> Option<Node> {
        self.up(network).into_iter().find(|node| node.peer_id().as_str() == peer_id)
    }

    /// The origins of the delivery listeners that are known, up or down, each once, with a space before each.
    #[must_use]
    pub fn delivery_origins(&self) -> Arc<str> {
        Arc::clone(&self.shared.listed.read().unwrap_or_else(PoisonError::into_inner))
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
        let answer = self.ask().await;
        self.take_up(answer);
    }

    async fn ask(&self) -> Option<NodeStatus> {
        tokio::time::timeout(POLL_TIMEOUT, self.client.node()).await.ok().and_then(Result::ok)
    }

    fn take_up(&self, answer: Option<NodeStatus>) {
        let is_first = !self.was_asked.swap(true, Ordering::Relaxed);
        let Some(status) = answer else {
            if is_first {
                tracing::warn!(control = %self.address.control, "node does not answer; it is asked again");
            }
            return self.set(None);
        };
        let complaint = self.check(&status).err();
        if complaint.is_none() {
            self.shared.note_origin(self.index, origin(self.delivery_url(&status)));
        }
        let sound = complaint.is_none();
        self.complain(complaint);
        self.set(sound.then(|| Arc::new(status)));
    }

    fn check(&self, status: &NodeStatus) -> Result<(), Complaint> {
        let network = status.network_id.to_string();
        if network != self.network {
            return Err(Complaint::OtherNetwork(network));
        }
        if !status.load.is_finite() {
            return Err(Complaint::NoLoad);
        }
        self.shared.identify(self.index, &status.peer_id)
    }

    fn complain(&self, complaint: Option<Complaint>) {
        let mut last = self.complaint.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(complaint) = complaint.as_ref().filter(|complaint| last.as_ref() != Some(*complaint)) {
            tracing::warn!(control = %self.address.control, "node counts as down: {complaint}");
        }
        *last = complaint;
    }

    fn delivery_url<'a>(&'a self, status: &'a NodeStatus) -> &'a str {
        self.address.delivery.as_deref().unwrap_or(&status.delivery_url)
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

impl Shared {
    fn new(addresses: &[(&str, &NodeAddress)]) -> Self {
        let origins: Vec<Option<String>> =
            addresses.iter().map(|(_, address)| address.delivery.as_deref().and_then(origin)).collect();
        Self {
            identities: SyncMutex::new(addresses.iter().map(|(_, address)| address.peer_id.clone()).collect()),
            listed: RwLock::new(list(&origins)),
            origins: SyncMutex::new(origins),
        }
    }

    /// Whether the entry may be this node. One without a known identity takes this one from now on.
    fn identify(&self, index: usize, said: &NodeId) -> Result<(), Complaint> {
        let mut identities = self.identities.lock().unwrap_or_else(PoisonError::into_inner);
        match &identities[index] {
            Some(known) if known == said => Ok(()),
            Some(known) => Err(Complaint::OtherNode { said: said.clone(), known: known.clone() }),
            None if identities.iter().flatten().any(|other| other == said) => Err(Complaint::Twice(said.clone())),
            None => {
                identities[index] = Some(said.clone());
                Ok(())
            }
        }
    }

    fn note_origin(&self, index: usize, origin: Option<String>) {
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        if origin.is_some() && origins[index] != origin {
            origins[index] = origin;
            *self.listed.write().unwrap_or_else(PoisonError::into_inner) = list(&origins);
        }
    }
}

fn list(origins: &[Option<String>]) -> Arc<str> {
    let origins: BTreeSet<&String> = origins.iter().flatten().collect();
    origins.into_iter().map(|origin| format!(" {origin}")).collect::<String>().into()
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
fn origin(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    matches!(url.scheme(), "http" | "https").then(|| url.origin().ascii_serialization())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NETWORK: &str = "000102030405060708090a0b0c0d0e0f";

    fn list_of(nodes: &str) -> NodeList {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        let head = "listen = '127.0.0.1:0'\npublic_url = 'http://p'\n[[networks]]\nname = 'demo'\n";
        std::fs::write(&path, format!("{head}id = '{NETWORK}'\n{nodes}")).unwrap();
        NodeList::new(&Config::load(&path).unwrap()).unwrap()
    }

    fn says(peer_id: &str, delivery_url: &str) -> Option<NodeStatus> {
        let status = json!({
            "peer_id": peer_id, "network_id": NETWORK, "version": "0.1.0", "started": 1, "replication": 2, "peers": 1,
            "load": 0.5, "uploads": 0, "storage": {"used_bytes": 0, "quota_bytes": 100, "blocks": 0},
            "cache": {"used_bytes": 0, "capacity_bytes": 1, "hits": 0, "misses": 0, "evictions": 0},
            "delivery_url": delivery_url, "max_upload_bytes": 9,
        });
        Some(serde_json::from_value(status).unwrap())
    }

    const TWO: &str = "[[networks.nodes]]\ncontrol = 'http://a'\n[[networks.nodes]]\ncontrol = 'http://b'\n";

    #[test]
    fn a_node_stays_who_it_said_it_was() {
        let list = list_of(TWO);
        list.entries[0].take_up(says("12D3a", "http://a:1"));
        list.entries[0].take_up(says("12D3z", "http://a:1"));
        assert!(list.up(NETWORK).is_empty());
        list.entries[0].take_up(says("12D3a", "http://a:1"));
        assert_eq!(list.find(NETWORK, "12D3a").unwrap().delivery_url(), "http://a:1");
    }

    #[test]
    fn the_second_of_two_that_are_the_same_is_down() {
        let list = list_of(TWO);
        for entry in list.entries.iter() {
            entry.take_up(says("12D3a", "http://a:1"));
        }
        assert!(list.entries[0].get().is_some() && list.entries[1].get().is_none());
        list.entries[1].take_up(says("12D3b", "http://b:1"));
        assert_eq!(list.up(NETWORK).len(), 2);
    }

    #[test]
    fn a_configured_identity_is_nobody_elses() {
        let list = list_of(&format!("{TWO}peer_id = '12D3b'\ndelivery_url = 'http://b:2/x/'\n"));
        list.entries[0].take_up(says("12D3b", "http://a:1"));
        assert!(list.up(NETWORK).is_empty());
        list.entries[1].take_up(says("12D3a", "http://b:1"));
        assert!(list.up(NETWORK).is_empty());
        list.entries[1].take_up(says("12D3b", "http://b:1"));
        assert_eq!(list.find(NETWORK, "12D3b").unwrap().delivery_url(), "http://b:2/x");
        assert_eq!(&*list.delivery_origins(), " http://b:2");
    }

    #[test]
    fn a_node_that_is_down_stays_in_the_policy() {
        let list = list_of(TWO);
        assert_eq!(&*list.delivery_origins(), "");
        list.entries[1].take_up(says("12D3b", "https://b.example/x"));
        list.entries[0].take_up(says("12D3a", "http://a:1"));
        list.entries[1].take_up(None);
        assert_eq!(&*list.delivery_origins(), " http://a:1 https://b.example");
    }
}
