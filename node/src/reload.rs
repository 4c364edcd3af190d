//! SIGHUP: the configuration is read anew, and what can change while the node runs does. Transfers, uploads and connections go on.
//!
//! Everything is read and checked before anything changes: where something is wrong, all stays as it was, and the log says what it is.

use crate::backend::{Backend, Node};
use crate::config::Config;
use crate::files::DataDir;
use crate::housekeeping::Rates;
use crate::logs::Logs;
use crate::settings::{Effective, Flags};
use anyhow::{Context, Result};
use control_api::{AllowedOrigins, AppState, Certificate, PinnedKeys};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The settings that a reload applies; the others wait for a restart.
const LIVE: [&str; 7] = [
    "cors_origins",
    "quota_bytes",
    "repair_reserve_percent",
    "scrub_bytes_per_s",
    "tombstone_days",
    "max_upload_bytes",
    "log_level",
];

/// What the command line knows and a reload needs.
pub(crate) struct Reload {
    /// They count before the file, also when it is read anew.
    pub(crate) settings: Flags,
    pub(crate) logs: Logs,
}

/// Applies what changes of the configuration.
pub(crate) struct Reloader {
    pub(crate) data: DataDir,
    pub(crate) reload: Reload,
    pub(crate) node: Arc<Node>,
    pub(crate) state: Arc<AppState<Backend>>,
    /// The delivery listener's, if it speaks TLS.
    pub(crate) certificate: Option<Arc<Certificate>>,
    /// What is in force.
    pub(crate) config: Config,
    /// What the node was started with: what differs from it waits for a restart.
    pub(crate) started_with: Config,
}

/// All that was read, and can be applied without failing.
struct Prepared {
    effective: Effective,
    origins: AllowedOrigins,
    keys: PinnedKeys,
    /// Settings that take effect now.
    changed: Vec<&'static str>,
    /// Settings that wait for a restart.
    waiting: Vec<&'static str>,
}

impl Reloader {
    /// Reloads at each SIGHUP, until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut hangups = match signal(SignalKind::hangup()) {
            Ok(hangups) => hangups,
            Err(error) => {
                return tracing::error!(%error, "SIGHUP cannot be listened to: nothing is reloaded");
            }
        };
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                received = hangups.recv() => if received.is_none() { return },
            }
            match self.prepare() {
                Ok(prepared) => self.apply(prepared),
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::error!(error, "the new configuration is refused, and all stays as it was");
                }
            }
        }
    }

    fn prepare(&self) -> Result<Prepared> {
        let effective = self.data.effective(&self.reload.settings)?;
        let origins = AllowedOrigins::parse(&effective.config.cors_origins).context("cors_origins")?;
        let keys = self.data.platform_keys()?;
        let mut changed = effective.changed(&self.config)?;
        changed.retain(|key| LIVE.contains(key));
        let mut waiting = effective.changed(&self.started_with)?;
        waiting.retain(|key| !LIVE.contains(key));
        // Last, since it takes effect at once; where it fails, the old one goes on.
        if let Some(certificate) = &self.certificate {
            certificate.reload().context("the delivery listener's certificate")?;
        }
        Ok(Prepared { effective, origins, keys, changed, waiting })
    }

    fn apply(&mut self, prepared: Prepared) {
        let Prepared { effective, origins, keys, changed, waiting } = prepared;
        let config = &effective.config;
        self.node.blocks.durable.store().set_quota(config.quota_bytes, config.store().repair_reserve_bytes);
        self.node.housekeeper.set_rates(Rates::of(config));
        self.node.about.max_upload_bytes.store(config.max_upload_bytes, Ordering::Relaxed);
        self.state.set_max_upload(config.max_upload_bytes);
        self.state.set_origins(origins);
        if let Err(error) = self.reload.logs.set_level(config) {
            // It was checked.
            tracing::error!(error = format!("{error:#}"), "a setting could not be applied");
        }
        self.replace_keys(&keys);
        tracing::info!(?changed, "the configuration was read anew");
        if !waiting.is_empty() {
            tracing::warn!(settings = ?waiting, "these are not what the node was started with, and wait for a restart");
        }
        self.config = effective.config;
    }

    fn replace_keys(&self, keys: &PinnedKeys) {
        let set = |keys: &PinnedKeys| keys.fingerprints().into_iter().collect::<BTreeSet<_>>();
        // The state's are shared with the node's.
        let (before, after) = (set(&self.node.about.platforms), set(keys));
        self.state.replace_keys(keys);
        for platform in after.difference(&before) {
            tracing::info!(%platform, "a platform is served from now on");
        }
        let gone: BTreeSet<_> = before.difference(&after).copied().collect();
        for platform in &gone {
            tracing::info!(%platform, "a platform is served no more");
        }
        // Whatever is under way for them ends when it notices.
        let node = Arc::clone(&self.node);
        tokio::spawn(async move { node.uploads.end_of(&gone).await });
    }
}
