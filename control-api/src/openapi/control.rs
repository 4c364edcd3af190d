//! The control listener in words (`docs/api.md` §3).

use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{Object, OneOfBuilder, Schema};

use super::endpoint::{Endpoint, string};
use super::schemas::{compact_jws, id_hex, integer, sha256_hex, token_request};
use crate::metrics::METRICS_MEDIA_TYPE;
use crate::problem::ErrorKind;
use crate::signing::{MAX_DELETION_BYTES, MAX_SEQUENCE};
use crate::types::{
    BlocksResponse, DeletionResponse, DeletionsResponse, NodeStatus, PeersResponse, PlaybackTokenResponse,
    Reachability, Readiness, ReceiptsResponse, RevocationResponse, UploadTokenResponse,
};
use crate::work::{BackupRequest, WORK_MEDIA_TYPE, WorkLine};

const JOSE: &str = "application/jose";

pub(crate) fn healthz() -> Endpoint {
    Endpoint::get("/healthz", "healthz", "Whether the process works").answers(
        200,
        "It does.",
        "text/plain",
        string().examples(["ok\n"]).build(),
    )
}

pub(crate) fn readyz() -> Endpoint {
    Endpoint::get("/readyz", "readyz", "Whether the node can do all of its work")
        .answers_json::<Readiness>(200, "It can.")
        .answers_json::<Readiness>(503, "It cannot, and says what and why.")
}

pub(crate) fn metrics() -> Endpoint {
    Endpoint::get("/metrics", "metrics", "Counts and state for Prometheus")
        .about("OpenMetrics 1.0. `docs/api.md` §3 lists the names.")
        .answers(200, "The metrics.", METRICS_MEDIA_TYPE, string().build())
        .refuses(&[ErrorKind::Internal])
}

pub(crate) fn page() -> Endpoint {
    Endpoint::get("/", "operator_page", "The operator's page")
        .about("Shows the node's state in a browser, read-only.")
        .answers(200, "HTML.", "text/html", string().build())
}

pub(crate) fn openapi() -> Endpoint {
    Endpoint::get("/openapi.json", "openapi", "This document")
        .about("With the paths of the listener that was asked. `docs/openapi.json` has those of both.")
        .answers(200, "OpenAPI 3.1.", "application/json", Object::new())
}

pub(crate) fn issue_token() -> Endpoint {
    let mut endpoint = Endpoint::post("/v1/tokens", "issue_token", "Get a token for an upload or for playback")
        .about(include_str!("signed_requests.md"))
        .takes(JOSE, token_request(), "The signed request: a JWS in compact form, at most 16 KiB.");
    let upload = endpoint.named::<UploadTokenResponse>();
    let playback = endpoint.named::<PlaybackTokenResponse>();
    let either = Schema::from(OneOfBuilder::new().item(playback).item(upload).build());
    let besides = [
        ErrorKind::BadViewerKey,
        ErrorKind::BadAuthority,
        ErrorKind::UploadTooLarge,
        ErrorKind::UploadExists,
        ErrorKind::Deleted,
        ErrorKind::NoRoom,
        ErrorKind::NotReplicated,
    ];
    endpoint
        .answers(201, "The token, encrypted to the `jwk` of the request.", "application/json", either)
        .refuses(&[OF_REQUEST, &besides].concat())
}

/// What may be wrong with any signed request.
const OF_REQUEST: &[ErrorKind] = &[
    ErrorKind::MalformedRequest,
    ErrorKind::PlatformNotPinned,
    ErrorKind::BadSignature,
    ErrorKind::WrongNetwork,
    ErrorKind::WrongAudience,
    ErrorKind::RequestExpired,
    ErrorKind::RequestFromTheFuture,
    ErrorKind::LifetimeTooLong,
    ErrorKind::RequestBeforeStart,
    ErrorKind::RequestReplayed,
    ErrorKind::Busy,
    ErrorKind::Internal,
];

pub(crate) fn revoke() -> Endpoint {
    Endpoint::post("/v1/revocations", "revoke", "Take back the playback tokens of a content")
        .about(
            "A signed request as at `/v1/tokens`, with `\"act\": \"revoke\"` and `content`, without `jwk`. The tokens that this \
             platform asked for end at once, and transfers under them with the next block.",
        )
        .takes(JOSE, token_request(), "The signed request: a JWS in compact form, at most 16 KiB.")
        .answers_json::<RevocationResponse>(200, "They have ended.")
        .refuses(OF_REQUEST)
}

pub(crate) fn receipts() -> Endpoint {
    Endpoint::get("/v1/receipts", "receipts", "What the node sent under a platform's tokens")
        .about("Signed receipts (`docs/receipts.md`) in the order of the node's log.")
        .in_query_required("platform", sha256_hex(), "The platform's fingerprint.")
        .in_query("log", id_hex(), "The log that `after` is of. Of another one, the answer begins with its first.")
        .in_query("after", integer(0, None).build(), "Receipts with greater numbers only.")
        .in_query("limit", integer(1, Some(500)).build(), "How many at most; 500 if left out.")
        .answers_json::<ReceiptsResponse>(200, "Receipts by their numbers.")
        .refuses(&[ErrorKind::Invalid, ErrorKind::Internal])
}

pub(crate) fn acknowledge_receipts() -> Endpoint {
    let done = ResponseBuilder::new().description("The node may delete them.").build();
    Endpoint::post("/v1/receipts/acknowledged", "acknowledge_receipts", "Say which receipts are stored for good")
        .about(
            "A signed request as at `/v1/tokens`, with `\"act\": \"acknowledge\"`, `log` and `through`, without `jwk`.",
        )
        .takes(JOSE, token_request(), "The signed request: a JWS in compact form, at most 16 KiB.")
        .response(204, done)
        .refuses(&[OF_REQUEST, &[ErrorKind::Invalid, ErrorKind::NotFound]].concat())
}

pub(crate) fn node() -> Endpoint {
    Endpoint::get("/v1/node", "node", "How the node is")
        .answers_json::<NodeStatus>(200, "Its state now, and counts since its start.")
        .refuses(&[ErrorKind::Internal])
}

pub(crate) fn peers() -> Endpoint {
    Endpoint::get("/v1/peers", "peers", "The peers in the routing table")
        .answers_json::<PeersResponse>(200, "All of them.")
        .refuses(&[ErrorKind::Internal])
}

pub(crate) fn reachability() -> Endpoint {
    Endpoint::get("/v1/reachability", "reachability", "Whether another node can connect to this one")
        .about("Asks another node, which takes some seconds.")
        .answers_json::<Reachability>(200, "What the other node found, or why nobody told.")
        .refuses(&[ErrorKind::NotFound, ErrorKind::Internal])
}

pub(crate) fn blocks() -> Endpoint {
    Endpoint::get("/v1/blocks", "blocks", "What the durable store holds")
        .in_query("after", sha256_hex(), "Blocks with greater ids only: `next` of the answer before.")
        .in_query("limit", integer(1, Some(1_000)).build(), "How many at most; 1,000 if left out.")
        .answers_json::<BlocksResponse>(200, "Blocks in the order of their ids.")
        .refuses(&[ErrorKind::Invalid, ErrorKind::Internal])
}

pub(crate) fn delete() -> Endpoint {
    Endpoint::post("/v1/deletions", "delete_publication", "Hand a deletion order over")
        .about(
            "The order is a JWS of the platform (`docs/protocol.md` §7). It does not matter who brings it, when, or how \
             often. 200 means that it is durable here.",
        )
        .takes(JOSE, compact_jws(MAX_DELETION_BYTES), "The order, at most 4,096 bytes.")
        .answers_json::<DeletionResponse>(200, "The node has the order.")
        .refuses(&[
            ErrorKind::MalformedRequest,
            ErrorKind::BadSequence,
            ErrorKind::PlatformNotPinned,
            ErrorKind::BadSignature,
            ErrorKind::WrongNetwork,
            ErrorKind::Busy,
            ErrorKind::Internal,
        ])
}

pub(crate) fn deletions() -> Endpoint {
    // A number above 2^53 would not survive JSON readers; none is ever given out.
    let sequence = integer(0, i64::try_from(MAX_SEQUENCE).ok()).build();
    Endpoint::get("/v1/deletions", "deletions", "A platform's deletion orders that the node keeps")
        .in_query_required("platform", sha256_hex(), "The platform's fingerprint.")
        .in_query("after", sequence, "Orders with greater numbers only: `next` of the answer before.")
        .in_query("limit", integer(1, Some(500)).build(), "How many at most; 500 if left out.")
        .answers_json::<DeletionsResponse>(200, "Orders by their numbers.")
        .refuses(&[ErrorKind::Invalid, ErrorKind::Internal])
}

pub(crate) fn verify() -> Endpoint {
    work("/v1/verify", "verify", "Read and check every block of the store")
        .about("At full speed, with all processors. Ends early when the connection does.")
        .takes("application/json", Object::new(), "An empty object.")
}

pub(crate) fn backup() -> Endpoint {
    work("/v1/backup", "backup", "Copy the store into a folder of the node's machine")
        .about("Ends early when the connection does; asked again, it goes on.")
        .takes_json::<BackupRequest>("Where to: an empty folder, or an earlier backup of the same store.")
}

/// Long work, told line by line.
fn work(pattern: &'static str, id: &str, summary: &str) -> Endpoint {
    let mut endpoint = Endpoint::post(pattern, id, summary);
    endpoint.named::<WorkLine>();
    let line = string().description(Some(
        "JSON objects in the shape of `WorkLine`, one a line and four a second. The last is not `progress`; without it, the \
         node ended.",
    ));
    endpoint.answers(200, "The work has begun.", WORK_MEDIA_TYPE, line.build()).refuses(&[
        ErrorKind::Invalid,
        ErrorKind::Busy,
        ErrorKind::NotFound,
        ErrorKind::Internal,
    ])
}
