//! The command line.

use crate::config::{Config, Defaults};
use crate::daemon;
use crate::doctor::{self, DoctorArgs};
use crate::files::{DataDir, Folder};
use crate::get::{self, GetArgs};
use crate::logs::Logs;
use crate::manual::{self, CompletionsArgs, ManArgs};
use crate::network::{self, NetworkCommand};
use crate::operator::{self, BackupArgs, RestoreArgs, VerifyArgs};
use crate::out;
use crate::put::{self, PutArgs};
use crate::reload::Reload;
use crate::settings::Flags;
use crate::show;
use crate::tokens::{self, TokenCommand};
use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use control_api::{Clock, NodeClient, SystemClock};
use dht::Multiaddr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Storage node of the iMira Delivery Network.
#[derive(Parser)]
#[command(version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a network, look at one, say who is a member, exchange its key.
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Make the data folder, identity and configuration of a node; prints the node's address for others' --bootstrap. With --data and
    /// --certificate alone, give a node that is there already its certificate. With a --config that is there already, make what is missing
    /// beside it: the data folder and the identity.
    Init(Box<InitArgs>),
    /// Run the node until Ctrl-C or SIGTERM.
    Run(Box<RunArgs>),
    /// See what keeps a node from being of use, whether its ports can be reached among others; it may be running. Exits with 0 if
    /// nothing does, 1 if something is to be mended, 2 if something could not be told.
    Doctor(DoctorArgs),
    /// Show a running node's state.
    Status(StatusArgs),
    /// Show the peers in a running node's routing table.
    Peers(ControlArgs),
    /// Get a token from a running node, as a platform does: to look at a content, or to upload.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Upload a video to a running node, and wait until it is stored; prints its content key.
    Put(PutArgs),
    /// Fetch a block, or a file of a content, every block checked.
    Get(GetArgs),
    /// Read every stored block at full speed and check it; the node may be running. Exits with 0 if all are whole, 1 if
    /// some are damaged, 2 if it could not be told.
    Verify(VerifyArgs),
    /// Copy the stored blocks into a folder; the node may be running. The next time, only what is new is copied.
    Backup(BackupArgs),
    /// Make a stopped node's store from a backup. Refuses to overwrite one.
    Restore(RestoreArgs),
    /// Print a configuration file with the defaults, each setting explained with what it costs.
    Config,
    /// Print what makes a shell complete this command: imira-node completions bash > /etc/bash_completion.d/imira-node
    Completions(CompletionsArgs),
    /// Print the manual page, or write those of all commands into a folder.
    Man(ManArgs),
}

/// How long a step that waits for the disk may take once everything else has stopped: the whole stop takes 5 s at most.
const LAST_WAIT: Duration = Duration::from_secs(1);

#[derive(Args)]
struct InitArgs {
    /// Folder for identity, configuration and blocks; made if absent.
    #[arg(long, value_name = "DIR", env = "IMIRA_NODE_DATA")]
    data: PathBuf,
    /// A configuration that is there already, as a package brings it; the settings below are not for it.
    #[arg(long, value_name = "FILE", conflicts_with = "network")]
    config: Option<PathBuf>,
    /// The network file; it is copied into the data folder.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["certificate", "config"])]
    network: Option<PathBuf>,
    /// The certificate that makes a node a member, where its network asks for one. It names the node's PeerId, so the node has to be
    /// there first.
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// Address for other nodes: UDP (discovery) and TCP (blocks) on the same port.
    #[arg(long, default_value = Defaults::LISTEN)]
    listen: SocketAddr,
    /// Address for uploaders and viewers (HTTP).
    #[arg(long, default_value = Defaults::DELIVERY)]
    delivery: SocketAddr,
    /// Address for the platform and the operator (HTTP). Keep it private.
    #[arg(long, default_value = Defaults::CONTROL)]
    control: SocketAddr,
    /// How viewers reach --delivery, if not by that address.
    #[arg(long, value_name = "URL")]
    delivery_url: Option<String>,
    /// Certificate chain (PEM) with which --delivery speaks TLS and HTTP/2.
    #[arg(long, value_name = "FILE", requires = "delivery_tls_key")]
    delivery_tls_certificate: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(long, value_name = "FILE", requires = "delivery_tls_certificate")]
    delivery_tls_key: Option<PathBuf>,
    /// Public key of a platform that this node serves (PEM). Repeatable; copied into the data folder.
    #[arg(long = "platform-key", value_name = "PEM")]
    platform_keys: Vec<PathBuf>,
    /// Address of a node that is there already. Repeatable.
    #[arg(long, value_name = "MULTIADDR")]
    bootstrap: Vec<Multiaddr>,
    /// Origin of a platform's pages, for CORS. Repeatable.
    #[arg(long = "cors-origin", value_name = "URL")]
    cors_origins: Vec<String>,
    /// On how many nodes each block is kept; the same on every node of a network.
    #[arg(long, default_value_t = Defaults::REPLICATION)]
    replication: usize,
    /// The most bytes that this node's store keeps on disk, its index included.
    #[arg(long, default_value_t = Defaults::QUOTA_BYTES)]
    quota_bytes: u64,
}

#[derive(Args)]
struct RunArgs {
    #[command(flatten)]
    folder: Folder,
    /// Print the configuration that counts, each setting with where it comes from, and end.
    #[arg(long)]
    print_config: bool,
    #[command(flatten)]
    settings: Flags,
}

#[derive(Args)]
struct ControlArgs {
    /// The node's control listener.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7301")]
    control: String,
}

#[derive(Args)]
struct StatusArgs {
    #[command(flatten)]
    control: ControlArgs,
    /// Print what the node answered, as JSON.
    #[arg(long)]
    json: bool,
}

impl Cli {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let done = match self.command {
            Command::Network(command) => network::run(command),
            Command::Init(args) => init(*args),
            Command::Run(args) => run(*args),
            Command::Doctor(args) => return runtime()?.block_on(doctor::run(&args)),
            Command::Status(args) => runtime()?.block_on(status(&args)),
            Command::Peers(args) => runtime()?.block_on(peers(&args)),
            Command::Token(command) => runtime()?.block_on(tokens::run(command)),
            Command::Put(args) => runtime()?.block_on(put::run(&args)),
            Command::Get(args) => runtime()?.block_on(get::run(args)),
            Command::Config => {
                out::print(Config::default().to_commented_toml())?;
                Ok(())
            }
            Command::Completions(args) => manual::completions(&args),
            Command::Man(args) => manual::man(&args),
            Command::Verify(args) => return runtime()?.block_on(operator::verify(&args)),
            Command::Backup(args) => runtime()?.block_on(operator::backup(&args)),
            Command::Restore(args) => return operator::restore(&args),
        };
        done.map(|()| ExitCode::SUCCESS)
    }
}

fn init(args: InitArgs) -> Result<()> {
    if let Some(certificate) = &args.certificate {
        return give_certificate(Folder { data: args.data, config: args.config }, certificate);
    }
    if let Some(config) = &args.config {
        let data = DataDir::complete(&args.data, config)?;
        return say_address(&data, data.config()?.listen);
    }
    let network = args.network.context("--network is missing")?;
    let config = Config {
        listen: args.listen,
        delivery: args.delivery,
        control: args.control,
        delivery_url: args.delivery_url,
        delivery_tls_certificate: args.delivery_tls_certificate.as_deref().map(absolute).transpose()?,
        delivery_tls_key: args.delivery_tls_key.as_deref().map(absolute).transpose()?,
        bootstrap: args.bootstrap.iter().map(Multiaddr::to_string).collect(),
        cors_origins: args.cors_origins,
        replication: args.replication,
        quota_bytes: args.quota_bytes,
        ..Config::default()
    };
    let data = DataDir::create(&args.data, &config, &network, &args.platform_keys)?;
    say_address(&data, args.listen)?;
    if !data.network_file()?.membership().authorities().is_empty() {
        eprintln!(
            "this network asks for certificates: have its authority make one (imira-node network issue --peer {}), \
             and give it to the node: imira-node init --data {} --certificate FILE",
            data.keypair()?.public().to_peer_id(),
            args.data.display()
        );
    }
    Ok(())
}

/// Prints what others give as `--bootstrap`.
fn say_address(data: &DataDir, listen: SocketAddr) -> Result<()> {
    let peer = data.keypair()?.public().to_peer_id();
    let (ip, port) = (listen.ip(), listen.port());
    let family = if ip.is_ipv4() { "ip4" } else { "ip6" };
    if ip.is_unspecified() {
        eprintln!("other nodes need this machine's own address in the place of {ip}:");
    }
    out::line(format_args!("/{family}/{ip}/udp/{port}/quic-v1/p2p/{peer}"))?;
    Ok(())
}

/// The configuration's own relative paths begin elsewhere.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{} is no path", path.display()))
}

/// A certificate names the node, so it comes to a folder that is there.
fn give_certificate(folder: Folder, certificate: &Path) -> Result<()> {
    let certificate = network::read_certificate(certificate)?;
    let data = folder.open().context(
        "a certificate names the PeerId of a node, which `init` makes: run `init` without --certificate first, and have one \
         issued for the PeerId that it prints",
    )?;
    data.keep_certificate(&certificate)
}

fn run(args: RunArgs) -> Result<()> {
    let RunArgs { folder, print_config, settings } = args;
    if print_config {
        out::print(folder.look()?.effective(&settings)?.to_toml()?)?;
        return Ok(());
    }
    let data = folder.open()?;
    let config = data.effective(&settings)?.config;
    let logs = Logs::start(&config)?;
    let runtime = runtime()?;
    let ended = runtime.block_on(daemon::run(data, config, Reload { settings, logs }));
    // What still waits for the disk is not waited for without end. The store is made for that.
    runtime.shutdown_timeout(LAST_WAIT);
    ended
}

async fn status(args: &StatusArgs) -> Result<()> {
    let control = &args.control.control;
    let status = NodeClient::new(control)?.node().await.with_context(|| not_answering(control))?;
    match args.json {
        true => out::line(serde_json::to_string_pretty(&status)?)?,
        false => out::print(show::status(&status, SystemClock.unix_seconds()))?,
    }
    Ok(())
}

async fn peers(args: &ControlArgs) -> Result<()> {
    let peers = NodeClient::new(&args.control)?.peers().await.with_context(|| not_answering(&args.control))?;
    for peer in peers {
        out::line(format_args!("{} {}", peer.peer_id, peer.address))?;
    }
    Ok(())
}

pub(crate) fn not_answering(control: &str) -> String {
    format!("no answer from {control}; is the node running, and is this its control listener?")
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")
}
