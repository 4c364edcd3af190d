//! What a token is good for, and what has become of it since it was issued.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chunkstore_block::{ContentKey, PlatformFingerprint, PublicationId, Reference};

use super::{PLAYBACK_LIFETIME, TokenDigest, UPLOAD_LIFETIME, ViewerKey};
use crate::scope::Scope;
use crate::signing::PlaybackRequest;

/// An upload that a token was issued for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadGrant {
    /// The platform and the publication; the upload id is the publication id.
    pub reference: Reference,
    /// Bytes that the file has, as the platform announced it.
    pub size: u64,
}

/// A content that a token was issued for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaybackGrant {
    /// Who asked for it.
    pub platform: PlatformFingerprint,
    /// What it opens.
    pub content: ContentKey,
    /// Of it, what; `None` for all.
    pub scope: Option<Box<Scope>>,
    /// For which publication, if the platform said so.
    pub publication: Option<PublicationId>,
    /// Thumbprint of the key that it was encrypted to ([`ViewerKey::thumbprint`](super::ViewerKey::thumbprint)).
    pub viewer: [u8; 32],
    /// When it was issued, seconds since 1970.
    pub issued: u64,
}

impl PlaybackGrant {
    /// For what `platform` asked at `issued`, seconds since 1970, on behalf of the viewer with this key.
    pub fn new(platform: PlatformFingerprint, request: PlaybackRequest, viewer: &ViewerKey, issued: u64) -> Self {
        let PlaybackRequest { content, publication, scope } = request;
        let scope = (!scope.is_whole()).then(|| Box::new(scope));
        Self { platform, content, scope, publication, viewer: *viewer.thumbprint(), issued }
    }
}

/// What a token is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// One content.
    Playback(PlaybackGrant),
    /// One upload, and the preview of its content.
    Upload(UploadGrant),
}

impl Grant {
    /// The platform that asked for the token.
    pub fn platform(&self) -> PlatformFingerprint {
        match self {
            Self::Playback(grant) => grant.platform,
            Self::Upload(grant) => grant.reference.platform,
        }
    }

    /// How long a token of this kind lives.
    pub fn lifetime(&self) -> Duration {
        match self {
            Self::Playback(_) => PLAYBACK_LIFETIME,
            Self::Upload(_) => UPLOAD_LIFETIME,
        }
    }
}

/// Why a transfer that was begun in time ends before its last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The token was taken back.
    Revoked,
    /// The token has expired, and what may still go out under it is used up.
    Overtime,
}

/// A token as its table and the transfers under it share it.
#[derive(Debug)]
pub struct Issued {
    pub(crate) grant: Grant,
    pub(crate) digest: TokenDigest,
    pub(crate) expires: Instant,
    revoked: AtomicBool,
    /// Whether the beginning of the film went out.
    started: AtomicBool,
    /// Bytes that were taken after the token's end.
    overtime: AtomicU64,
}

impl Issued {
    pub(crate) fn new(grant: Grant, digest: TokenDigest, now: Instant) -> Self {
        let expires = now + grant.lifetime();
        let (revoked, started) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { grant, digest, expires, revoked, started, overtime: AtomicU64::new(0) }
    }

    /// What it opens.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    pub(super) fn revoke(&self) {
        self.revoked.store(true, Ordering::SeqCst);
    }

    /// Whether it was taken back.
    pub fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::SeqCst)
    }

    /// Notes that the beginning of the film goes out; true the first time.
    pub(crate) fn note_start(&self) -> bool {
        !self.started.swap(true, Ordering::SeqCst)
    }

    /// Asks leave to send `bytes` more at `now`. As long as the token lives there is no limit; after its end all its transfers together
    /// may take `overtime` bytes.
    pub fn take(&self, bytes: u64, now: Instant, overtime: u64) -> Result<(), Cut> {
        if self.is_revoked() {
            return Err(Cut::Revoked);
        }
        if now < self.expires {
            return Ok(());
        }
        let before = self.overtime.fetch_add(bytes, Ordering::SeqCst);
        match before.saturating_add(bytes) <= overtime {
            true => Ok(()),
            false => Err(Cut::Overtime),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_its_end_all_transfers_of_a_token_share_one_allowance() {
        let grant = PlaybackGrant {
            platform: PlatformFingerprint::from_bytes([1; 32]),
            content: ContentKey::from_bytes([5; 32]),
            scope: None,
            publication: None,
            viewer: [7; 32],
            issued: 1,
        };
        let start = Instant::now();
        let issued = Issued::new(Grant::Playback(grant), [0; 32], start);
        let end = start + PLAYBACK_LIFETIME;
        assert_eq!(issued.take(1 << 40, end - Duration::from_nanos(1), 10), Ok(()), "no limit while it lives");
        assert_eq!(issued.take(6, end, 10), Ok(()));
        assert_eq!(issued.take(5, end, 10), Err(Cut::Overtime));
        assert_eq!(issued.take(1, end, 10), Err(Cut::Overtime), "a transfer that was cut gives nothing back");
        issued.revoke();
        assert_eq!(issued.take(1, start, 10), Err(Cut::Revoked));
    }
}
