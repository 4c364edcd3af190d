//! What an operator does with a store: verify, back up, restore. On the store itself while the node is stopped, by way of the
//! node while it runs.

use crate::cli::not_answering;
use crate::config::Config;
use crate::files::{DataDir, Folder};
use crate::housekeeping::{VERIFY_STEP_BYTES, add_step, processors};
use crate::out;
use crate::show::{Bar, bytes};
use anyhow::{Context, Result, bail, ensure};
use chunkstore::{BackupProgress, Store, StoreError};
use clap::Args;
use control_api::work::{BackupReport, VerifyReport, WorkLine};
use control_api::{ClientError, NodeClient};
use futures::{Stream, StreamExt};
use indicatif::{HumanCount, HumanDuration};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Instant;

/// Some blocks are damaged.
const DAMAGED: u8 = 1;
/// Whether some are could not be told.
const UNKNOWN: u8 = 2;
/// Where a store is built that is not whole yet: a node never opens it.
const RESTORING: &str = "blocks.restoring";

#[derive(Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Args)]
pub(crate) struct BackupArgs {
    /// Where the copy goes: a new or empty folder, or an earlier backup of this node, best on another disk.
    #[arg(value_name = "DIR")]
    to: PathBuf,
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Args)]
pub(crate) struct RestoreArgs {
    /// The folder that `imira-node backup` wrote.
    #[arg(value_name = "DIR")]
    from: PathBuf,
    /// The node must not be running.
    #[command(flatten)]
    folder: Folder,
}

#[derive(Args)]
struct NodeArgs {
    #[command(flatten)]
    folder: Folder,
    /// The running node's control listener, if not by the address in config.toml.
    #[arg(long, value_name = "URL")]
    control: Option<String>,
}

/// The store itself, or the node that has it open.
enum Access {
    Store(Store),
    Node(NodeClient, String),
}

impl NodeArgs {
    fn open(&self) -> Result<Access> {
        let data = self.folder.open()?;
        let config = data.config()?;
        match open_at(&data, &config) {
            Ok(store) => Ok(Access::Store(store)),
            Err(error) if matches!(error.downcast_ref(), Some(StoreError::InUse { .. })) => {
                let control = self.control.clone().unwrap_or_else(|| control_url(&config));
                Ok(Access::Node(NodeClient::new(&control)?, control))
            }
            Err(error) => Err(error),
        }
    }
}

/// The store of a node that is stopped.
pub(crate) fn open_store(folder: &Folder) -> Result<Store> {
    let data = folder.open()?;
    let config = data.config()?;
    open_at(&data, &config)
}

fn open_at(data: &DataDir, config: &Config) -> Result<Store> {
    let path = data.store_path();
    ensure!(path.join("format").exists(), "{} is no store yet: the node never ran", path.display());
    Ok(Store::open(&path, &config.store())?)
}

/// How this machine reaches its node's control listener.
pub(crate) fn control_url(config: &Config) -> String {
    let mut address = config.control;
    if address.ip().is_unspecified() {
        let ip: std::net::IpAddr = match address.is_ipv4() {
            true => std::net::Ipv4Addr::LOCALHOST.into(),
            false => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        address.set_ip(ip);
    }
    format!("http://{address}")
}

pub(crate) async fn verify(args: &VerifyArgs) -> Result<ExitCode> {
    let checked = match args.node.open() {
        Ok(Access::Store(store)) => verify_store(&store).map(|report| (report, REPAIR_LATER)),
        Ok(Access::Node(client, control)) => verify_node(&client, &control).await.map(|report| (report, REPAIR_NOW)),
        Err(error) => Err(error),
    };
    match checked.and_then(|(report, repair)| verdict(&report, repair)) {
        Ok(code) => Ok(code),
        Err(error) => {
            eprintln!("imira-node: {error:#}");
            Ok(ExitCode::from(UNKNOWN))
        }
    }
}

const REPAIR_NOW: &str = "The node asks the other nodes for good copies of them now: `imira-node status` shows how many are \
                          left, its log what became of each. Damage is a sign of a failing disk: see the system's log.";
const REPAIR_LATER: &str = "Start the node: it asks the other nodes for good copies of them. Damage is a sign of a failing \
                            disk: see the system's log.";

fn verify_store(store: &Store) -> Result<VerifyReport> {
    let bar = Bar::new("verifying");
    let mut report = VerifyReport::default();
    store.restart_scrub()?;
    loop {
        let step = store.scrub(VERIFY_STEP_BYTES, processors())?;
        add_step(&mut report, &step);
        bar.at(report.bytes, store.usage().block_bytes.max(report.bytes));
        if step.is_round_complete {
            return Ok(report);
        }
    }
}

async fn verify_node(client: &NodeClient, control: &str) -> Result<VerifyReport> {
    let lines = client.verify().await.map_err(|error| asked_in_vain(error, control))?;
    let last = follow(lines, &Bar::new("verifying")).await?;
    let WorkLine::Verified(report) = last else { bail!("the node answered with something else: {last:?}") };
    Ok(report)
}

/// Prints what was found.
fn verdict(report: &VerifyReport, repair: &str) -> Result<ExitCode> {
    let read = format!("{} blocks, {}, were read", HumanCount(report.blocks), bytes(report.bytes));
    if report.damaged_blocks == 0 {
        out::line(format_args!("{read}: all are whole."))?;
        return Ok(ExitCode::SUCCESS);
    }
    out::line(format_args!("{read}: {} DAMAGED.", HumanCount(report.damaged_blocks)))?;
    for id in &report.damaged {
        out::line(format_args!("  {id}"))?;
    }
    let unnamed = report.damaged_blocks - report.damaged.len() as u64;
    if unnamed > 0 {
        out::line(format_args!("  and {} more", HumanCount(unnamed)))?;
    }
    out::line(repair)?;
    Ok(ExitCode::from(DAMAGED))
}

pub(crate) async fn backup(args: &BackupArgs) -> Result<()> {
    // The node has another working directory.
    let to = std::path::absolute(&args.to).with_context(|| format!("{} is no path", args.to.display()))?;
    let begun = Instant::now();
    let report = match args.node.open()? {
        Access::Store(store) => backup_store(&store, &to)?,
        Access::Node(client, control) => backup_node(&client, &control, &to).await?,
    };
    out::line(format_args!(
        "{} copied in {}, {} were there from before: {} is a whole copy of the store.",
        bytes(report.copied_bytes),
        HumanDuration(begun.elapsed()),
        bytes(report.kept_bytes),
        to.display()
    ))?;
    out::line(format_args!(
        "It holds the blocks. Keep identity.key, network.toml, config.toml and platforms/ of {} as well: they make the node \
         itself, and are secret.",
        args.node.folder.data.display()
    ))?;
    Ok(())
}

fn backup_store(store: &Store, to: &Path) -> Result<BackupReport> {
    let bar = Bar::new("copying");
    let done = store.backup(to, |progress| show(&bar, progress))?;
    Ok(BackupReport { copied_bytes: done.copied_bytes, kept_bytes: done.kept_bytes })
}

async fn backup_node(client: &NodeClient, control: &str, to: &Path) -> Result<BackupReport> {
    let lines = client.backup(to).await.map_err(|error| asked_in_vain(error, control))?;
    let last = follow(lines, &Bar::new("copying")).await?;
    let WorkLine::BackedUp(report) = last else { bail!("the node answered with something else: {last:?}") };
    Ok(report)
}

pub(crate) fn restore(args: &RestoreArgs) -> Result<ExitCode> {
    ensure!(args.from.is_dir(), "{} is no folder; give the one that `imira-node backup` wrote", args.from.display());
    ensure!(
        args.from.join("format").exists(),
        "{} is no backup; give the folder that `imira-node backup` wrote",
        args.from.display()
    );
    let data = args.folder.open().with_context(|| secrets_first(&args.folder))?;
    let config = data.config()?;
    data.keypair().with_context(|| secrets_first(&args.folder))?;
    data.network_file().with_context(|| secrets_first(&args.folder))?;
    let (path, unfinished) = (data.store_path(), args.folder.data.join(RESTORING));
    ensure!(
        !path.exists(),
        "{} is there already and is not overwritten. Move it away if the backup is to take its place, and keep it until the \
         node runs well",
        path.display()
    );
    if unfinished.exists() {
        // Nobody but an earlier restoration makes it.
        std::fs::remove_dir_all(&unfinished).with_context(|| format!("cannot remove {}", unfinished.display()))?;
    }
    let bar = Bar::new("copying");
    let done = chunkstore::restore(&args.from, &unfinished, |progress| show(&bar, progress))?;
    drop(bar);
    std::fs::rename(&unfinished, &path).with_context(|| format!("cannot make {}", path.display()))?;
    out::line(format_args!(
        "{} copied into {}. Now every block is checked.",
        bytes(done.copied_bytes),
        path.display()
    ))?;
    verdict(&verify_store(&Store::open(&path, &config.store())?)?, REPAIR_LATER)
}

/// The blocks alone make no node.
fn secrets_first(folder: &Folder) -> String {
    format!(
        "the backup holds the blocks alone: put identity.key, network.toml, config.toml and platforms/ of that node into {} first",
        folder.data.display()
    )
}

fn show(bar: &Bar, progress: BackupProgress) -> ControlFlow<()> {
    bar.at(progress.copied_bytes, progress.total_bytes);
    ControlFlow::Continue(())
}

/// Shows how far a node is until it is done; its last line.
async fn follow(lines: impl Stream<Item = Result<WorkLine, ClientError>>, bar: &Bar) -> Result<WorkLine> {
    let mut lines = pin!(lines);
    while let Some(line) = lines.next().await {
        match line? {
            WorkLine::Progress(progress) => bar.at(progress.done_bytes, progress.total_bytes),
            WorkLine::Failed(problem) => bail!("{}", problem.detail),
            last @ (WorkLine::Verified(_) | WorkLine::BackedUp(_)) => return Ok(last),
        }
    }
    bail!("the node ended before it was done; begin again when it is up")
}

fn asked_in_vain(error: ClientError, control: &str) -> anyhow::Error {
    match error.problem() {
        Some(problem) => anyhow::anyhow!("{}", problem.detail),
        None => anyhow::Error::from(error).context(format!(
            "the store is in use, and there is {}. If another imira-node command uses the store, wait until it has ended",
            not_answering(control)
        )),
    }
}
