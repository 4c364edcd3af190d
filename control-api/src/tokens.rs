//! Tokens (`docs/api.md` §2): what they are, who may still use them, and how they travel to the one user who may read them.

mod encryption;
mod grant;
mod table;

use std::fmt;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

pub use encryption::{UserKey, ViewerKey, encrypt_to_jwk, encrypt_to_key};
pub use grant::{Cut, Grant, Issued, PlaybackGrant, UploadGrant};
pub use table::{LiveToken, TokenTable};

/// How long a playback token lives (white paper 4.2: "a time lapse of about 30 seconds").
pub const PLAYBACK_LIFETIME: Duration = Duration::from_secs(30);

/// How long an upload token lives (`docs/api.md` §2).
pub const UPLOAD_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

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
    pub fn digest(&self) -> TokenDigest {
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

/// SHA-256 of a token's 43 characters: its name in the table and in receipts. It opens nothing.
pub type TokenDigest = [u8; 32];

#[cfg(test)]
mod tests {
    use super::*;

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
}
