//! The JSON of `docs/api.md`, member by member. Unknown members are ignored when read.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use chunkstore_block::{BlockId, ContentKey, NetworkId, PublicationId, Reference};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::openapi::schemas::{IdHex, ReferenceSchema, Sha256Hex};
use crate::problem::Problem;

/// A node's `PeerId` as base58 text (`docs/protocol.md` §1). This crate does not know libp2p: only alphabet and length are
/// checked, which makes it safe in a header and in a log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct NodeId(String);

/// A text that cannot be a `PeerId`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("this is no node id: a PeerId is 1 to 128 characters of base58, as `imira-node status` prints it")]
pub struct InvalidNodeId;

impl NodeId {
    /// The base58 text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeId {
    type Err = InvalidNodeId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Bitcoin's base58 leaves out 0, O, I and l. 38 bytes take 52 characters; 128 leaves room for other key types.
        let base58 = |c: char| c.is_ascii_alphanumeric() && !"0OIl".contains(c);
        match (1..=128).contains(&text.len()) && text.chars().all(base58) {
            true => Ok(Self(text.to_owned())),
            false => Err(InvalidNodeId),
        }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// `GET /v1/node`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeStatus {
    /// Who the node is.
    pub peer_id: NodeId,
    /// The network that it is a member of.
    #[schema(value_type = IdHex)]
    pub network_id: NetworkId,
    /// Version of the daemon.
    pub version: String,
    /// When the process started, seconds since 1970.
    pub started: u64,
    /// R: how many copies of a block the network keeps.
    pub replication: u32,
    /// Peers in the routing table.
    pub peers: u32,
    /// Grows with work, without unit: uploads under way + running transfers / 16 + one-minute load average / processors.
    pub load: f64,
    /// Uploads under way.
    pub uploads: u32,
    /// The durable store.
    pub storage: StorageStatus,
    /// What the node does so that each block has its copies; zeros from a node that does not say.
    #[serde(default)]
    pub replicas: ReplicasStatus,
    /// What it asked the network; zeros from a node that does not say.
    #[serde(default)]
    pub lookups: LookupsStatus,
    /// Connections of other nodes that were refused.
    #[serde(default)]
    pub refused: RefusedStatus,
    /// The cache of the blocks that viewers asked for.
    pub cache: CacheStatus,
    /// Base of the delivery listener, without a trailing `/`.
    pub delivery_url: String,
    /// The largest file that an upload may have.
    pub max_upload_bytes: u64,
    /// What viewers and uploaders do here; zeros from a node that does not say.
    #[serde(default)]
    pub traffic: TrafficStatus,
    /// How many uploads the node knows in each [`Phase`]; phases without any are left out. Empty from a node that does not say.
    #[serde(default)]
    pub uploads_by_phase: BTreeMap<String, u64>,
}

/// What goes over a node's delivery listener. Counts without "now" are since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct TrafficStatus {
    /// Responses with blocks that are running, now.
    pub transfers: u64,
    /// Bytes of answers handed to viewers' connections.
    pub sent_bytes: u64,
    /// Playback tokens handed out.
    pub playback_tokens: u64,
    /// Upload tokens handed out.
    pub upload_tokens: u64,
}

/// `GET /readyz`: whether the node can do all of its work now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Readiness {
    /// Whether there is no reason against it.
    pub ready: bool,
    /// Why not.
    pub reasons: Vec<NotReady>,
}

/// Something that keeps a node from a part of its work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NotReady {
    /// A stable name (`docs/api.md` §3).
    pub reason: String,
    /// What it means and what to do, for people.
    pub detail: String,
}

impl NotReady {
    /// A reason with its explanation.
    pub fn new(reason: &str, detail: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), detail: detail.into() }
    }
}

impl From<Vec<NotReady>> for Readiness {
    fn from(reasons: Vec<NotReady>) -> Self {
        Self { ready: reasons.is_empty(), reasons }
    }
}

/// Lookups since the start: who is closest to a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LookupsStatus {
    /// Those that came to an end.
    pub ended: u64,
    /// Requests to other nodes that they took.
    pub requests: u64,
}

/// Connections that a node refused since its start, by the reason (`docs/api.md` §3); reasons without any are there with 0. Empty from
/// a node that does not count them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct RefusedStatus {
    /// Discovery, at the gate.
    pub udp: BTreeMap<String, u64>,
    /// The block plane, in its handshake.
    pub tcp: BTreeMap<String, u64>,
}

/// `GET /v1/reachability`: whether another node, asked now, could connect to this one anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reachability {
    /// Who was asked; `None` if nobody could be.
    #[schema(required)]
    pub asked: Option<NodeId>,
    /// Whether blocks over TCP worked; `None` if nobody told.
    #[schema(required)]
    pub tcp: Option<bool>,
    /// Whether discovery over UDP did.
    #[schema(required)]
    pub udp: Option<bool>,
    /// Why nobody told.
    #[schema(required)]
    pub reason: Option<String>,
}

/// The durable store's use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StorageStatus {
    /// Bytes in use: everything that the store keeps on disk.
    pub used_bytes: u64,
    /// Bytes that the operator grants.
    pub quota_bytes: u64,
    /// Blocks held.
    pub blocks: u64,
    /// How much of the quota uploads leave for repair.
    #[serde(default)]
    pub repair_reserve_bytes: u64,
    /// Bytes that uploads may still take, of quota and disk; `None` from a node that does not say.
    #[serde(default)]
    pub upload_free_bytes: Option<u64>,
    /// Blocks that are damaged on disk and of which no good copy has come from another node yet.
    #[serde(default)]
    pub damaged_blocks: u64,
    /// Bytes of deleted blocks that have not been given back to the file system yet.
    #[serde(default)]
    pub dead_bytes: u64,
    /// When every block had last been read and checked, seconds since 1970.
    #[serde(default)]
    pub scrubbed: Option<u64>,
}

impl StorageStatus {
    /// Bytes that an upload may take; a guess for a node that does not say.
    pub fn free_for_uploads(&self) -> u64 {
        self.upload_free_bytes.unwrap_or_else(|| self.quota_bytes.saturating_sub(self.used_bytes))
    }
}

/// A node's part in keeping each block on the nodes it belongs on (`docs/protocol.md` §9 and §10). Counts without "now" are since
/// the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ReplicasStatus {
    /// Blocks here, now, undamaged.
    pub held_blocks: u64,
    /// Of them, now, copies that are one too many: they go when their holders have proved theirs.
    pub surplus_blocks: u64,
    /// Blocks that are to be here, now, and are known to lie elsewhere.
    pub wanted_blocks: u64,
    /// Their bytes.
    pub wanted_bytes: u64,
    /// Of them, being fetched now.
    pub pulling_blocks: u64,
    /// Nodes that answered last time, now.
    pub members_up: u64,
    /// Nodes that do not answer, now, and still count as holders.
    pub members_silent: u64,
    /// Nodes that proved wrong and do not count, now.
    pub members_distrusted: u64,
    /// Nodes that share blocks with this one, now.
    pub neighbours: u64,
    /// Copies that were fetched because they were lacking here.
    pub pulled_blocks: u64,
    /// Their bytes.
    pub pulled_bytes: u64,
    /// Surplus copies that were dropped.
    pub dropped_blocks: u64,
    /// Proofs of possession that were asked for.
    pub audits: u64,
    /// Of them, those that failed.
    pub failed_audits: u64,
    /// Comparisons with other nodes.
    pub syncs: u64,
}

/// The cache's use since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CacheStatus {
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes at most.
    pub capacity_bytes: u64,
    /// Viewers' reads that were answered from the cache.
    pub hits: u64,
    /// Those that were not: read from disk, or fetched from another node.
    pub misses: u64,
    /// Blocks that made room for others.
    pub evictions: u64,
    /// Misses that found the block on its way for somebody else and waited for it. 0 from a node that does not count them.
    #[serde(default)]
    pub joined: u64,
}

/// `GET /v1/peers`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeersResponse {
    /// The peers in the routing table.
    pub peers: Vec<PeerEntry>,
}

/// One peer of the routing table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerEntry {
    /// Who.
    pub peer_id: NodeId,
    /// Where: a multiaddress such as `/ip4/192.0.2.1/udp/7101/quic-v1`.
    pub address: String,
}

/// `GET /v1/blocks`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BlocksResponse {
    /// Blocks of the durable store in the order of ids.
    pub blocks: Vec<StoredBlockEntry>,
    /// What to give as `after` for the rest; `None` at the end.
    #[schema(value_type = Option<Sha256Hex>, required)]
    pub next: Option<BlockId>,
}

/// One block of the durable store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoredBlockEntry {
    /// SHA-256 of the block.
    #[schema(value_type = Sha256Hex)]
    pub id: BlockId,
    /// Its length in bytes.
    pub length: u64,
    /// Why it is kept.
    #[schema(value_type = Vec<ReferenceSchema>)]
    pub references: Vec<Reference>,
}

/// `200` of `POST /v1/deletions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeletionResponse {
    /// What the order deletes.
    #[serde(flatten)]
    #[schema(value_type = ReferenceSchema)]
    pub publication: Reference,
    /// The platform's own number of the order.
    pub sequence: u64,
    /// Whether the node learnt anything from it.
    pub outcome: DeletionOutcome,
}

/// What a deletion order did at a node. In either case it is durable there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeletionOutcome {
    /// It was new: from now on nothing is kept for the publication.
    Applied,
    /// The node had this order already, or a later one for the same publication.
    Known,
}

/// `GET /v1/deletions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeletionsResponse {
    /// Orders of one platform by their numbers.
    pub deletions: Vec<DeletionEntry>,
    /// What to give as `after` for the rest; `None` at the end.
    #[schema(required)]
    pub next: Option<u64>,
}

/// One deletion order that a node keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeletionEntry {
    /// The publication that was deleted.
    #[schema(value_type = IdHex)]
    pub publication: PublicationId,
    /// The platform's own number of the order.
    pub sequence: u64,
    /// When this node learnt of it, seconds since 1970.
    pub received: u64,
    /// The order itself, signed: whoever gets it may pass it on.
    pub order: String,
}

/// `200` of `POST /v1/revocations`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevocationResponse {
    /// The content whose tokens were taken back.
    #[schema(value_type = Sha256Hex)]
    pub content: ContentKey,
    /// How many were alive.
    pub revoked: u64,
}

/// `GET /v1/receipts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReceiptsResponse {
    /// The log of the platform, 32 hex digits; `None` if there is none.
    #[schema(required)]
    pub log: Option<String>,
    /// Receipts in the order of the log, signed.
    pub receipts: Vec<String>,
    /// Whether there are more after these.
    pub more: bool,
}

/// The user's RSA public key as a JWK (RFC 7518 §6.3), not yet checked; [`crate::tokens::ViewerKey`] is the checked form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Jwk {
    /// `"RSA"`.
    pub kty: String,
    /// Modulus, base64url of the big-endian bytes.
    pub n: String,
    /// Public exponent, likewise.
    pub e: String,
}

/// `201` of `POST /v1/tokens` for `playback`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlaybackTokenResponse {
    /// The token, RSA-OAEP-SHA-256, base64url.
    pub encrypted_token: String,
    /// Seconds that the token lives.
    pub expires_in: u64,
    /// What stands before token, `/` and path.
    pub temporary_url: String,
}

/// `201` of `POST /v1/tokens` for `upload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UploadTokenResponse {
    /// The token, RSA-OAEP-SHA-256, base64url.
    pub encrypted_token: String,
    /// Seconds that the token lives.
    pub expires_in: u64,
    /// Where to `PUT` the file.
    pub upload_url: String,
}

/// What an upload is doing. New phases may come before `ready`, so a reader must go on at [`Phase::Other`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// No byte has come yet.
    Waiting,
    /// The file is coming.
    Receiving,
    /// Looking at what it is.
    Probing,
    /// FFmpeg is at work.
    Transcoding,
    /// The video is cut into blocks, which go to their holders, a few at a time.
    Storing,
    /// The last blocks and the index become durable on their holders.
    Replicating,
    /// Done: `content_key` is there.
    Ready,
    /// Refused: `error` is there.
    Rejected,
    /// A phase of a newer node.
    #[serde(other)]
    Other,
}

impl Phase {
    /// Whether nothing follows: `ready` or `rejected`.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Ready | Self::Rejected)
    }

    /// Its name in docs/api.md, as it is written in JSON.
    pub fn name(self) -> String {
        // A phase is written as a string.
        serde_json::to_value(self).ok().and_then(|name| Some(name.as_str()?.to_owned())).unwrap_or_default()
    }
}

/// `GET /v1/uploads/{upload id}` and the data of its events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UploadStatus {
    /// The upload, which is the publication.
    #[schema(value_type = IdHex)]
    pub upload_id: PublicationId,
    /// What it is doing.
    pub phase: Phase,
    /// Of the phase, 0 to 100.
    pub percent: f64,
    /// Of the phase, seconds; `None` where there is no honest estimate yet.
    #[schema(required)]
    pub remaining_seconds: Option<f64>,
    /// Bytes of the file that are on disk.
    pub received_bytes: u64,
    /// Bytes of the file, as the platform announced it.
    pub size: u64,
    /// When `ready`.
    #[schema(value_type = Option<Sha256Hex>, required)]
    pub content_key: Option<ContentKey>,
    /// When known, milliseconds.
    #[schema(required)]
    pub duration_ms: Option<u64>,
    /// When `ready`: data blocks of the content.
    #[schema(required)]
    pub blocks: Option<u64>,
    /// When `rejected`.
    #[schema(required)]
    pub error: Option<Problem>,
}

impl UploadStatus {
    /// An upload that has a token and waits for its file of `size` bytes.
    pub fn waiting(upload_id: PublicationId, size: u64) -> Self {
        Self {
            upload_id,
            phase: Phase::Waiting,
            percent: 0.0,
            remaining_seconds: None,
            received_bytes: 0,
            size,
            content_key: None,
            duration_ms: None,
            blocks: None,
            error: None,
        }
    }
}

/// `GET /v1/t/{token}/fragments`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FragmentsResponse {
    /// Whose fragments.
    #[schema(value_type = Sha256Hex)]
    pub content_key: ContentKey,
    /// All data blocks in order.
    pub fragments: Vec<FragmentEntry>,
}

/// One data block of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FragmentEntry {
    /// Its place, from 1.
    pub order: u64,
    /// Its id.
    #[schema(value_type = Sha256Hex)]
    pub sha256: BlockId,
    /// Its length in bytes.
    pub length: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_ids_are_base58() {
        assert!("12D3KooWSnfLkEoyWmoJAvSTBFqCZ3nEWTXCLU7Pq5VMdYCHRXJo".parse::<NodeId>().is_ok());
        for bad in ["", "12D3\r\nX: y", "0OIl", &"1".repeat(129)] {
            assert_eq!(bad.parse::<NodeId>(), Err(InvalidNodeId));
        }
    }

    #[test]
    fn a_node_that_does_not_say_is_taken_to_have_its_quota_for_uploads() {
        let old: StorageStatus = serde_json::from_str(r#"{"used_bytes": 3, "quota_bytes": 10, "blocks": 1}"#).unwrap();
        assert_eq!((old.free_for_uploads(), old.damaged_blocks, old.scrubbed), (7, 0, None));
        assert_eq!(StorageStatus { upload_free_bytes: Some(2), ..old }.free_for_uploads(), 2);
        assert_eq!(StorageStatus { used_bytes: 11, ..old }.free_for_uploads(), 0);
    }

    #[test]
    fn an_unknown_phase_is_not_final() {
        let phase: Phase = serde_json::from_str(r#""judging""#).unwrap();
        assert_eq!(phase, Phase::Other);
        assert!(!phase.is_final() && Phase::Ready.is_final() && Phase::Rejected.is_final());
        assert_eq!(serde_json::to_string(&Phase::Transcoding).unwrap(), r#""transcoding""#);
    }
}
