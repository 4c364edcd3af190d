//! What the routers share: configuration, tokens, time, and the count of running transfers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use axum::http::HeaderValue;
use chunkstore_block::PlatformFingerprint;
use tokio::sync::{Semaphore, watch};

use crate::keys::PinnedKeys;
use crate::meter::Meter;
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::signing::{RequestVerifier, not_pinned};
use crate::tokens::{Token, TokenDigest, TokenTable, UploadGrant};
use crate::transfers::TransferGauge;
use crate::types::NodeId;
use crate::workers::Workers;

/// Event streams that may be open at once. A guess; each is a socket and a task.
const MAX_EVENT_STREAMS: usize = 1_024;

/// What the listeners need to know of their node.
#[derive(Clone, Debug)]
pub struct AppConfig {
    /// Who the node is.
    pub node_id: NodeId,
    /// Where viewers reach the delivery listener, for example `http://node.example:7201`.
    pub delivery_url: String,
    /// Origins of the platform's pages that may read answers in a browser, for example `https://video.example`.
    pub allowed_origins: Vec<String>,
}

/// A configuration that cannot be served.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// The delivery URL.
    #[error("delivery_url {0:?} is refused: write http:// or https://, host and port, without a query")]
    DeliveryUrl(String),
    /// An origin.
    #[error(
        "allowed origin {0:?} is refused: write http:// or https://, host and port, without path; \"*\" is not allowed"
    )]
    Origin(String),
}

/// Refuses a URL that a listener could not be reached under, or below which nothing could be added.
pub fn check_delivery_url(url: &str) -> Result<(), ConfigError> {
    delivery_base(url).map(drop)
}

/// Base of the delivery listener without a trailing `/`.
fn delivery_base(url: &str) -> Result<String, ConfigError> {
    let base = url.trim_end_matches('/');
    match is_http(base) && !base.contains(['?', '#']) {
        true => Ok(base.to_owned()),
        false => Err(ConfigError::DeliveryUrl(url.to_owned())),
    }
}

/// Origins that were checked, for [`AppState::set_origins`].
#[derive(Debug)]
pub struct AllowedOrigins(Vec<HeaderValue>);

impl AllowedOrigins {
    /// As [`AppConfig::allowed_origins`] has them.
    pub fn parse(origins: &[String]) -> Result<Self, ConfigError> {
        parse_origins(origins).map(Self)
    }
}

/// The origins that may read answers in a browser. Clones share them, so that they can be exchanged while the listener runs.
#[derive(Clone, Debug)]
pub(crate) struct Origins(Arc<RwLock<Vec<HeaderValue>>>);

impl Origins {
    fn new(origins: &[String]) -> Result<Self, ConfigError> {
        parse_origins(origins).map(|origins| Self(Arc::new(RwLock::new(origins))))
    }

    pub(crate) fn contains(&self, origin: &HeaderValue) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(origin)
    }

    fn replace(&self, origins: Vec<HeaderValue>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = origins;
    }
}

fn parse_origins(origins: &[String]) -> Result<Vec<HeaderValue>, ConfigError> {
    let parse = |origin: &String| {
        let host = origin.split_once("://").map_or("", |(_, host)| host);
        let header = HeaderValue::from_str(origin).ok();
        header.filter(|_| is_http(origin) && !host.contains('/')).ok_or(ConfigError::Origin(origin.clone()))
    };
    origins.iter().map(parse).collect()
}

fn is_http(url: &str) -> bool {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    rest.is_some_and(|rest| {
        !rest.is_empty() && rest.is_ascii() && !rest.contains(|c: char| c.is_whitespace() || c == '*')
    })
}

/// Where the routers take the time from: the system, or a test.
pub trait Clock: Send + Sync + 'static {
    /// Seconds since 1970, for signed requests.
    fn unix_seconds(&self) -> u64;

    /// Monotonic time, for tokens.
    fn now(&self) -> Instant;
}

/// The system's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn unix_seconds(&self) -> u64 {
        // A clock before 1970 gives 0: every request is then from the future and is refused, which is right.
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    fn now(&self) -> Instant {
        Instant::now()
    }
}

/// A clock that stands still until it is moved, for tests.
#[derive(Debug)]
pub struct ManualClock {
    start: Instant,
    start_unix: u64,
    passed_seconds: AtomicU64,
}

impl ManualClock {
    /// A clock that stands at `unix_seconds`.
    pub fn new(unix_seconds: u64) -> Self {
        Self { start: Instant::now(), start_unix: unix_seconds, passed_seconds: AtomicU64::new(0) }
    }

    /// Moves it on.
    pub fn advance(&self, seconds: u64) {
        self.passed_seconds.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn unix_seconds(&self) -> u64 {
        self.start_unix + self.passed_seconds.load(Ordering::SeqCst)
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_secs(self.passed_seconds.load(Ordering::SeqCst))
    }
}

/// Everything that the two routers share.
pub struct AppState<B> {
    pub(crate) node_id: NodeId,
    pub(crate) delivery_base: String,
    pub(crate) origins: Origins,
    pub(crate) backend: B,
    pub(crate) verifier: RequestVerifier,
    pub(crate) tokens: TokenTable,
    pub(crate) meter: Arc<Meter>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) transfers: TransferGauge,
    pub(crate) event_streams: Arc<Semaphore>,
    /// Whether event streams are to end.
    pub(crate) events_end: watch::Sender<bool>,
    pub(crate) workers: Workers,
    pub(crate) metrics: Arc<Metrics>,
}

impl<B> AppState<B> {
    /// Puts the parts together. `transfers` is shared with the backend, which reports it in its load.
    pub fn new(
        config: &AppConfig,
        backend: B,
        verifier: RequestVerifier,
        clock: Arc<dyn Clock>,
        transfers: TransferGauge,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            node_id: config.node_id.clone(),
            delivery_base: delivery_base(&config.delivery_url)?,
            origins: Origins::new(&config.allowed_origins)?,
            backend,
            verifier,
            tokens: TokenTable::default(),
            meter: Arc::default(),
            clock,
            transfers,
            event_streams: Arc::new(Semaphore::new(MAX_EVENT_STREAMS)),
            events_end: watch::Sender::new(false),
            workers: Workers::default(),
            metrics: Arc::default(),
        })
    }

    /// What went out under tokens, for whoever writes receipts.
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// Serves the platforms of `keys` from now on and no others, as after the operator changed them. The memory of nonces stays, and so
    /// do the tokens of platforms that stay; those of the others end at once, uploads and transfers under way with them.
    pub fn replace_keys(&self, keys: &PinnedKeys) {
        let gone = self.verifier.keys().replace(keys.keys());
        let revoked = self.tokens.revoke_platforms(&gone, self.clock.now());
        let pinned = self.verifier.keys().fingerprints().len();
        tracing::info!(pinned, unpinned = gone.len(), revoked_tokens = revoked, "the platforms' keys were read again");
    }

    /// Takes a token back whose platform was unpinned between the check of the request and the issue: [`AppState::replace_keys`] changes
    /// the keys before it walks the tokens, so one of the two sees the token.
    pub(crate) fn check_still_pinned(&self, platform: &PlatformFingerprint, token: &Token) -> Result<(), Problem> {
        if self.verifier.keys().contains(platform) {
            return Ok(());
        }
        self.tokens.revoke(token);
        Err(not_pinned())
    }

    /// Ends all event streams, which would go on for as long as their uploads: the listener is about to stop.
    pub fn end_events(&self) {
        self.events_end.send_replace(true);
    }

    /// From now on these origins' pages may read answers, and no others.
    pub fn set_origins(&self, origins: AllowedOrigins) {
        self.origins.replace(origins.0);
    }

    /// From now on uploads may have so many bytes.
    pub fn set_max_upload(&self, bytes: u64) {
        self.verifier.set_max_upload(bytes);
    }

    /// Takes up an upload's token that an earlier run of the node issued and that ends at `expires`, seconds since 1970.
    ///
    /// Errors: as [`TokenTable::admit_upload`].
    pub fn restore_upload_token(&self, token: TokenDigest, grant: UploadGrant, expires: u64) -> Result<(), Problem> {
        let remaining = Duration::from_secs(expires.saturating_sub(self.clock.unix_seconds()));
        self.tokens.admit_upload(token, grant, remaining, self.clock.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(delivery_url: &str, origin: &str) -> AppConfig {
        AppConfig {
            node_id: "12D3KooW".parse().unwrap(),
            delivery_url: delivery_url.to_owned(),
            allowed_origins: vec![origin.to_owned()],
        }
    }

    #[test]
    fn urls_and_origins_are_checked() {
        let good = config("http://127.0.0.1:7201/", "https://video.example:8443");
        assert_eq!(delivery_base(&good.delivery_url).unwrap(), "http://127.0.0.1:7201");
        assert!(parse_origins(&good.allowed_origins).is_ok());
        for bad in ["*", "https://*", "video.example", "https://video.example/", "http://"] {
            assert_eq!(parse_origins(&[bad.to_owned()]), Err(ConfigError::Origin(bad.to_owned())));
        }
        for bad in ["ftp://n", "http://n?a", "n:1"] {
            assert_eq!(check_delivery_url(bad), Err(ConfigError::DeliveryUrl(bad.to_owned())));
        }
    }
}
