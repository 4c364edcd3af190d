//! Tokens (`docs/api.md` §2): what they are, who may still use them, and how they travel to the one user who may read them.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use aws_lc_rs::signature::{KeyPair as _, RsaKeyPair};
use chunkstore_block::{ContentKey, PublicationId, Reference};
use data_encoding::BASE64URL_NOPAD;
use rsa::{BigUint, Oaep, RsaPublicKey};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::problem::{ErrorKind, Problem};
use crate::types::Jwk;

/// How long a playback token lives (white paper 4.2: "a time lapse of about 30 seconds").
pub const PLAYBACK_LIFETIME: Duration = Duration::from_secs(30);

/// How long an upload token lives (`docs/api.md` §2).
pub const UPLOAD_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// How long an expired token is remembered, so that its holder reads `token-expired` and not `token-unknown`. A guess: ten
/// lifetimes of a playback token.
const REMEMBER_EXPIRED: Duration = Duration::from_secs(300);

/// Tokens, live and remembered, that one table holds: 100,000 viewers who renew every 30 s, and as many remembered. About 50 MB.
const TABLE_CAPACITY: usize = 262_144;

/// Bytes of randomness in a token.
const TOKEN_BYTES: usize = 32;

/// Characters of a token: 32 bytes in base64url without padding.
pub const TOKEN_CHARACTERS: usize = 43;

/// 256 random bits that open one content for 30 s or one upload for 24 h. Whoever has it may use it: it is a secret, has no
/// `Display`, and is wiped from memory when dropped.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

impl Token {
    /// A new token from the system's randomness.
    pub fn generate() -> Result<Self, TokenError> {
        let mut bytes = Zeroizing::new([0; TOKEN_BYTES]);
        getrandom::fill(bytes.as_mut()).map_err(|_| TokenError::NoRandomness)?;
        Ok(Self(Zeroizing::new(BASE64URL_NOPAD.encode(bytes.as_ref()))))
    }

    /// Reads the 43 characters; refuses every other text without repeating it.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        if text.len() != TOKEN_CHARACTERS {
            return Err(TokenError::NotAToken);
        }
        BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| TokenError::NotAToken)?;
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// The 43 characters, for a URL or an `Authorization` header and nowhere else.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What the table stores and compares: an attacker who times the comparison learns about a hash, not about a token.
    fn digest(&self) -> TokenDigest {
        Sha256::digest(self.0.as_bytes()).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

/// Why a token or a user's key could not be made or read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TokenError {
    /// The text is no token.
    #[error("this is no token: a token is {TOKEN_CHARACTERS} characters of base64url")]
    NotAToken,
    /// The system gave no randomness.
    #[error("the system gave no random bytes, so no token can be made; see the kernel's log")]
    NoRandomness,
    /// The JWK is not usable.
    #[error("the user's key is refused: {0}; give an RSA key of 2,048 to 4,096 bits as a JWK (RFC 7518 section 6.3)")]
    BadViewerKey(&'static str),
    /// The private key is not usable.
    #[error("the user's private key is refused: it must be RSA of 2,048 to 4,096 bits in PKCS#8 DER")]
    BadUserKey,
    /// The ciphertext does not open.
    #[error(
        "the encrypted token does not open with this key: it was made for another key, or damaged; ask for a new one"
    )]
    Undecipherable,
    /// RSA failed inside the library.
    #[error("RSA encryption failed in the library; this is a defect of the node")]
    EncryptionFailed,
    /// Key generation failed inside the library.
    #[error("the RSA key could not be generated; see the kernel's log for the random number generator")]
    GenerationFailed,
}

type TokenDigest = [u8; 32];

/// An upload that a token was issued for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadGrant {
    /// The platform and the publication; the upload id is the publication id.
    pub reference: Reference,
    /// Bytes that the file has, as the platform announced it.
    pub size: u64,
}

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// One content.
    Playback(ContentKey),
    /// One upload, and the preview of its content.
    Upload(UploadGrant),
}

/// A live token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveToken {
    /// What it opens.
    pub grant: Grant,
    /// How long it still lives; never zero.
    pub remaining: Duration,
}

/// The tokens that a node has issued. Shared between tasks; holds SHA-256 of each token, never the token. Time is an argument
/// (monotonic, so that a clock that is set neither ends nor extends a token).
pub struct TokenTable {
    tokens: Mutex<Tokens>,
    capacity: usize,
}

#[derive(Default)]
struct Tokens {
    entries: HashMap<TokenDigest, Entry>,
    /// The same tokens by expiry, the earliest first.
    by_expiry: BTreeSet<(Instant, TokenDigest)>,
    /// The one live token of each upload.
    uploads: HashMap<PublicationId, TokenDigest>,
}

struct Entry {
    grant: Grant,
    expires: Instant,
}

impl Default for TokenTable {
    fn default() -> Self {
        Self::with_capacity(TABLE_CAPACITY)
    }
}

impl TokenTable {
    /// A table of at most `capacity` tokens, live and remembered.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { tokens: Mutex::default(), capacity }
    }

    /// Issues a token for one content, good until `now` + [`PLAYBACK_LIFETIME`].
    ///
    /// Errors: `busy` when the table is full of live tokens, `internal` without randomness.
    pub fn issue_playback(&self, content: ContentKey, now: Instant) -> Result<Token, Problem> {
        let token = Token::generate().map_err(|error| Problem::internal(&error))?;
        let mut tokens = self.lock();
        tokens.make_room(now, self.capacity)?;
        tokens.insert(token.digest(), Entry { grant: Grant::Playback(content), expires: now + PLAYBACK_LIFETIME });
        Ok(token)
    }

    /// Issues a token for one upload, good until `now` + [`UPLOAD_LIFETIME`], and ends the upload's earlier one.
    ///
    /// Errors: as [`TokenTable::issue_playback`], and `upload-exists` when another platform uses this publication id.
    pub fn issue_upload(&self, grant: UploadGrant, now: Instant) -> Result<Token, Problem> {
        let token = Token::generate().map_err(|error| Problem::internal(&error))?;
        let mut tokens = self.lock();
        tokens.refuse_foreign(&grant)?;
        tokens.make_room(now, self.capacity)?;
        tokens.end_upload(grant.reference.publication);
        tokens.insert(token.digest(), Entry { grant: Grant::Upload(grant), expires: now + UPLOAD_LIFETIME });
        Ok(token)
    }

    /// What the token opens at `now`.
    ///
    /// Errors: `token-expired` for one that was good once and is still remembered, `token-unknown` for any other.
    pub fn lookup(&self, token: &Token, now: Instant) -> Result<LiveToken, Problem> {
        let tokens = self.lock();
        let entry = tokens.entries.get(&token.digest()).ok_or_else(unknown)?;
        match entry.expires.checked_duration_since(now) {
            Some(remaining) if !remaining.is_zero() => Ok(LiveToken { grant: entry.grant, remaining }),
            _ => Err(expired(&entry.grant)),
        }
    }

    /// Forgets a token at once; true when it was there.
    pub fn revoke(&self, token: &Token) -> bool {
        self.lock().remove(&token.digest())
    }

    /// Tokens held, live and remembered.
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Whether no token is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Tokens> {
        // No holder of the lock leaves the three collections half changed, so a panic elsewhere does not spoil them.
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tokens {
    fn insert(&mut self, digest: TokenDigest, entry: Entry) {
        self.by_expiry.insert((entry.expires, digest));
        if let Grant::Upload(grant) = entry.grant {
            self.uploads.insert(grant.reference.publication, digest);
        }
        self.entries.insert(digest, entry);
    }

    fn remove(&mut self, digest: &TokenDigest) -> bool {
        let Some(entry) = self.entries.remove(digest) else { return false };
        self.by_expiry.remove(&(entry.expires, *digest));
        if let Grant::Upload(grant) = entry.grant {
            let publication = grant.reference.publication;
            if self.uploads.get(&publication) == Some(digest) {
                self.uploads.remove(&publication);
            }
        }
        true
    }

    /// Drops what expired more than [`REMEMBER_EXPIRED`] ago.
    fn forget_old(&mut self, now: Instant) {
        while let Some((expires, digest)) = self.by_expiry.first().copied() {
            if expires + REMEMBER_EXPIRED > now {
                break;
            }
            self.remove(&digest);
        }
    }

    /// Gives up the memory of an expired token when the table is full; a live token is never given up.
    fn make_room(&mut self, now: Instant, capacity: usize) -> Result<(), Problem> {
        self.forget_old(now);
        if self.entries.len() < capacity {
            return Ok(());
        }
        match self.by_expiry.first().copied() {
            Some((expires, digest)) if expires <= now => {
                self.remove(&digest);
                Ok(())
            }
            _ => Err(Problem::new(
                ErrorKind::Busy,
                format!(
                    "All {capacity} tokens of this node are in use. Ask again in some seconds, or ask another node."
                ),
            )),
        }
    }

    /// A second platform that names another's publication must not take over its upload.
    fn refuse_foreign(&self, grant: &UploadGrant) -> Result<(), Problem> {
        let earlier = self.uploads.get(&grant.reference.publication).and_then(|digest| self.entries.get(digest));
        match earlier.map(|entry| entry.grant) {
            Some(Grant::Upload(earlier)) if earlier.reference.platform != grant.reference.platform => {
                Err(Problem::new(
                    ErrorKind::UploadExists,
                    "Another platform uses this publication id here. Make a new random publication id.",
                ))
            }
            _ => Ok(()),
        }
    }

    fn end_upload(&mut self, publication: PublicationId) {
        if let Some(digest) = self.uploads.get(&publication).copied() {
            self.remove(&digest);
        }
    }
}

fn unknown() -> Problem {
    Problem::new(
        ErrorKind::TokenUnknown,
        "This node never issued the token, or forgot it after it expired. Ask the platform for a new one.",
    )
}

fn expired(grant: &Grant) -> Problem {
    let lifetime = match grant {
        Grant::Playback(_) => PLAYBACK_LIFETIME,
        Grant::Upload(_) => UPLOAD_LIFETIME,
    };
    Problem::new(
        ErrorKind::TokenExpired,
        format!("Tokens live for {} seconds. Ask the platform for a new one.", lifetime.as_secs()),
    )
}

/// A user's public key that a token may be encrypted to: RSA, 2,048 to 4,096 bits, checked.
#[derive(Clone, Debug)]
pub struct ViewerKey(RsaPublicKey);

impl ViewerKey {
    /// Checks a JWK: `kty`, base64url without padding and without leading zero octets (RFC 7518 §6.3.1), 2,048 to 4,096 bits, odd
    /// modulus, odd exponent of 3 to 2^32.
    pub fn from_jwk(jwk: &Jwk) -> Result<Self, TokenError> {
        let refuse = TokenError::BadViewerKey;
        if jwk.kty != "RSA" {
            return Err(refuse("kty is not RSA"));
        }
        let n = unsigned(&jwk.n).ok_or(refuse("n is not base64url of an unsigned integer"))?;
        let e = unsigned(&jwk.e).ok_or(refuse("e is not base64url of an unsigned integer"))?;
        let bits = n.len() * 8 - n.first().map_or(0, |first| first.leading_zeros() as usize);
        if !(2048..=4096).contains(&bits) {
            return Err(refuse("n has not 2,048 to 4,096 bits"));
        }
        if n.last().is_none_or(|last| last % 2 == 0) {
            return Err(refuse("n is even"));
        }
        if e.len() > 4 || e.last().is_none_or(|last| last % 2 == 0) || e == [1] {
            return Err(refuse("e is not an odd number of 3 to 2^32"));
        }
        let key = RsaPublicKey::new(BigUint::from_bytes_be(&n), BigUint::from_bytes_be(&e));
        key.map(Self).map_err(|_| refuse("n and e are no RSA key"))
    }
}

/// The big-endian bytes of a Base64urlUInt; `None` when empty, too long, padded, or with a leading zero octet.
fn unsigned(text: &str) -> Option<Vec<u8>> {
    // 4,096 bits are 683 characters: nothing longer is worth decoding.
    if text.len() > 700 {
        return None;
    }
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
    bytes.first().is_some_and(|first| *first != 0).then_some(bytes)
}

/// Encrypts a token to a user's key: RSA-OAEP, SHA-256 and MGF1-SHA-256, no label, over the 43 characters; base64url.
///
/// A public-key operation, so the timing flaw of the `rsa` crate's private ones (RUSTSEC-2023-0071) does not touch it.
pub fn encrypt_to_key(token: &Token, key: &ViewerKey) -> Result<String, TokenError> {
    let padding = Oaep::new::<rsa::sha2::Sha256>();
    let ciphertext = key.0.encrypt(&mut rsa::rand_core::OsRng, padding, token.expose().as_bytes());
    ciphertext.map(|bytes| BASE64URL_NOPAD.encode(&bytes)).map_err(|_| TokenError::EncryptionFailed)
}

/// [`encrypt_to_key`] for a key that is not checked yet.
pub fn encrypt_to_jwk(token: &Token, jwk: &Jwk) -> Result<String, TokenError> {
    encrypt_to_key(token, &ViewerKey::from_jwk(jwk)?)
}

/// A user's private RSA key in the platform's custody. Private operations run in AWS-LC (constant time): the nodes choose
/// the ciphertexts, and the `rsa` crate leaks there (RUSTSEC-2023-0071).
pub struct UserKey {
    key: PrivateDecryptingKey,
}

impl fmt::Debug for UserKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserKey(redacted)")
    }
}

impl UserKey {
    /// A new key of 2,048 bits. Takes about a tenth of a second of processor time: not for an async task.
    pub fn generate() -> Result<Self, TokenError> {
        let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).map_err(|_| TokenError::GenerationFailed)?;
        Ok(Self { key })
    }

    /// Reads PKCS#8 DER; refuses keys that are not RSA of 2,048 to 4,096 bits.
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, TokenError> {
        let key = PrivateDecryptingKey::from_pkcs8(der).map_err(|_| TokenError::BadUserKey)?;
        match (2048..=4096).contains(&key.key_size_bits()) {
            true => Ok(Self { key }),
            false => Err(TokenError::BadUserKey),
        }
    }

    /// PKCS#8 DER, wiped when dropped. Keep it where only the platform reads it.
    pub fn to_pkcs8_der(&self) -> Result<Zeroizing<Vec<u8>>, TokenError> {
        let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&self.key).map_err(|_| TokenError::BadUserKey)?;
        Ok(Zeroizing::new(der.as_ref().to_vec()))
    }

    /// The public key, for a request.
    pub fn jwk(&self) -> Result<Jwk, TokenError> {
        // The decrypting key does not give out n and e; the signing key of the same bytes does.
        let pair = RsaKeyPair::from_pkcs8(&self.to_pkcs8_der()?).map_err(|_| TokenError::BadUserKey)?;
        let public = pair.public_key();
        Ok(Jwk {
            kty: "RSA".to_owned(),
            n: BASE64URL_NOPAD.encode(public.modulus().big_endian_without_leading_zero()),
            e: BASE64URL_NOPAD.encode(public.exponent().big_endian_without_leading_zero()),
        })
    }

    /// Opens `encrypted_token` of a node's answer.
    pub fn decrypt(&self, encrypted_token: &str) -> Result<Token, TokenError> {
        // A wrong length, padding or text are one error: a node that probes learns nothing from the difference.
        let bytes = BASE64URL_NOPAD.decode(encrypted_token.as_bytes()).map_err(|_| TokenError::Undecipherable)?;
        let key = OaepPrivateDecryptingKey::new(self.key.clone()).map_err(|_| TokenError::BadUserKey)?;
        let mut plain = Zeroizing::new(vec![0; key.min_output_size()]);
        let plain = key.decrypt(&OAEP_SHA256_MGF1SHA256, &bytes, &mut plain, None);
        let text = plain.ok().and_then(|plain| std::str::from_utf8(plain).ok());
        text.and_then(|text| Token::parse(text).ok()).ok_or(TokenError::Undecipherable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chunkstore_block::PlatformFingerprint;

    fn content() -> ContentKey {
        ContentKey::from_bytes([5; 32])
    }

    fn grant(platform: u8) -> UploadGrant {
        let reference = Reference {
            platform: PlatformFingerprint::from_bytes([platform; 32]),
            publication: PublicationId::from_bytes([6; 16]),
        };
        UploadGrant { reference, size: 10 }
    }

    fn kind(table: &TokenTable, token: &Token, now: Instant) -> Result<Grant, ErrorKind> {
        table.lookup(token, now).map(|live| live.grant).map_err(|problem| problem.kind)
    }

    #[test]
    fn a_playback_token_lives_30_seconds() {
        let (table, start) = (TokenTable::default(), Instant::now());
        let token = table.issue_playback(content(), start).unwrap();
        let live = table.lookup(&token, start + Duration::from_secs(12)).unwrap();
        assert_eq!(live, LiveToken { grant: Grant::Playback(content()), remaining: Duration::from_secs(18) });
        assert!(kind(&table, &token, start + Duration::from_millis(29_999)).is_ok());
        assert_eq!(kind(&table, &token, start + PLAYBACK_LIFETIME), Err(ErrorKind::TokenExpired));
        assert_eq!(kind(&table, &Token::generate().unwrap(), start), Err(ErrorKind::TokenUnknown));
    }

    #[test]
    fn an_expired_token_is_remembered_for_a_while() {
        let (table, start) = (TokenTable::default(), Instant::now());
        let token = table.issue_playback(content(), start).unwrap();
        let forgotten = start + PLAYBACK_LIFETIME + REMEMBER_EXPIRED;
        table.issue_playback(content(), forgotten - Duration::from_secs(1)).unwrap();
        assert_eq!(kind(&table, &token, forgotten), Err(ErrorKind::TokenExpired));
        table.issue_playback(content(), forgotten).unwrap();
        assert_eq!(kind(&table, &token, forgotten), Err(ErrorKind::TokenUnknown));
    }

    #[test]
    fn a_full_table_gives_up_the_dead_and_never_the_living() {
        let (table, start) = (TokenTable::with_capacity(2), Instant::now());
        let first = table.issue_playback(content(), start).unwrap();
        let second = table.issue_playback(content(), start + Duration::from_secs(1)).unwrap();
        assert_eq!(table.issue_playback(content(), start).unwrap_err().kind, ErrorKind::Busy);
        let later = start + PLAYBACK_LIFETIME;
        table.issue_playback(content(), later).unwrap();
        assert_eq!(kind(&table, &first, later), Err(ErrorKind::TokenUnknown));
        assert!(kind(&table, &second, later).is_ok());
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn a_new_upload_token_ends_the_old_one() {
        let (table, start) = (TokenTable::default(), Instant::now());
        let old = table.issue_upload(grant(1), start).unwrap();
        let new = table.issue_upload(grant(1), start).unwrap();
        assert_eq!(kind(&table, &old, start), Err(ErrorKind::TokenUnknown));
        assert_eq!(kind(&table, &new, start + UPLOAD_LIFETIME - Duration::from_secs(1)), Ok(Grant::Upload(grant(1))));
        assert_eq!(kind(&table, &new, start + UPLOAD_LIFETIME), Err(ErrorKind::TokenExpired));
        assert_eq!(table.issue_upload(grant(2), start).unwrap_err().kind, ErrorKind::UploadExists);
        assert!(table.revoke(&new) && !table.revoke(&new) && table.is_empty());
        assert!(table.issue_upload(grant(2), start).is_ok());
    }

    #[test]
    fn a_token_is_43_characters_and_hides_in_debug() {
        let token = Token::generate().unwrap();
        assert_eq!(token.expose().len(), TOKEN_CHARACTERS);
        assert_eq!(Token::parse(token.expose()).unwrap().expose(), token.expose());
        assert!(!format!("{token:?}").contains(token.expose()));
        for bad in ["", "short", &"=".repeat(43), &"a".repeat(44)] {
            assert_eq!(Token::parse(bad).unwrap_err(), TokenError::NotAToken);
        }
    }

    #[test]
    fn what_rsa_encrypts_aws_lc_decrypts() {
        let (key, other) = (UserKey::generate().unwrap(), UserKey::generate().unwrap());
        let token = Token::generate().unwrap();
        let encrypted = encrypt_to_jwk(&token, &key.jwk().unwrap()).unwrap();
        assert_eq!(key.decrypt(&encrypted).unwrap().expose(), token.expose());
        let der = key.to_pkcs8_der().unwrap();
        assert_eq!(UserKey::from_pkcs8_der(&der).unwrap().decrypt(&encrypted).unwrap().expose(), token.expose());
        for bad in [encrypted.get(1..).unwrap(), "", "****"] {
            assert_eq!(key.decrypt(bad).unwrap_err(), TokenError::Undecipherable);
        }
        assert_eq!(other.decrypt(&encrypted).unwrap_err(), TokenError::Undecipherable);
        assert_eq!(format!("{key:?}"), "UserKey(redacted)");
    }
}
