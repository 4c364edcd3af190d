//! Keys and values of the tables (`docs/store.md`, "Tables").

use chunkstore_block::{BlockId, PlatformFingerprint, PublicationId, Reference};

use super::StoreError;
use super::database::{LENGTHS, REFERENCES};

/// Bytes of a key of `references`: block id, platform fingerprint, publication id.
const REFERENCE_KEY_BYTES: usize = 32 + 32 + 16;

pub(super) fn reference_key(id: &BlockId, reference: &Reference) -> [u8; REFERENCE_KEY_BYTES] {
    let mut key = [0; REFERENCE_KEY_BYTES];
    key[..32].copy_from_slice(id.as_bytes());
    key[32..64].copy_from_slice(reference.platform.as_bytes());
    key[64..].copy_from_slice(reference.publication.as_bytes());
    key
}

pub(super) fn parse_reference_key(key: &[u8]) -> Result<Reference, StoreError> {
    let parse = || {
        let key = <&[u8; REFERENCE_KEY_BYTES]>::try_from(key).ok()?;
        let (platform, publication) = (key[32..64].try_into().ok()?, key[64..].try_into().ok()?);
        Some(Reference {
            platform: PlatformFingerprint::from_bytes(platform),
            publication: PublicationId::from_bytes(publication),
        })
    };
    parse().ok_or_else(|| not_an_entry(REFERENCES, key))
}

pub(super) fn parse_length(length: &[u8]) -> Result<u32, StoreError> {
    length.try_into().map(u32::from_be_bytes).map_err(|_| not_an_entry(LENGTHS, length))
}

pub(super) fn parse_id(key: &[u8]) -> Result<BlockId, StoreError> {
    key.try_into().map(BlockId::from_bytes).map_err(|_| not_an_entry(LENGTHS, key))
}

fn not_an_entry(table: &'static str, bytes: &[u8]) -> StoreError {
    StoreError::Entry { table, entry: bytes.iter().map(|byte| format!("{byte:02x}")).collect() }
}
