//! Compact JWS (RFC 7515), PS256 only. Two kinds travel here, told apart by `typ`, so that one is never taken for the other.

use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};

/// The only algorithm: RSASSA-PSS with SHA-256, MGF1-SHA-256 and a salt of 32 bytes (RFC 7518 §3.5).
pub(crate) const ALGORITHM: &str = "PS256";

/// Why a text is no JWS of the kind that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JwsError {
    #[error("it is longer than {0} bytes")]
    TooLong(usize),
    #[error("it is not three parts of base64url with dots between them")]
    NotCompact,
    #[error("its header is not a JSON object with text members alg, typ and kid, each at most once")]
    BadHeader,
    #[error("alg must be PS256")]
    WrongAlgorithm,
    #[error("typ is another")]
    WrongType,
    #[error("the header has crit, and no extension is known here")]
    Critical,
    #[error("a claim is missing, appears twice, or has the wrong form")]
    BadClaims,
}

/// A JWS in parts; nothing in it is proven yet.
pub(crate) struct Jws<'a> {
    /// The bytes that are signed: header, dot, payload.
    pub(crate) signed: &'a [u8],
    pub(crate) signature: Vec<u8>,
    payload: Vec<u8>,
    /// `kid`; `None` when it is missing or stands there twice.
    pub(crate) key_id: Option<String>,
}

impl<'a> Jws<'a> {
    /// Takes a text apart and checks `alg`, `typ` and `crit`.
    pub(crate) fn parse(text: &'a str, media_type: &str, max_bytes: usize) -> Result<Self, JwsError> {
        if text.len() > max_bytes {
            return Err(JwsError::TooLong(max_bytes));
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(JwsError::NotCompact)?;
        let (header, payload) = signed.split_once('.').ok_or(JwsError::NotCompact)?;
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| JwsError::BadHeader)?;
        header.check(media_type)?;
        Ok(Self {
            signed: signed.as_bytes(),
            signature: decode(signature)?,
            payload: decode(payload)?,
            key_id: header.key_id(),
        })
    }

    /// The claims. Members twice are an error, unknown ones are ignored.
    pub(crate) fn claims<T: DeserializeOwned>(&self) -> Result<T, JwsError> {
        serde_json::from_slice(&self.payload).map_err(|_| JwsError::BadClaims)
    }
}

fn decode(part: &str) -> Result<Vec<u8>, JwsError> {
    BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| JwsError::NotCompact)
}

/// The protected header. Every value of a member is kept, for parsers differ in which of two they take.
#[derive(Default)]
struct Header {
    algorithm: Vec<String>,
    media_type: Vec<String>,
    key_id: Vec<String>,
    critical: bool,
}

impl Header {
    fn check(&self, media_type: &str) -> Result<(), JwsError> {
        if self.critical {
            return Err(JwsError::Critical);
        }
        match self.algorithm.as_slice() {
            [algorithm] if algorithm == ALGORITHM => {}
            _ => return Err(JwsError::WrongAlgorithm),
        }
        match self.media_type.as_slice() {
            [found] if found == media_type => Ok(()),
            _ => Err(JwsError::WrongType),
        }
    }

    fn key_id(self) -> Option<String> {
        <[String; 1]>::try_from(self.key_id).ok().map(|[key_id]| key_id)
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JWS header")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut header = Header::default();
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "alg" => header.algorithm.push(map.next_value()?),
                "typ" => header.media_type.push(map.next_value()?),
                "kid" => header.key_id.push(map.next_value()?),
                "crit" => {
                    header.critical = true;
                    map.next_value::<IgnoredAny>()?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(header)
    }
}

/// The bytes to sign: header and payload in base64url with a dot between them.
pub(crate) fn signing_input(media_type: &str, key_id: &str, claims: &[u8]) -> String {
    let header = serde_json::json!({"alg": ALGORITHM, "kid": key_id, "typ": media_type}).to_string();
    format!("{}.{}", BASE64URL_NOPAD.encode(header.as_bytes()), BASE64URL_NOPAD.encode(claims))
}

/// The whole JWS.
pub(crate) fn compact(signing_input: &str, signature: &[u8]) -> String {
    format!("{signing_input}.{}", BASE64URL_NOPAD.encode(signature))
}
