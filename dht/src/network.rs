//! The network id, the network key, and the keys derived from it (`docs/protocol.md` §1).

use crate::Membership;
use chunkstore_block::NetworkId;
use data_encoding::HEXLOWER;
use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// The most keys a member holds: the current one and, during a rotation, the previous one.
const MAX_KEYS: usize = 2;

/// 256 random bits that all members of a network share. Never shown: `Debug` is redacted, there is no `Display`.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct NetworkKey([u8; 32]);

impl NetworkKey {
    /// A new key from the operating system's randomness.
    ///
    /// # Errors
    /// [`NetworkError::NoRandomness`] when the system gives none.
    pub fn generate() -> Result<Self, NetworkError> {
        random().map(Self)
    }

    /// The key from its 64 lowercase hex digits, as a network file holds it.
    ///
    /// # Errors
    /// [`NetworkError::BadKey`], which does not repeat the text.
    pub fn from_hex(text: &str) -> Result<Self, NetworkError> {
        let bytes = Zeroizing::new(HEXLOWER.decode(text.as_bytes()).map_err(|_| NetworkError::BadKey)?);
        bytes.as_slice().try_into().map(Self).map_err(|_| NetworkError::BadKey)
    }

    /// The key as a network file holds it: 64 lowercase hex digits. For writing that file only.
    #[must_use]
    pub fn to_secret_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(HEXLOWER.encode(&self.0))
    }

    /// The key id: tells which key is meant without giving it away.
    #[must_use]
    pub fn id(&self, network: &NetworkId) -> KeyId {
        let mut hash = Sha256::new();
        hash.update(b"imira/1/key-id");
        hash.update(network.as_bytes());
        hash.update(self.0);
        let digest: [u8; 32] = hash.finalize().into();
        let mut id = [0; 8];
        id.copy_from_slice(&digest[..8]);
        KeyId(id)
    }

    /// Key of the MACs of the gate.
    pub(crate) fn gate_key(&self, network: &NetworkId) -> Zeroizing<[u8; 32]> {
        self.derive(network.as_bytes(), b"imira/1/gate")
    }

    /// The psk of the block plane's Noise handshake.
    pub(crate) fn blocks_psk(&self, network: &NetworkId) -> Zeroizing<[u8; 32]> {
        self.derive(network.as_bytes(), b"imira/1/blocks")
    }

    /// The secret from which the streams of one gated connection are sealed; `transcript` is H of the gate.
    pub(crate) fn session_secret(&self, transcript: &[u8; 32]) -> Zeroizing<[u8; 32]> {
        self.derive(transcript, b"imira/1/session")
    }

    fn derive(&self, salt: &[u8], info: &[u8]) -> Zeroizing<[u8; 32]> {
        expand(&Hkdf::<Sha256>::new(Some(salt), &self.0), info)
    }
}

impl fmt::Debug for NetworkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetworkKey(redacted)")
    }
}

/// One HKDF-Expand step to 32 bytes.
pub(crate) fn expand(hkdf: &Hkdf<Sha256>, info: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    #[allow(clippy::expect_used)] // RFC 5869: only lengths over 255 x 32 bytes are refused.
    hkdf.expand(info, key.as_mut_slice()).expect("32 bytes are within HKDF's limit");
    key
}

/// First 8 bytes of a hash of the key; public.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyId(pub [u8; 8]);

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({})", HEXLOWER.encode(&self.0))
    }
}

/// A network as a member knows it: its id, one or two live keys, the current one first, and who is a member.
#[derive(Clone, Debug)]
pub struct Network {
    id: NetworkId,
    keys: Vec<NetworkKey>,
    membership: Arc<Membership>,
}

impl Network {
    /// A network with its keys, the current one first. Whoever has a key is a member, until
    /// [`Network::with_membership`] says otherwise.
    ///
    /// # Errors
    /// [`NetworkError::KeyCount`] unless there are one or two keys.
    pub fn new(id: NetworkId, keys: Vec<NetworkKey>) -> Result<Self, NetworkError> {
        if keys.is_empty() || keys.len() > MAX_KEYS {
            return Err(NetworkError::KeyCount(keys.len()));
        }
        Ok(Self { id, keys, membership: Arc::new(Membership::open(id)) })
    }

    /// The same network, with this membership; the handle stays useful to its giver.
    #[must_use]
    pub fn with_membership(self, membership: Arc<Membership>) -> Self {
        Self { membership, ..self }
    }

    /// Who is a member.
    #[must_use]
    pub fn membership(&self) -> &Arc<Membership> {
        &self.membership
    }

    /// The network with a new current key; the one that was current is its previous one.
    ///
    /// # Errors
    /// [`NetworkError::StillRotating`] when there is a previous one already: members may not have the current one yet.
    pub fn rotate(self) -> Result<Self, NetworkError> {
        let [current] = self.keys.as_slice() else { return Err(NetworkError::StillRotating) };
        let keys = vec![NetworkKey::generate()?, current.clone()];
        Ok(Self { keys, ..self })
    }

    /// The network without its previous key.
    ///
    /// # Errors
    /// [`NetworkError::NotRotating`] when there is none.
    pub fn retire(self) -> Result<Self, NetworkError> {
        let [current, _previous] = self.keys.as_slice() else { return Err(NetworkError::NotRotating) };
        let keys = vec![current.clone()];
        Ok(Self { keys, ..self })
    }

    /// A new network with a random id and key.
    ///
    /// # Errors
    /// [`NetworkError::NoRandomness`] when the system gives none.
    pub fn generate() -> Result<Self, NetworkError> {
        Self::new(NetworkId::from_bytes(random()?), vec![NetworkKey::generate()?])
    }

    /// The network's public name.
    #[must_use]
    pub fn id(&self) -> NetworkId {
        self.id
    }

    /// The live keys, the current one first; one or two.
    #[must_use]
    pub fn keys(&self) -> &[NetworkKey] {
        &self.keys
    }

    /// The live key with this id.
    pub(crate) fn key_by_id(&self, id: KeyId) -> Option<&NetworkKey> {
        self.keys.iter().find(|key| key.id(&self.id) == id)
    }
}

/// Bytes from the operating system, for nonces.
///
/// # Errors
/// [`NetworkError::NoRandomness`] when the system gives none.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], NetworkError> {
    random()
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], NetworkError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| NetworkError::NoRandomness)?;
    Ok(bytes)
}

/// Why a network or its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The text is not a key.
    #[error("a network key is 64 lowercase hex digits; the one given is not (it is not repeated here)")]
    BadKey,
    /// None, or too many.
    #[error("a network has one key, or two during a rotation; {0} were given")]
    KeyCount(usize),
    /// A rotation is under way.
    #[error("the network has a previous key still; retire that first, when every node has the current one")]
    StillRotating,
    /// No rotation is under way.
    #[error("the network has one key only; there is none to retire")]
    NotRotating,
    /// The text is not an authority's key.
    #[error("an authority's key is 64 lowercase hex digits; the one given is not (it is not repeated here)")]
    BadAuthority,
    /// More than a network may name.
    #[error("a network names at most 3 authorities; {0} were given")]
    AuthorityCount(usize),
    /// The system has no randomness to give.
    #[error("the operating system gives no random bytes")]
    NoRandomness,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_key() {
        let network = Network::generate().unwrap();
        let shown = format!("{network:?}");
        assert!(!shown.contains(network.keys()[0].to_secret_hex().as_str()), "{shown}");
        assert!(shown.contains("redacted"));
    }

    #[test]
    fn hex_round_trip_and_refusals() {
        let key = NetworkKey::generate().unwrap();
        let again = NetworkKey::from_hex(&key.to_secret_hex()).unwrap();
        assert_eq!(*key.to_secret_hex(), *again.to_secret_hex());
        for bad in ["", "ab", &"AB".repeat(32), &"zz".repeat(32), &"ab".repeat(33)] {
            assert!(matches!(NetworkKey::from_hex(bad), Err(NetworkError::BadKey)), "{bad}");
        }
    }

    #[test]
    fn a_rotation_keeps_the_old_key_until_it_is_retired() {
        let old = Network::generate().unwrap();
        let hex =
            |network: &Network| network.keys().iter().map(|key| key.to_secret_hex().to_string()).collect::<Vec<_>>();
        let during = old.clone().rotate().unwrap();
        assert_eq!((during.id(), hex(&during).len(), &hex(&during)[1]), (old.id(), 2, &hex(&old)[0]));
        assert!(matches!(during.clone().rotate(), Err(NetworkError::StillRotating)));
        let after = during.clone().retire().unwrap();
        assert_eq!(hex(&after), hex(&during)[..1]);
        assert!(matches!(after.retire(), Err(NetworkError::NotRotating)));
    }

    #[test]
    fn derived_keys_differ_by_use_and_network() {
        let (a, b) = (NetworkId::from_bytes([1; 16]), NetworkId::from_bytes([2; 16]));
        let key = NetworkKey::generate().unwrap();
        assert_ne!(*key.gate_key(&a), *key.blocks_psk(&a));
        assert_ne!(*key.gate_key(&a), *key.gate_key(&b));
        assert_ne!(key.id(&a), key.id(&b));
    }
}
