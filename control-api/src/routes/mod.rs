//! The two listeners of a node as axum routers.

mod asked;
mod control;
mod delivery;
mod documented;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod gate;
mod hosts;
mod leave;
mod operator;
mod page;
mod range;
mod receipts;
mod tus;
mod uploads;

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, MatchedPath, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::{Next, from_fn, from_fn_with_state, map_response};
use axum::response::Response;
use serde::de::DeserializeOwned;
use tower_http::classify::ServerErrorsFailureClass;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::trace::TraceLayer;
use tracing::Span;

use self::documented::Routes;
use crate::backend::NodeBackend;
use crate::metrics::counted;
use crate::openapi::{Listener, control as of_control, delivery as of_delivery, tus as of_tus};
use crate::problem::{ErrorKind, Problem};
use crate::state::{AppState, Origins};

pub use gate::Gate;
pub use hosts::only_hosts;

type Shared<B> = Arc<AppState<B>>;

/// Whole seconds that the token still lives.
const TOKEN_REMAINING: HeaderName = HeaderName::from_static("imira-token-remaining");

/// `PeerId` of the answering node.
pub(crate) const NODE: HeaderName = HeaderName::from_static("imira-node");

/// Request headers that pages of the platform may send, besides those of tus.
const ALLOWED_HEADERS: [HeaderName; 6] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    header::RANGE,
    header::IF_MATCH,
    header::IF_RANGE,
    header::IF_NONE_MATCH,
];

/// Response headers that they may read, besides those of tus.
const EXPOSED_HEADERS: [HeaderName; 7] = [
    header::ETAG,
    header::ACCEPT_RANGES,
    header::CACHE_CONTROL,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    TOKEN_REMAINING,
    NODE,
];

/// The control listener: for the platform and the operator, on a private address.
pub fn control_router<B: NodeBackend>(state: Arc<AppState<B>>) -> Router {
    let router = control_routes::<B>().into_router(Listener::Control, "/").with_state(Arc::clone(&state));
    traced(counted(router, Listener::Control, &state.metrics))
}

/// What it serves. An endpoint is in words in `openapi/control.rs`.
fn control_routes<B: NodeBackend>() -> Routes<Shared<B>> {
    Routes::new()
        .serve(of_control::issue_token(), control::issue_token::<B>)
        .serve(of_control::revoke(), control::revoke::<B>)
        .serve(of_control::receipts(), receipts::list::<B>)
        .serve(of_control::acknowledge_receipts(), receipts::acknowledge::<B>)
        .serve(of_control::node(), control::node::<B>)
        .serve(of_control::peers(), control::peers::<B>)
        .serve(of_control::reachability(), control::reachability::<B>)
        .serve(of_control::blocks(), control::blocks::<B>)
        .serve(of_control::delete(), control::delete::<B>)
        .serve(of_control::deletions(), control::deletions::<B>)
        .serve(of_control::verify(), operator::verify::<B>)
        .serve(of_control::backup(), operator::backup::<B>)
        .serve(of_control::healthz(), control::healthy)
        .serve(of_control::readyz(), control::ready::<B>)
        .serve(of_control::metrics(), control::metrics::<B>)
        .serve(of_control::page(), page::operator)
}

/// The delivery listener: for uploaders and viewers.
pub fn delivery_router<B: NodeBackend>(state: Arc<AppState<B>>) -> Router {
    let cors = cors(state.origins.clone());
    let node = HeaderValue::from_str(state.node_id.as_str()).ok();
    let metrics = Arc::clone(&state.metrics);
    let announce = from_fn_with_state(Arc::clone(&state), tus::announce::<B>);
    let router = delivery_routes::<B>()
        .into_router(Listener::Delivery, &state.delivery_base)
        .with_state(state)
        .layer(map_response(move |response| ready(named(response, node.clone()))));
    // Outside of everything that may refuse, so that a player can read the refusal.
    traced(counted(router.layer(cors).layer(announce), Listener::Delivery, &metrics))
}

/// What it serves. An endpoint is in words in `openapi/delivery.rs`.
fn delivery_routes<B: NodeBackend>() -> Routes<Shared<B>> {
    Routes::new()
        .serve(of_delivery::put_upload(), uploads::receive::<B>)
        .serve(of_delivery::upload_status(), uploads::status::<B>)
        .serve(of_delivery::upload_events(), uploads::events::<B>)
        .serve(of_tus::create_any(), tus::post_any::<B>)
        .serve(of_tus::create_at(), tus::post::<B>)
        .serve(of_tus::upload_offset(), tus::whole::<B>)
        .serve(of_tus::append_to_upload(), tus::whole::<B>)
        .serve(of_tus::terminate_upload(), tus::whole::<B>)
        .serve(of_tus::override_part(), tus::post_part::<B>)
        .serve(of_tus::part_offset(), tus::part::<B>)
        .serve(of_tus::append_to_part(), tus::part::<B>)
        .serve(of_tus::terminate_part(), tus::part::<B>)
        .serve(of_delivery::index(), delivery::index::<B>)
        .serve(of_delivery::page(), delivery::page::<B>)
        .serve(of_delivery::fragments(), delivery::fragments::<B>)
        .serve(of_delivery::block(), delivery::block::<B>)
        .serve(of_delivery::file(), delivery::file::<B>)
        .serve(of_control::healthz(), control::healthy)
}

/// The OpenAPI document of both listeners, as `docs/openapi.json` has it.
///
/// Errors: none in practice; the document is one that JSON can hold.
pub fn openapi_document<B: NodeBackend>() -> serde_json::Result<String> {
    documented::of_both(control_routes::<B>(), delivery_routes::<B>())
}

/// Says on every response who answered.
fn named(mut response: Response, node: Option<HeaderValue>) -> Response {
    if let Some(node) = node {
        response.headers_mut().insert(NODE, node);
    }
    response
}

fn cors(origins: Origins) -> CorsLayer {
    const PREFLIGHT_LIFETIME: Duration = Duration::from_secs(600);
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(move |origin, _| origins.contains(origin)))
        .allow_methods([Method::GET, Method::HEAD, Method::PUT, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers(ALLOWED_HEADERS.into_iter().chain(tus::ALLOWED_HEADERS).collect::<Vec<_>>())
        .expose_headers(EXPOSED_HEADERS.into_iter().chain(tus::EXPOSED_HEADERS).collect::<Vec<_>>())
        .max_age(PREFLIGHT_LIFETIME)
}

/// One span for each request, with a number of its own and the route's pattern: a path may hold a token and is never logged. A line for
/// what a node could not do, with the same words, for those who log no requests.
fn traced(router: Router) -> Router {
    static NEXT_REQUEST: AtomicU64 = AtomicU64::new(1);
    let span = |request: &Request| {
        let id = NEXT_REQUEST.fetch_add(1, Ordering::Relaxed);
        tracing::debug_span!("request", id, method = %request.method(), route = route(request))
    };
    let layer = TraceLayer::new_for_http().make_span_with(span);
    let failed = |failure: ServerErrorsFailureClass, _: Duration, _: &Span| match failure {
        // `logged` says it better.
        ServerErrorsFailureClass::StatusCode(_) => {}
        ServerErrorsFailureClass::Error(error) => tracing::warn!(error, "an answer broke off"),
    };
    router.layer(from_fn(logged)).layer(layer.on_failure(failed))
}

fn route(request: &Request) -> &str {
    request.extensions().get::<MatchedPath>().map_or("(none)", MatchedPath::as_str)
}

/// Says what was refused for this side's reasons. Those of the other side are its own to read, and a node that is not ready is asked so often
/// whether it is that a line each would hide everything else.
async fn logged(request: Request, next: Next) -> Response {
    let (method, route) = (request.method().clone(), route(&request).to_owned());
    let response = next.run(request).await;
    let status = response.status();
    if let Some(kind) = response.extensions().get::<ErrorKind>().filter(|_| status.is_server_error()) {
        let (status, kind) = (status.as_u16(), kind.name());
        match kind == ErrorKind::Internal.name() {
            true => tracing::error!(%method, route, status, problem = kind, "a request failed"),
            false => tracing::warn!(%method, route, status, problem = kind, "a request was refused"),
        }
    }
    response
}

/// axum's `Path` whose refusal is a problem (`not-found`). For every listener that answers with problems.
pub struct ApiPath<T>(pub T);

impl<T, S> FromRequestParts<S> for ApiPath<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let refused =
            |_: PathRejection| Problem::new(ErrorKind::NotFound, "The path is not UTF-8 after percent-decoding.");
        Path::from_request_parts(parts, state).await.map(|Path(value)| Self(value)).map_err(refused)
    }
}

/// Whether the body is said to be of this media type, whatever its case and parameters (RFC 9110 §8.3.1).
fn has_media_type(headers: &HeaderMap, wanted: &str) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests;
