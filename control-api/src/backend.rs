//! What the routers need from a node. One trait, used generically; the tests have one in memory.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use chunkstore_block::{BlockId, ContentKey, Fragment, Index, PlatformFingerprint, PublicationId};
use futures::Stream;
use tokio::sync::watch;

use crate::problem::{ErrorKind, Problem};
use crate::signing::{VerifiedDeletion, VerifiedUpload};
use crate::types::{
    DeletionEntry, DeletionOutcome, FragmentEntry, FragmentsResponse, NodeStatus, PeerEntry, Reachability,
    StoredBlockEntry, UploadStatus,
};
use crate::work::WorkStream;

/// The node behind the two listeners. Every method may be called by many tasks at once.
pub trait NodeBackend: Send + Sync + 'static {
    /// `GET /v1/node`. Running transfers, for `load`, are in the [`crate::TransferGauge`] that the node shares with the routers.
    fn status(&self) -> impl Future<Output = Result<NodeStatus, Problem>> + Send;

    /// The peers in the routing table.
    fn peers(&self) -> impl Future<Output = Result<Vec<PeerEntry>, Problem>> + Send;

    /// Blocks of the durable store with an id greater than `after`, in the order of ids, at most `limit` (1 to 1,001).
    fn blocks(
        &self,
        after: Option<BlockId>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<StoredBlockEntry>, Problem>> + Send;

    /// Writes down, before a token goes out, the latest `iat` of the requests that were accepted
    /// ([`crate::RequestVerifier::largest_accepted`]), for [`crate::RequestVerifier::with_seen_until`] of the next run. Returns when it
    /// has left the process: against a killed process that is enough, no disk need be waited for. Calls come at the same time and
    /// in no order: the greatest value counts, and one that is not greater needs no write.
    ///
    /// Errors: `internal`; no token goes out then. Does nothing unless it is implemented.
    fn store_seen_until(&self, seen_until: u64) -> impl Future<Output = Result<(), Problem>> + Send {
        let _ = seen_until;
        std::future::ready(Ok(()))
    }

    /// Takes a verified deletion order, durably: nothing more is stored for the publication, what is under way for it here
    /// ends, and blocks that nothing else needs go soon. `order` is its text, which is kept.
    ///
    /// Errors: `internal`, also while the disk is so full that not even the order fits.
    fn delete(
        &self,
        deletion: VerifiedDeletion,
        order: String,
    ) -> impl Future<Output = Result<DeletionOutcome, Problem>> + Send;

    /// Up to `limit` (1 to 501) of a platform's deletion orders with a sequence number above `after`, by number.
    fn deletions(
        &self,
        platform: PlatformFingerprint,
        after: u64,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<DeletionEntry>, Problem>> + Send;

    /// Asks another node whether it can connect to this one.
    ///
    /// Errors: `internal`. `not-found` unless it is implemented.
    fn reachability(&self) -> impl Future<Output = Result<Reachability, Problem>> + Send {
        std::future::ready(Err(nothing_to_do()))
    }

    /// Begins to read every block of the durable store at full speed. Ends when the stream is dropped.
    ///
    /// Errors: `busy` while another verification is running. `not-found` unless it is implemented.
    fn verify(&self) -> impl Future<Output = Result<WorkStream, Problem>> + Send {
        std::future::ready(Err(nothing_to_do()))
    }

    /// Begins to copy the durable store into a folder, an absolute path. Ends when the stream is dropped.
    ///
    /// Errors: `busy` while another backup is running. `not-found` unless it is implemented.
    fn backup(&self, folder: PathBuf) -> impl Future<Output = Result<WorkStream, Problem>> + Send {
        let _ = folder;
        std::future::ready(Err(nothing_to_do()))
    }

    /// Makes an upload known, before its token goes out. Called again when the platform asks for a new token; the
    /// newer authority then counts.
    ///
    /// Errors: `upload-exists` once the file has come, or when another platform uses the publication id; `deleted` when the
    /// publication was.
    fn register_upload(&self, upload: VerifiedUpload) -> impl Future<Output = Result<(), Problem>> + Send;

    /// Writes the file of a registered upload to disk as it comes, starts the processing, and answers with the status.
    ///
    /// `body` gives exactly `grant.size` bytes or an error (`upload-too-large`, `upload-empty`, `upload-incomplete`), so the
    /// backend need not count; on an error it deletes what it wrote, goes back to `waiting`, and passes the error on.
    /// The future is dropped when the client goes away: clean up then, too.
    ///
    /// Errors: those of `body`, `upload-exists` (also while another `PUT` of this upload is running), `no-room`, `not-found`,
    /// `deleted`.
    fn receive_upload<S>(
        &self,
        publication: PublicationId,
        body: S,
    ) -> impl Future<Output = Result<UploadStatus, Problem>> + Send
    where
        S: Stream<Item = Result<Bytes, Problem>> + Send + Unpin + 'static;

    /// The status of an upload as it changes; `None` for one that this node does not know. Kept for at least as long as an upload
    /// token lives (24 h), for the preview needs the content key.
    fn upload_status(&self, publication: PublicationId) -> Option<watch::Receiver<UploadStatus>>;

    /// A content's index: from the cache, the store, or the network.
    ///
    /// Errors: `not-found` when the block is no index block, `unavailable` when no holder answers.
    fn content(&self, key: ContentKey) -> impl Future<Output = Result<Arc<Content>, Problem>> + Send;

    /// A block, its SHA-256 checked: from the cache, the store, or the network.
    ///
    /// Errors: `unavailable` when no holder answers.
    fn block(&self, id: BlockId) -> impl Future<Output = Result<Bytes, Problem>> + Send;
}

fn nothing_to_do() -> Problem {
    Problem::new(ErrorKind::NotFound, "This node does no such thing.")
}

/// A content's index, read and checked once, with what the routers ask of it for each request.
#[derive(Debug)]
pub struct Content {
    key: ContentKey,
    index_block: Bytes,
    index: Index,
    pages: HashSet<BlockId>,
    /// Length of each data block in bytes: also the set of ids that a token for this content opens.
    blocks: HashMap<BlockId, u32>,
}

impl Content {
    /// Takes what an index loader gave: the index block as stored, the whole index, and the ids of its pages.
    pub fn new(key: ContentKey, index_block: Bytes, index: Index, pages: impl IntoIterator<Item = BlockId>) -> Self {
        let blocks = index.fragments.iter().map(|fragment| (fragment.id, fragment.length)).collect();
        Self { key, index_block, index, pages: pages.into_iter().collect(), blocks }
    }

    /// The content key.
    pub fn key(&self) -> ContentKey {
        self.key
    }

    /// The index block's bytes.
    pub fn index_block(&self) -> &Bytes {
        &self.index_block
    }

    /// What the index says.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Length of a data block in bytes; refuses with `wrong-content` a block of another content.
    pub fn block_length(&self, id: BlockId) -> Result<u32, Problem> {
        self.blocks.get(&id).copied().ok_or_else(|| self.foreign("data block"))
    }

    /// Refuses with `wrong-content` a page of another content.
    pub fn check_page(&self, id: BlockId) -> Result<(), Problem> {
        match self.pages.contains(&id) {
            true => Ok(()),
            false => Err(self.foreign("index page")),
        }
    }

    /// All data blocks in order.
    pub fn fragments(&self) -> FragmentsResponse {
        let entry = |(place, fragment): (usize, &Fragment)| FragmentEntry {
            order: place as u64 + 1,
            sha256: fragment.id,
            length: u64::from(fragment.length),
        };
        FragmentsResponse {
            content_key: self.key,
            fragments: self.index.fragments.iter().enumerate().map(entry).collect(),
        }
    }

    fn foreign(&self, what: &str) -> Problem {
        let detail = format!(
            "This {what} is not part of the content {} that the token opens. Get a token for its content.",
            self.key
        );
        Problem::new(ErrorKind::WrongContent, detail)
    }
}
