//! `config.toml`: where the platform listens and which nodes it knows.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use control_api::NodeId;
use reqwest::Url;
use serde::Deserialize;

use crate::catalogue::is_lower_hex;
use crate::choice::Place;

/// Networks and nodes of one platform; the poller runs a task for each node.
const MAX_NODES: usize = 1024;

/// The platform's configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the one HTTP listener binds.
    pub listen: SocketAddr,
    /// The address people use, without a trailing slash.
    pub public_url: String,
    /// At least one; the first is the default for uploads.
    pub networks: Vec<Network>,
}

/// One network of nodes.
#[derive(Debug, Clone)]
pub struct Network {
    /// The platform's own name for it.
    pub name: String,
    /// Network id, 32 hex digits.
    pub id: String,
    /// Its nodes; may be empty.
    pub nodes: Vec<NodeAddress>,
}

/// Where a node's control listener is.
#[derive(Debug, Clone)]
pub struct NodeAddress {
    /// Base URL, without a trailing slash.
    pub control: String,
    /// Who the node is; `None`: whoever it says it is when it first answers.
    pub peer_id: Option<NodeId>,
    /// Base URL of its delivery listener, without a trailing slash; `None`: where it says that it is.
    pub delivery: Option<String>,
    /// Where the node stands, if known.
    pub place: Option<Place>,
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {cause}; `imira-platform init` makes it")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The file is not TOML of the expected shape.
    #[error("{path}: {cause}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line and reason.
        cause: Box<toml::de::Error>,
    },
    /// A value has no sense.
    #[error("{0}")]
    Value(String),
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|cause| ConfigError::Read { path: path.to_owned(), cause })?;
        let raw: RawConfig = toml::from_str(&text)
            .map_err(|cause| ConfigError::Parse { path: path.to_owned(), cause: Box::new(cause) })?;
        raw.check()
    }

    /// Puts a configuration together from the arguments of `init`: `networks` as `NAME=<id>`, `nodes` as
    /// `[NAME=]<control URL>[@lat,lon]`, where `NAME` is a network (it may be left out when there is one).
    pub fn from_arguments(
        listen: SocketAddr,
        public_url: Option<&str>,
        networks: &[String],
        nodes: &[String],
    ) -> Result<Self, ConfigError> {
        let mut raw = RawConfig {
            listen,
            public_url: public_url.map_or_else(|| format!("http://{listen}"), str::to_owned),
            networks: networks.iter().map(|argument| parse_network(argument)).collect::<Result<_, _>>()?,
        };
        for argument in nodes {
            let (network, node) = parse_node(argument, &raw.networks)?;
            raw.networks[network].nodes.push(node);
        }
        raw.check()
    }

    /// The file's text, each knob with what it costs.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = format!(
            "# Made by `imira-platform init`. Read at start; restart after a change.\n\n\
             # The one HTTP listener. It speaks plain HTTP: on an address that others can reach, put a TLS proxy in\n\
             # front, since API keys, cookies and temporary URLs pass through it.\n\
             listen = {}\n\n\
             # The address people use. Behind a TLS proxy say https://..., which makes the session cookie `Secure`.\n\
             # A wrong value costs sign-in: requests that change something must come from this origin.\n\
             public_url = {}\n",
            toml_string(&self.listen.to_string()),
            toml_string(&self.public_url),
        );
        for network in &self.networks {
            render_network(&mut text, network);
        }
        text
    }

    /// The network with this name or id; the first when none is named.
    #[must_use]
    pub fn network(&self, wanted: Option<&str>) -> Option<&Network> {
        match wanted {
            None => self.networks.first(),
            Some(wanted) => self.networks.iter().find(|network| network.name == wanted || network.id == wanted),
        }
    }
}

fn render_network(text: &mut String, network: &Network) {
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "\n# Uploads go to the first network unless they name another.\n\
         [[networks]]\nname = {}\nid = {}\n",
        toml_string(&network.name),
        toml_string(&network.id),
    );
    for node in &network.nodes {
        let _ = write!(
            text,
            "\n# Each node is asked for its state every 2 s. `latitude` and `longitude` (degrees, both or none) let\n\
             # viewers who say where they are get the nearest node; without them the choice is random. `peer_id`\n\
             # (`imira-node status` shows it) and `delivery_url` say who the node is and where viewers find it; without\n\
             # them the platform believes what answers at `control`, and the first peer id that it says until the\n\
             # platform restarts.\n\
             [[networks.nodes]]\ncontrol = {}\n",
            toml_string(&node.control),
        );
        if let Some(peer_id) = &node.peer_id {
            let _ = writeln!(text, "peer_id = {}", toml_string(peer_id.as_str()));
        }
        if let Some(delivery) = &node.delivery {
            let _ = writeln!(text, "delivery_url = {}", toml_string(delivery));
        }
        if let Some(place) = node.place {
            let _ = write!(text, "latitude = {:?}\nlongitude = {:?}\n", place.latitude(), place.longitude());
        }
    }
}

fn toml_string(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    listen: SocketAddr,
    public_url: String,
    networks: Vec<RawNetwork>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNetwork {
    name: String,
    id: String,
    #[serde(default)]
    nodes: Vec<RawNode>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNode {
    control: String,
    peer_id: Option<NodeId>,
    delivery_url: Option<String>,
    latitude: Option<f64>,
    longitude: Option<f64>,
}

impl RawConfig {
    fn check(self) -> Result<Config, ConfigError> {
        let public_url = base_url("public_url", &self.public_url)?;
        let networks: Vec<Network> = self.networks.into_iter().map(RawNetwork::check).collect::<Result<_, _>>()?;
        if networks.is_empty() {
            return Err(value("there is no network; name at least one with its id"));
        }
        for (index, network) in networks.iter().enumerate() {
            let twice = networks[..index].iter().any(|other| other.name == network.name || other.id == network.id);
            if twice {
                return Err(value(format!("network {} is there twice; keep one", network.name)));
            }
        }
        let nodes: usize = networks.iter().map(|network| network.nodes.len()).sum();
        if nodes > MAX_NODES {
            return Err(value(format!("{nodes} nodes are more than the {MAX_NODES} that one platform polls")));
        }
        let mut known: Vec<&NodeId> =
            networks.iter().flat_map(|network| &network.nodes).filter_map(|node| node.peer_id.as_ref()).collect();
        known.sort_unstable();
        if let Some(twice) = known.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(value(format!("the node {} is there twice; keep one", twice[0])));
        }
        Ok(Config { listen: self.listen, public_url, networks })
    }
}

impl RawNetwork {
    fn check(self) -> Result<Network, ConfigError> {
        if self.name.is_empty() || self.name.len() > 64 {
            return Err(value("a network's name is 1 to 64 bytes"));
        }
        if self.id.len() != 32 || !is_lower_hex(&self.id) {
            return Err(value(format!(
                "the id of network {} is not 32 lowercase hex digits; `imira-node status` shows it",
                self.name
            )));
        }
        let nodes = self.nodes.into_iter().map(RawNode::check).collect::<Result<_, _>>()?;
        Ok(Network { name: self.name, id: self.id, nodes })
    }
}

impl RawNode {
    fn check(self) -> Result<NodeAddress, ConfigError> {
        let control = base_url("control", &self.control)?;
        let place = match (self.latitude, self.longitude) {
            (None, None) => None,
            (Some(latitude), Some(longitude)) => Some(Place::new(latitude, longitude).ok_or_else(|| {
                value(format!("{control} stands at no place on earth: latitude ±90, longitude ±180"))
            })?),
            _ => {
                return Err(value(format!("{control} has half a place; give latitude and longitude")));
            }
        };
        let delivery = self.delivery_url.map(|url| base_url("delivery_url", &url)).transpose()?;
        Ok(NodeAddress { control, peer_id: self.peer_id, delivery, place })
    }
}

fn parse_network(argument: &str) -> Result<RawNetwork, ConfigError> {
    let (name, id) = argument
        .split_once('=')
        .ok_or_else(|| value(format!("--network {argument}: write NAME=<network id, 32 hex digits>")))?;
    Ok(RawNetwork { name: name.to_owned(), id: id.to_owned(), nodes: Vec::new() })
}

/// Returns the index of the node's network, and the node.
fn parse_node(argument: &str, networks: &[RawNetwork]) -> Result<(usize, RawNode), ConfigError> {
    let refused = |why: &str| value(format!("--node {argument}: {why}; write NETWORK=<control URL>[@lat,lon]"));
    // The part before the first `=` is a name unless the URL has begun by then.
    let (name, rest) = match argument.split_once('=') {
        Some((name, rest)) if !name.contains("://") => (Some(name), rest),
        _ => (None, argument),
    };
    let network = match name {
        Some(name) => networks
            .iter()
            .position(|network| network.name == name)
            .ok_or_else(|| refused("there is no --network of this name"))?,
        None if networks.len() == 1 => 0,
        None => return Err(refused("several networks are configured, so name one")),
    };
    let (control, place) = match rest.rsplit_once('@') {
        Some((control, place)) => {
            (control, Some(Place::parse(place).ok_or_else(|| refused("the place is not on earth"))?))
        }
        None => (rest, None),
    };
    let node = RawNode {
        control: control.to_owned(),
        peer_id: None,
        delivery_url: None,
        latitude: place.map(Place::latitude),
        longitude: place.map(Place::longitude),
    };
    Ok((network, node))
}

/// An http or https URL without query, as text without a trailing slash.
fn base_url(what: &str, text: &str) -> Result<String, ConfigError> {
    let refused = |why: &str| value(format!("{what} = {text}: {why}; write for example http://127.0.0.1:7000"));
    let url = Url::parse(text).map_err(|_| refused("this is not a URL"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(refused("this is not an http or https URL"));
    }
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err(refused("a base URL has no user, query or fragment"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn value(message: impl Into<String>) -> ConfigError {
    ConfigError::Value(message.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "000102030405060708090a0b0c0d0e0f";

    fn listen() -> SocketAddr {
        "127.0.0.1:7000".parse().unwrap()
    }

    fn made(nodes: &[&str]) -> Result<Config, ConfigError> {
        let nodes: Vec<String> = nodes.iter().map(|node| (*node).to_owned()).collect();
        Config::from_arguments(listen(), None, &[format!("demo={ID}")], &nodes)
    }

    #[test]
    fn what_init_writes_is_read_back() {
        let config = made(&["demo=http://127.0.0.1:7211@48.8566,2.3522", "http://127.0.0.1:7212/"]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, config.render()).unwrap();
        let read = Config::load(&path).unwrap();
        assert_eq!(read.listen, listen());
        assert_eq!(read.public_url, "http://127.0.0.1:7000");
        let network = read.network(Some("demo")).unwrap();
        assert_eq!(network.id, ID);
        assert_eq!(network.nodes[0].place, Place::new(48.8566, 2.3522));
        assert_eq!(network.nodes[1].control, "http://127.0.0.1:7212");
        assert!(read.network(Some("other")).is_none());
        assert!(read.network(Some(ID)).is_some());
    }

    #[test]
    fn senseless_arguments_are_refused_with_a_hint() {
        for (nodes, hint) in [
            (vec!["other=http://127.0.0.1:1"], "no --network"),
            (vec!["demo=ftp://127.0.0.1:1"], "http or https"),
            (vec!["demo=http://127.0.0.1:1@91,0"], "not on earth"),
            (vec!["demo=nowhere"], "not a URL"),
        ] {
            let error = made(&nodes).unwrap_err().to_string();
            assert!(error.contains(hint), "{error}");
        }
        let error = Config::from_arguments(listen(), None, &["demo=xyz".into()], &[]).unwrap_err();
        assert!(error.to_string().contains("32 lowercase hex"), "{error}");
    }

    #[test]
    fn who_a_node_is_survives_the_file_and_is_said_once() {
        let mut config = made(&["http://127.0.0.1:1", "http://127.0.0.1:2"]).unwrap();
        let node = &mut config.networks[0].nodes[0];
        (node.peer_id, node.delivery) = ("12D3a".parse().ok(), Some("http://n.example:7201".into()));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, config.render()).unwrap();
        let read = Config::load(&path).unwrap();
        assert_eq!(read.networks[0].nodes[0].peer_id, "12D3a".parse().ok());
        assert_eq!(read.networks[0].nodes[0].delivery.as_deref(), Some("http://n.example:7201"));
        config.networks[0].nodes[1].peer_id = "12D3a".parse().ok();
        std::fs::write(&path, config.render()).unwrap();
        assert!(Config::load(&path).unwrap_err().to_string().contains("twice"));
    }

    #[test]
    fn unknown_members_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, format!("{}\nspeed = 9\n", made(&[]).unwrap().render())).unwrap();
        assert!(Config::load(&path).unwrap_err().to_string().contains("speed"));
    }
}
