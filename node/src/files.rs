//! What a node keeps in its data folder, and the network file.

use crate::config::Config;
use anyhow::{Context, Result, bail, ensure};
use control_api::{PinnedKeys, PlatformPublicKey};
use dht::{Keypair, Multiaddr, Network, NetworkKey};
use serde::Deserialize;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// For folders that hold secrets.
const PRIVATE_DIR: u32 = 0o700;
/// For files that are secrets.
const PRIVATE_FILE: u32 = 0o600;

/// The folder that `imira-node init` makes:
/// `config.toml`, `identity.key`, `network.toml`, `platforms/*.pem`, `peers` (those known last), `seen` (the latest accepted token request), `scrub` (its rounds),
/// `blocks/` (the store), `staging/` (uploads).
#[derive(Clone, Debug)]
pub(crate) struct DataDir {
    root: PathBuf,
}

impl DataDir {
    /// Makes the folder of a new node. Refuses one that has a configuration already.
    pub(crate) fn create(root: &Path, config: &Config, network: &Path, platform_keys: &[PathBuf]) -> Result<Self> {
        config.check()?;
        let network = read_network(network)?;
        let keys = platform_keys.iter().map(|path| Ok((path, read_platform_key(path)?))).collect::<Result<Vec<_>>>()?;
        let data = Self { root: root.to_owned() };
        ensure!(
            !data.config_path().exists(),
            "{} is a node's folder already; choose another, or delete it to begin anew (its blocks are lost then)",
            root.display()
        );
        make_private_dir(root)?;
        make_private_dir(&data.platforms_path())?;
        for (_, key) in keys {
            let path = data.platforms_path().join(format!("{}.pem", key.fingerprint()));
            write_private(&path, key.to_pem()?.as_bytes())?;
        }
        write_network(&data.network_path(), &network)?;
        let keypair = Keypair::generate_ed25519();
        write_private(&data.identity_path(), &keypair.to_protobuf_encoding()?)?;
        // Last, since it is what makes the folder a node's.
        write_private(&data.config_path(), config.to_commented_toml().as_bytes())?;
        Ok(data)
    }

    /// A folder that `init` made.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let data = Self { root: root.to_owned() };
        if !data.config_path().exists() {
            bail!("{} has no config.toml; make a node's folder with `imira-node init`", root.display());
        }
        Ok(data)
    }

    pub(crate) fn config(&self) -> Result<Config> {
        Config::parse(&read(&self.config_path())?)
    }

    pub(crate) fn keypair(&self) -> Result<Keypair> {
        let path = self.identity_path();
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Keypair::from_protobuf_encoding(&bytes).map_err(|_| {
            // The cause may quote the bytes, which are the secret key.
            anyhow::anyhow!("{} is not a node key; restore it from your backup", path.display())
        })
    }

    pub(crate) fn network(&self) -> Result<Network> {
        read_network(&self.network_path())
    }

    /// The platforms that this node serves.
    pub(crate) fn platform_keys(&self) -> Result<PinnedKeys> {
        let folder = self.platforms_path();
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        let mut keys = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "pem") {
                keys.push(read_platform_key(&path)?);
            }
        }
        Ok(PinnedKeys::new(keys))
    }

    /// Peers that an earlier run knew. Without them the first node of a network, which has nobody in `bootstrap`, would
    /// come back from a restart alone.
    pub(crate) fn remembered_peers(&self) -> Vec<Multiaddr> {
        let text = fs::read_to_string(self.peers_path()).unwrap_or_default();
        let peers = text.lines().filter_map(|line| line.parse().ok());
        // A power cut may have left half a line.
        peers.filter(|peer| dht::bootstrap_peer(peer).is_ok()).collect()
    }

    /// Replaces the remembered peers, at once or not at all.
    pub(crate) fn remember_peers(&self, peers: &[Multiaddr]) -> Result<()> {
        let (path, new) = (self.peers_path(), self.root.join("peers.new"));
        let lines: String = peers.iter().map(|peer| format!("{peer}\n")).collect();
        let written = File::create(&new).and_then(|mut file| {
            file.write_all(lines.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)
        });
        written.with_context(|| format!("cannot write {}", path.display()))
    }

    pub(crate) fn seen_path(&self) -> PathBuf {
        self.root.join("seen")
    }

    pub(crate) fn scrub_path(&self) -> PathBuf {
        self.root.join("scrub")
    }

    pub(crate) fn store_path(&self) -> PathBuf {
        self.root.join("blocks")
    }

    /// An empty folder for uploads. What an earlier run left there is of uploads that it did not finish.
    pub(crate) fn fresh_staging(&self) -> Result<PathBuf> {
        let path = self.root.join("staging");
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("cannot empty {}", path.display()))?;
        }
        make_private_dir(&path)?;
        Ok(path)
    }

    fn config_path(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    fn identity_path(&self) -> PathBuf {
        self.root.join("identity.key")
    }

    fn network_path(&self) -> PathBuf {
        self.root.join("network.toml")
    }

    fn peers_path(&self) -> PathBuf {
        self.root.join("peers")
    }

    fn platforms_path(&self) -> PathBuf {
        self.root.join("platforms")
    }
}

/// The network file: `id` and one or two `keys`, the current one first.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkFile {
    id: String,
    keys: Vec<String>,
}

/// Reads a network file. Errors never repeat what it holds.
pub(crate) fn read_network(path: &Path) -> Result<Network> {
    let text = read(path)?;
    let not_understood = || format!("{} is not a network file; `imira-node network new` makes one", path.display());
    // toml's errors quote the line they are about, which may be a key.
    let file: NetworkFile = toml::from_str(&text).map_err(|_| anyhow::anyhow!(not_understood()))?;
    let id = file.id.parse().map_err(|_| anyhow::anyhow!("{}: the id is not 32 hex digits", path.display()))?;
    let keys = file.keys.iter().map(|key| NetworkKey::from_hex(key)).collect::<Result<Vec<_>, _>>();
    Network::new(id, keys.with_context(not_understood)?).with_context(not_understood)
}

/// Writes a network file for its owner's eyes only. Refuses to overwrite.
pub(crate) fn write_network(path: &Path, network: &Network) -> Result<()> {
    let keys: Vec<_> = network.keys().iter().map(|key| format!("\"{}\"", *key.to_secret_hex())).collect();
    let text = format!(
        "# A network of the iMira Delivery Network. The keys are a secret that all members share:\n\
         # give this file to each of them over a safe channel. The first key is the current one.\n\
         id = \"{}\"\nkeys = [{}]\n",
        network.id(),
        keys.join(", ")
    );
    write_private(path, text.as_bytes())
}

fn read_platform_key(path: &Path) -> Result<PlatformPublicKey> {
    PlatformPublicKey::from_pem(&read(path)?)
        .with_context(|| format!("{} is not a platform's public key (platform.pub.pem)", path.display()))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn make_private_dir(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_DIR)
        .create(path)
        .with_context(|| format!("cannot make the folder {}", path.display()))
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(PRIVATE_FILE)
        .open(path)
        .with_context(|| format!("cannot make {}; it must not exist yet", path.display()))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn made_peer() -> dht::PeerId {
        Keypair::generate_ed25519().public().to_peer_id()
    }

    fn new_node(root: &Path) -> Result<DataDir> {
        let network = root.join("net.toml");
        if !network.exists() {
            write_network(&network, &Network::generate()?)?;
        }
        DataDir::create(&root.join("node"), &Config::default(), &network, &[])
    }

    #[test]
    fn a_new_folder_opens_and_its_secrets_are_private() {
        let root = tempfile::tempdir().unwrap();
        let made = new_node(root.path()).unwrap();
        let data = DataDir::open(&root.path().join("node")).unwrap();
        assert_eq!(data.keypair().unwrap().public(), made.keypair().unwrap().public());
        assert_eq!(data.network().unwrap().id(), read_network(&root.path().join("net.toml")).unwrap().id());
        for name in ["identity.key", "network.toml"] {
            let mode = fs::metadata(root.path().join("node").join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, PRIVATE_FILE, "{name}");
        }
    }

    #[test]
    fn peers_are_remembered_and_rubbish_is_passed_over() {
        let root = tempfile::tempdir().unwrap();
        let data = new_node(root.path()).unwrap();
        assert!(data.remembered_peers().is_empty());
        let peers: Vec<Multiaddr> = vec![format!("/ip4/127.0.0.1/udp/1/quic-v1/p2p/{}", made_peer()).parse().unwrap()];
        data.remember_peers(&peers).unwrap();
        assert_eq!(data.remembered_peers(), peers);
        fs::write(data.peers_path(), format!("rubbish\n/ip4/127.0.0.1/udp/1/quic-v1\n{}\n", peers[0])).unwrap();
        assert_eq!(data.remembered_peers(), peers);
    }

    #[test]
    fn a_second_init_keeps_the_first_identity() {
        let root = tempfile::tempdir().unwrap();
        let first = new_node(root.path()).unwrap().keypair().unwrap();
        assert!(format!("{:#}", new_node(root.path()).unwrap_err()).contains("already"));
        let kept = DataDir::open(&root.path().join("node")).unwrap().keypair().unwrap();
        assert_eq!(kept.public(), first.public());
    }

    #[test]
    fn a_broken_network_file_is_refused_without_its_text() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("net.toml");
        let secret = "00".repeat(31);
        fs::write(&path, format!("id = \"{}\"\nkeys = [\"{secret}\"]\n", "ab".repeat(16))).unwrap();
        let error = format!("{:#}", read_network(&path).unwrap_err());
        assert!(error.contains("network"), "{error}");
        assert!(!error.contains(&secret), "{error}");
    }
}
