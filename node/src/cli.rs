//! The command line.

// Answers to a person or a script go to standard output; logs go to standard error.
#![allow(clippy::print_stdout)]

use crate::config::{Config, Defaults};
use crate::daemon;
use crate::doctor::{self, DoctorArgs};
use crate::files::DataDir;
use crate::network::{self, NetworkCommand};
use crate::operator::{self, BackupArgs, RestoreArgs, VerifyArgs};
use crate::show;
use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use control_api::{Clock, NodeClient, SystemClock};
use dht::Multiaddr;
use std::io::IsTerminal;
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
    /// --certificate alone, give a node that is there already its certificate.
    Init(Box<InitArgs>),
    /// Run the node until Ctrl-C or SIGTERM.
    Run(RunArgs),
    /// See what keeps a node from being of use, whether its ports can be reached among others; it may be running. Exits with 0 if
    /// nothing does, 1 if something is to be mended, 2 if something could not be told.
    Doctor(DoctorArgs),
    /// Show a running node's state.
    Status(StatusArgs),
    /// Show the peers in a running node's routing table.
    Peers(ControlArgs),
    /// Read every stored block at full speed and check it; the node may be running. Exits with 0 if all are whole, 1 if
    /// some are damaged, 2 if it could not be told.
    Verify(VerifyArgs),
    /// Copy the stored blocks into a folder; the node may be running. The next time, only what is new is copied.
    Backup(BackupArgs),
    /// Make a stopped node's store from a backup. Refuses to overwrite one.
    Restore(RestoreArgs),
}

/// Kademlia warns whenever it knows nobody, which is how every first node of a network begins.
const DEFAULT_LOG: &str = "info,libp2p_swarm=warn,libp2p_kad=error";

/// How long a step that waits for the disk may take once everything else has stopped.
const LAST_WAIT: Duration = Duration::from_secs(5);

#[derive(Args)]
struct InitArgs {
    /// Folder for identity, configuration and blocks; made if absent.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The network file; it is copied into the data folder.
    #[arg(long, value_name = "FILE", required_unless_present = "certificate")]
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
    /// The folder that `init` made.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Shape of the log lines.
    #[arg(long, value_enum, default_value_t = LogFormat::Human)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Human,
    Json,
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
            Command::Run(args) => run(&args),
            Command::Doctor(args) => return runtime()?.block_on(doctor::run(&args)),
            Command::Status(args) => runtime()?.block_on(status(&args)),
            Command::Peers(args) => runtime()?.block_on(peers(&args)),
            Command::Verify(args) => return runtime()?.block_on(operator::verify(&args)),
            Command::Backup(args) => runtime()?.block_on(operator::backup(&args)),
            Command::Restore(args) => return operator::restore(&args),
        };
        done.map(|()| ExitCode::SUCCESS)
    }
}

fn init(args: InitArgs) -> Result<()> {
    if let Some(certificate) = &args.certificate {
        return give_certificate(&args.data, certificate);
    }
    let network = args.network.context("--network is missing")?;
    let scheme = if args.delivery_tls_certificate.is_some() { "https" } else { "http" };
    let config = Config {
        listen: args.listen,
        delivery: args.delivery,
        control: args.control,
        delivery_url: args.delivery_url.unwrap_or_else(|| format!("{scheme}://{}", args.delivery)),
        delivery_tls_certificate: args.delivery_tls_certificate.as_deref().map(absolute).transpose()?,
        delivery_tls_key: args.delivery_tls_key.as_deref().map(absolute).transpose()?,
        bootstrap: args.bootstrap.iter().map(Multiaddr::to_string).collect(),
        cors_origins: args.cors_origins,
        replication: args.replication,
        quota_bytes: args.quota_bytes,
        ..Config::default()
    };
    let data = DataDir::create(&args.data, &config, &network, &args.platform_keys)?;
    let keypair = data.keypair()?;
    let peer = keypair.public().to_peer_id();
    let (ip, port) = (args.listen.ip(), args.listen.port());
    let family = if ip.is_ipv4() { "ip4" } else { "ip6" };
    if ip.is_unspecified() {
        eprintln!("other nodes need this machine's own address in the place of {ip}:");
    }
    if !data.network_file()?.membership().authorities().is_empty() {
        eprintln!(
            "this network asks for certificates: have its authority make one (imira-node network issue --peer {peer}), \
             and give it to the node: imira-node init --data {} --certificate FILE",
            args.data.display()
        );
    }
    println!("/{family}/{ip}/udp/{port}/quic-v1/p2p/{peer}");
    Ok(())
}

/// The configuration's own relative paths begin elsewhere.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{} is no path", path.display()))
}

/// A certificate names the node, so it comes to a folder that is there.
fn give_certificate(root: &Path, certificate: &Path) -> Result<()> {
    let certificate = network::read_certificate(certificate)?;
    let data = DataDir::open(root).context(
        "a certificate names the PeerId of a node, which `init` makes: run `init` without --certificate first, and have one \
         issued for the PeerId that it prints",
    )?;
    data.keep_certificate(&certificate)
}

fn run(args: &RunArgs) -> Result<()> {
    let level = tracing_subscriber::EnvFilter::try_from_env("IMIRA_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(DEFAULT_LOG));
    let log = tracing_subscriber::fmt()
        .with_env_filter(level)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match args.log_format {
        LogFormat::Human => log.init(),
        LogFormat::Json => log.json().init(),
    }
    let runtime = runtime()?;
    let ended = runtime.block_on(daemon::run(DataDir::open(&args.data)?));
    // What still waits for the disk is not waited for without end. The store is made for that.
    runtime.shutdown_timeout(LAST_WAIT);
    ended
}

async fn status(args: &StatusArgs) -> Result<()> {
    let control = &args.control.control;
    let status = NodeClient::new(control)?.node().await.with_context(|| not_answering(control))?;
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&status)?),
        false => print!("{}", show::status(&status, SystemClock.unix_seconds())),
    }
    Ok(())
}

async fn peers(args: &ControlArgs) -> Result<()> {
    let peers = NodeClient::new(&args.control)?.peers().await.with_context(|| not_answering(&args.control))?;
    for peer in peers {
        println!("{} {}", peer.peer_id, peer.address);
    }
    Ok(())
}

pub(crate) fn not_answering(control: &str) -> String {
    format!("no answer from {control}; is the node running, and is this its control listener?")
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")
}
