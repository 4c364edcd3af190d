//! What the routers need from a node. One trait, used generically; the tests have one in memory.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use chunkstore_block::{BlockId, ContentKey, Fragment, Index, Part, PlatformFingerprint, PublicationId, RenditionKind};
use futures::Stream;
use tokio::sync::{OnceCell, watch};

use crate::problem::{ErrorKind, Problem};
use crate::scope::{Attribution, Times};
use crate::signing::{Acknowledgement, VerifiedDeletion, VerifiedUpload};
use crate::tokens::{PLAYBACK_LIFETIME, TokenDigest};
use crate::tus::{Append, Creation, FileId, FileState};
use crate::types::{
    DeletionEntry, DeletionOutcome, FragmentEntry, FragmentsResponse, NodeStatus, NotReady, PeerEntry, Reachability,
    ReceiptsResponse, StoredBlockEntry, UploadStatus,
};
use crate::work::WorkStream;

/// The node behind the two listeners. Every method may be called by many tasks at once.
pub trait NodeBackend: Send + Sync + 'static {
    /// `GET /v1/node`. Running transfers, for `load`, are in the [`crate::TransferGauge`] that the node shares with the routers.
    fn status(&self) -> impl Future<Output = Result<NodeStatus, Problem>> + Send;

    /// The peers in the routing table.
    fn peers(&self) -> impl Future<Output = Result<Vec<PeerEntry>, Problem>> + Send;

    /// What keeps the node from a part of its work now; empty if nothing does, and unless it is implemented.
    fn not_ready(&self) -> impl Future<Output = Vec<NotReady>> + Send {
        std::future::ready(Vec::new())
    }

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

    /// Up to `limit` (1 to 500) of a platform's receipts after the number `after` of `log`; of another log, from its first
    /// that is there. Nothing unless it is implemented.
    fn receipts(
        &self,
        platform: PlatformFingerprint,
        log: Option<String>,
        after: u64,
        limit: usize,
    ) -> impl Future<Output = Result<ReceiptsResponse, Problem>> + Send {
        let _ = (platform, log, after, limit);
        std::future::ready(Ok(ReceiptsResponse::default()))
    }

    /// The platform has these receipts for good: they may be deleted.
    ///
    /// Errors: `invalid` for a log or number that is not this node's. `not-found` unless it is implemented.
    fn acknowledge_receipts(
        &self,
        platform: PlatformFingerprint,
        acknowledgement: Acknowledgement,
    ) -> impl Future<Output = Result<(), Problem>> + Send {
        let _ = (platform, acknowledgement);
        std::future::ready(Err(nothing_to_do()))
    }

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

    /// Keeps the hash of an upload's token, before the token goes out, and when it ends (seconds since 1970): so that a restart ends
    /// neither ([`crate::AppState::restore_upload_token`]).
    ///
    /// Errors: `internal`; no token goes out then. Does nothing unless it is implemented.
    fn keep_upload_token(
        &self,
        publication: PublicationId,
        token: TokenDigest,
        expires: u64,
    ) -> impl Future<Output = Result<(), Problem>> + Send {
        let _ = (publication, token, expires);
        std::future::ready(Ok(()))
    }

    /// Creates a resumable upload, or a part of one, and sets room aside for the whole. The same file again is no error: its
    /// bytes stay. `metadata` is the header's value.
    ///
    /// Errors: `invalid`, `upload-too-large`, `upload-incomplete`, `upload-exists`, `no-room`, `not-found`, those that ended the
    /// upload. `not-found` unless it is implemented.
    fn create_upload(
        &self,
        publication: PublicationId,
        creation: Creation,
        metadata: String,
    ) -> impl Future<Output = Result<FileId, Problem>> + Send {
        let _ = (publication, creation, metadata);
        std::future::ready(Err(nothing_to_do()))
    }

    /// Writes bytes behind those that are there; answers with the new offset, which is on disk then. With the last byte the
    /// processing starts. Bytes of a body that breaks off stay, unless they had a checksum. Not to be ended by the client's
    /// going: the body ends with an error then.
    ///
    /// Errors: those of `body`, `wrong-offset`, `upload-locked`, `upload-too-large`, `checksum-mismatch`, `upload-exists`,
    /// `final-upload`, `no-room`, `busy`, `not-found`, those that ended the upload. `not-found` unless it is implemented.
    fn append_upload<S>(
        &self,
        publication: PublicationId,
        append: Append,
        body: S,
    ) -> impl Future<Output = Result<u64, Problem>> + Send
    where
        S: Stream<Item = Result<Bytes, Problem>> + Send + Unpin + 'static,
    {
        let _ = (publication, append, body);
        std::future::ready(Err(nothing_to_do()))
    }

    /// How far a file of a resumable upload is.
    ///
    /// Errors: `not-found`, those that ended the upload. `not-found` unless it is implemented.
    fn upload_file(
        &self,
        publication: PublicationId,
        file: FileId,
    ) -> impl Future<Output = Result<FileState, Problem>> + Send {
        let _ = (publication, file);
        std::future::ready(Err(nothing_to_do()))
    }

    /// Ends an upload, or takes a part away, and what they take of the disk, before it returns.
    ///
    /// Errors: `upload-exists` for one that is ready, `not-found`, those that ended the upload before. `not-found` unless it is
    /// implemented.
    fn terminate_upload(
        &self,
        publication: PublicationId,
        file: FileId,
    ) -> impl Future<Output = Result<(), Problem>> + Send {
        let _ = (publication, file);
        std::future::ready(Err(nothing_to_do()))
    }

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

/// The bounds of [`Content::overtime_bytes`]: four blocks, which a response may have on its way, and 30 s at 70 Mbit/s.
const MIN_OVERTIME: u64 = 4 << 20;
const MAX_OVERTIME: u64 = 256 << 20;

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
    /// Order and length of each data block: also the set of ids that a token for this content opens.
    blocks: HashMap<BlockId, (u32, u32)>,
    /// Which rendition each fragment belongs to; made when first asked for.
    attribution: OnceLock<Attribution>,
    /// When each segment is played; read from the playlists when first asked for.
    pub(crate) times: OnceCell<Times>,
}

impl Content {
    /// Takes what an index loader gave: the index block as stored, the whole index, and the ids of its pages.
    pub fn new(key: ContentKey, index_block: Bytes, index: Index, pages: impl IntoIterator<Item = BlockId>) -> Self {
        let orders = index.fragments.iter().zip(1..);
        let blocks = orders.map(|(fragment, order)| (fragment.id, (order, fragment.length))).collect();
        let (attribution, times) = (OnceLock::new(), OnceCell::new());
        Self { key, index_block, index, pages: pages.into_iter().collect(), blocks, attribution, times }
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

    /// The whole of a data block as a piece; refuses with `wrong-content` a block of another content.
    pub fn block_part(&self, id: BlockId) -> Result<Part, Problem> {
        let (order, length) = self.blocks.get(&id).copied().ok_or_else(|| self.foreign("data block"))?;
        Ok(Part { order, id, block_length: length, skip: 0, take: length })
    }

    /// Which rendition each fragment belongs to.
    pub(crate) fn attribution(&self) -> &Attribution {
        self.attribution.get_or_init(|| Attribution::of(&self.index))
    }

    /// Bytes that may still go out under a token after its end: those of one time lapse, 30 s of the best picture and the best sound at
    /// their peak, within bounds for an index that says little or too much.
    pub(crate) fn overtime_bytes(&self) -> u64 {
        let peak = |kind| {
            let of_kind = self.index.renditions.iter().filter(|rendition| rendition.kind == kind);
            of_kind.map(|rendition| rendition.peak_bandwidth_bps).max().unwrap_or(0)
        };
        let bits_per_second = peak(RenditionKind::Video).saturating_add(peak(RenditionKind::Audio));
        (bits_per_second / 8).saturating_mul(PLAYBACK_LIFETIME.as_secs()).clamp(MIN_OVERTIME, MAX_OVERTIME)
    }

    /// Refuses with `wrong-content` a page of another content.
    pub fn check_page(&self, id: BlockId) -> Result<(), Problem> {
        match self.pages.contains(&id) {
            true => Ok(()),
            false => Err(self.foreign("index page")),
        }
    }

    /// The data blocks that `is_open` by their order, in order.
    pub(crate) fn fragments_where(&self, is_open: impl Fn(u32) -> bool) -> FragmentsResponse {
        let mut listed = self.fragments();
        listed.fragments.retain(|fragment| u32::try_from(fragment.order).is_ok_and(&is_open));
        listed
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
