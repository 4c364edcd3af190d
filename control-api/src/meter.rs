//! What went out under each token, until it is written down (`docs/receipts.md`).

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chunkstore_block::{ContentKey, PlatformFingerprint, PublicationId};

use crate::tokens::{Grant, Issued};

/// What went out under one token since it was last asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Stretch {
    /// Who asked for the token.
    pub platform: PlatformFingerprint,
    /// SHA-256 of the token.
    pub token: [u8; 32],
    /// What was served.
    pub content: ContentKey,
    /// The publication, if the platform said which.
    pub publication: Option<PublicationId>,
    /// Whether it was the owner's preview.
    pub preview: bool,
    /// Thumbprint of the viewer's key, for a playback token.
    pub viewer: Option<[u8; 32]>,
    /// When the token was issued, seconds since 1970; of a preview nobody knows.
    pub issued: Option<u64>,
    /// When the first of these bytes went out, seconds since 1970.
    pub begun: u64,
    /// When the last did.
    pub ended: u64,
    /// Bytes of bodies.
    pub bytes: u64,
    /// How long they play.
    pub played_ms: f64,
    /// Whether the beginning of the film is among them, for the first time under this token.
    pub start: bool,
}

/// Bytes that go out, and what they are.
pub(crate) struct Sent {
    pub(crate) content: ContentKey,
    pub(crate) bytes: u64,
    pub(crate) played_ms: f64,
    pub(crate) start: bool,
    /// Seconds since 1970.
    pub(crate) at: u64,
}

/// Adds up what goes out, by tokens. There are no more than the table of tokens had alive since [`Meter::take`] was last called.
#[derive(Debug, Default)]
pub struct Meter(Mutex<HashMap<[u8; 32], Stretch>>);

impl Meter {
    pub(crate) fn add(&self, issued: &Issued, sent: &Sent) {
        let mut stretches = self.lock();
        let stretch = stretches.entry(issued.digest).or_insert_with(|| empty(issued, sent));
        stretch.ended = stretch.ended.max(sent.at);
        stretch.bytes += sent.bytes;
        stretch.played_ms += sent.played_ms;
        stretch.start |= sent.start;
    }

    /// What was added since the last call, and no longer here from now on.
    pub fn take(&self) -> Vec<Stretch> {
        std::mem::take(&mut *self.lock()).into_values().collect()
    }

    /// Gives back what could not be written down; it is added to what went out since.
    pub fn put_back(&self, stretches: Vec<Stretch>) {
        let mut current = self.lock();
        for old in stretches {
            match current.get_mut(&old.token) {
                None => drop(current.insert(old.token, old)),
                Some(new) => {
                    new.begun = new.begun.min(old.begun);
                    new.bytes += old.bytes;
                    new.played_ms += old.played_ms;
                    new.start |= old.start;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Stretch>> {
        // Whole after every statement that could panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn empty(issued: &Issued, sent: &Sent) -> Stretch {
    let (publication, viewer, at) = match issued.grant() {
        Grant::Playback(grant) => (grant.publication, Some(grant.viewer), Some(grant.issued)),
        Grant::Upload(grant) => (Some(grant.reference.publication), None, None),
    };
    Stretch {
        platform: issued.grant().platform(),
        token: issued.digest,
        content: sent.content,
        publication,
        preview: viewer.is_none(),
        viewer,
        issued: at,
        begun: sent.at,
        ended: sent.at,
        bytes: 0,
        played_ms: 0.0,
        start: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::UploadGrant;
    use chunkstore_block::Reference;
    use std::time::Instant;

    #[test]
    fn what_is_taken_and_given_back_is_counted_once() {
        let reference = Reference {
            platform: PlatformFingerprint::from_bytes([1; 32]),
            publication: PublicationId::from_bytes([2; 16]),
        };
        let issued = Issued::new(Grant::Upload(UploadGrant { reference, size: 1 }), [3; 32], Instant::now());
        let sent =
            |bytes, at, start| Sent { content: ContentKey::from_bytes([4; 32]), bytes, played_ms: 2.0, start, at };
        let meter = Meter::default();
        meter.add(&issued, &sent(10, 100, true));
        meter.add(&issued, &sent(5, 103, false));
        let taken = meter.take();
        assert_eq!(taken.len(), 1);
        assert_eq!((taken[0].bytes, taken[0].begun, taken[0].ended, taken[0].start), (15, 100, 103, true));
        assert!(meter.take().is_empty());
        meter.add(&issued, &sent(1, 110, false));
        meter.put_back(taken);
        let both = meter.take();
        assert_eq!((both[0].bytes, both[0].begun, both[0].ended, both[0].start), (16, 100, 110, true));
        assert_eq!(both[0].played_ms, 6.0);
    }
}
