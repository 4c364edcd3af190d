//! A strict reader and writer of ISO base media boxes (ISO/IEC 14496-12 §4.2). Pure functions over bytes; nothing here trusts a length.

use thiserror::Error;

/// Four characters that name a box.
pub(crate) type Kind = [u8; 4];

/// Why bytes are not the boxes they should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Mp4Error {
    /// A box or field reaches past the end of its container.
    #[error("the MP4 box {0} is cut short")]
    Short(String),
    /// A box size is smaller than its own header, or of the kind "until the end of the file".
    #[error("the MP4 box {0} has an impossible size")]
    Size(String),
    /// A required box is not there.
    #[error("the MP4 box {0} is missing")]
    Missing(String),
    /// A box is there that this reader does not expect, or a field has a value that it does not take.
    #[error("the MP4 box {0} is not as FFmpeg writes it: {1}")]
    Unexpected(String, &'static str),
    /// A number does not fit its field.
    #[error("{0} is too large for the MP4 box {1}")]
    TooLarge(&'static str, String),
}

/// A box's name for a message; anything unprintable is escaped.
pub(crate) fn name(kind: Kind) -> String {
    kind.escape_ascii().to_string()
}

/// The start of a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// Bytes of the header: 8, or 16 with a 64-bit size.
    pub(crate) header_len: u64,
    /// Bytes of the whole box; `None` means "until the end of the file".
    pub(crate) size: Option<u64>,
}

/// Longest header.
pub(crate) const MAX_HEADER: usize = 16;

/// Reads a box header from the first bytes of a box.
pub(crate) fn header(bytes: &[u8]) -> Result<Header, Mp4Error> {
    let size = u32_at(bytes, 0, *b"size")?;
    let kind: Kind = array_at(bytes, 4, *b"size")?;
    let (size, header_len) = match size {
        0 => return Ok(Header { kind, header_len: 8, size: None }),
        1 => (u64_at(bytes, 8, kind)?, 16),
        n => (u64::from(n), 8),
    };
    if size < header_len {
        return Err(Mp4Error::Size(name(kind)));
    }
    Ok(Header { kind, header_len, size: Some(size) })
}

/// One box inside a byte slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mp4Box<'a> {
    pub(crate) kind: Kind,
    /// Header and body.
    pub(crate) whole: &'a [u8],
    /// What follows the header.
    pub(crate) body: &'a [u8],
    /// Where the body starts in the slice that was read.
    pub(crate) body_at: usize,
}

/// Splits a slice into its boxes, which must fill it exactly.
pub(crate) fn boxes(bytes: &[u8]) -> Result<Vec<Mp4Box<'_>>, Mp4Error> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let head = header(rest)?;
        let size = head.size.ok_or_else(|| Mp4Error::Size(name(head.kind)))?;
        let size = usize::try_from(size).map_err(|_| Mp4Error::Size(name(head.kind)))?;
        let whole = rest.get(..size).ok_or_else(|| Mp4Error::Short(name(head.kind)))?;
        let header_len = head.header_len as usize;
        found.push(Mp4Box { kind: head.kind, whole, body: &whole[header_len..], body_at: at + header_len });
        at += size;
    }
    Ok(found)
}

/// The only box of a kind in a slice of boxes.
pub(crate) fn only<'a>(bytes: &'a [u8], kind: Kind) -> Result<Mp4Box<'a>, Mp4Error> {
    let mut matching = boxes(bytes)?.into_iter().filter(|b| b.kind == kind);
    let first = matching.next().ok_or_else(|| Mp4Error::Missing(name(kind)))?;
    match matching.next() {
        None => Ok(first),
        Some(_) => Err(Mp4Error::Unexpected(name(kind), "it is there twice")),
    }
}

/// Goes down through containers, for example `moov`, `trak`, `mdia`.
pub(crate) fn descend<'a>(bytes: &'a [u8], path: &[Kind]) -> Result<&'a [u8], Mp4Error> {
    path.iter().try_fold(bytes, |inner, kind| Ok(only(inner, *kind)?.body))
}

/// `N` bytes at an offset.
pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize, kind: Kind) -> Result<[u8; N], Mp4Error> {
    at.checked_add(N)
        .and_then(|end| bytes.get(at..end))
        .and_then(|part| part.try_into().ok())
        .ok_or_else(|| Mp4Error::Short(name(kind)))
}

/// A big-endian number of 16 bits.
pub(crate) fn u16_at(bytes: &[u8], at: usize, kind: Kind) -> Result<u16, Mp4Error> {
    array_at(bytes, at, kind).map(u16::from_be_bytes)
}

/// A big-endian number of 32 bits.
pub(crate) fn u32_at(bytes: &[u8], at: usize, kind: Kind) -> Result<u32, Mp4Error> {
    array_at(bytes, at, kind).map(u32::from_be_bytes)
}

/// A big-endian number of 64 bits.
pub(crate) fn u64_at(bytes: &[u8], at: usize, kind: Kind) -> Result<u64, Mp4Error> {
    array_at(bytes, at, kind).map(u64::from_be_bytes)
}

/// Appends a box whose body `fill` writes.
///
/// # Errors
/// [`Mp4Error::TooLarge`] when the box does not fit 32 bits of size.
pub(crate) fn put(
    out: &mut Vec<u8>,
    kind: Kind,
    fill: impl FnOnce(&mut Vec<u8>) -> Result<(), Mp4Error>,
) -> Result<(), Mp4Error> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&kind);
    fill(out)?;
    let size = u32::try_from(out.len() - start).map_err(|_| Mp4Error::TooLarge("the size", name(kind)))?;
    out[start..start + 4].copy_from_slice(&size.to_be_bytes());
    Ok(())
}

/// Appends big-endian numbers of 32 bits.
pub(crate) fn put_u32s(out: &mut Vec<u8>, values: &[u32]) {
    out.extend(values.iter().flat_map(|v| v.to_be_bytes()));
}

/// Overwrites a number of 32 bits.
pub(crate) fn set_u32(bytes: &mut [u8], at: usize, value: u32, kind: Kind) -> Result<(), Mp4Error> {
    at.checked_add(4)
        .and_then(|end| bytes.get_mut(at..end))
        .ok_or_else(|| Mp4Error::Short(name(kind)))?
        .copy_from_slice(&value.to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, *b"moov", |o| {
            put(o, *b"mvhd", |o| {
                put_u32s(o, &[1, 2]);
                Ok(())
            })
        })
        .unwrap();
        out
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = sample();
        assert_eq!(bytes.len(), 24);
        let inner = descend(&bytes, &[*b"moov", *b"mvhd"]).unwrap();
        assert_eq!(u64_at(inner, 0, *b"mvhd"), Ok(0x1_0000_0002));
        assert_eq!(only(&bytes, *b"moov").unwrap().body_at, 8);
    }

    #[test]
    fn every_cut_is_refused() {
        let bytes = sample();
        for len in 1..bytes.len() {
            assert!(descend(&bytes[..len], &[*b"moov", *b"mvhd"]).is_err(), "{len}");
        }
        assert_eq!(descend(&[], &[*b"moov"]), Err(Mp4Error::Missing("moov".into())));
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert_eq!(header(b"\0\0\0\x07free"), Err(Mp4Error::Size("free".into())));
        assert_eq!(header(b"\0\0\0\x01free\0\0\0\0\0\0\0\x0f"), Err(Mp4Error::Size("free".into())));
        assert_eq!(boxes(b"\0\0\0\0free"), Err(Mp4Error::Size("free".into())));
        assert_eq!(boxes(b"\0\0\0\x01free\xff\xff\xff\xff\xff\xff\xff\xff"), Err(Mp4Error::Short("free".into())));
        assert_eq!(header(b"\0\0\0\0mdat").unwrap().size, None);
    }

    #[test]
    fn twice_is_refused() {
        let twice = [sample(), sample()].concat();
        assert!(matches!(only(&twice, *b"moov"), Err(Mp4Error::Unexpected(..))));
    }
}
