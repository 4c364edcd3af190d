//! The platform's RSA key: the private half signs, the public half is what nodes pin.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeySize, PublicKey};
use aws_lc_rs::signature::{KeyPair as _, RSA_PSS_2048_8192_SHA256, RSA_PSS_SHA256, RsaKeyPair, UnparsedPublicKey};
use chunkstore_block::PlatformFingerprint;
use pkcs8::der::pem::LineEnding;
use pkcs8::{Document, SecretDocument};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Sizes of a platform key in bits (`docs/api.md` §1).
const KEY_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// Why a platform key could not be made, read or used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// Not PEM, or of another label.
    #[error("this is no PEM file with one {0} block; give the file that the platform wrote for this purpose")]
    NotPem(&'static str),
    /// Not an RSA key.
    #[error("the key is refused: it is not an RSA key in {0}")]
    NotRsa(&'static str),
    /// An RSA key of a size that is not allowed.
    #[error("the key is refused: it has {0} bits and must have 2,048 to 4,096; generate a new one")]
    WrongSize(usize),
    /// Key generation failed.
    #[error("the RSA key could not be generated; see the kernel's log for the random number generator")]
    GenerationFailed,
    /// Signing failed.
    #[error("the signature could not be made; this is a defect of the RSA library or of the key")]
    SigningFailed,
}

/// Sizes of new keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlatformKeySize {
    /// 2,048 bits.
    Rsa2048,
    /// 3,072 bits.
    Rsa3072,
}

/// The platform's private key. Shared by clones of an `Arc`; never shown by `Debug`.
pub struct PlatformKey {
    pair: RsaKeyPair,
    public: PlatformPublicKey,
}

impl fmt::Debug for PlatformKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlatformKey(private part redacted, {:?})", self.public)
    }
}

impl PlatformKey {
    /// A new key. Takes up to a second of processor time: not for an async task.
    pub fn generate(size: PlatformKeySize) -> Result<Self, KeyError> {
        let size = match size {
            PlatformKeySize::Rsa2048 => KeySize::Rsa2048,
            PlatformKeySize::Rsa3072 => KeySize::Rsa3072,
        };
        let pair = RsaKeyPair::generate(size).map_err(|_| KeyError::GenerationFailed)?;
        Self::new(pair)
    }

    /// Reads PKCS#8 PEM (`PRIVATE KEY`).
    pub fn from_pkcs8_pem(pem: &str) -> Result<Self, KeyError> {
        const LABEL: &str = "PRIVATE KEY";
        let (label, document) = SecretDocument::from_pem(pem).map_err(|_| KeyError::NotPem(LABEL))?;
        if label != LABEL {
            return Err(KeyError::NotPem(LABEL));
        }
        let pair = RsaKeyPair::from_pkcs8(document.as_bytes()).map_err(|_| KeyError::NotRsa("PKCS#8"))?;
        Self::new(pair)
    }

    /// Writes PKCS#8 PEM, wiped when dropped. Keep the file readable by the platform alone (mode 0600).
    pub fn to_pkcs8_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&self.pair).map_err(|_| KeyError::NotRsa("PKCS#8"))?;
        let document = SecretDocument::try_from(der.as_ref()).map_err(|_| KeyError::NotRsa("PKCS#8"))?;
        document.to_pem("PRIVATE KEY", LineEnding::LF).map_err(|_| KeyError::NotRsa("PKCS#8"))
    }

    /// The half that nodes pin.
    pub fn public_key(&self) -> &PlatformPublicKey {
        &self.public
    }

    /// SHA-256 of the public key: the platform's name in every request.
    pub fn fingerprint(&self) -> PlatformFingerprint {
        self.public.fingerprint()
    }

    fn new(pair: RsaKeyPair) -> Result<Self, KeyError> {
        let der = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).map_err(|_| KeyError::NotRsa("PKCS#8"))?;
        let public = PlatformPublicKey::from_spki_der(der.as_ref())?;
        Ok(Self { pair, public })
    }

    /// RSASSA-PSS, SHA-256, salt of 32 bytes.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        let signed = self.pair.sign(&RSA_PSS_SHA256, &SystemRandom::new(), message, &mut signature);
        signed.map(|()| signature).map_err(|_| KeyError::SigningFailed)
    }
}

/// A platform's public key, as a node pins it. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct PlatformPublicKey {
    spki_der: Arc<[u8]>,
    fingerprint: PlatformFingerprint,
}

impl fmt::Debug for PlatformPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlatformPublicKey({})", self.fingerprint)
    }
}

impl PlatformPublicKey {
    /// Reads SubjectPublicKeyInfo PEM (`PUBLIC KEY`); refuses keys that are not RSA of 2,048 to 4,096 bits.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        const LABEL: &str = "PUBLIC KEY";
        let (label, document) = Document::from_pem(pem).map_err(|_| KeyError::NotPem(LABEL))?;
        match label {
            LABEL => Self::from_spki_der(document.as_bytes()),
            _ => Err(KeyError::NotPem(LABEL)),
        }
    }

    /// Reads DER SubjectPublicKeyInfo. The fingerprint is taken over the canonical form, so that one key has one name.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, KeyError> {
        let not_rsa = || KeyError::NotRsa("SubjectPublicKeyInfo");
        let key = PublicKey::from_der(der).map_err(|_| not_rsa())?;
        let modulus = key.modulus().big_endian_without_leading_zero();
        let bits = modulus.len() * 8 - modulus.first().map_or(0, |first| first.leading_zeros() as usize);
        if !KEY_BITS.contains(&bits) {
            return Err(KeyError::WrongSize(bits));
        }
        let canonical = AsDer::<PublicKeyX509Der<'_>>::as_der(&key).map_err(|_| not_rsa())?;
        let digest: [u8; 32] = Sha256::digest(canonical.as_ref()).into();
        Ok(Self { spki_der: Arc::from(canonical.as_ref()), fingerprint: PlatformFingerprint::from_bytes(digest) })
    }

    /// Writes SubjectPublicKeyInfo PEM, for the node's configuration.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        let document =
            Document::try_from(self.spki_der.as_ref()).map_err(|_| KeyError::NotRsa("SubjectPublicKeyInfo"))?;
        document.to_pem("PUBLIC KEY", LineEnding::LF).map_err(|_| KeyError::NotRsa("SubjectPublicKeyInfo"))
    }

    /// DER SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    /// SHA-256 of the DER SubjectPublicKeyInfo.
    pub fn fingerprint(&self) -> PlatformFingerprint {
        self.fingerprint
    }

    /// Whether `signature` is this key's over `message` (RSASSA-PSS, SHA-256).
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        // The size was checked when the key was read; AWS-LC parses SubjectPublicKeyInfo as it is.
        UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, &self.spki_der).verify(message, signature).is_ok()
    }
}

/// The platform keys that a node serves: one or a few, each once. Clones share the set: [`PinnedKeys::replace`] of one changes it for every
/// verifier that has another.
#[derive(Clone, Debug, Default)]
pub struct PinnedKeys(Arc<RwLock<Vec<PlatformPublicKey>>>);

impl PinnedKeys {
    /// Pins these keys; a key given twice is pinned once.
    pub fn new(keys: impl IntoIterator<Item = PlatformPublicKey>) -> Self {
        let pinned = Self::default();
        pinned.replace(keys);
        pinned
    }

    /// Pins these keys from now on and no others. The platforms that were pinned until now and are no longer.
    ///
    /// What was issued to those is not ended here: [`crate::AppState::replace_keys`] does both.
    pub fn replace(&self, keys: impl IntoIterator<Item = PlatformPublicKey>) -> Vec<PlatformFingerprint> {
        let mut pinned: Vec<PlatformPublicKey> = Vec::new();
        for key in keys {
            if !pinned.contains(&key) {
                pinned.push(key);
            }
        }
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *current, pinned);
        before.iter().filter(|key| !current.contains(key)).map(PlatformPublicKey::fingerprint).collect()
    }

    /// The pinned key with this fingerprint in hex.
    pub(crate) fn find(&self, key_id: &str) -> Option<PlatformPublicKey> {
        let fingerprint = key_id.parse::<PlatformFingerprint>().ok()?;
        self.read().iter().find(|key| key.fingerprint == fingerprint).cloned()
    }

    /// Whether this platform's key is pinned.
    pub fn contains(&self, platform: &PlatformFingerprint) -> bool {
        self.read().iter().any(|key| key.fingerprint == *platform)
    }

    /// The keys, in no order that means anything.
    pub fn keys(&self) -> Vec<PlatformPublicKey> {
        self.read().clone()
    }

    /// The platforms that are served, each by the fingerprint of its key.
    pub fn fingerprints(&self) -> Vec<PlatformFingerprint> {
        self.read().iter().map(PlatformPublicKey::fingerprint).collect()
    }

    /// Whether no key is pinned, so that every request is refused.
    pub fn is_empty(&self) -> bool {
        self.read().is_empty()
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<PlatformPublicKey>> {
        // The set is exchanged in one step, so a panic elsewhere does not spoil it.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}
