//! Receipts on the control listener (`docs/receipts.md`).

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use chunkstore_block::PlatformFingerprint;
use serde::Deserialize;

use super::Shared;
use super::control::{malformed, verified};
use crate::backend::NodeBackend;
use crate::problem::{ErrorKind, Problem};
use crate::receipt::is_log_name;
use crate::signing::{VerifiedAction, VerifiedRequest};
use crate::types::ReceiptsResponse;

/// The most receipts in one answer: 2 MiB at most.
const MAX_RECEIPTS: usize = 500;

#[derive(Deserialize)]
pub(super) struct ReceiptsQuery {
    platform: PlatformFingerprint,
    log: Option<String>,
    after: Option<u64>,
    limit: Option<usize>,
}

pub(super) async fn list<B: NodeBackend>(
    State(app): State<Shared<B>>,
    query: Result<Query<ReceiptsQuery>, QueryRejection>,
) -> Result<Json<ReceiptsResponse>, Problem> {
    let refuse = || {
        let detail =
            "platform must be a fingerprint (64 hex digits), log 32 hex digits, after a number, and limit 1 to 500.";
        Problem::new(ErrorKind::Invalid, detail)
    };
    let Query(query) = query.map_err(|_| refuse())?;
    let limit = query.limit.unwrap_or(MAX_RECEIPTS);
    if !(1..=MAX_RECEIPTS).contains(&limit) || !query.log.as_deref().is_none_or(is_log_name) {
        return Err(refuse());
    }
    app.backend.receipts(query.platform, query.log, query.after.unwrap_or(0), limit).await.map(Json)
}

pub(super) async fn acknowledge<B: NodeBackend>(
    State(app): State<Shared<B>>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let VerifiedRequest { platform, action } = verified(&app, request).await?;
    let VerifiedAction::Acknowledge(acknowledgement) = action else {
        return Err(malformed("act is not acknowledge"));
    };
    app.backend.acknowledge_receipts(platform, acknowledgement).await?;
    Ok(StatusCode::NO_CONTENT)
}
