//! Compact JWS (RFC 7515): PS256 for what platforms sign, EdDSA for nodes' receipts. Four kinds travel here, told apart by `typ`, so that one is
//! never taken for another; the reader says which algorithm it wants, never the text.

use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};

/// The only algorithm of platforms: RSASSA-PSS with SHA-256, MGF1-SHA-256 and a salt of 32 bytes (RFC 7518 §3.5).
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
    #[error("alg must be PS256 (EdDSA for a receipt)")]
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
    /// Takes a text of a platform apart and checks `alg`, `typ` and `crit`.
    pub(crate) fn parse(text: &'a str, media_type: &str, max_bytes: usize) -> Result<Self, JwsError> {
        Self::parse_with(ALGORITHM, text, media_type, max_bytes)
    }

    /// The same for this algorithm.
    pub(crate) fn parse_with(
        algorithm: &str,
        text: &'a str,
        media_type: &str,
        max_bytes: usize,
    ) -> Result<Self, JwsError> {
        if text.len() > max_bytes {
            return Err(JwsError::TooLong(max_bytes));
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(JwsError::NotCompact)?;
        let (header, payload) = signed.split_once('.').ok_or(JwsError::NotCompact)?;
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| JwsError::BadHeader)?;
        header.check(algorithm, media_type)?;
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
    fn check(&self, expected: &str, media_type: &str) -> Result<(), JwsError> {
        if self.critical {
            return Err(JwsError::Critical);
        }
        match self.algorithm.as_slice() {
            [algorithm] if algorithm == expected => {}
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
    signing_input_with(ALGORITHM, media_type, key_id, claims)
}

/// The same for this algorithm.
pub(crate) fn signing_input_with(algorithm: &str, media_type: &str, key_id: &str, claims: &[u8]) -> String {
    let header = serde_json::json!({"alg": algorithm, "kid": key_id, "typ": media_type}).to_string();
    format!("{}.{}", BASE64URL_NOPAD.encode(header.as_bytes()), BASE64URL_NOPAD.encode(claims))
}

/// The whole JWS.
pub(crate) fn compact(signing_input: &str, signature: &[u8]) -> String {
    format!("{signing_input}.{}", BASE64URL_NOPAD.encode(signature))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TYPE: &str = "imira-request";

    /// The header that is looked for, with other and double members, or any bytes.
    fn header() -> impl Strategy<Value = Vec<u8>> {
        let value =
            prop_oneof![Just("\"PS256\""), Just("\"imira-request\""), Just("\"k\""), Just("null"), Just("[{}]")];
        let member = (prop_oneof![Just("alg"), Just("typ"), Just("kid"), Just("crit"), Just("x")], value);
        let members = proptest::collection::vec(member, 0..5).prop_map(|members| {
            let members: Vec<_> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
            format!("{{{}}}", members.join(",")).into_bytes()
        });
        prop_oneof![members, any::<Vec<u8>>()]
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(bytes in any::<Vec<u8>>(), text in "[A-Za-z0-9_.=-]{0,200}") {
            for text in [String::from_utf8_lossy(&bytes).as_ref(), &text] {
                if let Ok(jws) = Jws::parse(text, TYPE, 100) {
                    prop_assert!(text.len() <= 100);
                    let _ = jws.claims::<serde_json::Value>();
                }
            }
        }

        #[test]
        fn what_is_parsed_has_our_algorithm_and_type(head in header(), payload in any::<Vec<u8>>(), signature in any::<Vec<u8>>()) {
            let input = format!("{}.{}", BASE64URL_NOPAD.encode(&head), BASE64URL_NOPAD.encode(&payload));
            let text = compact(&input, &signature);
            if let Ok(jws) = Jws::parse(&text, TYPE, 10_000) {
                prop_assert_eq!((jws.signed, &jws.signature, &jws.payload), (input.as_bytes(), &signature, &payload));
                let head: serde_json::Value = serde_json::from_slice(&head).unwrap();
                prop_assert_eq!((&head["alg"], &head["typ"]), (&ALGORITHM.into(), &TYPE.into()));
                prop_assert!(head.get("crit").is_none());
                let _ = jws.claims::<serde_json::Value>();
            }
        }

        #[test]
        fn what_is_made_is_parsed(key_id in any::<String>(), claim in any::<String>(), signature in any::<Vec<u8>>()) {
            let claims = serde_json::to_vec(&claim).unwrap();
            let text = compact(&signing_input(TYPE, &key_id, &claims), &signature);
            let jws = Jws::parse(&text, TYPE, 10_000).map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!((jws.key_id.as_ref(), jws.claims::<String>(), &jws.signature), (Some(&key_id), Ok(claim), &signature));
        }
    }
}
