use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// The most bytes a block may have: 1 MiB (white paper 4.2, `docs/protocol.md` §4.2).
pub const MAX_BLOCK_BYTES: usize = 1_048_576;

/// Text that is not an identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {digits} lowercase hexadecimal digits")]
pub struct IdError {
    what: &'static str,
    digits: usize,
}

/// Makes a newtype over bytes that is written as lowercase hexadecimal digits everywhere: as text, in JSON, in logs.
macro_rules! hex_newtype {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// From the raw bytes.
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            /// Reads lowercase hexadecimal digits; uppercase is refused, so that one id has one spelling.
            fn from_str(text: &str) -> Result<Self, IdError> {
                let bytes = HEXLOWER.decode(text.as_bytes()).ok();
                let bytes = bytes.and_then(|bytes| <[u8; $bytes]>::try_from(bytes).ok());
                bytes.map(Self).ok_or(IdError { what: $what, digits: 2 * $bytes })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hex_newtype! {
    /// The name of a block: SHA-256 of its stored bytes (`docs/protocol.md` §1).
    BlockId, 32, "a block id"
}

hex_newtype! {
    /// The name of a content: the block id of its index block (`docs/protocol.md` §1).
    ContentKey, 32, "a content key"
}

hex_newtype! {
    /// SHA-256 of a platform's RSA public key as DER SubjectPublicKeyInfo (`docs/protocol.md` §1).
    PlatformFingerprint, 32, "a platform fingerprint"
}

hex_newtype! {
    /// 16 random bytes that a platform makes for each publication (`docs/protocol.md` §1).
    PublicationId, 16, "a publication id"
}

hex_newtype! {
    /// A network's public name: 16 random bytes (`docs/protocol.md` §1).
    NetworkId, 16, "a network id"
}

impl BlockId {
    /// The id of a block with these stored bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl ContentKey {
    /// The block id of the content's index block.
    pub const fn block_id(&self) -> BlockId {
        BlockId(self.0)
    }
}

impl From<BlockId> for ContentKey {
    fn from(index_block: BlockId) -> Self {
        Self(index_block.0)
    }
}

impl From<ContentKey> for BlockId {
    fn from(key: ContentKey) -> Self {
        key.block_id()
    }
}

/// Why a block is kept: a publication of a platform needs it (`docs/protocol.md` §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Reference {
    /// The platform that published.
    pub platform: PlatformFingerprint,
    /// Which of its publications.
    pub publication: PublicationId,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of "abc", FIPS 180-4 example.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn an_id_is_the_sha256_of_the_bytes() {
        assert_eq!(BlockId::of(b"abc").to_string(), ABC);
        assert_eq!(format!("{:?}", BlockId::of(b"abc")), format!("BlockId({ABC})"));
    }

    #[test]
    fn text_round_trips_and_other_spellings_are_refused() {
        assert_eq!(ABC.parse(), Ok(BlockId::of(b"abc")));
        for wrong in [ABC.to_uppercase(), ABC[1..].to_owned(), format!("{ABC}00"), format!(" {}", &ABC[1..])] {
            let error = wrong.parse::<BlockId>().unwrap_err();
            assert_eq!(error.to_string(), "a block id is 64 lowercase hexadecimal digits");
        }
        let error = ABC.parse::<PublicationId>().unwrap_err();
        assert_eq!(error.to_string(), "a publication id is 32 lowercase hexadecimal digits");
    }

    #[test]
    fn json_is_the_text() {
        let key = ContentKey::from(BlockId::of(b"abc"));
        let json = serde_json::to_string(&key).unwrap();
        assert_eq!(json, format!("\"{ABC}\""));
        assert_eq!(serde_json::from_str::<ContentKey>(&json).unwrap().block_id(), BlockId::of(b"abc"));
        assert!(serde_json::from_str::<ContentKey>(&json.to_uppercase()).is_err());
    }
}
