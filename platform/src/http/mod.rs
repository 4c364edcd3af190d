//! The one HTTP listener: the API, playback and the pages (`docs/api.md` §5).

mod auth;
mod contents;
mod delivery;
pub(crate) mod pages;

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use control_api::{ErrorKind, Problem};
use serde::de::DeserializeOwned;

use crate::App;
use crate::store::StoreError;

/// Every body that the platform reads is a few lines of JSON; files go to the nodes.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Everything that the platform answers.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/api/session", post(auth::begin_session).delete(auth::end_session))
        .route("/api/me", get(contents::me))
        .route("/api/contents", get(contents::list).post(contents::register))
        .route("/api/contents/{content}", get(contents::show).delete(contents::delete))
        .route("/api/contents/{content}/fragments", get(contents::fragments))
        .route("/api/contents/{content}/publish", post(contents::publish))
        .route("/play/{content}/{*path}", get(delivery::play))
        .route("/proxy/{content}/{*path}", get(delivery::proxy))
        .route("/healthz", get(|| async { StatusCode::OK }))
        .merge(pages::router(&app))
        .fallback(no_such_address)
        .layer(from_fn_with_state(Arc::clone(&app), security_headers))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(app)
}

/// A page for people who mistyped an address, a problem for programs.
async fn no_such_address(uri: Uri, headers: HeaderMap) -> Response {
    let for_programs = ["/api/", "/play/", "/proxy/"].iter().any(|area| uri.path().starts_with(area));
    if !for_programs && pages::wants_html(&headers) {
        return pages::not_found();
    }
    not_found("There is no such address on this platform; docs/api.md lists them.").into_response()
}

/// What every answer says to browsers. Pages get their policy here; answers that carry a node's bytes set a stricter
/// one before.
async fn security_headers(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if !headers.contains_key(header::CONTENT_SECURITY_POLICY) {
        let policy = pages::content_security_policy(&app.nodes.delivery_origins());
        // Origins are ASCII, so this is always a header value; were it not, nothing at all would be allowed.
        let value = HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
        headers.insert(header::CONTENT_SECURITY_POLICY, value);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Temporary URLs hold tokens, and a page's address may be unlisted.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin"));
    response
}

/// [`Query`] whose refusal is a problem.
struct ApiQuery<T>(T);

impl<T, S> FromRequestParts<S> for ApiQuery<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let refused = |error: QueryRejection| {
            Problem::new(ErrorKind::Invalid, format!("The query cannot be read: {}", error.body_text()))
        };
        Query::from_request_parts(parts, state).await.map(|Query(value)| Self(value)).map_err(refused)
    }
}

/// A body, at most [`MAX_BODY_BYTES`], whose refusal is a problem.
struct ApiBody(Bytes);

impl<S: Send + Sync> FromRequest<S> for ApiBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let refused = |error: BytesRejection| {
            let detail =
                format!("The body cannot be read; it has at most {MAX_BODY_BYTES} bytes: {}", error.body_text());
            Problem { status: error.status().as_u16(), ..Problem::new(ErrorKind::Invalid, detail) }
        };
        Bytes::from_request(request, state).await.map(Self).map_err(refused)
    }
}

/// Reads a JSON body, whatever its media type says.
fn read_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        // serde_json's text names members and positions, never values of ours.
        Problem::new(ErrorKind::Invalid, format!("The body is not the JSON that docs/api.md describes: {error}"))
    })
}

fn not_found(detail: &str) -> Problem {
    Problem::new(ErrorKind::NotFound, detail)
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::WrongState => Problem::new(ErrorKind::WrongState, error.to_string()),
            StoreError::NameTaken => Problem::new(ErrorKind::Invalid, error.to_string()),
            StoreError::File(_)
            | StoreError::Database(_)
            | StoreError::Migration(_)
            | StoreError::Signing(_)
            | StoreError::Unreadable(_) => Problem::internal(&error),
        }
    }
}
