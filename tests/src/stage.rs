//! A network of storage nodes.

use crate::eventually;
use crate::namespaces::Host;
use crate::platform::Platform;
use crate::process::{Process, run_in, run_ok};
use chunkstore_block::NetworkId;
use control_api::NodeClient;
use control_api::types::StoredBlockEntry;
use dht::{Network, NetworkKey, PeerAddress, PeerId};
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;

/// Loaded machines of two cores take their time.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Lines of each daemon's log that a failed test shows.
const LOG_TAIL: usize = 40;

/// A temporary folder with a network in it.
pub struct Stage {
    folder: TempDir,
    /// The public key that new nodes pin.
    platform_key: Option<PathBuf>,
    platform_url: Option<String>,
    taken: Mutex<BTreeSet<u16>>,
}

/// What is special about a node.
#[derive(Default)]
pub struct NodeOptions {
    /// Another network file than the stage's.
    pub network: Option<PathBuf>,
    /// What viewers are told instead of the delivery address.
    pub delivery_url: Option<String>,
    /// Certificate and key (PEM files) of its delivery listener.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// The only processor that it may use.
    pub processor: Option<usize>,
    /// The host that it runs on, if it is not this one.
    pub host: Option<Host>,
    /// Lines of its configuration that are exchanged: name and value, as TOML has it.
    pub settings: Vec<(&'static str, String)>,
}

impl NodeOptions {
    /// Replication in seconds instead of minutes.
    pub fn brisk() -> Self {
        let settings = [
            ("grace_seconds", 6),
            ("ping_seconds", 1),
            ("sync_seconds", 3),
            ("minimum_age_seconds", 4),
            ("drop_delay_seconds", 1),
        ];
        Self { settings: settings.map(|(name, value)| (name, value.to_string())).into(), ..Self::default() }
    }
}

/// A storage node in a process of its own.
pub struct Node {
    /// Its process; taken while it is stopped.
    pub process: Process,
    /// Its control listener.
    pub client: NodeClient,
    /// URL of its control listener.
    pub control_url: String,
    /// Address of its delivery listener.
    pub delivery: SocketAddr,
    /// For others' `--bootstrap`.
    pub multiaddr: String,
    /// Its identity and block plane.
    pub address: PeerAddress,
    data: PathBuf,
    place: Place,
}

/// Where a node's process runs.
#[derive(Clone, Default)]
struct Place {
    host: Option<Host>,
    processor: Option<usize>,
}

impl Stage {
    /// An empty stage with a new network.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("imira-e2e-").tempdir().unwrap();
        let stage = Self { folder, platform_key: None, platform_url: None, taken: Mutex::new(BTreeSet::new()) };
        run_ok("imira-node", &["network", "new", "--out", stage.network_file().to_str().unwrap()]);
        stage
    }

    /// Nodes and the platform that knows them, up and acquainted.
    pub async fn with_platform(count: usize) -> (Self, Vec<Node>, Platform) {
        let options = (0..count).map(|_| NodeOptions::default()).collect();
        Self::with_platform_and(options).await
    }

    /// As [`Stage::with_platform`], each node with its options.
    pub async fn with_platform_and(options: Vec<NodeOptions>) -> (Self, Vec<Node>, Platform) {
        let mut stage = Self::new();
        let controls: Vec<_> = options.iter().map(|_| stage.free_address()).collect();
        let mut platform = Platform::init(&stage, &controls);
        stage.platform_key = Some(platform.public_key_file());
        stage.platform_url = Some(platform.url.clone());
        let nodes = stage.start_nodes(options, controls).await;
        platform.start().await;
        (stage, nodes, platform)
    }

    /// Nodes without a platform process; they pin `platform_key`, a PEM file.
    pub async fn with_nodes(count: usize, platform_key: &str) -> (Self, Vec<Node>) {
        Self::with_nodes_and((0..count).map(|_| NodeOptions::default()).collect(), platform_key).await
    }

    /// As [`Stage::with_nodes`], each node with its options.
    pub async fn with_nodes_and(options: Vec<NodeOptions>, platform_key: &str) -> (Self, Vec<Node>) {
        let mut stage = Self::new();
        let path = stage.path("platform.pub.pem");
        std::fs::write(&path, platform_key).unwrap();
        stage.platform_key = Some(path);
        let controls = options.iter().map(|_| stage.free_address()).collect();
        let nodes = stage.start_nodes(options, controls).await;
        (stage, nodes)
    }

    async fn start_nodes(&self, options: Vec<NodeOptions>, controls: Vec<SocketAddr>) -> Vec<Node> {
        let mut nodes: Vec<Node> = Vec::new();
        for (options, control) in options.into_iter().zip(controls) {
            let bootstrap: Vec<_> = nodes.iter().map(|node| node.multiaddr.clone()).collect();
            nodes.push(self.start_node(&options, control, &bootstrap));
        }
        for node in &nodes {
            node.wait_for_peers(nodes.len() - 1).await;
        }
        nodes
    }

    /// Starts one node more; it is up but need not have met anybody when this returns.
    pub fn start_node(&self, options: &NodeOptions, control: SocketAddr, bootstrap: &[String]) -> Node {
        let [listen, delivery, control] = match &options.host {
            Some(host) => host.addresses(),
            None => [self.free_address(), self.free_address(), control],
        };
        let data = self.path(&format!("node-{}-{}", listen.ip(), listen.port()));
        let network = options.network.clone().unwrap_or_else(|| self.network_file());
        let (listen_text, delivery_text, control_text) =
            (listen.to_string(), delivery.to_string(), control.to_string());
        let mut arguments = vec!["init", "--data", data.to_str().unwrap(), "--network", network.to_str().unwrap()];
        arguments.extend(["--listen", &listen_text, "--delivery", &delivery_text, "--control", &control_text]);
        if let Some(key) = &self.platform_key {
            arguments.extend(["--platform-key", key.to_str().unwrap()]);
        }
        if let Some(url) = &self.platform_url {
            arguments.extend(["--cors-origin", url]);
        }
        if let Some(url) = &options.delivery_url {
            arguments.extend(["--delivery-url", url]);
        }
        if let Some((certificate, key)) = &options.tls {
            let files = [certificate.to_str().unwrap(), key.to_str().unwrap()];
            arguments.extend(["--delivery-tls-certificate", files[0], "--delivery-tls-key", files[1]]);
        }
        for address in bootstrap {
            arguments.extend(["--bootstrap", address]);
        }
        let multiaddr = run_ok("imira-node", &arguments);
        exchange_settings(&data.join("config.toml"), &options.settings);
        let id: PeerId = multiaddr.rsplit('/').next().unwrap().parse().unwrap();
        let control_url = format!("http://{control}");
        let place = Place { host: options.host.clone(), processor: options.processor };
        Node {
            process: run_node(&data, &place),
            place,
            client: NodeClient::new(&control_url).unwrap(),
            control_url,
            delivery,
            multiaddr,
            address: PeerAddress { id, address: listen },
            data,
        }
    }

    /// The network as its members know it.
    pub fn network(&self) -> Network {
        let text = std::fs::read_to_string(self.network_file()).unwrap();
        let keys = quoted(&text, "keys").map(|key| NetworkKey::from_hex(key).unwrap()).collect();
        Network::new(self.network_id(), keys).unwrap()
    }

    /// The network's id.
    pub fn network_id(&self) -> NetworkId {
        run_ok("imira-node", &["network", "show", self.network_file().to_str().unwrap()]).parse().unwrap()
    }

    /// A network file with the stage's network id and another key.
    pub fn foreign_network_file(&self) -> PathBuf {
        let path = self.path("foreign.toml");
        let key = NetworkKey::generate().unwrap();
        let text = format!("id = \"{}\"\nkeys = [\"{}\"]\n", self.network_id(), *key.to_secret_hex());
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A path in the stage's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A loopback address whose port is free for TCP and UDP now and is given out once.
    pub fn free_address(&self) -> SocketAddr {
        loop {
            let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = tcp.local_addr().unwrap();
            if UdpSocket::bind(address).is_ok() && self.taken.lock().unwrap().insert(address.port()) {
                return address;
            }
        }
    }

    fn network_file(&self) -> PathBuf {
        self.path("network.toml")
    }
}

impl Drop for Stage {
    /// After a failure, says what the daemons said.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for entry in std::fs::read_dir(self.folder.path()).unwrap() {
            let log = entry.unwrap().path().join("log");
            if let Ok(text) = std::fs::read_to_string(&log) {
                let lines: Vec<_> = text.lines().collect();
                let tail = &lines[lines.len().saturating_sub(LOG_TAIL)..];
                eprintln!("--- {}\n{}", log.display(), tail.join("\n"));
            }
        }
    }
}

impl Default for Stage {
    fn default() -> Self {
        Self::new()
    }
}

impl Node {
    /// Waits until the node answers and knows `count` peers.
    pub async fn wait_for_peers(&self, count: usize) {
        eventually(&format!("{} knowing {count} peers", self.control_url), START_LIMIT, || async {
            self.client.node().await.ok().filter(|status| status.peers as usize >= count)
        })
        .await;
    }

    /// Everything in the durable store.
    pub async fn stored(&self) -> Vec<StoredBlockEntry> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = self.client.blocks(after, 1000).await.unwrap();
            all.extend(page.blocks);
            after = page.next;
            if after.is_none() {
                return all;
            }
        }
    }

    /// Runs a command of `imira-node` on this node's data folder, from a folder.
    pub fn command(&self, folder: &Path, arguments: &[&str]) -> Output {
        let data = ["--data", self.data.to_str().unwrap()];
        run_in(folder, "imira-node", &[arguments, &data].concat())
    }

    /// Its folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The folder of its block store.
    pub fn store(&self) -> PathBuf {
        self.data.join("blocks")
    }

    /// What its segment files take of the disk, holes left out.
    pub fn disk_bytes(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        let files = std::fs::read_dir(self.data.join("blocks/segments")).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().blocks() * 512).sum()
    }

    /// What lies in its staging folder.
    pub fn staging(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.data.join("staging")).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    /// Starts its process again, on the same data.
    pub fn restart(&mut self) {
        self.process = run_node(&self.data, &self.place);
    }
}

fn exchange_settings(file: &Path, settings: &[(&str, String)]) {
    let mut lines: Vec<_> = std::fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect();
    for (name, value) in settings {
        let is_it = |line: &&mut String| line.starts_with(&format!("{name} = "));
        *lines.iter_mut().find(is_it).unwrap_or_else(|| panic!("no setting {name}")) = format!("{name} = {value}");
    }
    std::fs::write(file, lines.join("\n") + "\n").unwrap();
}

fn run_node(data: &Path, place: &Place) -> Process {
    let (arguments, log) = (["run", "--data", data.to_str().unwrap()], data.join("log"));
    match place {
        Place { host: Some(host), .. } => Process::start_within(&host.namespace, "imira-node", &arguments, &log),
        Place { processor: Some(one), .. } => Process::start_on(*one, "imira-node", &arguments, &log),
        Place { host: None, processor: None } => Process::start("imira-node", &arguments, &log),
    }
}

/// The quoted strings on the line of `name = ...`.
fn quoted<'a>(text: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split('"').skip(1).step_by(2)
}
