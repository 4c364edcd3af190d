//! What a node counts, for Prometheus (`GET /metrics`, `docs/api.md` §3).
//!
//! Counters of the listeners live here and grow as requests are answered; what the node knows itself (store, cache, replicas, peers) is read from
//! its status when somebody asks, so that it is counted in one place.

mod process;
mod snapshot;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{MatchedPath, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::openapi::Listener;
use crate::problem::ErrorKind;
use crate::transfers::TransferGauge;
use crate::types::{NodeStatus, TrafficStatus};

/// What `/metrics` answers with (OpenMetrics 1.0).
pub(crate) const METRICS_MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper ends of the histogram of waiting times, seconds: a block from memory takes less than the first, a search for one of another node
/// ends before the last.
const WAITS: [f64; 9] = [0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 2.0, 10.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfListener {
    listener: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: &'static str,
}

/// `route` is a pattern of ours, never a path: a path may hold a token, and a stranger could ask for as many as he likes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfAnswer {
    listener: &'static str,
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRefusal {
    listener: &'static str,
    route: String,
    reason: &'static str,
}

/// The counters of a node's listeners, since its start.
pub struct Metrics {
    registry: Registry,
    answers: Family<OfAnswer, Counter>,
    refusals: Family<OfRefusal, Counter>,
    sent_bytes: Family<OfListener, Counter>,
    waits: Family<OfListener, Histogram>,
    tokens: Family<OfKind, Counter>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("imira");
        let (answers, refusals, sent_bytes, tokens) =
            (Family::default(), Family::default(), Family::default(), Family::default());
        let waits = Family::<OfListener, Histogram>::new_with_constructor(|| Histogram::new(WAITS));
        registry.register("requests", "Requests answered, by listener, route and status", answers.clone());
        registry.register("refusals", "Requests refused with a problem, by its name in docs/api.md", refusals.clone());
        registry.register("sent_bytes", "Bytes of bodies handed to connections", sent_bytes.clone());
        registry.register("wait_seconds", "Time from a request's head to its answer's head", waits.clone());
        registry.register("tokens_issued", "Tokens handed out, by what they are for", tokens.clone());
        Self { registry, answers, refusals, sent_bytes, waits, tokens }
    }
}

impl Metrics {
    /// A token went out, for `playback` or `upload`.
    pub(crate) fn token_issued(&self, kind: &'static str) {
        self.tokens.get_or_create(&OfKind { kind }).inc();
    }

    fn answered(&self, listener: Listener, route: String, response: &Response, wait: Duration) {
        let listener = listener.tag();
        self.waits.get_or_create(&OfListener { listener }).observe(wait.as_secs_f64());
        if let Some(kind) = response.extensions().get::<ErrorKind>() {
            self.refusals.get_or_create(&OfRefusal { listener, route: route.clone(), reason: kind.name() }).inc();
        }
        self.answers.get_or_create(&OfAnswer { listener, route, status: response.status().as_u16() }).inc();
    }

    /// What viewers and uploaders did here, for the status.
    pub(crate) fn traffic(&self, transfers: &TransferGauge) -> TrafficStatus {
        let delivery = OfListener { listener: Listener::Delivery.tag() };
        let tokens = |kind| self.tokens.get(&OfKind { kind }).map_or(0, |counter| counter.get());
        TrafficStatus {
            transfers: transfers.running() as u64,
            sent_bytes: self.sent_bytes.get(&delivery).map_or(0, |counter| counter.get()),
            playback_tokens: tokens("playback"),
            upload_tokens: tokens("upload"),
        }
    }

    /// The text that Prometheus reads: these counters, the status, and the process's own use of the machine.
    ///
    /// Errors: none that a text in memory can have; they are the formatter's.
    pub(crate) fn text(&self, status: NodeStatus, is_ready: bool) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode_registry(&mut text, &self.registry)?;
        let mut now = Registry::with_prefix("imira");
        now.register_collector(Box::new(snapshot::Snapshot { status, is_ready }));
        encode_registry(&mut text, &now)?;
        let mut own = Registry::default();
        own.register_collector(Box::new(process::Process::now()));
        encode_registry(&mut text, &own)?;
        encode_eof(&mut text)?;
        Ok(text)
    }
}

/// Counts what a listener answers.
pub(crate) fn counted(router: Router, listener: Listener, metrics: &Arc<Metrics>) -> Router {
    let sent = metrics.sent_bytes.get_or_create_owned(&OfListener { listener: listener.tag() });
    let metrics = Arc::clone(metrics);
    router.layer(from_fn(move |request: Request, next: Next| {
        let (metrics, sent) = (Arc::clone(&metrics), sent.clone());
        async move {
            let route = request.extensions().get::<MatchedPath>().map_or("(none)", MatchedPath::as_str).to_owned();
            let begun = Instant::now();
            let response = next.run(request).await;
            metrics.answered(listener, route, &response, begun.elapsed());
            response.map(|body| Body::new(Sent { body, sent }))
        }
    }))
}

/// A body that counts its bytes as they go.
struct Sent {
    body: Body,
    sent: Counter,
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(bytes) = frame.data_ref()
        {
            self.sent.inc_by(bytes.len() as u64);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
