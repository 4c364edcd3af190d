//! How a token travels: encrypted to the one user's key (`docs/api.md` §2).

use std::fmt;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use aws_lc_rs::signature::{KeyPair as _, RsaKeyPair};
use data_encoding::BASE64URL_NOPAD;
use rsa::{BigUint, Oaep, RsaPublicKey};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{Token, TokenError};
use crate::types::Jwk;

/// A user's public key that a token may be encrypted to: RSA, 2,048 to 4,096 bits, checked.
#[derive(Clone, Debug)]
pub struct ViewerKey {
    key: RsaPublicKey,
    thumbprint: [u8; 32],
}

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
        let key = RsaPublicKey::new(BigUint::from_bytes_be(&n), BigUint::from_bytes_be(&e))
            .map_err(|_| refuse("n and e are no RSA key"))?;
        // RFC 7638 §3.2: the required members in this order. Both texts are canonical base64url, so there is nothing to escape.
        let members = format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, jwk.e, jwk.n);
        Ok(Self { key, thumbprint: Sha256::digest(members.as_bytes()).into() })
    }

    /// The key's name: SHA-256 as RFC 7638 says.
    pub fn thumbprint(&self) -> &[u8; 32] {
        &self.thumbprint
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
    let ciphertext = key.key.encrypt(&mut rsa::rand_core::OsRng, padding, token.expose().as_bytes());
    Ok(BASE64URL_NOPAD.encode(&ciphertext.map_err(|_| TokenError::EncryptionFailed)?))
}

/// [`encrypt_to_key`] for a key that is not checked yet.
pub fn encrypt_to_jwk(token: &Token, jwk: &Jwk) -> Result<String, TokenError> {
    encrypt_to_key(token, &ViewerKey::from_jwk(jwk)?)
}

/// A user's private RSA key in the platform's custody. AWS-LC's operations take the same time whatever the ciphertext is, and the nodes
/// choose the ciphertexts; those of the `rsa` crate leak the key through their time (RUSTSEC-2023-0071).
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

    #[test]
    fn only_the_holder_of_the_key_reads_a_token() {
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

    /// The example of RFC 7638 §3.1.
    #[test]
    fn a_thumbprint_is_that_of_the_standard() {
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMs\
                 tn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n\
                 91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let jwk = Jwk { kty: "RSA".to_owned(), n: n.to_owned(), e: "AQAB".to_owned() };
        let thumbprint = ViewerKey::from_jwk(&jwk).unwrap().thumbprint;
        assert_eq!(BASE64URL_NOPAD.encode(&thumbprint), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }
}
