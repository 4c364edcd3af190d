//! The control listener's handlers (`docs/api.md` §3).

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chunkstore_block::{BlockId, PlatformFingerprint};
use serde::{Deserialize, Serialize};

use super::{Shared, has_media_type};
use crate::backend::NodeBackend;
use crate::metrics::METRICS_MEDIA_TYPE;
use crate::problem::{ErrorKind, Problem};
use crate::signing::{MAX_REQUEST_BYTES, MAX_SEQUENCE, VerifiedAction, VerifiedRequest, VerifiedUpload};
use crate::tokens::{PLAYBACK_LIFETIME, PlaybackGrant, Token, UPLOAD_LIFETIME, ViewerKey, encrypt_to_key};
use crate::types::{
    BlocksResponse, DeletionResponse, DeletionsResponse, NodeStatus, PeersResponse, PlaybackTokenResponse,
    Reachability, Readiness, RevocationResponse, UploadTokenResponse,
};

/// How long a token request's body may take to come. It is 16 KiB at most.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The most blocks in one answer of `/v1/blocks`.
const MAX_BLOCKS: usize = 1_000;

/// The most orders in one answer of `/v1/deletions`: 2 MiB at most.
const MAX_DELETIONS: usize = 500;

pub(super) async fn healthy() -> &'static str {
    "ok\n"
}

pub(super) async fn ready<B: NodeBackend>(State(app): State<Shared<B>>) -> Response {
    readiness(app.backend.not_ready().await.into())
}

/// 200 or 503, with the reasons.
pub(super) fn readiness(readiness: Readiness) -> Response {
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], Json(readiness)).into_response()
}

pub(super) async fn node<B: NodeBackend>(State(app): State<Shared<B>>) -> Result<Json<NodeStatus>, Problem> {
    status(&app).await.map(Json)
}

/// The node's own status, and what its listeners count.
async fn status<B: NodeBackend>(app: &Shared<B>) -> Result<NodeStatus, Problem> {
    let status = app.backend.status().await?;
    Ok(NodeStatus { traffic: app.metrics.traffic(&app.transfers), ..status })
}

pub(super) async fn metrics<B: NodeBackend>(State(app): State<Shared<B>>) -> Result<Response, Problem> {
    let status = status(&app).await?;
    let is_ready = app.backend.not_ready().await.is_empty();
    let text = app.metrics.text(status, is_ready).map_err(|error| Problem::internal(&error))?;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(METRICS_MEDIA_TYPE))], text).into_response())
}

pub(super) async fn peers<B: NodeBackend>(State(app): State<Shared<B>>) -> Result<Json<PeersResponse>, Problem> {
    let peers = app.backend.peers().await?;
    Ok(Json(PeersResponse { peers }))
}

pub(super) async fn reachability<B: NodeBackend>(State(app): State<Shared<B>>) -> Result<Json<Reachability>, Problem> {
    app.backend.reachability().await.map(Json)
}

#[derive(Deserialize)]
pub(super) struct BlocksQuery {
    after: Option<BlockId>,
    limit: Option<usize>,
}

pub(super) async fn blocks<B: NodeBackend>(
    State(app): State<Shared<B>>,
    query: Result<Query<BlocksQuery>, QueryRejection>,
) -> Result<Json<BlocksResponse>, Problem> {
    let refuse = || Problem::new(ErrorKind::Invalid, "after must be a block id (64 hex digits) and limit 1 to 1000.");
    let Query(query) = query.map_err(|_| refuse())?;
    let limit = query.limit.unwrap_or(MAX_BLOCKS);
    if !(1..=MAX_BLOCKS).contains(&limit) {
        return Err(refuse());
    }
    // One more than is sent tells whether there is more.
    let mut blocks = app.backend.blocks(query.after, limit + 1).await?;
    let more = blocks.len() > limit;
    blocks.truncate(limit);
    let next = blocks.last().filter(|_| more).map(|block| block.id);
    Ok(Json(BlocksResponse { blocks, next }))
}

/// Whoever shows an order has it obeyed: it is the platform's signature that counts, not who passes it on.
pub(super) async fn delete<B: NodeBackend>(
    State(app): State<Shared<B>>,
    request: Request,
) -> Result<Json<DeletionResponse>, Problem> {
    let order = read_jws(request).await?;
    let (checker, checked) = (Arc::clone(&app), order.clone());
    let deletion = app.workers.run(move || checker.verifier.deletions().verify(&checked)).await?;
    let outcome = app.backend.delete(deletion, order).await?;
    Ok(Json(DeletionResponse { publication: deletion.publication, sequence: deletion.sequence, outcome }))
}

#[derive(Deserialize)]
pub(super) struct DeletionsQuery {
    platform: PlatformFingerprint,
    after: Option<u64>,
    limit: Option<usize>,
}

pub(super) async fn deletions<B: NodeBackend>(
    State(app): State<Shared<B>>,
    query: Result<Query<DeletionsQuery>, QueryRejection>,
) -> Result<Json<DeletionsResponse>, Problem> {
    let refuse = || {
        let detail = "platform must be a fingerprint (64 hex digits), after a sequence number, and limit 1 to 500.";
        Problem::new(ErrorKind::Invalid, detail)
    };
    let Query(query) = query.map_err(|_| refuse())?;
    let limit = query.limit.unwrap_or(MAX_DELETIONS);
    let after = query.after.unwrap_or(0);
    if !(1..=MAX_DELETIONS).contains(&limit) || after > MAX_SEQUENCE {
        return Err(refuse());
    }
    let mut deletions = app.backend.deletions(query.platform, after, limit + 1).await?;
    let more = deletions.len() > limit;
    deletions.truncate(limit);
    let next = deletions.last().filter(|_| more).map(|last| last.sequence);
    Ok(Json(DeletionsResponse { deletions, next }))
}

pub(super) async fn issue_token<B: NodeBackend>(
    State(app): State<Shared<B>>,
    request: Request,
) -> Result<Response, Problem> {
    let VerifiedRequest { platform, action } = verified(&app, request).await?;
    match action {
        VerifiedAction::Playback(request, key) => {
            let issued = app.clock.unix_seconds();
            issue_playback(&app, PlaybackGrant::new(platform, request, &key, issued), &key)
        }
        VerifiedAction::Upload(upload, key) => issue_upload(&app, upload, &key).await,
        VerifiedAction::Revoke(_) | VerifiedAction::Acknowledge(_) => Err(malformed("act is not upload or playback")),
    }
}

pub(super) async fn revoke<B: NodeBackend>(
    State(app): State<Shared<B>>,
    request: Request,
) -> Result<Json<RevocationResponse>, Problem> {
    let VerifiedRequest { platform, action } = verified(&app, request).await?;
    let VerifiedAction::Revoke(content) = action else { return Err(malformed("act is not revoke")) };
    let revoked = app.tokens.revoke_content(&platform, &content, app.clock.now()) as u64;
    tracing::info!(%platform, %content, revoked, "tokens were taken back");
    Ok(Json(RevocationResponse { content, revoked }))
}

/// Reads and checks a signed request, and has it remembered across a kill of this node.
pub(super) async fn verified<B: NodeBackend>(app: &Shared<B>, request: Request) -> Result<VerifiedRequest, Problem> {
    let jws = read_jws(request).await?;
    let checker = Arc::clone(app);
    let verified = app.workers.run(move || checker.verifier.verify(&jws, checker.clock.unix_seconds())).await?;
    app.backend.store_seen_until(app.verifier.largest_accepted()).await?;
    Ok(verified)
}

fn issue_playback<B>(app: &Shared<B>, grant: PlaybackGrant, key: &ViewerKey) -> Result<Response, Problem> {
    let platform = grant.platform;
    let token = app.tokens.issue_playback(grant, app.clock.now())?;
    app.check_still_pinned(&platform, &token)?;
    app.metrics.token_issued("playback");
    Ok(created(&PlaybackTokenResponse {
        encrypted_token: encrypt(&token, key)?,
        expires_in: PLAYBACK_LIFETIME.as_secs(),
        temporary_url: format!("{}/v1/t/", app.delivery_base),
    }))
}

async fn issue_upload<B: NodeBackend>(
    app: &Shared<B>,
    upload: VerifiedUpload,
    key: &ViewerKey,
) -> Result<Response, Problem> {
    let grant = upload.grant;
    app.backend.register_upload(upload).await?;
    let token = app.tokens.draw_upload(&grant, app.clock.now())?;
    let expires = app.clock.unix_seconds().saturating_add(UPLOAD_LIFETIME.as_secs());
    app.backend.keep_upload_token(grant.reference.publication, token.digest(), expires).await?;
    app.tokens.admit_upload(token.digest(), grant, UPLOAD_LIFETIME, app.clock.now())?;
    app.check_still_pinned(&grant.reference.platform, &token)?;
    app.metrics.token_issued("upload");
    Ok(created(&UploadTokenResponse {
        encrypted_token: encrypt(&token, key)?,
        expires_in: UPLOAD_LIFETIME.as_secs(),
        upload_url: format!("{}/v1/uploads/{}", app.delivery_base, grant.reference.publication),
    }))
}

fn encrypt(token: &Token, key: &ViewerKey) -> Result<String, Problem> {
    encrypt_to_key(token, key).map_err(|error| Problem::internal(&error))
}

fn created(answer: &impl Serialize) -> Response {
    let no_store = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (StatusCode::CREATED, no_store, Json(answer)).into_response()
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    match has_media_type(headers, "application/jose") {
        true => Ok(()),
        false => Err(malformed("its Content-Type is not application/jose")),
    }
}

async fn read_jws(request: Request) -> Result<String, Problem> {
    check_media_type(request.headers())?;
    let body = read_body(request.into_body()).await?;
    let jws = std::str::from_utf8(&body).map_err(|_| malformed("it is not text"))?;
    Ok(jws.trim_ascii().to_owned())
}

async fn read_body(body: Body) -> Result<Bytes, Problem> {
    let read = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, MAX_REQUEST_BYTES)).await;
    let read = read.map_err(|_| malformed("it did not come within 10 seconds"))?;
    read.map_err(|_| malformed("it is longer than 16 KiB, or was cut off"))
}

pub(super) fn malformed(why: &str) -> Problem {
    let detail = format!("The body must be a compact JWS as docs/api.md describes: {why}.");
    Problem::new(ErrorKind::MalformedRequest, detail)
}
