//! The two listeners of a node as axum routers.

mod control;
mod delivery;
mod operator;
mod range;
mod uploads;

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, MatchedPath, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::{get, post, put};
use serde::de::DeserializeOwned;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::trace::TraceLayer;

use crate::backend::NodeBackend;
use crate::problem::{ErrorKind, Problem};
use crate::state::AppState;

type Shared<B> = Arc<AppState<B>>;

/// Whole seconds that the token still lives.
const TOKEN_REMAINING: HeaderName = HeaderName::from_static("imira-token-remaining");

/// `PeerId` of the answering node.
const NODE: HeaderName = HeaderName::from_static("imira-node");

/// The control listener: for the platform and the operator, on a private address.
pub fn control_router<B: NodeBackend>(state: Arc<AppState<B>>) -> Router {
    let router = Router::new()
        .route("/v1/tokens", post(control::issue_token::<B>))
        .route("/v1/node", get(control::node::<B>))
        .route("/v1/peers", get(control::peers::<B>))
        .route("/v1/reachability", get(control::reachability::<B>))
        .route("/v1/blocks", get(control::blocks::<B>))
        .route("/v1/deletions", post(control::delete::<B>).get(control::deletions::<B>))
        .route("/v1/verify", post(operator::verify::<B>))
        .route("/v1/backup", post(operator::backup::<B>))
        .route("/healthz", get(control::healthy))
        .fallback(nothing_here)
        .with_state(state);
    traced(router)
}

/// The delivery listener: for uploaders and viewers.
pub fn delivery_router<B: NodeBackend>(state: Arc<AppState<B>>) -> Router {
    let cors = cors(state.origins.clone());
    let node = HeaderValue::from_str(state.node_id.as_str()).ok();
    let router = Router::new()
        .route("/v1/uploads/{upload}", put(uploads::receive::<B>).get(uploads::status::<B>))
        .route("/v1/uploads/{upload}/events", get(uploads::events::<B>))
        .route("/v1/t/{token}/index", get(delivery::index::<B>))
        .route("/v1/t/{token}/pages/{id}", get(delivery::page::<B>))
        .route("/v1/t/{token}/fragments", get(delivery::fragments::<B>))
        .route("/v1/t/{token}/blocks/{id}", get(delivery::block::<B>))
        .route("/v1/t/{token}/files/{*path}", get(delivery::file::<B>))
        .route("/healthz", get(control::healthy))
        .fallback(nothing_here)
        .with_state(state)
        .layer(map_response(move |response| ready(named(response, node.clone()))));
    // Outside of everything that may refuse, so that a player can read the refusal.
    traced(router.layer(cors))
}

async fn nothing_here() -> Problem {
    Problem::new(ErrorKind::NotFound, "This listener has no such path. The paths are in docs/api.md.")
}

/// Says on every response who answered.
fn named(mut response: Response, node: Option<HeaderValue>) -> Response {
    if let Some(node) = node {
        response.headers_mut().insert(NODE, node);
    }
    response
}

fn cors(origins: Vec<HeaderValue>) -> CorsLayer {
    const PREFLIGHT_LIFETIME: Duration = Duration::from_secs(600);
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::HEAD, Method::PUT])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::RANGE,
            header::IF_RANGE,
            header::IF_NONE_MATCH,
        ])
        .expose_headers([
            header::ETAG,
            header::ACCEPT_RANGES,
            header::CACHE_CONTROL,
            header::CONTENT_LENGTH,
            header::CONTENT_RANGE,
            TOKEN_REMAINING,
            NODE,
        ])
        .max_age(PREFLIGHT_LIFETIME)
}

/// One span for each request, with a number of its own and the route's pattern: a path may hold a token and is never logged.
fn traced(router: Router) -> Router {
    static NEXT_REQUEST: AtomicU64 = AtomicU64::new(1);
    router.layer(TraceLayer::new_for_http().make_span_with(|request: &Request| {
        let route = request.extensions().get::<MatchedPath>().map_or("(none)", MatchedPath::as_str);
        let id = NEXT_REQUEST.fetch_add(1, Ordering::Relaxed);
        tracing::debug_span!("request", id, method = %request.method(), route)
    }))
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
