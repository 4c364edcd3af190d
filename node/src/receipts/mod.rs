//! Receipts of what was sent under tokens (`docs/receipts.md`): signed with the node's key, kept until the platform has them.

mod log;

use anyhow::{Context, Result};
use chunkstore_block::{NetworkId, PlatformFingerprint};
use control_api::signing::Acknowledgement;
use control_api::types::ReceiptsResponse;
use control_api::{ErrorKind, Meter, NodeId, Position, Problem, Receipt, Stretch};
use data_encoding::HEXLOWER;
use dht::Keypair;
use log::ReceiptLog;
use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;

/// How often what went out is written down: what a node that is killed may lose.
const WRITE_EVERY: Duration = Duration::from_secs(10);

/// The receipts of all platforms. Methods block on the disk.
pub(crate) struct Receipts {
    folder: PathBuf,
    keypair: Keypair,
    node: NodeId,
    network: NetworkId,
    logs: Mutex<HashMap<PlatformFingerprint, ReceiptLog>>,
}

impl Receipts {
    /// Opens the logs below `folder`. One that is damaged is set aside, which the log says: a node serves viewers all the same.
    pub(crate) fn open(folder: PathBuf, keypair: Keypair, node: NodeId, network: NetworkId) -> Result<Self> {
        let receipts = Self { folder, keypair, node, network, logs: Mutex::default() };
        if receipts.folder.exists() {
            for entry in fs::read_dir(&receipts.folder)? {
                let name = entry?.file_name();
                // What was set aside has another name.
                if let Some(platform) = name.to_str().and_then(|name| name.parse().ok()) {
                    receipts.with_log(platform, |_| Ok(()))?;
                }
            }
        }
        Ok(receipts)
    }

    /// Writes down every [`WRITE_EVERY`] what the meter has, until `stop`. [`Receipts::write`] once more after the last response.
    pub(crate) async fn keep_writing(self: Arc<Self>, meter: Arc<Meter>, stop: CancellationToken) {
        while tokio::time::timeout(WRITE_EVERY, stop.cancelled()).await.is_err() {
            let (receipts, meter) = (Arc::clone(&self), Arc::clone(&meter));
            // A panic of it is the process's to report.
            let _ = tokio::task::spawn_blocking(move || receipts.write(&meter)).await;
        }
    }

    /// Writes down what the meter has; what cannot be written is given back to it.
    pub(crate) fn write(&self, meter: &Meter) {
        let mut by_platform: HashMap<PlatformFingerprint, Vec<Stretch>> = HashMap::new();
        for stretch in meter.take() {
            by_platform.entry(stretch.platform).or_default().push(stretch);
        }
        for (platform, stretches) in by_platform {
            if let Err(error) = self.append(platform, &stretches) {
                tracing::error!(%platform, error = format!("{error:#}"), "receipts are not written, and tried again");
                // It is opened anew the next time, which cuts what was written in part.
                self.logs().remove(&platform);
                meter.put_back(stretches);
            }
        }
    }

    fn append(&self, platform: PlatformFingerprint, stretches: &[Stretch]) -> Result<()> {
        self.with_log(platform, |log| {
            if !log.has_room() {
                let lost: u64 = stretches.iter().map(|stretch| stretch.bytes).sum();
                tracing::error!(%platform, lost_bytes = lost, "the platform fetches no receipts, and no more are kept for it");
                return Ok(());
            }
            let (mut sequence, mut previous) = log.position();
            let mut texts = Vec::with_capacity(stretches.len());
            for stretch in stretches {
                let position = Position { log: log.id(), sequence, previous };
                let receipt = Receipt::new(self.node.clone(), self.network, stretch, position);
                let text = receipt.signed(|bytes| self.keypair.sign(bytes))?.context("the node's key does not sign")?;
                (sequence, previous) = (sequence + 1, Receipt::hash(&text));
                texts.push(text);
            }
            log.append(&texts)
        })
    }

    /// Up to `limit` receipts of a platform after `after` of the log `of`; of another log, from the first that is there.
    pub(crate) fn list(
        &self,
        platform: &PlatformFingerprint,
        of: Option<&str>,
        after: u64,
        limit: usize,
    ) -> Result<ReceiptsResponse> {
        let logs = self.logs();
        let Some(log) = logs.get(platform) else { return Ok(ReceiptsResponse::default()) };
        let after = if of == Some(log.id()) { after } else { 0 };
        let (receipts, more) = log.read(after, limit)?;
        Ok(ReceiptsResponse { log: Some(log.id().to_owned()), receipts, more })
    }

    /// The platform has these for good.
    pub(crate) fn acknowledge(&self, platform: &PlatformFingerprint, said: &Acknowledgement) -> Result<(), Problem> {
        let mut logs = self.logs();
        let log = logs.get_mut(platform).filter(|log| log.id() == said.log);
        let log =
            log.ok_or_else(|| Problem::new(ErrorKind::Invalid, "This node has no such log. Ask for receipts."))?;
        if said.through >= log.position().0 {
            let detail = format!("The log has no receipt {} yet. Ask for receipts.", said.through);
            return Err(Problem::new(ErrorKind::Invalid, detail));
        }
        log.acknowledge(said.through).map_err(|error| Problem::internal(&format_args!("{error:#}")))
    }

    fn with_log<T>(&self, platform: PlatformFingerprint, run: impl FnOnce(&mut ReceiptLog) -> Result<T>) -> Result<T> {
        let mut logs = self.logs();
        if let Some(log) = logs.get_mut(&platform) {
            return run(log);
        }
        let mut log = self.open_log(&platform)?;
        let done = run(&mut log);
        logs.insert(platform, log);
        done
    }

    fn open_log(&self, platform: &PlatformFingerprint) -> Result<ReceiptLog> {
        let folder = self.folder.join(platform.to_string());
        ReceiptLog::open(&folder, new_id).or_else(|error| {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
            let aside = self.folder.join(format!("{platform}.damaged-{now}"));
            tracing::error!(error = format!("{error:#}"), aside = %aside.display(), "receipts are damaged and set aside");
            fs::rename(&folder, &aside).with_context(|| format!("cannot set {} aside", folder.display()))?;
            ReceiptLog::open(&folder, new_id)
        })
    }

    fn logs(&self) -> MutexGuard<'_, HashMap<PlatformFingerprint, ReceiptLog>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn new_id() -> Result<String> {
    Ok(HEXLOWER.encode(&dht::random_bytes::<16>()?))
}
