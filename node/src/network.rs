//! The network file, authorities, certificates and revocation lists: what `imira-node network` makes and changes.

use crate::files::{self, Folder, read, read_bytes, replace_private, write_private};
use crate::out;
use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use control_api::{Clock, SystemClock};
use dht::{Authority, AuthorityKey, Certificate, Membership, Network, NetworkKey, PeerId, RevocationList, Serial};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const DAY_S: u64 = 86_400;

#[derive(Subcommand)]
pub(crate) enum NetworkCommand {
    /// Make a new network: a random id and key. Give the file to every member over a safe channel; it is a secret.
    New {
        /// Where to write it. Refuses to overwrite.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Let an authority say who is a member. Its secret key is made in this file, or read from it if it is there. Keep
        /// it away from the nodes.
        #[arg(long, value_name = "FILE")]
        authority: Option<PathBuf>,
    },
    /// Print a network's id, never its key.
    Show {
        /// The network file.
        file: PathBuf,
    },
    /// Make the key of an authority, or look at one.
    #[command(subcommand)]
    Authority(AuthorityCommand),
    /// Make a node a member of a network that has an authority; prints the certificate's serial number.
    Issue(IssueArgs),
    /// Take certificates back. The new list goes into the data folder of one node, as `revocations`; nodes pass it on.
    Revoke(RevokeArgs),
    /// Begin to exchange the network's key: the file gets a new current key, and the old one as its previous.
    Rotate {
        /// The network file; it is changed.
        file: PathBuf,
    },
    /// Finish to exchange the network's key: the file loses its previous key.
    Retire {
        /// The network file; it is changed.
        file: PathBuf,
    },
}

#[derive(Subcommand)]
pub(crate) enum AuthorityCommand {
    /// Make a new authority's secret key; prints its public key, as `authorities` in a network file names it.
    New {
        /// Where to write it. Refuses to overwrite.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Print an authority's public key, never its secret.
    Show {
        /// The authority's file.
        file: PathBuf,
    },
}

#[derive(Args)]
pub(crate) struct IssueArgs {
    /// The authority's file.
    #[arg(long, value_name = "FILE")]
    authority: PathBuf,
    /// The network file.
    #[arg(long, value_name = "FILE")]
    network: PathBuf,
    #[command(flatten)]
    whom: Whom,
    /// For how long the node is a member.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=36_500))]
    days: u64,
    /// Where to write the certificate; it is no secret. Refuses to overwrite. With --data it may be left out: the certificate
    /// then goes into that folder, in the place of an older one.
    #[arg(long, value_name = "FILE", required_unless_present = "data")]
    out: Option<PathBuf>,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Whom {
    /// The node's PeerId, the last part of the address that `imira-node init` prints.
    #[arg(long, value_name = "PEERID")]
    peer: Option<PeerId>,
    /// The node's data folder.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct RevokeArgs {
    /// The authority's file.
    #[arg(long, value_name = "FILE")]
    authority: PathBuf,
    /// The network file.
    #[arg(long, value_name = "FILE")]
    network: PathBuf,
    /// The list of all that this authority has revoked; made if absent, otherwise replaced by the next one. Keep it.
    #[arg(long, value_name = "FILE")]
    list: PathBuf,
    /// Serial numbers, or files with certificates.
    #[arg(required = true, value_name = "SERIAL|FILE")]
    certificates: Vec<String>,
}

/// Runs one of the commands.
pub(crate) fn run(command: NetworkCommand) -> Result<()> {
    match command {
        NetworkCommand::New { out, authority } => new(&out, authority.as_deref()),
        NetworkCommand::Show { file } => {
            out::line(read_network(&file)?.id())?;
            Ok(())
        }
        NetworkCommand::Authority(AuthorityCommand::New { out }) => {
            out::line(new_authority(&out)?.public())?;
            Ok(())
        }
        NetworkCommand::Authority(AuthorityCommand::Show { file }) => {
            out::line(read_authority(&file)?.public())?;
            Ok(())
        }
        NetworkCommand::Issue(args) => issue(args),
        NetworkCommand::Revoke(args) => revoke(&args),
        NetworkCommand::Rotate { file } => rotate(&file),
        NetworkCommand::Retire { file } => retire(&file),
    }
}

fn new(out: &Path, authority: Option<&Path>) -> Result<()> {
    // Before an authority is made for nothing.
    ensure!(!out.exists(), "{} is there already; choose another name", out.display());
    let mut network = Network::generate()?;
    if let Some(path) = authority {
        let authority = if path.exists() { read_authority(path)? } else { new_authority(path)? };
        network = with_authorities(network, vec![authority.public()])?;
        eprintln!(
            "{} is the authority's secret key: keep it off the nodes, with a copy in a safe place. Each node needs a \
             certificate: imira-node network issue",
            path.display()
        );
    }
    write_network(out, &network)?;
    out::line(network.id())?;
    Ok(())
}

fn issue(args: IssueArgs) -> Result<()> {
    let (authority, network) = known_authority(&args.authority, &args.network)?;
    let data = args.whom.data.map(|root| Folder { data: root, config: None }.look()).transpose()?;
    let peer = match (&data, args.whom.peer) {
        (Some(data), _) => {
            let own = data.network_file()?.id();
            ensure!(
                own == network.id(),
                "the node is of network {own}, and the certificate would be for {}",
                network.id()
            );
            data.keypair()?.public().to_peer_id()
        }
        (None, Some(peer)) => peer,
        (None, None) => anyhow::bail!("say whom: --peer or --data"),
    };
    let now = SystemClock.unix_seconds();
    let certificate = authority.issue(network.id(), peer, now, now + args.days * DAY_S)?;
    match (args.out, data) {
        (Some(out), _) => write_private(&out, certificate.as_bytes())?,
        (None, Some(data)) => data.keep_certificate(&certificate)?,
        (None, None) => anyhow::bail!("say where to: --out"),
    }
    eprintln!("{peer} is a member for {} days from now", args.days);
    out::line(certificate.serial())?;
    Ok(())
}

fn revoke(args: &RevokeArgs) -> Result<()> {
    let (authority, network) = known_authority(&args.authority, &args.network)?;
    let (number, mut serials) = match args.list.exists() {
        true => {
            let list = read_list(&args.list)?;
            ensure!(
                list.is_signed_by(&authority.public()) && list.network() == network.id(),
                "{} is not a list of this authority for this network",
                args.list.display()
            );
            (list.number() + 1, list.serials().clone())
        }
        false => (1, BTreeSet::new()),
    };
    let before = serials.len();
    for named in &args.certificates {
        serials.insert(serial_of(named)?);
    }
    ensure!(serials.len() > before, "all of these are revoked already; {} stays as it is", args.list.display());
    let list = RevocationList::sign(&authority, network.id(), number, serials)?;
    replace_private(&args.list, list.as_bytes())?;
    eprintln!(
        "list number {number} revokes {} certificates. Put it into the data folder of any one node that is up, under the \
         name revocations: it and all others heed it within seconds",
        list.serials().len()
    );
    out::line(number)?;
    Ok(())
}

/// A serial number as it is, or that of the certificate in a file.
fn serial_of(named: &str) -> Result<Serial> {
    if let Ok(serial) = named.parse() {
        return Ok(serial);
    }
    read_certificate(Path::new(named)).map(|certificate| certificate.serial()).with_context(|| {
        format!("{named} is neither a serial number, as `network issue` prints it, nor a file with a certificate")
    })
}

fn rotate(file: &Path) -> Result<()> {
    let network = read_network(file)?.rotate()?;
    replace_network(file, &network)?;
    let file = file.display();
    eprintln!(
        "{file} has a new current key, and the old one beside it. What to do next:\n\
         1. On every node, put it into the data folder and restart the node, one after another:\n   \
            install -m 600 {file} DIR/network.toml\n\
         2. When every node has it: imira-node network retire {file}\n\
         3. Do step 1 again with what that leaves. Only then has the old key lost its force."
    );
    Ok(())
}

fn retire(file: &Path) -> Result<()> {
    let network = read_network(file)?.retire()?;
    replace_network(file, &network)?;
    let file = file.display();
    eprintln!(
        "{file} has the current key only. A node that has not got it yet is shut out by those that get this file, so be sure \
         that all have it; then put it into every data folder and restart the nodes, one after another:\n   \
         install -m 600 {file} DIR/network.toml"
    );
    Ok(())
}

/// The network file: `id`, one or two `keys`, the current one first, and the `authorities`, if any.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkFile {
    id: String,
    keys: Vec<String>,
    #[serde(default)]
    authorities: Vec<String>,
}

/// Reads a network file. Errors never repeat what it holds.
pub(crate) fn read_network(path: &Path) -> Result<Network> {
    let text = read(path)?;
    let not_understood = || format!("{} is not a network file; `imira-node network new` makes one", path.display());
    // toml's errors quote the line they are about, which may be a key.
    let file: NetworkFile = toml::from_str(&text).map_err(|_| anyhow::anyhow!(not_understood()))?;
    let id = file.id.parse().map_err(|_| anyhow::anyhow!("{}: the id is not 32 hex digits", path.display()))?;
    let keys = file.keys.iter().map(|key| NetworkKey::from_hex(key)).collect::<Result<Vec<_>, _>>();
    let network = Network::new(id, keys.with_context(not_understood)?).with_context(not_understood)?;
    let authorities = file.authorities.iter().map(|key| key.parse()).collect::<Result<Vec<_>, _>>();
    with_authorities(network, authorities.with_context(not_understood)?).with_context(not_understood)
}

fn with_authorities(network: Network, authorities: Vec<AuthorityKey>) -> Result<Network> {
    let membership = Membership::new(network.id(), authorities, None, system_clock())?;
    Ok(network.with_membership(Arc::new(membership)))
}

/// The clock that membership goes by outside of tests.
pub(crate) fn system_clock() -> dht::UnixClock {
    Arc::new(|| SystemClock.unix_seconds())
}

/// Writes a network file for its owner's eyes only. Refuses to overwrite.
pub(crate) fn write_network(path: &Path, network: &Network) -> Result<()> {
    write_private(path, network_text(network).as_bytes())
}

fn replace_network(path: &Path, network: &Network) -> Result<()> {
    replace_private(path, network_text(network).as_bytes())
}

fn network_text(network: &Network) -> String {
    let quoted = |text: &str| format!("\"{text}\"");
    let keys: Vec<_> = network.keys().iter().map(|key| quoted(&key.to_secret_hex())).collect();
    let mut text = format!(
        "# A network of the iMira Delivery Network. The keys are a secret that all members share:\n\
         # give this file to each of them over a safe channel. The first key is the current one.\n\
         id = \"{}\"\nkeys = [{}]\n",
        network.id(),
        keys.join(", ")
    );
    let authorities: Vec<_> = network.membership().authorities().iter().map(|key| quoted(&key.to_string())).collect();
    if !authorities.is_empty() {
        text.push_str(&format!(
            "\n# Public keys of those who say who is a member. Each node needs a certificate by one of them.\n\
             authorities = [{}]\n",
            authorities.join(", ")
        ));
    }
    text
}

/// An authority's file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthorityFile {
    secret: String,
}

fn new_authority(path: &Path) -> Result<Authority> {
    let authority = Authority::generate()?;
    let text = format!(
        "# The secret key of an authority of the iMira Delivery Network. Whoever has it decides who is a member:\n\
         # keep it off the nodes, with a copy in a safe place.\n\
         secret = \"{}\"\n",
        *authority.to_secret_hex()
    );
    write_private(path, text.as_bytes())?;
    Ok(authority)
}

/// Reads an authority's file. Errors never repeat what it holds.
fn read_authority(path: &Path) -> Result<Authority> {
    let text = read(path)?;
    let not_understood = || {
        anyhow::anyhow!("{} is not an authority's file; `imira-node network authority new` makes one", path.display())
    };
    let file: AuthorityFile = toml::from_str(&text).map_err(|_| not_understood())?;
    Authority::from_secret_hex(&file.secret).map_err(|_| not_understood())
}

/// An authority and a network that names it.
fn known_authority(authority: &Path, network: &Path) -> Result<(Authority, Network)> {
    let (authority_file, network_file) = (authority, network);
    let (authority, network) = (read_authority(authority)?, read_network(network)?);
    ensure!(
        network.membership().authorities().contains(&authority.public()),
        "{} does not name the authority {} in its list of authorities ({}); nodes would refuse what it signs",
        network_file.display(),
        authority_file.display(),
        authority.public()
    );
    Ok((authority, network))
}

/// Reads a certificate's file.
pub(crate) fn read_certificate(path: &Path) -> Result<Certificate> {
    Certificate::parse(&read_bytes(path, files::MAX_CERTIFICATE_BYTES)?)
        .with_context(|| format!("{} is not a certificate; `imira-node network issue` makes one", path.display()))
}

fn read_list(path: &Path) -> Result<RevocationList> {
    RevocationList::parse(&read_bytes(path, files::MAX_REVOCATIONS_BYTES)?).with_context(|| {
        format!("{} is not a list of revocations; `imira-node network revoke` makes one", path.display())
    })
}

#[cfg(test)]
mod tests;
