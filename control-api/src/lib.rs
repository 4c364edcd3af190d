//! Wire types, request signing, tokens, routers and client of the node's HTTP interfaces (`docs/api.md`).
//!
//! The platform signs ([`PlatformKey`]), asks ([`NodeClient`]) and decrypts ([`UserKey`]); the node verifies
//! ([`RequestVerifier`], [`AuthorityVerifier`]), issues ([`TokenTable`]) and serves ([`control_router`], [`delivery_router`])
//! over its own [`NodeBackend`]. Nothing here knows libp2p, RocksDB or FFmpeg, and no secret has a `Display` or a
//! telling `Debug`.

mod backend;
pub mod client;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod jws;
mod keys;
mod meter;
mod metrics;
mod openapi;
pub mod problem;
mod receipt;
mod routes;
mod scope;
mod serve;
pub mod signing;
mod state;
pub mod tokens;
mod transfers;
pub mod tus;
pub mod types;
pub mod work;
mod workers;

pub use backend::{Content, NodeBackend};
pub use chunkstore_block::{BlockId, ContentKey, NetworkId, PlatformFingerprint, PublicationId};
pub use client::{ClientError, DeliveryClient, FileResponse, NodeClient, TemporaryUrl};
pub use keys::{KeyError, PinnedKeys, PlatformKey, PlatformKeySize, PlatformPublicKey};
pub use meter::{Meter, Stretch};
pub use metrics::Metrics;
pub use problem::{ErrorKind, PROBLEM_MEDIA_TYPE, Problem};
pub use receipt::{MAX_RECEIPT_BYTES, NO_RECEIPT, Position, Receipt, ReceiptError, is_log_name};
pub use routes::{ApiPath, Gate, control_router, delivery_router, only_hosts, openapi_document};
pub use scope::{Lapse, MAX_RENDITIONS, Scope};
pub use serve::{Certificate, CertificateError, ServeOptions, serve, serve_with, set_user_timeout};
pub use signing::{
    Acknowledgement, Authority, AuthorityClaims, AuthorityVerifier, DeletionClaims, DeletionVerifier, PlaybackRequest,
    RequestClaims, RequestVerifier, SigningError, TokenRequest, VerifiedAction, VerifiedDeletion, VerifiedRequest,
    VerifiedUpload,
};
pub use state::{
    AllowedOrigins, AppConfig, AppState, Clock, ConfigError, ManualClock, SystemClock, check_delivery_url,
};
pub use tokens::{
    Grant, LiveToken, PlaybackGrant, Token, TokenDigest, TokenError, TokenTable, UploadGrant, UserKey, ViewerKey,
};
pub use transfers::TransferGauge;
pub use types::{
    BlocksResponse, CacheStatus, DeletionEntry, DeletionOutcome, DeletionResponse, DeletionsResponse, FragmentEntry,
    FragmentsResponse, InvalidNodeId, Jwk, LookupsStatus, NodeId, NodeStatus, NotReady, PeerEntry, PeersResponse,
    Phase, PlaybackTokenResponse, Reachability, Readiness, ReceiptsResponse, RefusedStatus, ReplicasStatus,
    RevocationResponse, StorageStatus, StoredBlockEntry, TrafficStatus, UploadStatus, UploadTokenResponse,
};
