//! Who is a member, where a network names authorities that say so (`docs/protocol.md` §8).

mod bytes;
mod certificate;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod revocations;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

pub use certificate::{Authority, AuthorityId, AuthorityKey, Certificate, Serial};
pub use revocations::{MAX_REVOKED, RevocationList};

use crate::NetworkError;
use crate::refusals::RefusalReason;
use chunkstore_block::NetworkId;
use libp2p::PeerId;
use lru::LruCache;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

/// The most authorities of a network: one, its successor while the one gives way to the other, and one to spare. Their revocation
/// lists together fit the body of one frame of the block plane.
pub const MAX_AUTHORITIES: usize = 3;
/// How far a certificate's times may be off a reader's clock, in seconds (`docs/protocol.md` §8).
pub const CLOCK_SKEW_S: u64 = 300;
/// How often an open connection's certificate is looked at again: twice within the 10 s that the protocol allows.
const RECHECK: Duration = Duration::from_secs(4);
/// How often one peer is asked for its revocation lists in vain: each answer may have 0.8 MB (`docs/protocol.md` §8).
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// Peers of whom it is known when they were asked; more than a node pings in a minute, 0.3 MB.
const ASKED_PEERS: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();

/// Seconds since 1970 by the clock that the node goes by.
pub type UnixClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What a node knows of membership: the authorities of its network, its own certificate, and what has been revoked.
///
/// Without authorities everybody who has the network key is a member, and nothing is checked.
pub struct Membership {
    network: NetworkId,
    authorities: Vec<AuthorityKey>,
    certificate: RwLock<Option<Certificate>>,
    /// The newest list of each authority.
    revoked: RwLock<BTreeMap<AuthorityId, RevocationList>>,
    /// When each peer was asked for its lists and had nothing new.
    asked: Mutex<LruCache<PeerId, Instant>>,
    clock: UnixClock,
    recheck: Duration,
}

impl Membership {
    /// A network without authorities.
    #[must_use]
    pub fn open(network: NetworkId) -> Self {
        Self {
            network,
            authorities: Vec::new(),
            certificate: RwLock::default(),
            revoked: RwLock::default(),
            asked: Mutex::new(LruCache::new(ASKED_PEERS)),
            clock: Arc::new(|| 0),
            recheck: RECHECK,
        }
    }

    /// A network in which these authorities say who is a member. `certificate` is this node's own.
    ///
    /// # Errors
    /// [`NetworkError::AuthorityCount`] with more than [`MAX_AUTHORITIES`].
    pub fn new(
        network: NetworkId,
        authorities: Vec<AuthorityKey>,
        certificate: Option<Certificate>,
        clock: UnixClock,
    ) -> Result<Self, NetworkError> {
        if authorities.len() > MAX_AUTHORITIES {
            return Err(NetworkError::AuthorityCount(authorities.len()));
        }
        Ok(Self { authorities, certificate: RwLock::new(certificate), clock, ..Self::open(network) })
    }

    /// Looks at open connections this often instead of every 4 s; for tests.
    #[must_use]
    pub fn with_recheck(self, recheck: Duration) -> Self {
        Self { recheck, ..self }
    }

    /// Who says who is a member; empty where nobody does.
    #[must_use]
    pub fn authorities(&self) -> &[AuthorityKey] {
        &self.authorities
    }

    /// This node's own certificate.
    #[must_use]
    pub fn certificate(&self) -> Option<Certificate> {
        read(&self.certificate).clone()
    }

    /// Takes another certificate of this node's, from the next handshake on.
    pub fn set_certificate(&self, certificate: Certificate) {
        *self.certificate.write().unwrap_or_else(PoisonError::into_inner) = Some(certificate);
    }

    /// What this node shows in handshakes: its certificate, or nothing.
    pub(crate) fn attachment(&self) -> Vec<u8> {
        read(&self.certificate).as_ref().map(|own| own.as_bytes().to_vec()).unwrap_or_default()
    }

    /// The time by the clock that was given.
    #[must_use]
    pub fn now(&self) -> u64 {
        (self.clock)()
    }

    /// How often the holder of a connection asks [`Membership::still_admitted`].
    pub(crate) fn recheck_interval(&self) -> Duration {
        self.recheck
    }

    /// Whether a peer, as a handshake has proved it, is a member by what it shows.
    ///
    /// # Errors
    /// [`MembershipError`]: why it is not.
    pub fn admit(&self, peer: PeerId, attachment: &[u8], now: u64) -> Result<Admission, MembershipError> {
        if self.authorities.is_empty() {
            return Ok(Admission { peer, shown: None });
        }
        if attachment.is_empty() {
            return Err(MembershipError::NoCertificate);
        }
        let certificate = Certificate::parse(attachment)?;
        let authority = self.authority(certificate.authority)?;
        if !certificate.is_signed_by(authority) {
            return Err(MembershipError::BadSignature);
        }
        if certificate.network != self.network {
            return Err(MembershipError::OtherNetwork);
        }
        if certificate.peer != peer {
            return Err(MembershipError::OtherPeer);
        }
        if !certificate.is_storage_node() {
            return Err(MembershipError::NotAStorageNode);
        }
        if certificate.not_before > now.saturating_add(CLOCK_SKEW_S) {
            return Err(MembershipError::NotYetValid(certificate.not_before));
        }
        let Certificate { authority, serial, not_after, .. } = certificate;
        let admission = Admission { peer, shown: Some(Shown { authority, serial, not_after }) };
        self.still_admitted(&admission, now)?;
        Ok(admission)
    }

    /// Whether whoever was admitted is a member still.
    ///
    /// # Errors
    /// [`MembershipError::Expired`] or [`MembershipError::Revoked`].
    pub fn still_admitted(&self, admission: &Admission, now: u64) -> Result<(), MembershipError> {
        let Some(Shown { authority, serial, not_after }) = admission.shown else { return Ok(()) };
        if not_after.saturating_add(CLOCK_SKEW_S) < now {
            return Err(MembershipError::Expired(not_after));
        }
        let revoked = read(&self.revoked).get(&authority).is_some_and(|list| list.serials().contains(&serial));
        if revoked { Err(MembershipError::Revoked(serial)) } else { Ok(()) }
    }

    /// Comes back when whoever was admitted is a member no more, with the reason. May be dropped at any time.
    pub(crate) async fn expelled(&self, admission: &Admission) -> MembershipError {
        if admission.shown.is_none() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(self.recheck).await;
            if let Err(error) = self.still_admitted(admission, self.now()) {
                return error;
            }
        }
    }

    /// Whether this node's own certificate would be accepted by others now. When it ends, if the network has
    /// authorities.
    ///
    /// # Errors
    /// [`MembershipError`]: why others would refuse it.
    pub fn own_end(&self, own: PeerId, now: u64) -> Result<Option<u64>, MembershipError> {
        let admission = self.admit(own, &self.attachment(), now)?;
        Ok(admission.shown.map(|shown| shown.not_after))
    }

    /// Grows with every list taken: the sum of the numbers of all authorities' lists. 0 without any.
    #[must_use]
    pub fn revocations_number(&self) -> u64 {
        read(&self.revoked).values().fold(0, |sum, list| list.number().saturating_add(sum))
    }

    /// Tells whether two nodes have the same lists: the first 8 bytes of SHA-256(`"imira/1/lists"` || the lists in ascending order
    /// of their authorities' ids).
    #[must_use]
    pub fn revocations_digest(&self) -> [u8; 8] {
        let mut hash = Sha256::new();
        hash.update(b"imira/1/lists");
        read(&self.revoked).values().for_each(|list| hash.update(list.as_bytes()));
        let whole: [u8; 32] = hash.finalize().into();
        std::array::from_fn(|i| whole[i])
    }

    /// Whether to ask a peer for its lists now, by the number and the digest that it has told (a peer of before tells the number
    /// only). Who has other lists may lack some of ours, and is asked in vain: once a minute at most.
    #[must_use]
    pub fn wants_revocations_of(&self, peer: PeerId, number: u64, digest: Option<[u8; 8]>, now: Instant) -> bool {
        let same = digest.map_or_else(|| number == self.revocations_number(), |it| it == self.revocations_digest());
        if same || self.authorities.is_empty() {
            return false;
        }
        let mut asked = self.asked();
        if asked.peek(&peer).is_some_and(|at| now.saturating_duration_since(*at) < ASK_AGAIN) {
            return false;
        }
        asked.put(peer, now);
        true
    }

    /// Takes what a peer has answered, as [`Membership::offer_revocations`] does. One that had something new may be asked at once
    /// when it tells of other lists again.
    ///
    /// # Errors
    /// As [`Membership::offer_revocations`].
    pub fn take_revocations_of(&self, peer: PeerId, bytes: &[u8]) -> Result<bool, MembershipError> {
        let taken = self.offer_revocations(bytes)?;
        if taken {
            self.asked().pop(&peer);
        }
        Ok(taken)
    }

    fn asked(&self) -> MutexGuard<'_, LruCache<PeerId, Instant>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lists in ascending order of their authorities' ids, one after another; empty without any.
    #[must_use]
    pub fn revocations_bytes(&self) -> Vec<u8> {
        read(&self.revoked).values().flat_map(RevocationList::as_bytes).copied().collect()
    }

    /// Takes those of the lists, one after another, that are newer than what is known. Whether there was one: then
    /// [`Membership::revocations_bytes`] is to be kept on disk. None is taken if any is bad.
    ///
    /// # Errors
    /// [`MembershipError`] when one does not decode or is not by an authority of this network.
    pub fn offer_revocations(&self, bytes: &[u8]) -> Result<bool, MembershipError> {
        let offered = RevocationList::parse_several(bytes, self.authorities.len())?;
        for list in &offered {
            if !list.is_signed_by(self.authority(list.authority)?) {
                return Err(MembershipError::BadSignature);
            }
            if list.network != self.network {
                return Err(MembershipError::OtherNetwork);
            }
        }
        let mut known = self.revoked.write().unwrap_or_else(PoisonError::into_inner);
        let mut taken = false;
        for list in offered {
            if known.get(&list.authority).is_none_or(|old| old.number() < list.number()) {
                known.insert(list.authority, list);
                taken = true;
            }
        }
        Ok(taken)
    }

    fn authority(&self, id: AuthorityId) -> Result<&AuthorityKey, MembershipError> {
        self.authorities.iter().find(|key| key.id() == id).ok_or(MembershipError::UnknownAuthority)
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { authorities, certificate, revoked, .. } = self;
        f.debug_struct("Membership")
            .field("authorities", authorities)
            .field("certificate", &*read(certificate))
            .field("revoked", &*read(revoked))
            .finish_non_exhaustive()
    }
}

/// Nothing is left half done under these locks, so a panic elsewhere does not spoil them.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// A peer that has been let in, and by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    peer: PeerId,
    /// `None` where no certificate is asked for.
    shown: Option<Shown>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shown {
    authority: AuthorityId,
    serial: Serial,
    not_after: u64,
}

impl Admission {
    /// Whom the handshake has proved.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.peer
    }
}

/// Why a peer is not a member, or a certificate or list is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// The network has authorities, and the peer shows nothing.
    #[error("no certificate was shown, and this network asks for one")]
    NoCertificate,
    /// Not the bytes of one.
    #[error("the certificate or revocation list does not decode: {0}")]
    Malformed(&'static str),
    /// Made by somebody whom the network file does not name.
    #[error("it was made by an authority that this network does not name")]
    UnknownAuthority,
    /// It says it is by an authority of ours and is not.
    #[error("its signature is not that of the authority that it names")]
    BadSignature,
    /// For another network.
    #[error("it is for another network")]
    OtherNetwork,
    /// The certificate of somebody else.
    #[error("the certificate is another peer's")]
    OtherPeer,
    /// Not for what a node does.
    #[error("the certificate is not for a storage node")]
    NotAStorageNode,
    /// More than the allowed skew ahead.
    #[error("the certificate holds only from {0} (seconds since 1970); are the clocks right?")]
    NotYetValid(u64),
    /// More than the allowed skew ago.
    #[error("the certificate ended at {0} (seconds since 1970); its authority has to issue a new one")]
    Expired(u64),
    /// Its authority has taken it back.
    #[error("the certificate {0} has been revoked")]
    Revoked(Serial),
}

impl MembershipError {
    /// Under what such a refusal is counted.
    #[must_use]
    pub fn reason(self) -> RefusalReason {
        match self {
            Self::NoCertificate => RefusalReason::NoCertificate,
            Self::Malformed(_)
            | Self::UnknownAuthority
            | Self::BadSignature
            | Self::OtherNetwork
            | Self::OtherPeer
            | Self::NotAStorageNode => RefusalReason::ForeignCertificate,
            Self::NotYetValid(_) | Self::Expired(_) => RefusalReason::ExpiredCertificate,
            Self::Revoked(_) => RefusalReason::RevokedCertificate,
        }
    }

    /// The membership error that is the cause of another error, however deep.
    pub(crate) fn within(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(*found);
            }
            next = error.source();
        }
        None
    }
}
