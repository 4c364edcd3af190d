//! Authorities and what they sign for a member.

use super::MembershipError;
use super::bytes::Reader;
use crate::NetworkError;
use crate::network::random;
use chunkstore_block::NetworkId;
use data_encoding::HEXLOWER;
use libp2p::PeerId;
use libp2p::identity::ed25519;
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;
use zeroize::Zeroizing;

const VERSION: u8 = 1;
pub(super) const SIGNATURE_BYTES: usize = 64;
/// Bit 0 of the roles; the others are 0 in version 1.
const STORAGE_NODE: u8 = 1;
pub(super) const SIGNED_AS: &[u8] = b"imira/1/certificate";

/// The key pair by which its owner says who is a member. Its secret is never shown.
pub struct Authority(ed25519::Keypair);

impl Authority {
    /// A new authority from the operating system's randomness.
    ///
    /// # Errors
    /// [`NetworkError::NoRandomness`] when the system gives none.
    pub fn generate() -> Result<Self, NetworkError> {
        Self::from_seed(Zeroizing::new(random()?))
    }

    /// The authority from the 64 lowercase hex digits of its secret key, as its file holds it.
    ///
    /// # Errors
    /// [`NetworkError::BadAuthority`], which does not repeat the text.
    pub fn from_secret_hex(text: &str) -> Result<Self, NetworkError> {
        let bytes = Zeroizing::new(HEXLOWER.decode(text.as_bytes()).map_err(|_| NetworkError::BadAuthority)?);
        let seed = bytes.as_slice().try_into().map_err(|_| NetworkError::BadAuthority)?;
        Self::from_seed(Zeroizing::new(seed))
    }

    fn from_seed(mut seed: Zeroizing<[u8; 32]>) -> Result<Self, NetworkError> {
        let secret = ed25519::SecretKey::try_from_bytes(seed.as_mut_slice()).map_err(|_| NetworkError::BadAuthority)?;
        Ok(Self(secret.into()))
    }

    /// The secret as its file holds it: 64 lowercase hex digits. For writing that file only.
    #[must_use]
    pub fn to_secret_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(HEXLOWER.encode(self.0.secret().as_ref()))
    }

    /// What others know it by.
    #[must_use]
    pub fn public(&self) -> AuthorityKey {
        AuthorityKey(self.0.public())
    }

    /// Makes a storage node a member of a network, from `not_before` to `not_after`, seconds since 1970.
    ///
    /// # Errors
    /// [`NetworkError::NoRandomness`] when there is none for the serial number.
    pub fn issue(
        &self,
        network: NetworkId,
        peer: PeerId,
        not_before: u64,
        not_after: u64,
    ) -> Result<Certificate, NetworkError> {
        Ok(self.certify(Serial(random()?), network, peer, (not_before, not_after)))
    }

    /// The certificate with this serial number.
    pub(super) fn certify(
        &self,
        serial: Serial,
        network: NetworkId,
        peer: PeerId,
        (not_before, not_after): (u64, u64),
    ) -> Certificate {
        let named = peer.to_bytes();
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.public().id().0);
        bytes.extend_from_slice(network.as_bytes());
        bytes.extend_from_slice(&serial.0);
        bytes.push(STORAGE_NODE);
        bytes.extend_from_slice(&not_before.to_be_bytes());
        bytes.extend_from_slice(&not_after.to_be_bytes());
        // A multihash is at most 66 bytes.
        bytes.extend_from_slice(&(named.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&named);
        let signature = self.sign(SIGNED_AS, &bytes);
        bytes.extend_from_slice(&signature);
        let authority = self.public().id();
        Certificate { authority, network, serial, roles: STORAGE_NODE, not_before, not_after, peer, bytes }
    }

    pub(super) fn sign(&self, as_what: &[u8], bytes: &[u8]) -> Vec<u8> {
        self.0.sign(&[as_what, bytes].concat())
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({}, secret redacted)", self.public())
    }
}

/// An authority's public key; shown as 64 lowercase hex digits.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthorityKey(ed25519::PublicKey);

impl AuthorityKey {
    /// The short name by which certificates and lists say whose they are.
    #[must_use]
    pub fn id(&self) -> AuthorityId {
        let mut hash = Sha256::new();
        hash.update(b"imira/1/authority");
        hash.update(self.0.to_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        let mut id = [0; 8];
        id.copy_from_slice(&digest[..8]);
        AuthorityId(id)
    }

    /// Whether `signed` ends with this authority's signature of `as_what` and all that is before it.
    pub(super) fn has_signed(&self, as_what: &[u8], signed: &[u8]) -> bool {
        let Some((bytes, signature)) = signed.split_last_chunk::<SIGNATURE_BYTES>() else { return false };
        self.0.verify(&[as_what, bytes].concat(), signature)
    }
}

impl fmt::Display for AuthorityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0.to_bytes()))
    }
}

impl fmt::Debug for AuthorityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthorityKey({self})")
    }
}

impl FromStr for AuthorityKey {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| NetworkError::BadAuthority)?;
        ed25519::PublicKey::try_from_bytes(&bytes).map(Self).map_err(|_| NetworkError::BadAuthority)
    }
}

/// First 8 bytes of a hash of an authority's public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuthorityId(pub [u8; 8]);

impl fmt::Debug for AuthorityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthorityId({})", HEXLOWER.encode(&self.0))
    }
}

/// A certificate's random number, by which it is revoked; shown as 32 lowercase hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(pub [u8; 16]);

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({self})")
    }
}

impl FromStr for Serial {
    type Err = MembershipError;

    fn from_str(text: &str) -> Result<Self, MembershipError> {
        let bytes = HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or(MembershipError::Malformed("a serial number is 32 lowercase hex digits"))
    }
}

/// An authority's word that a node is a member, as its bytes say; [`super::Membership::admit`] tells whether it holds.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    pub(super) authority: AuthorityId,
    pub(super) network: NetworkId,
    pub(super) serial: Serial,
    pub(super) roles: u8,
    pub(super) not_before: u64,
    pub(super) not_after: u64,
    pub(super) peer: PeerId,
    bytes: Vec<u8>,
}

impl Certificate {
    /// Reads one. Nothing of it is checked yet but its form.
    ///
    /// # Errors
    /// [`MembershipError::Malformed`] when the bytes are not one certificate of version 1 and nothing else.
    pub fn parse(bytes: &[u8]) -> Result<Self, MembershipError> {
        let mut reader = Reader::new(bytes);
        if reader.array()? != [VERSION] {
            return Err(MembershipError::Malformed("it is not of version 1"));
        }
        let authority = AuthorityId(reader.array()?);
        let network = NetworkId::from_bytes(reader.array()?);
        let serial = Serial(reader.array()?);
        let [roles] = reader.array()?;
        let (not_before, not_after) = (u64::from_be_bytes(reader.array()?), u64::from_be_bytes(reader.array()?));
        let length = usize::from(u16::from_be_bytes(reader.array()?));
        let peer = PeerId::from_bytes(reader.take(length)?);
        let peer = peer.map_err(|_| MembershipError::Malformed("it names no PeerId"))?;
        reader.array::<SIGNATURE_BYTES>()?;
        reader.end()?;
        Ok(Self { authority, network, serial, roles, not_before, not_after, peer, bytes: bytes.to_vec() })
    }

    /// The bytes, as handshakes carry them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// By which it is revoked.
    #[must_use]
    pub fn serial(&self) -> Serial {
        self.serial
    }

    /// Whom it makes a member.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Of which network.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// From when to when, seconds since 1970.
    #[must_use]
    pub fn validity(&self) -> (u64, u64) {
        (self.not_before, self.not_after)
    }

    pub(super) fn is_storage_node(&self) -> bool {
        self.roles & STORAGE_NODE != 0
    }

    pub(super) fn is_signed_by(&self, authority: &AuthorityKey) -> bool {
        authority.has_signed(SIGNED_AS, &self.bytes)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { serial, peer, not_before, not_after, .. } = self;
        write!(f, "Certificate({serial} for {peer}, {not_before} to {not_after})")
    }
}
