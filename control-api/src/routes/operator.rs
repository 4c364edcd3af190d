//! The control listener's handlers for long work (`docs/api.md` §3).

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt;
use serde::de::DeserializeOwned;

use super::{Shared, has_media_type};
use crate::backend::NodeBackend;
use crate::problem::{ErrorKind, Problem};
use crate::work::{BackupRequest, WORK_MEDIA_TYPE, WorkLine, WorkStream};

/// The most bytes of a request's body: a path has at most 4,096.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// How long the body may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn verify<B: NodeBackend>(
    State(app): State<Shared<B>>,
    request: Request,
) -> Result<Response, Problem> {
    let _nothing: serde_json::Map<_, _> = read_json(request).await?;
    Ok(respond(app.backend.verify().await?))
}

pub(super) async fn backup<B: NodeBackend>(
    State(app): State<Shared<B>>,
    request: Request,
) -> Result<Response, Problem> {
    let BackupRequest { folder } = read_json(request).await?;
    if !folder.is_absolute() {
        return Err(invalid("folder must be an absolute path on the node's machine."));
    }
    Ok(respond(app.backend.backup(folder).await?))
}

fn respond(lines: WorkStream) -> Response {
    let text = |line: WorkLine| serde_json::to_vec(&line).map(|text| Bytes::from([text.as_slice(), b"\n"].concat()));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(WORK_MEDIA_TYPE)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, Body::from_stream(lines.map(text))).into_response()
}

/// The media type is asked for because a web page that the operator happens to look at can send any other to a private address, but
/// not this one.
async fn read_json<T: DeserializeOwned>(request: Request) -> Result<T, Problem> {
    check_media_type(request.headers())?;
    let body = tokio::time::timeout(BODY_TIMEOUT, to_bytes(request.into_body(), MAX_BODY_BYTES)).await;
    let body = body.ok().and_then(Result::ok);
    let body = body.ok_or_else(|| invalid("The body is longer than 16 KiB, or did not come within 10 seconds."))?;
    serde_json::from_slice(&body).map_err(|_| invalid("The body is not the JSON object of docs/api.md, section 3."))
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    match has_media_type(headers, "application/json") {
        true => Ok(()),
        false => Err(invalid("Send a JSON object as application/json.")),
    }
}

fn invalid(detail: &str) -> Problem {
    Problem::new(ErrorKind::Invalid, detail)
}
