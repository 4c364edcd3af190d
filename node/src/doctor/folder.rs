//! The data folder and what is in it.

use super::{Finding, Opened};
use crate::files::{DataDir, Folder};
use crate::membership::{Standing, remedy, standing};
use crate::settings::{Effective, Flags};
use dht::Network;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// Files that are secrets, or that say who is trusted.
const PRIVATE_FILES: [&str; 2] = ["identity.key", "network.toml"];

/// What is found, and the folder if it can be worked with.
pub(super) fn examine(folder: &Folder) -> (Vec<Finding>, Option<Opened>) {
    const WHAT: &str = "data folder";
    let data = match folder.look() {
        Ok(data) => data,
        Err(error) => {
            let remedy = "Give the folder that `imira-node init` made, as the user that the node runs as.";
            return (vec![Finding::failure(WHAT, format!("{error:#}"), remedy)], None);
        }
    };
    let mut findings = vec![privacy(&folder.data)];
    let config = match data.effective(&Flags::default()) {
        Ok(Effective { config, .. }) => {
            findings.push(Finding::well("configuration", "config.toml is understood"));
            Some(config)
        }
        Err(error) => {
            let remedy = "Mend config.toml; `imira-node config` prints one to compare with.";
            findings.push(Finding::failure("configuration", format!("{error:#}"), remedy));
            None
        }
    };
    let keypair = match data.keypair() {
        Ok(keypair) => {
            findings.push(Finding::well("identity", format!("this node is {}", keypair.public().to_peer_id())));
            Some(keypair)
        }
        Err(error) => {
            let remedy = "Restore identity.key from your backup; a new one makes it another node.";
            findings.push(Finding::failure("identity", format!("{error:#}"), remedy));
            None
        }
    };
    findings.extend(platform_keys(&data));
    match data.network() {
        Ok(network) => {
            findings.push(keys(&network));
            findings.extend(keypair.as_ref().map(|keypair| member(&network, keypair.public().to_peer_id())));
        }
        Err(error) => {
            let remedy = "Get the network file anew from whoever gave it to you, and the list of revocations from the authority.";
            findings.push(Finding::failure("network", format!("{error:#}"), remedy));
            return (findings, None);
        }
    }
    let opened = config.zip(keypair).map(|(config, keypair)| Opened { data, config, keypair });
    (findings, opened)
}

fn privacy(root: &Path) -> Finding {
    const WHAT: &str = "data folder";
    let mut open_to_others = Vec::new();
    let names = [""].into_iter().chain(PRIVATE_FILES);
    for path in names.map(|name| root.join(name)) {
        // What is not there is found by whoever needs it.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            let says = format!("{} belongs to another user", path.display());
            return Finding::warning(WHAT, says, "Run the doctor as the user that the node runs as.");
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            open_to_others.push(path.display().to_string());
        }
    }
    if open_to_others.is_empty() {
        return Finding::well(WHAT, format!("{} is readable, and by its owner only", root.display()));
    }
    let list = open_to_others.join(" ");
    Finding::failure(
        WHAT,
        format!("others on this machine can read what is secret: {list}"),
        format!("chmod go= {list}. If somebody may have read the network key, exchange it: imira-node network rotate"),
    )
}

fn platform_keys(data: &DataDir) -> Option<Finding> {
    const WHAT: &str = "platforms";
    let remedy =
        "Put the file platform.pub.pem of each platform that this node is to serve into its folder platforms/.";
    Some(match data.platform_keys() {
        Ok(keys) if keys.is_empty() => Finding::warning(
            WHAT,
            "no platform's key is pinned: the node takes no uploads and serves no viewers",
            remedy,
        ),
        Ok(_) => Finding::well(WHAT, "the keys of the platforms that it serves are pinned"),
        Err(error) => Finding::failure(WHAT, format!("{error:#}"), remedy),
    })
}

fn keys(network: &Network) -> Finding {
    const WHAT: &str = "network";
    let id = network.id();
    match network.keys() {
        [_, _] => Finding::warning(
            WHAT,
            format!("{id}, with a previous key that is still good: a rotation is under way"),
            "When every node has this network file: imira-node network retire",
        ),
        _ => Finding::well(WHAT, format!("{id}, with one key")),
    }
}

fn member(network: &Network, own: dht::PeerId) -> Finding {
    const WHAT: &str = "membership";
    match standing(network.membership(), own) {
        Standing::Open => Finding::well(WHAT, "whoever has the network key is a member; no certificate is asked for"),
        Standing::Until { days, soon: false } => {
            Finding::well(WHAT, format!("this node has a certificate, for {days} days more"))
        }
        Standing::Until { days, soon: true } => Finding::warning(
            WHAT,
            format!("this node's certificate ends in {days} days, and the node is shut out then"),
            "Have the authority issue a new one, then imira-node init --data DIR --certificate FILE; the node may be running.",
        ),
        Standing::Refused(error) => {
            Finding::failure(WHAT, format!("other nodes refuse this one: {error}"), format!("{}.", remedy(own)))
        }
    }
}
