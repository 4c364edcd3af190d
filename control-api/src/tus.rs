//! Resumable uploads (`docs/api.md` §4, tus 1.0): what a request asks of the node, apart from headers and storage.

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA1_OUTPUT_LEN, SHA256, SHA256_OUTPUT_LEN};
use data_encoding::BASE64;

use crate::problem::{ErrorKind, Problem};

/// The most parts of one upload that may be there at a time. A guess: clients that send in parallel use 2 to 8.
pub const MAX_PARTS: usize = 32;

/// The most bytes of `Upload-Metadata`, of an upload with all its parts.
pub const MAX_METADATA_BYTES: usize = 4_096;

/// The algorithms of `Upload-Checksum`, the better one first.
pub(crate) const CHECKSUM_ALGORITHMS: &str = "sha256,sha1";

/// A file that grows by `PATCH`: the upload's own, or a part that will be joined with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileId {
    /// `/v1/uploads/{upload id}`.
    Whole,
    /// `/v1/uploads/{upload id}/parts/{number}`, from 1.
    Part(u32),
}

/// What a `POST` creates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Creation {
    /// The upload's file, of this many bytes.
    Whole {
        /// Bytes; must be those of the token request.
        length: u64,
    },
    /// A part of so many bytes.
    Part {
        /// Bytes.
        length: u64,
    },
    /// The upload's file, from these parts in this order.
    Final {
        /// Their numbers.
        parts: Vec<u32>,
    },
}

/// How a file takes part in a concatenation (`Upload-Concat`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Concat {
    /// It is a part.
    Partial,
    /// It is made from these parts.
    Final(Vec<u32>),
}

/// How far a file is, for `HEAD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileState {
    /// Bytes that are on disk; `None` while parts are being joined.
    pub offset: Option<u64>,
    /// Bytes that it will have.
    pub length: u64,
    /// `Upload-Metadata` as it was given; empty without.
    pub metadata: String,
    /// Its place in a concatenation.
    pub concat: Option<Concat>,
    /// Until when it may be sent, seconds since 1970; `None` once all has come.
    pub expires: Option<u64>,
}

/// The head of a `PATCH`.
#[derive(Clone, Debug)]
pub struct Append {
    /// Which file.
    pub file: FileId,
    /// Where the client believes that it goes on.
    pub offset: u64,
    /// Bytes of the body, where the client says.
    pub announced: Option<u64>,
    /// What the body's digest must be.
    pub checksum: Option<Checksum>,
}

/// An `Upload-Checksum` that the body must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// SHA-1, which clients use and which guards against accidents only.
    Sha1([u8; SHA1_OUTPUT_LEN]),
    /// SHA-256.
    Sha256([u8; SHA256_OUTPUT_LEN]),
}

impl Checksum {
    /// Reads the header's value: algorithm, a space, base64.
    ///
    /// Errors: `invalid`.
    pub fn parse(value: &str) -> Result<Self, Problem> {
        let refuse = || {
            let detail = format!(
                "Upload-Checksum must be an algorithm of {CHECKSUM_ALGORITHMS}, a space, and the digest in base64 with padding."
            );
            Problem::new(ErrorKind::Invalid, detail)
        };
        let (algorithm, digest) = value.split_once(' ').ok_or_else(refuse)?;
        let digest = BASE64.decode(digest.as_bytes()).map_err(|_| refuse())?;
        match algorithm {
            "sha1" => digest.try_into().map(Self::Sha1).map_err(|_| refuse()),
            "sha256" => digest.try_into().map(Self::Sha256).map_err(|_| refuse()),
            _ => Err(refuse()),
        }
    }

    /// Begins to check a body.
    pub fn checker(&self) -> Checker {
        let context = match self {
            Self::Sha1(_) => Context::new(&SHA1_FOR_LEGACY_USE_ONLY),
            Self::Sha256(_) => Context::new(&SHA256),
        };
        Checker { expected: self.clone(), context }
    }

    fn digest(&self) -> &[u8] {
        match self {
            Self::Sha1(digest) => digest,
            Self::Sha256(digest) => digest,
        }
    }
}

/// Checks a body as it comes.
pub struct Checker {
    expected: Checksum,
    context: Context,
}

impl Checker {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// Errors: `checksum-mismatch`. The client made the digest of its own bytes, so there is no secret to compare.
    pub fn finish(self) -> Result<(), Problem> {
        match self.context.finish().as_ref() == self.expected.digest() {
            true => Ok(()),
            false => Err(Problem::new(
                ErrorKind::ChecksumMismatch,
                "The bytes that came are not those of Upload-Checksum, and were thrown away. Send them again.",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_read_and_checked() {
        // "abc": FIPS 180-2, appendices A.1 and B.1.
        for good in ["sha1 qZk+NkcGgWq6PiVxeFDCbJzQ2J0=", "sha256 ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="] {
            let checksum = Checksum::parse(good).unwrap();
            let check = |body: &[&[u8]]| {
                let mut checker = checksum.checker();
                body.iter().for_each(|bytes| checker.update(bytes));
                checker.finish().map_err(|problem| (problem.kind, problem.status))
            };
            assert_eq!(check(&[b"a", b"bc"]), Ok(()));
            assert_eq!(check(&[b"abd"]), Err((ErrorKind::ChecksumMismatch, 460)));
        }
        let bad =
            ["", "sha1", "md5 kAFQmDzST7DWlj99KOF/cg==", "sha1 qZk+NkcGgWq6PiVxeFDCbJzQ2J0", "sha256 qZk+", "sha1  a"];
        for bad in bad {
            assert_eq!(Checksum::parse(bad).unwrap_err().kind, ErrorKind::Invalid, "{bad}");
        }
    }
}
