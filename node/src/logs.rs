//! The log: its shape is for good, its level can be changed while the node runs.

use crate::config::{Config, LogFormat};
use anyhow::{Context, Result};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::reload::Handle;

type SetFilter = dyn Fn(EnvFilter) -> Result<()> + Send + Sync;

/// The handle to a log that was started.
pub(crate) struct Logs(Box<SetFilter>);

impl Logs {
    /// Starts logging to standard error. Once in a process.
    pub(crate) fn start(config: &Config) -> Result<Self> {
        let log = tracing_subscriber::fmt()
            .with_env_filter(config.log_filter()?)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal());
        Ok(match config.log_format {
            LogFormat::Human => {
                let log = log.with_filter_reloading();
                let handle = log.reload_handle();
                log.init();
                Self::of(handle)
            }
            LogFormat::Json => {
                let log = log.json().with_filter_reloading();
                let handle = log.reload_handle();
                log.init();
                Self::of(handle)
            }
        })
    }

    fn of<S: 'static>(handle: Handle<EnvFilter, S>) -> Self {
        Self(Box::new(move |filter| handle.reload(filter).context("the log's level cannot be changed")))
    }

    /// From now on, as this configuration says.
    pub(crate) fn set_level(&self, config: &Config) -> Result<()> {
        (self.0)(config.log_filter()?)
    }
}
