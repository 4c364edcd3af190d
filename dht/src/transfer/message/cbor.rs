//! Heads: deterministic CBOR maps with ascending unsigned keys (`docs/protocol.md` §4.2).

use super::{Refusal, Status};
use bytes::Bytes;
use chunkstore_block::{BlockId, PlatformFingerprint, PublicationId, Reference};
use minicbor::data::Type;
use minicbor::decode::Error;
use minicbor::{Decoder, Encoder};

/// What is wrong with a head.
#[derive(Debug)]
pub(super) enum HeadError {
    Malformed(Error),
    /// Over a limit of the protocol document; which one.
    TooLarge(&'static str),
}

impl HeadError {
    pub(super) fn into_refusal(self) -> Refusal {
        match self {
            Self::Malformed(error) => Refusal::new(Status::Malformed, error.to_string()),
            Self::TooLarge(what) => Refusal::new(Status::TooLarge, what),
        }
    }
}

impl From<Error> for HeadError {
    fn from(error: Error) -> Self {
        Self::Malformed(error)
    }
}

pub(super) type HeadEncoder = Encoder<Vec<u8>>;

/// A CBOR map of `entries` entries, which `fill` writes in ascending order of their keys.
pub(super) fn head(entries: u64, fill: impl FnOnce(&mut HeadEncoder)) -> Bytes {
    let mut encoder = Encoder::new(Vec::new());
    written(encoder.map(entries));
    fill(&mut encoder);
    encoder.into_writer().into()
}

/// Writing to a vector cannot fail; the error type says so.
fn written<T>(result: Result<T, minicbor::encode::Error<std::convert::Infallible>>) {
    debug_assert!(result.is_ok());
}

pub(super) fn put_uint(e: &mut HeadEncoder, key: u64, value: u64) {
    written(e.u64(key).and_then(|e| e.u64(value)));
}

pub(super) fn put_bytes(e: &mut HeadEncoder, key: u64, value: &[u8]) {
    written(e.u64(key).and_then(|e| e.bytes(value)));
}

pub(super) fn put_text(e: &mut HeadEncoder, key: u64, value: &str) {
    written(e.u64(key).and_then(|e| e.str(value)));
}

pub(super) fn put_ids(e: &mut HeadEncoder, ids: &[BlockId]) {
    written(e.u64(1).and_then(|e| e.array(ids.len() as u64)));
    for id in ids {
        written(e.bytes(id.as_bytes()));
    }
}

pub(super) fn put_lengths(e: &mut HeadEncoder, key: u64, lengths: impl ExactSizeIterator<Item = u32>) {
    written(e.u64(key).and_then(|e| e.array(lengths.len() as u64)));
    for length in lengths {
        written(e.u32(length));
    }
}

pub(super) fn put_references(e: &mut HeadEncoder, references: &[Reference]) {
    written(e.u64(2).and_then(|e| e.array(references.len() as u64)));
    for reference in references {
        written(
            e.array(2)
                .and_then(|e| e.bytes(reference.platform.as_bytes()))
                .and_then(|e| e.bytes(reference.publication.as_bytes())),
        );
    }
}

/// Reads a map with ascending unsigned keys and nothing after it; `entry` reads each value.
pub(super) fn read_map(
    bytes: &[u8],
    mut entry: impl FnMut(u64, &mut Decoder<'_>) -> Result<(), HeadError>,
) -> Result<(), HeadError> {
    let mut decoder = Decoder::new(bytes);
    let entries = decoder.map()?.ok_or_else(|| Error::type_mismatch(Type::MapIndef))?;
    let mut previous = None;
    for _ in 0..entries {
        let key = decoder.u64()?;
        if previous.is_some_and(|previous| previous >= key) {
            return Err(Error::message("the keys of the head do not ascend").into());
        }
        previous = Some(key);
        entry(key, &mut decoder)?;
    }
    if decoder.position() != bytes.len() {
        return Err(Error::message("bytes after the head").into());
    }
    Ok(())
}

pub(super) fn read_array<T>(
    d: &mut Decoder<'_>,
    limit: usize,
    item: impl Fn(&mut Decoder<'_>) -> Result<T, Error>,
) -> Result<Vec<T>, HeadError> {
    let count = d.array()?.ok_or_else(|| Error::type_mismatch(Type::ArrayIndef))?;
    if count > limit as u64 {
        return Err(HeadError::TooLarge("a list is longer than allowed"));
    }
    Ok((0..count).map(|_| item(d)).collect::<Result<_, _>>()?)
}

pub(super) fn read_id(d: &mut Decoder<'_>) -> Result<BlockId, Error> {
    Ok(BlockId::from_bytes(read_exact(d)?))
}

pub(super) fn read_reference(d: &mut Decoder<'_>) -> Result<Reference, Error> {
    if d.array()? != Some(2) {
        return Err(Error::message("a reference is a list of two"));
    }
    Ok(Reference {
        platform: PlatformFingerprint::from_bytes(read_exact(d)?),
        publication: PublicationId::from_bytes(read_exact(d)?),
    })
}

pub(super) fn read_exact<const N: usize>(d: &mut Decoder<'_>) -> Result<[u8; N], Error> {
    d.bytes()?.try_into().map_err(|_| Error::message("a byte string has the wrong length"))
}

/// The longest prefix of at most `limit` bytes that is whole characters.
pub(super) fn cut(text: &str, limit: usize) -> &str {
    let end = (0..=limit.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("abc", 256), "abc");
    }
}
