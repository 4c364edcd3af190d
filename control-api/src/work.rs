//! Long work that an operator asks a running node for, told line by line while it goes on (`docs/api.md` §3).

use chunkstore_block::BlockId;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::openapi::schemas::Sha256Hex;
use crate::problem::Problem;

/// The media type of the answer: a JSON document a line.
pub const WORK_MEDIA_TYPE: &str = "application/x-ndjson";

/// What the node tells while it works; the last line is not [`WorkLine::Progress`].
pub type WorkStream = BoxStream<'static, WorkLine>;

/// One line of the answer to `POST /v1/verify` and `POST /v1/backup`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WorkLine {
    /// How far it is; comes at least every few seconds, also when nothing has changed.
    Progress(WorkProgress),
    /// Every block has been read.
    Verified(VerifyReport),
    /// The copy is whole.
    BackedUp(BackupReport),
    /// It ended before it was done.
    Failed(Problem),
}

/// How far the work is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkProgress {
    /// Bytes that were read or copied.
    pub done_bytes: u64,
    /// Bytes that have to be, as far as is known; 0 before it is.
    pub total_bytes: u64,
}

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VerifyReport {
    /// Blocks that were read.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many are damaged.
    pub damaged_blocks: u64,
    /// The ids of those, at most 1,000.
    #[schema(value_type = Vec<Sha256Hex>)]
    pub damaged: Vec<BlockId>,
}

/// What a backup did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackupReport {
    /// Bytes that were copied, without the index.
    pub copied_bytes: u64,
    /// Bytes that were there from an earlier backup.
    pub kept_bytes: u64,
}

/// The body of `POST /v1/backup`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackupRequest {
    /// An absolute path on the node's machine.
    #[schema(value_type = String, pattern = "^/", max_length = 4096)]
    pub folder: std::path::PathBuf,
}
