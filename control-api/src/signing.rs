//! Signed requests (`docs/api.md` §1), upload authorities and deletion orders (`docs/protocol.md` §6 and §7): made by a platform,
//! checked by a node.
//!
//! Time is an argument, in seconds since 1970. The only state is the memory of nonces and a cache of checked authorities, both
//! bounded.

mod deletion;

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chunkstore_block::{ContentKey, NetworkId, PlatformFingerprint, PublicationId, Reference};
use data_encoding::HEXLOWER;
use lru::LruCache;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::jws::{self, Jws, JwsError};
use crate::keys::{KeyError, PinnedKeys, PlatformKey, PlatformPublicKey};
use crate::problem::{ErrorKind, Problem};
use crate::scope::{Lapse, Scope};
use crate::tokens::{UploadGrant, ViewerKey};
use crate::types::{Jwk, NodeId};

pub use deletion::{DeletionClaims, DeletionVerifier, MAX_DELETION_BYTES, MAX_SEQUENCE, VerifiedDeletion};

/// The most bytes of a token request (`docs/api.md` §3).
pub const MAX_REQUEST_BYTES: usize = 16 * 1024;

/// The most bytes of an upload authority (`docs/protocol.md` §6).
pub const MAX_AUTHORITY_BYTES: usize = 4_096;

/// The longest lifetime of a request, seconds.
pub const MAX_REQUEST_LIFETIME: u64 = 30;

/// The longest lifetime of an authority, seconds: 7 days.
pub const MAX_AUTHORITY_LIFETIME: u64 = 7 * 24 * 60 * 60;

/// How far two clocks may be apart, seconds.
pub const CLOCK_SKEW: u64 = 10;

/// A `seen_until` further past the start than this, seconds, is that of a clock which was wrong and has been set back since. To heed it would
/// shut the node for as long; what was accepted then is from the future now, or from before the start.
const MAX_SEEN_AHEAD: u64 = 60 * 60;

/// Nonces that a node remembers. Each is kept for at most 30 + 2 * 10 s, so this bears 1,300 requests a second; about 12 MB.
const REPLAY_CAPACITY: usize = 65_536;

/// Checked authorities that a node remembers: one for each upload that is running into it. A guess, and about 0.3 MB.
const AUTHORITY_CACHE: usize = 1_024;

const NOT_PINNED_HERE: &str = "its platform is not pinned here";

const REQUEST_TYPE: &str = "imira-request";
const AUTHORITY_TYPE: &str = "imira-authority";

/// Why a request, an authority or an order could not be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SigningError {
    /// The key failed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A lifetime that every node would refuse.
    #[error("a lifetime of {0} s is refused by every node: at most {1} s")]
    LifetimeTooLong(u64, u64),
    /// A sequence number that every node would refuse.
    #[error("a deletion order with the number {0} is refused by every node: 1 to {MAX_SEQUENCE}")]
    Sequence(u64),
    /// No random bytes for the nonce.
    #[error("the system gave no random bytes for the nonce; see the kernel's log")]
    NoRandomness,
    /// The result is longer than nodes read.
    #[error("the signed text has {0} bytes and nodes read at most {1}; use a smaller key")]
    TooLong(usize, usize),
    /// The claims could not be written as JSON.
    #[error("the claims could not be written as JSON; this is a defect of the platform")]
    Encoding,
}

/// What a platform asks a node for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenRequest {
    /// A token to put one file.
    Upload {
        /// The publication, and the upload's id.
        publication: PublicationId,
        /// Bytes of the file.
        size: u64,
        /// The authority, made by [`PlatformKey::sign_authority`] for the same node and publication.
        authority: String,
    },
    /// A token to read one content.
    Playback(PlaybackRequest),
    /// To take back the tokens of one content that this platform asked for.
    Revoke {
        /// Which.
        content: ContentKey,
    },
    /// To forget receipts that the platform has for good.
    Acknowledge(Acknowledgement),
}

/// How far a platform has the receipts of a log (`docs/receipts.md`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The log, 32 hex digits.
    pub log: String,
    /// The last receipt that it has.
    pub through: u64,
}

impl TokenRequest {
    /// A token to read all of one content.
    pub fn playback(content: ContentKey) -> Self {
        Self::Playback(PlaybackRequest { content, publication: None, scope: Scope::default() })
    }
}

/// What a playback token is to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaybackRequest {
    /// The content.
    pub content: ContentKey,
    /// For which publication of it, if the platform says so: it stands in the receipts.
    pub publication: Option<PublicationId>,
    /// Of the content, what.
    pub scope: Scope,
}

/// A token request in words; [`PlatformKey::sign_request`] makes the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestClaims {
    /// The node that is asked.
    pub node: NodeId,
    /// Its network.
    pub network: NetworkId,
    /// The user's public key, to which the node encrypts the token.
    pub viewer_key: Jwk,
    /// What is asked.
    pub request: TokenRequest,
    /// Now, seconds since 1970.
    pub issued: u64,
    /// How long the request is good, seconds: 1 to [`MAX_REQUEST_LIFETIME`].
    pub lifetime: u64,
}

/// An upload authority in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityClaims {
    /// The only node that may use it.
    pub node: NodeId,
    /// Its network.
    pub network: NetworkId,
    /// The only publication that references may name.
    pub publication: PublicationId,
    /// The most bytes of blocks that one holder stores under it.
    pub bytes: u64,
    /// Now, seconds since 1970.
    pub issued: u64,
    /// How long it is good, seconds: 1 to [`MAX_AUTHORITY_LIFETIME`].
    pub lifetime: u64,
}

/// What the renditions of a file may weigh together: four times the file for high bitrates, and 1 GiB for short files
/// whose renditions outweigh them. A guess; it only has to stop abuse.
const ALLOWANCE_FACTOR: u64 = 4;
const ALLOWANCE_AT_LEAST: u64 = 1 << 30;

impl AuthorityClaims {
    /// The `bytes` for what becomes of a file of so many.
    pub fn allowance(size: u64) -> u64 {
        size.saturating_mul(ALLOWANCE_FACTOR).max(ALLOWANCE_AT_LEAST)
    }
}

impl PlatformKey {
    /// Makes the body of `POST /v1/tokens`, with a fresh nonce.
    pub fn sign_request(&self, claims: &RequestClaims) -> Result<String, SigningError> {
        check_lifetime(claims.lifetime, MAX_REQUEST_LIFETIME)?;
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|_| SigningError::NoRandomness)?;
        let wire = WireRequest::new(self.fingerprint(), claims, nonce);
        self.sign_claims(REQUEST_TYPE, &wire, MAX_REQUEST_BYTES)
    }

    /// Makes an upload authority.
    pub fn sign_authority(&self, claims: &AuthorityClaims) -> Result<String, SigningError> {
        check_lifetime(claims.lifetime, MAX_AUTHORITY_LIFETIME)?;
        let wire = WireAuthority {
            iss: self.fingerprint(),
            net: claims.network,
            aud: claims.node.clone(),
            publication: claims.publication,
            bytes: claims.bytes,
            iat: claims.issued,
            exp: claims.issued.saturating_add(claims.lifetime),
        };
        self.sign_claims(AUTHORITY_TYPE, &wire, MAX_AUTHORITY_BYTES)
    }

    fn sign_claims(&self, media_type: &str, claims: &impl Serialize, max_bytes: usize) -> Result<String, SigningError> {
        let claims = serde_json::to_vec(claims).map_err(|_| SigningError::Encoding)?;
        let input = jws::signing_input(media_type, &self.fingerprint().to_string(), &claims);
        let text = jws::compact(&input, &self.sign(input.as_bytes())?);
        match text.len() <= max_bytes {
            true => Ok(text),
            false => Err(SigningError::TooLong(text.len(), max_bytes)),
        }
    }
}

fn check_lifetime(lifetime: u64, most: u64) -> Result<(), SigningError> {
    match (1..=most).contains(&lifetime) {
        true => Ok(()),
        false => Err(SigningError::LifetimeTooLong(lifetime, most)),
    }
}

/// The claims of a request on the wire. `jwk` stays open here, for a wrong one has an error of its own.
#[derive(Serialize, Deserialize)]
struct WireRequest {
    iss: PlatformFingerprint,
    aud: NodeId,
    net: NetworkId,
    act: String,
    iat: u64,
    exp: u64,
    jti: String,
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    jwk: serde_json::Value,
    #[serde(rename = "pub", skip_serializing_if = "Option::is_none")]
    publication: Option<PublicationId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<ContentKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    renditions: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    through: Option<u64>,
}

impl WireRequest {
    fn new(iss: PlatformFingerprint, claims: &RequestClaims, nonce: [u8; 16]) -> Self {
        let jwk = &claims.viewer_key;
        let mut wire = Self {
            iss,
            aud: claims.node.clone(),
            net: claims.network,
            act: String::new(),
            iat: claims.issued,
            exp: claims.issued.saturating_add(claims.lifetime),
            jti: HEXLOWER.encode(&nonce),
            jwk: serde_json::json!({"kty": jwk.kty, "n": jwk.n, "e": jwk.e}),
            publication: None,
            size: None,
            auth: None,
            content: None,
            renditions: None,
            from_ms: None,
            to_ms: None,
            log: None,
            through: None,
        };
        match &claims.request {
            TokenRequest::Upload { publication, size, authority } => {
                wire.act = "upload".to_owned();
                wire.publication = Some(*publication);
                wire.size = Some(*size);
                wire.auth = Some(authority.clone());
            }
            TokenRequest::Playback(PlaybackRequest { content, publication, scope }) => {
                wire.act = "playback".to_owned();
                wire.content = Some(*content);
                wire.publication = *publication;
                wire.renditions = (!scope.renditions.is_empty()).then(|| scope.renditions.clone());
                (wire.from_ms, wire.to_ms) = scope.lapse.map(|lapse| (lapse.from_ms, lapse.to_ms)).unzip();
            }
            TokenRequest::Revoke { content } => {
                wire.act = "revoke".to_owned();
                wire.content = Some(*content);
                wire.jwk = serde_json::Value::Null;
            }
            TokenRequest::Acknowledge(Acknowledgement { log, through }) => {
                wire.act = "acknowledge".to_owned();
                wire.log = Some(log.clone());
                wire.through = Some(*through);
                wire.jwk = serde_json::Value::Null;
            }
        }
        wire
    }

    /// The action with its own claims; each kind has all of its own and none of the other's.
    fn action(&mut self) -> Option<TokenRequest> {
        let scope = self.scope()?;
        if let ("acknowledge", Some(log), Some(through)) = (self.act.as_str(), self.log.take(), self.through) {
            return Some(TokenRequest::Acknowledge(Acknowledgement { log, through }));
        }
        let members = (self.publication, self.size, self.auth.take(), self.content);
        match (self.act.as_str(), members) {
            ("upload", (Some(publication), Some(size), Some(authority), None)) if scope.is_whole() => {
                Some(TokenRequest::Upload { publication, size, authority })
            }
            ("playback", (publication, None, None, Some(content))) => {
                Some(TokenRequest::Playback(PlaybackRequest { content, publication, scope }))
            }
            ("revoke", (None, None, None, Some(content))) if scope.is_whole() => Some(TokenRequest::Revoke { content }),
            _ => None,
        }
    }

    /// `None` for one that is in no valid form: an empty list of renditions would look like "none" and mean "all".
    fn scope(&mut self) -> Option<Scope> {
        let lapse = match (self.from_ms, self.to_ms) {
            (Some(from_ms), Some(to_ms)) => Some(Lapse { from_ms, to_ms }),
            (None, None) => None,
            _ => return None,
        };
        let renditions = match self.renditions.take() {
            Some(named) if named.is_empty() => return None,
            named => named.unwrap_or_default(),
        };
        Some(Scope { renditions, lapse }).filter(Scope::is_valid)
    }

    fn nonce(&self) -> Option<[u8; 16]> {
        HEXLOWER.decode(self.jti.as_bytes()).ok()?.try_into().ok()
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct WireAuthority {
    iss: PlatformFingerprint,
    net: NetworkId,
    aud: NodeId,
    #[serde(rename = "pub")]
    publication: PublicationId,
    bytes: u64,
    iat: u64,
    exp: u64,
}

/// A request that passed every check.
#[derive(Clone, Debug)]
pub struct VerifiedRequest {
    /// Who asked.
    pub platform: PlatformFingerprint,
    /// For what.
    pub action: VerifiedAction,
}

/// What a verified request asks for.
#[derive(Clone, Debug)]
pub enum VerifiedAction {
    /// A token for one upload, encrypted to this key.
    Upload(VerifiedUpload, ViewerKey),
    /// A token for one content, encrypted to this key.
    Playback(PlaybackRequest, ViewerKey),
    /// The end of the content's tokens.
    Revoke(ContentKey),
    /// The end of receipts.
    Acknowledge(Acknowledgement),
}

/// An upload that a pinned platform wants, with the proof that holders ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedUpload {
    /// The publication and the size of its file.
    pub grant: UploadGrant,
    /// The authority as text, to be shown with each block that is put.
    pub authority_jws: String,
    /// The authority in words.
    pub authority: Authority,
}

/// An authority that passed every check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority {
    /// The only reference that it allows.
    pub reference: Reference,
    /// The most bytes that one holder stores under it.
    pub bytes: u64,
    /// When it ends, seconds since 1970.
    pub expires: u64,
}

/// Checks token requests for one node. Shared between tasks.
pub struct RequestVerifier {
    keys: PinnedKeys,
    node: NodeId,
    network: NetworkId,
    started: u64,
    /// The latest `iat` that an earlier run may have accepted.
    seen_until: u64,
    /// The latest `iat` that was accepted, by this run or an earlier one.
    largest_accepted: AtomicU64,
    max_upload: AtomicU64,
    authorities: AuthorityVerifier,
    deletions: DeletionVerifier,
    nonces: Mutex<ReplayMemory>,
}

impl RequestVerifier {
    /// A verifier for the node `node` of `network`, which started at `started` (seconds since 1970) and takes files of at most
    /// `max_upload` bytes.
    pub fn new(keys: PinnedKeys, node: NodeId, network: NetworkId, started: u64, max_upload: u64) -> Self {
        Self {
            authorities: AuthorityVerifier::new(keys.clone(), network),
            deletions: DeletionVerifier::new(keys.clone(), network),
            keys,
            node,
            network,
            started,
            seen_until: 0,
            largest_accepted: AtomicU64::new(0),
            max_upload: AtomicU64::new(max_upload),
            nonces: Mutex::new(ReplayMemory::new(REPLAY_CAPACITY)),
        }
    }

    /// Refuses also what an earlier run may have accepted: every request with `iat` up to `seen_until`, which is the last that the
    /// earlier run gave to [`crate::NodeBackend::store_seen_until`]; 0 when there was none.
    ///
    /// The start alone is no bound: `iat` may lie 10 s ahead of the node's clock, so a request may be used before a restart and be
    /// no older than the node after it.
    #[must_use]
    pub fn with_seen_until(mut self, seen_until: u64) -> Self {
        if seen_until > self.started.saturating_add(MAX_SEEN_AHEAD) {
            tracing::warn!(seen_until, started = self.started, "the clock was set back since the last run");
            return self;
        }
        self.seen_until = seen_until;
        self.largest_accepted = AtomicU64::new(seen_until);
        self
    }

    /// The latest `iat` that was accepted so far, by this run or an earlier one (seconds since 1970); 0 when there is none.
    pub fn largest_accepted(&self) -> u64 {
        self.largest_accepted.load(Ordering::SeqCst)
    }

    /// The keys that are pinned now, shared with the verifier: [`PinnedKeys::replace`] exchanges them while the memory of nonces stays.
    pub fn keys(&self) -> &PinnedKeys {
        &self.keys
    }

    /// From now on uploads may have so many bytes.
    pub(crate) fn set_max_upload(&self, bytes: u64) {
        self.max_upload.store(bytes, Ordering::Relaxed);
    }

    /// The largest file that an upload may have.
    pub fn max_upload_bytes(&self) -> u64 {
        self.max_upload.load(Ordering::Relaxed)
    }

    /// For the deletion orders of the same platforms.
    pub fn deletions(&self) -> &DeletionVerifier {
        &self.deletions
    }

    /// Checks a request at `now`, in the order of `docs/api.md` §1; the first check that fails names the error. A request whose
    /// nonce was taken is used up, whatever comes of it.
    ///
    /// Errors: those that §1 lists, and `busy` when the memory of nonces is full.
    pub fn verify(&self, jws: &str, now: u64) -> Result<VerifiedRequest, Problem> {
        let parsed = Jws::parse(jws, REQUEST_TYPE, MAX_REQUEST_BYTES).map_err(malformed)?;
        let mut wire: WireRequest = parsed.claims().map_err(malformed)?;
        let action = wire.action().ok_or_else(|| malformed(JwsError::BadClaims))?;
        let nonce = wire.nonce().ok_or_else(|| malformed(JwsError::BadClaims))?;
        let key = pinned_key(&self.keys, &parsed, &wire.iss)?;
        check_signature(&key, &parsed)?;
        self.check_addressee(&wire)?;
        self.check_times(&wire, now)?;
        self.remember(&wire, nonce, now)?;
        let action = match action {
            TokenRequest::Upload { publication, size, authority } => {
                let key = viewer_key(&wire.jwk)?;
                let reference = Reference { platform: wire.iss, publication };
                VerifiedAction::Upload(self.check_upload(UploadGrant { reference, size }, authority, now)?, key)
            }
            TokenRequest::Playback(request) => VerifiedAction::Playback(request, viewer_key(&wire.jwk)?),
            TokenRequest::Revoke { content } => VerifiedAction::Revoke(content),
            TokenRequest::Acknowledge(acknowledgement) => VerifiedAction::Acknowledge(acknowledgement),
        };
        Ok(VerifiedRequest { platform: wire.iss, action })
    }

    fn check_addressee(&self, wire: &WireRequest) -> Result<(), Problem> {
        if wire.net != self.network {
            let detail = format!("This node is a member of the network {}. Ask a node of the right one.", self.network);
            return Err(Problem::new(ErrorKind::WrongNetwork, detail));
        }
        if wire.aud != self.node {
            let detail = format!("This node is {}. Sign a request with that audience.", self.node);
            return Err(Problem::new(ErrorKind::WrongAudience, detail));
        }
        Ok(())
    }

    fn check_times(&self, wire: &WireRequest, now: u64) -> Result<(), Problem> {
        if now >= wire.exp.saturating_add(CLOCK_SKEW) {
            let detail = format!(
                "It ended at {}, and it is {now} here. Sign a new one; if it is new, set the clocks.",
                wire.exp
            );
            return Err(Problem::new(ErrorKind::RequestExpired, detail));
        }
        if wire.iat > now.saturating_add(CLOCK_SKEW) {
            let detail = format!("It was signed at {}, and it is {now} here. Set the clocks.", wire.iat);
            return Err(Problem::new(ErrorKind::RequestFromTheFuture, detail));
        }
        match wire.exp.checked_sub(wire.iat) {
            Some(1..=MAX_REQUEST_LIFETIME) => {}
            _ => {
                let detail = format!("exp - iat must be 1 to {MAX_REQUEST_LIFETIME} seconds. Sign a new one.");
                return Err(Problem::new(ErrorKind::LifetimeTooLong, detail));
            }
        }
        if wire.iat < self.started || wire.iat <= self.seen_until {
            let detail = "This node may have started after the request was used, and cannot tell. Sign a new one; within \
                          seconds of a start, ask again.";
            return Err(Problem::new(ErrorKind::RequestBeforeStart, detail));
        }
        Ok(())
    }

    fn remember(&self, wire: &WireRequest, nonce: [u8; 16], now: u64) -> Result<(), Problem> {
        let until = wire.exp.saturating_add(CLOCK_SKEW);
        let verdict = lock(&self.nonces).remember(NonceKey(wire.iss, nonce), until, now);
        match verdict {
            Verdict::New => {
                self.largest_accepted.fetch_max(wire.iat, Ordering::SeqCst);
                Ok(())
            }
            Verdict::Seen => Err(Problem::new(
                ErrorKind::RequestReplayed,
                "Its nonce was used before. Sign a new request, with a nonce of its own, for each token.",
            )),
            Verdict::Forgotten => Err(Problem::new(
                ErrorKind::RequestExpired,
                "This node's clock was set back, and nonces of that time are forgotten. Sign a new one in a moment.",
            )),
            Verdict::Full => Err(Problem::new(
                ErrorKind::Busy,
                "This node remembers as many requests as it can. Ask again in some seconds, or ask another node.",
            )),
        }
    }

    fn check_upload(&self, grant: UploadGrant, authority_jws: String, now: u64) -> Result<VerifiedUpload, Problem> {
        let authority = self.authorities.verify(&authority_jws, &self.node, now)?;
        if authority.reference != grant.reference {
            return Err(bad_authority("it is for another platform or publication than the request"));
        }
        let most = self.max_upload.load(Ordering::Relaxed);
        if grant.size > most {
            let detail =
                format!("The file has {} bytes and this node takes at most {most}. Ask another node.", grant.size);
            return Err(Problem::new(ErrorKind::UploadTooLarge, detail));
        }
        Ok(VerifiedUpload { grant, authority_jws, authority })
    }
}

fn viewer_key(jwk: &serde_json::Value) -> Result<ViewerKey, Problem> {
    let bad = |detail: String| Problem::new(ErrorKind::BadViewerKey, detail);
    let jwk = Jwk::deserialize(jwk)
        .map_err(|_| bad("jwk must have the texts kty, n and e (RFC 7518 section 6.3).".to_owned()))?;
    ViewerKey::from_jwk(&jwk).map_err(|error| bad(format!("{error}.")))
}

fn pinned_key(keys: &PinnedKeys, jws: &Jws<'_>, issuer: &PlatformFingerprint) -> Result<PlatformPublicKey, Problem> {
    let key = jws.key_id.as_deref().and_then(|key_id| keys.find(key_id));
    key.filter(|key| key.fingerprint() == *issuer).ok_or_else(not_pinned)
}

/// The refusal of a platform that is not pinned here, or no longer.
pub(crate) fn not_pinned() -> Problem {
    Problem::new(
        ErrorKind::PlatformNotPinned,
        "kid and iss must both be the fingerprint of a platform key that this node's operator has pinned. \
         Ask the operator to add the platform's public key.",
    )
}

fn check_signature(key: &PlatformPublicKey, jws: &Jws<'_>) -> Result<(), Problem> {
    match key.verifies(jws.signed, &jws.signature) {
        true => Ok(()),
        false => Err(Problem::new(
            ErrorKind::BadSignature,
            "The signature does not fit the pinned key. Sign header and claims as they are sent, with PS256.",
        )),
    }
}

fn malformed(error: JwsError) -> Problem {
    let detail = format!("The body must be a compact JWS as in docs/api.md, section 1: {error}.");
    Problem::new(ErrorKind::MalformedRequest, detail)
}

fn bad_authority(why: impl std::fmt::Display) -> Problem {
    let detail = format!("The upload authority is refused: {why}. Ask the platform for a new one.");
    Problem::new(ErrorKind::BadAuthority, detail)
}

/// Checks upload authorities, both for the node's own requests and for the blocks that others put. It is shown with each block, so
/// signatures that fitted once are remembered; claims and times are looked at every time.
pub struct AuthorityVerifier {
    keys: PinnedKeys,
    network: NetworkId,
    checked: Mutex<LruCache<[u8; 32], WireAuthority>>,
}

impl AuthorityVerifier {
    /// A verifier for a node of `network` that serves the platforms of `keys`.
    pub fn new(keys: PinnedKeys, network: NetworkId) -> Self {
        const CAPACITY: NonZeroUsize = NonZeroUsize::new(AUTHORITY_CACHE).unwrap();
        Self { keys, network, checked: Mutex::new(LruCache::new(CAPACITY)) }
    }

    /// Whether this node serves the platform.
    pub fn serves(&self, platform: &PlatformFingerprint) -> bool {
        self.keys.contains(platform)
    }

    /// Checks an authority that the peer `shown_by` shows at `now` (seconds since 1970). Which reference a block may have and how
    /// many bytes were used is the caller's to check, with the answer.
    ///
    /// Errors: `bad-authority`; the detail says which check failed.
    pub fn verify(&self, jws: &str, shown_by: &NodeId, now: u64) -> Result<Authority, Problem> {
        let wire = self.signed_claims(jws)?;
        self.check_network(&wire)?;
        if wire.aud != *shown_by {
            return Err(bad_authority(format_args!("it is for the node {} and {shown_by} shows it", wire.aud)));
        }
        match wire.exp.checked_sub(wire.iat) {
            Some(1..=MAX_AUTHORITY_LIFETIME) => {}
            _ => return Err(bad_authority("it must live 1 second to 7 days")),
        }
        if now >= wire.exp {
            return Err(bad_authority(format_args!("it ended at {} and it is {now} here", wire.exp)));
        }
        if wire.iat > now.saturating_add(CLOCK_SKEW) {
            return Err(bad_authority(format_args!("it was signed at {} and it is {now} here", wire.iat)));
        }
        let reference = Reference { platform: wire.iss, publication: wire.publication };
        Ok(Authority { reference, bytes: wire.bytes, expires: wire.exp })
    }

    /// The publication that an authority was signed for, whoever shows it and however long ago it ended: the platform's word that the
    /// publication is one of its own, for the blocks that holders copy from each other (`docs/protocol.md` §10.3).
    ///
    /// Errors: `bad-authority`; the detail says which check failed.
    pub fn verify_kept(&self, jws: &str) -> Result<Reference, Problem> {
        let wire = self.signed_claims(jws)?;
        self.check_network(&wire)?;
        Ok(Reference { platform: wire.iss, publication: wire.publication })
    }

    fn check_network(&self, wire: &WireAuthority) -> Result<(), Problem> {
        if wire.net == self.network { Ok(()) } else { Err(bad_authority("it is for another network")) }
    }

    /// The claims, once form, key and signature are in order.
    fn signed_claims(&self, jws: &str) -> Result<WireAuthority, Problem> {
        if jws.len() > MAX_AUTHORITY_BYTES {
            return Err(bad_authority(JwsError::TooLong(MAX_AUTHORITY_BYTES)));
        }
        let digest: [u8; 32] = Sha256::digest(jws.as_bytes()).into();
        if let Some(wire) = lock(&self.checked).get(&digest) {
            // The signature was good; whether its key is pinned may have changed since.
            return match self.keys.contains(&wire.iss) {
                true => Ok(wire.clone()),
                false => Err(bad_authority(NOT_PINNED_HERE)),
            };
        }
        let wire = self.check_signed(jws)?;
        lock(&self.checked).put(digest, wire.clone());
        Ok(wire)
    }

    fn check_signed(&self, jws: &str) -> Result<WireAuthority, Problem> {
        let parsed = Jws::parse(jws, AUTHORITY_TYPE, MAX_AUTHORITY_BYTES).map_err(bad_authority)?;
        let wire: WireAuthority = parsed.claims().map_err(bad_authority)?;
        let key = parsed.key_id.as_deref().and_then(|key_id| self.keys.find(key_id));
        let key = key.filter(|key| key.fingerprint() == wire.iss);
        let key = key.ok_or_else(|| bad_authority(NOT_PINNED_HERE))?;
        match key.verifies(parsed.signed, &parsed.signature) {
            true => Ok(wire),
            false => Err(bad_authority("its signature does not fit the pinned key")),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Both collections are whole after every statement that could panic, so a poisoned lock is still good.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A nonce is the platform's own: two platforms may draw the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct NonceKey(PlatformFingerprint, [u8; 16]);

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    New,
    Seen,
    /// So old that it may have been dropped from the memory.
    Forgotten,
    Full,
}

/// The nonces of the requests that could still be shown again. A live nonce is never dropped.
struct ReplayMemory {
    until: HashMap<NonceKey, u64>,
    by_end: BTreeSet<(u64, NonceKey)>,
    /// The latest end of a nonce that was dropped: a request that ended no later may be a replay. Only a clock that was set back
    /// lets such a request come this far.
    forgotten: u64,
    capacity: usize,
}

impl ReplayMemory {
    fn new(capacity: usize) -> Self {
        Self { until: HashMap::new(), by_end: BTreeSet::new(), forgotten: 0, capacity }
    }

    /// Takes a nonce that matters until `until`, both in seconds since 1970.
    fn remember(&mut self, key: NonceKey, until: u64, now: u64) -> Verdict {
        self.drop_ended(now);
        if self.until.contains_key(&key) {
            return Verdict::Seen;
        }
        if until <= self.forgotten {
            return Verdict::Forgotten;
        }
        if self.until.len() >= self.capacity {
            return Verdict::Full;
        }
        self.until.insert(key, until);
        self.by_end.insert((until, key));
        Verdict::New
    }

    fn drop_ended(&mut self, now: u64) {
        while let Some((until, key)) = self.by_end.first().copied() {
            if until > now {
                break;
            }
            self.by_end.pop_first();
            self.until.remove(&key);
            self.forgotten = self.forgotten.max(until);
        }
    }
}

#[cfg(test)]
mod tests;
