//! What a node keeps in its data folder, and the network file.

use crate::config::Config;
use crate::network::{read_certificate, read_network, system_clock, write_network};
use crate::settings::{Effective, Flags, environment};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use control_api::{Certificate, PinnedKeys, PlatformPublicKey};
use dht::{Certificate as MembershipCertificate, Keypair, Membership, Multiaddr, Network, PeerId};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const CONFIG: &str = "config.toml";
/// For folders that hold secrets.
const PRIVATE_DIR: u32 = 0o700;
/// For files that are secrets.
const PRIVATE_FILE: u32 = 0o600;

/// The largest certificate that a handshake carries.
pub(crate) const MAX_CERTIFICATE_BYTES: u64 = 4096;
/// The lists of all authorities that a network may have.
pub(crate) const MAX_REVOCATIONS_BYTES: u64 = 1 << 20;

/// Where a package keeps what a node writes, and what its operator edits.
const PACKAGED_DATA: &str = "/var/lib/imira-node";
const PACKAGED_CONFIG: &str = "/etc/imira-node/config.toml";

/// Which node a command is about.
#[derive(Args, Clone, Debug)]
pub(crate) struct Folder {
    /// The node's folder.
    #[arg(long, value_name = "DIR", env = "IMIRA_NODE_DATA", default_value = PACKAGED_DATA)]
    pub(crate) data: PathBuf,
    /// Its config.toml, with network.toml and platforms/ beside it, if they are not in that folder. The Debian package has them in
    /// /etc/imira-node, where they are found without this.
    #[arg(long, value_name = "FILE", env = "IMIRA_NODE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
}

impl Folder {
    /// The file that holds the configuration, whether it is there or not.
    pub(crate) fn config_file(&self) -> PathBuf {
        match &self.config {
            Some(config) => config.clone(),
            None if self.data == Path::new(PACKAGED_DATA) => PathBuf::from(PACKAGED_CONFIG),
            None => self.data.join(CONFIG),
        }
    }

    /// The folder that `init` made. Refuses to work in it as root where it is another user's: the files that root makes there could not
    /// be opened by the node any more.
    pub(crate) fn open(&self) -> Result<DataDir> {
        let data = self.look()?;
        let owner = fs::metadata(&self.data).with_context(|| format!("cannot read {}", self.data.display()))?.uid();
        ensure!(
            owner == 0 || !rustix::process::geteuid().is_root(),
            "{} belongs to the user with the number {owner}, and root would leave files in it that this user cannot open; \
             say the same as that user: sudo -u '#{owner}' imira-node ...",
            self.data.display()
        );
        Ok(data)
    }

    /// The same for those that only read.
    pub(crate) fn look(&self) -> Result<DataDir> {
        DataDir::open_at(&self.data, self.config_file())
    }
}

/// The folder that `imira-node init` makes:
/// `config.toml`, `identity.key`, `network.toml`, `certificate` and `revocations` (in networks with authorities), `platforms/*.pem`, `peers` (those known last), `alive` (when it was up last), `seen` (the latest accepted token request), `scrub` (its rounds),
/// `blocks/` (the store), `staging/` (files of uploads), `uploads/` (their records), `receipts/` (of what was sent, until platforms have them).
#[derive(Clone, Debug)]
pub(crate) struct DataDir {
    root: PathBuf,
    /// `network.toml` and `platforms/` lie beside it.
    config: PathBuf,
}

impl DataDir {
    /// Makes the folder of a new node. Refuses one that has a configuration already.
    pub(crate) fn create(root: &Path, config: &Config, network: &Path, platform_keys: &[PathBuf]) -> Result<Self> {
        config.check()?;
        let network = read_network(network)?;
        let keys = platform_keys.iter().map(|path| Ok((path, read_platform_key(path)?))).collect::<Result<Vec<_>>>()?;
        let data = Self::at(root);
        data.delivery_certificate(config)?;
        ensure!(
            !data.config_path().exists(),
            "{} is a node's folder already; choose another, or delete it to begin anew (its blocks are lost then)",
            root.display()
        );
        begin_private_dir(root)?;
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

    /// Makes what a node needs and is not there yet, where its configuration is: the folder and the identity. The network file and the
    /// platforms' keys are the operator's to put beside the configuration.
    pub(crate) fn complete(root: &Path, config: &Path) -> Result<Self> {
        let data = Self::open_at(root, config.to_owned())?;
        data.config()?;
        make_private_dir(root)?;
        if !data.identity_path().exists() {
            write_private(&data.identity_path(), &Keypair::generate_ed25519().to_protobuf_encoding()?)?;
        }
        Ok(data)
    }

    fn at(root: &Path) -> Self {
        Self { root: root.to_owned(), config: root.join(CONFIG) }
    }

    /// A folder that `init` made.
    #[cfg(test)]
    pub(crate) fn open(root: &Path) -> Result<Self> {
        Self::open_at(root, root.join(CONFIG))
    }

    fn open_at(root: &Path, config: PathBuf) -> Result<Self> {
        let data = Self { root: root.to_owned(), config };
        if !data.config_path().exists() {
            bail!(
                "{} is not there; give --data, a node's folder, which `imira-node init` makes",
                data.config_path().display()
            );
        }
        Ok(data)
    }

    /// What counts without flags, for work that does without the delivery listener's certificate.
    pub(crate) fn config(&self) -> Result<Config> {
        Ok(self.settings(&Flags::default())?.config)
    }

    /// What counts of the file, the environment and the flags, and can be run with.
    pub(crate) fn effective(&self, flags: &Flags) -> Result<Effective> {
        let effective = self.settings(flags)?;
        self.delivery_certificate(&effective.config)?;
        Ok(effective)
    }

    fn settings(&self, flags: &Flags) -> Result<Effective> {
        Effective::of(&read(&self.config_path())?, &environment(), flags)
    }

    /// What the delivery listener shows to viewers, if it speaks TLS. To be read again when its files were exchanged.
    pub(crate) fn delivery_certificate(&self, config: &Config) -> Result<Option<Certificate>> {
        let open = |(certificate, key)| Certificate::open(&self.resolve(certificate), &self.resolve(key));
        let opened = config.delivery_tls().map(open).transpose();
        opened.context("delivery_tls_certificate and delivery_tls_key cannot be used")
    }

    pub(crate) fn keypair(&self) -> Result<Keypair> {
        let path = self.identity_path();
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Keypair::from_protobuf_encoding(&bytes).map_err(|_| {
            // The cause may quote the bytes, which are the secret key.
            anyhow::anyhow!("{} is not a node key; restore it from your backup", path.display())
        })
    }

    /// The network as its file says.
    pub(crate) fn network_file(&self) -> Result<Network> {
        read_network(&self.network_path())
    }

    /// The network with this node's certificate and with what has been revoked.
    pub(crate) fn network(&self) -> Result<Network> {
        let network = self.network_file()?;
        let authorities = network.membership().authorities().to_vec();
        let membership = Membership::new(network.id(), authorities, self.certificate()?, system_clock())?;
        if let Some(lists) = self.revocations()? {
            // Without it, those who are not members any more would be let in.
            membership.offer_revocations(&lists).with_context(|| {
                format!("{} is not of use; get it anew from the authority", self.revocations_path().display())
            })?;
        }
        Ok(network.with_membership(Arc::new(membership)))
    }

    /// This node's certificate, if it has one.
    pub(crate) fn certificate(&self) -> Result<Option<MembershipCertificate>> {
        let path = self.certificate_path();
        if path.exists() { read_certificate(&path).map(Some) } else { Ok(None) }
    }

    /// Keeps this node's certificate, in the place of an older one.
    pub(crate) fn keep_certificate(&self, certificate: &MembershipCertificate) -> Result<()> {
        let own: PeerId = self.keypair()?.public().to_peer_id();
        ensure!(certificate.peer() == own, "the certificate is for {}, and this node is {own}", certificate.peer());
        let network = self.network_file()?.id();
        ensure!(
            certificate.network() == network,
            "the certificate is for the network {}, and this node is of {network}",
            certificate.network()
        );
        replace_private(&self.certificate_path(), certificate.as_bytes())
    }

    /// The lists of revocations, not yet looked at.
    pub(crate) fn revocations(&self) -> Result<Option<Vec<u8>>> {
        let path = self.revocations_path();
        if path.exists() { read_bytes(&path, MAX_REVOCATIONS_BYTES).map(Some) } else { Ok(None) }
    }

    /// Keeps lists that came from other nodes, at once or not at all.
    pub(crate) fn keep_revocations(&self, lists: &[u8]) -> Result<()> {
        replace_private(&self.revocations_path(), lists)
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

    pub(crate) fn alive_path(&self) -> PathBuf {
        self.root.join("alive")
    }

    pub(crate) fn seen_path(&self) -> PathBuf {
        self.root.join("seen")
    }

    pub(crate) fn receipts_path(&self) -> PathBuf {
        self.root.join("receipts")
    }

    pub(crate) fn scrub_path(&self) -> PathBuf {
        self.root.join("scrub")
    }

    pub(crate) fn store_path(&self) -> PathBuf {
        self.root.join("blocks")
    }

    /// The folder for the files of uploads that are received and processed.
    pub(crate) fn staging(&self) -> Result<PathBuf> {
        let path = self.root.join("staging");
        make_private_dir(&path)?;
        Ok(path)
    }

    /// The folder for what of uploads outlives the process.
    pub(crate) fn uploads(&self) -> Result<PathBuf> {
        let path = self.root.join("uploads");
        make_private_dir(&path)?;
        Ok(path)
    }

    /// A path of the configuration: beside it unless it is absolute.
    pub(crate) fn resolve(&self, path: &Path) -> PathBuf {
        self.config.with_file_name(path)
    }

    fn config_path(&self) -> PathBuf {
        self.config.clone()
    }

    /// Something that the operator edits.
    fn beside_config(&self, name: &str) -> PathBuf {
        self.config.with_file_name(name)
    }

    fn identity_path(&self) -> PathBuf {
        self.root.join("identity.key")
    }

    fn network_path(&self) -> PathBuf {
        self.beside_config("network.toml")
    }

    pub(crate) fn certificate_path(&self) -> PathBuf {
        self.root.join("certificate")
    }

    pub(crate) fn revocations_path(&self) -> PathBuf {
        self.root.join("revocations")
    }

    fn peers_path(&self) -> PathBuf {
        self.root.join("peers")
    }

    fn platforms_path(&self) -> PathBuf {
        self.beside_config("platforms")
    }
}

fn read_platform_key(path: &Path) -> Result<PlatformPublicKey> {
    PlatformPublicKey::from_pem(&read(path)?)
        .with_context(|| format!("{} is not a platform's public key (platform.pub.pem)", path.display()))
}

/// A text file.
pub(crate) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// A file of at most `limit` bytes.
pub(crate) fn read_bytes(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes));
    read.with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(bytes.len() as u64 <= limit, "{} is longer than {limit} bytes", path.display());
    Ok(bytes)
}

fn make_private_dir(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_DIR)
        .create(path)
        .with_context(|| format!("cannot make the folder {}", path.display()))
}

/// A folder for secrets alone: made, or there already and empty. What lies in it may be somebody's sources, which the secrets would be
/// published with.
fn begin_private_dir(path: &Path) -> Result<()> {
    make_private_dir(path)?;
    let mut entries = fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(
        entries.next().is_none(),
        "{} is there already and is not empty; a node's folder holds secrets and nothing else: choose a name that is not taken",
        path.display()
    );
    fs::set_permissions(path, fs::Permissions::from_mode(PRIVATE_DIR))
        .with_context(|| format!("cannot take the folder {} from the eyes of others", path.display()))
}

/// Writes a file for its owner's eyes only. Refuses to overwrite.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(PRIVATE_FILE)
        .open(path)
        .with_context(|| format!("cannot make {}; it must not exist yet", path.display()))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).with_context(|| format!("cannot write {}", path.display()))
}

/// Brings to disk which entries a folder has: a file that was made or renamed outlives a power cut only then.
pub(crate) fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Writes a file for its owner's eyes only, in the place of what was there, at once or not at all, and durably.
pub(crate) fn replace_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    // An earlier try may have been cut off.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", new.display()));
        }
        Ok(()) | Err(_) => {}
    }
    write_private(&new, bytes)?;
    let replaced = fs::rename(&new, path).and_then(|()| sync_folder(path.parent().unwrap_or(Path::new("."))));
    replaced.with_context(|| format!("cannot replace {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_folder_with_something_in_it_is_left_alone_and_an_empty_one_is_shut() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("node");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(folder.join("Cargo.toml"), "").unwrap();
        let refused = format!("{:#}", new_node(root.path()).unwrap_err());
        assert!(refused.contains("not empty"), "{refused}");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::remove_file(folder.join("Cargo.toml")).unwrap();
        new_node(root.path()).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, PRIVATE_DIR);
    }

    #[test]
    fn a_certificate_that_is_not_there_is_found_before_the_node_runs() {
        let root = tempfile::tempdir().unwrap();
        let data = new_node(root.path()).unwrap();
        let config = Config {
            delivery_tls_certificate: Some("chain.pem".into()),
            delivery_tls_key: Some("key.pem".into()),
            ..Config::default()
        };
        fs::write(data.config_path(), config.to_commented_toml()).unwrap();
        let refused = format!("{:#}", data.effective(&Flags::default()).unwrap_err());
        assert!(refused.contains("node/chain.pem cannot be read"), "{refused}");
        let again = DataDir::create(&root.path().join("other"), &config, &root.path().join("net.toml"), &[]);
        assert!(again.is_err() && !root.path().join("other").exists());
    }
}
