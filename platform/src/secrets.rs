//! API keys and session tokens: 256 random bits each. The database holds only their SHA-256; being uniformly random,
//! they need no slow password hash.

use std::fmt;

use aws_lc_rs::digest;
use data_encoding::BASE64URL_NOPAD;

const BYTES: usize = 32;

/// Shows at a glance, in a file or a leak, what kind of secret it is.
const API_KEY_PREFIX: &str = "imira_";

/// The system gave no randomness.
#[derive(Debug, thiserror::Error)]
#[error("the system gave no random bytes, so no secret can be made; see the kernel's log")]
pub struct NoRandomness;

/// What a user signs in with.
#[derive(Clone)]
pub struct ApiKey(String);

/// What a browser's cookie holds.
#[derive(Clone)]
pub struct SessionToken(String);

impl ApiKey {
    /// A new key.
    pub fn generate() -> Result<Self, NoRandomness> {
        Ok(Self(format!("{API_KEY_PREFIX}{}", random_text()?)))
    }

    /// Reads a key; `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.strip_prefix(API_KEY_PREFIX).filter(|rest| is_secret(rest)).map(|_| Self(text.to_owned()))
    }

    /// The text, to be shown once to its user.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What the database knows of it.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        sha256(self.0.as_bytes())
    }
}

impl SessionToken {
    /// A new token.
    pub fn generate() -> Result<Self, NoRandomness> {
        random_text().map(Self)
    }

    /// Reads a token; `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        is_secret(text).then(|| Self(text.to_owned()))
    }

    /// The text, for the cookie.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What the database knows of it.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        sha256(self.0.as_bytes())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(redacted)")
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionToken(redacted)")
    }
}

/// SHA-256 of some bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, bytes);
    let mut out = [0; 32];
    // SHA-256 has 32 bytes.
    out.copy_from_slice(digest.as_ref());
    out
}

/// Random bytes from the system.
pub fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

fn random_text() -> Result<String, NoRandomness> {
    Ok(BASE64URL_NOPAD.encode(&random::<BYTES>()?))
}

fn is_secret(text: &str) -> bool {
    text.len() == 43 && BASE64URL_NOPAD.decode(text.as_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_back_and_never_shown() {
        let key = ApiKey::generate().unwrap();
        assert_eq!(ApiKey::parse(key.expose()).unwrap().sha256(), key.sha256());
        assert!(ApiKey::parse(&key.expose()[6..]).is_none());
        assert!(SessionToken::parse(key.expose()).is_none());
        assert!(!format!("{key:?}").contains(&key.expose()[6..]));
        assert_ne!(ApiKey::generate().unwrap().sha256(), key.sha256());
    }

    #[test]
    fn sha256_is_sha256() {
        // FIPS 180-4, "abc"
        let hex = data_encoding::HEXLOWER.encode(&sha256(b"abc"));
        assert!(hex.starts_with("ba7816bf8f01cfea"), "{hex}");
    }
}
