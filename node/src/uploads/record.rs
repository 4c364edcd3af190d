//! What of an upload outlives the process: one small file each, in the data folder's `uploads/`.

use crate::files::{read_bytes, replace_private};
use anyhow::{Context, Result, ensure};
use chunkstore_block::{ContentKey, PublicationId};
use control_api::{Problem, TokenDigest};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::PathBuf;

/// The form of the file; one of another form is not read.
const VERSION: u32 = 1;
/// Far above what an upload with 32 parts needs.
const MAX_BYTES: u64 = 256 << 10;
const ENDING: &str = "json";

/// One upload. The token is here as its hash only.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    pub(crate) publication: PublicationId,
    /// Bytes of the file.
    pub(crate) size: u64,
    /// The platform's word, as text, and what it allows.
    pub(crate) authority: String,
    pub(crate) authority_bytes: u64,
    pub(crate) authority_expires: u64,
    /// SHA-256 of the token; `None` before it was issued, and then nothing is written.
    pub(crate) token: Option<TokenDigest>,
    /// When the token ends, seconds since 1970.
    pub(crate) expires: u64,
    /// The files of a resumable upload: 0 is the whole, others are parts.
    pub(crate) files: BTreeMap<u32, FileRecord>,
    /// The highest number that a part has had.
    pub(crate) last_part: u32,
    /// The parts that make the whole, in their order.
    pub(crate) joined: Option<Vec<u32>>,
    pub(crate) stage: Stage,
}

/// One file of a resumable upload.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FileRecord {
    /// Bytes that it will have.
    pub(crate) length: u64,
    /// Where only so much of it counts: what came behind was to have a checksum, which has not been checked.
    pub(crate) checked: Option<u64>,
    /// `Upload-Metadata`.
    pub(crate) metadata: String,
}

/// How far an upload is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stage {
    /// Nothing has come that would be kept.
    Waiting,
    /// `files` are coming.
    Receiving,
    /// The file, or all its parts, are on disk.
    Received {
        /// Parts that are not joined yet; each with its length, in their order.
        parts: Vec<(u32, u64)>,
        /// How often its processing has begun and has not come to an end.
        tries: u32,
        /// SHA-256 of the file where it is known.
        source_sha256: Option<[u8; 32]>,
    },
    /// Its content is on its holders.
    Ready { content_key: ContentKey, duration_ms: u64, blocks: u64 },
    /// It is over.
    Rejected { problem: Problem },
}

impl Record {
    pub(crate) fn new(publication: PublicationId, size: u64) -> Self {
        Self {
            version: VERSION,
            publication,
            size,
            authority: String::new(),
            authority_bytes: 0,
            authority_expires: 0,
            token: None,
            expires: 0,
            files: BTreeMap::new(),
            last_part: 0,
            joined: None,
            stage: Stage::Waiting,
        }
    }

    /// Bytes of its longest part.
    pub(crate) fn longest_part(&self) -> u64 {
        let parts = self.files.iter().filter(|(number, _)| **number > 0);
        parts.map(|(_, file)| file.length).max().unwrap_or(0)
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let record: Self = serde_json::from_slice(bytes)?;
        ensure!(record.version == VERSION, "it is of version {}, and this node reads {VERSION}", record.version);
        Ok(record)
    }
}

/// The folder of the records.
pub(crate) struct Records(PathBuf);

impl Records {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// Replaces an upload's record, at once or not at all. Blocks for as long as a sync takes.
    pub(crate) fn write(&self, record: &Record) -> Result<()> {
        replace_private(&self.path(record.publication), &serde_json::to_vec(record)?)
    }

    pub(crate) fn remove(&self, publication: PublicationId) -> io::Result<()> {
        match fs::remove_file(self.path(publication)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// All records, and the names of the uploads whose records the disk does not give. What is no record is told and taken away: its upload is
    /// unknown then, which the platform hears.
    pub(crate) fn load(&self) -> Result<(Vec<Record>, BTreeSet<String>)> {
        let (mut records, mut unread) = (Vec::new(), BTreeSet::new());
        for entry in fs::read_dir(&self.0).with_context(|| format!("cannot read {}", self.0.display()))? {
            let path = entry?.path();
            let bytes = match read_bytes(&path, MAX_BYTES) {
                Ok(bytes) => bytes,
                Err(error) => {
                    tracing::error!(path = %path.display(), error = format!("{error:#}"), "an upload's record cannot be read");
                    unread.extend(path.file_stem().and_then(|name| name.to_str()).map(ToOwned::to_owned));
                    continue;
                }
            };
            match Record::parse(&bytes) {
                Ok(record) if path == self.path(record.publication) => records.push(record),
                outcome => {
                    let error = outcome.err().map_or_else(|| "it is misnamed".to_owned(), |error| format!("{error:#}"));
                    tracing::warn!(path = %path.display(), error, "an upload's record is of no use and is removed");
                    fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
                }
            }
        }
        Ok((records, unread))
    }

    fn path(&self, publication: PublicationId) -> PathBuf {
        self.0.join(format!("{publication}.{ENDING}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_rubbish_goes() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::new(folder.path().to_owned());
        let publication = PublicationId::from_bytes([3; 16]);
        let mut record = Record::new(publication, 9);
        record.token = Some([7; 32]);
        let file = FileRecord { length: 5, checked: Some(1), metadata: "a YQ==".into() };
        record.files.insert(2, file);
        for stage in [
            Stage::Receiving,
            Stage::Received { parts: vec![(2, 5), (1, 4)], tries: 1, source_sha256: Some([1; 32]) },
            Stage::Ready { content_key: ContentKey::from_bytes([2; 32]), duration_ms: 1, blocks: 3 },
            Stage::Rejected { problem: Problem::new(control_api::ErrorKind::NotAVideo, "It is a text.") },
        ] {
            record.stage = stage;
            records.write(&record).unwrap();
            let [read] = records.load().unwrap().0.try_into().unwrap();
            assert_eq!(format!("{read:?}"), format!("{record:?}"));
        }
        // As an end in the middle of a write leaves it, and what somebody else put there.
        fs::write(folder.path().join("03.json.new"), "{").unwrap();
        let text = serde_json::to_string(&record).unwrap();
        fs::write(folder.path().join("misnamed.json"), &text).unwrap();
        let other = format!("{}.json", PublicationId::from_bytes([4; 16]));
        fs::write(folder.path().join(&other), text.replace("\"version\":1", "\"version\":2")).unwrap();
        assert_eq!(records.load().unwrap().0.len(), 1);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        records.remove(publication).unwrap();
        records.remove(publication).unwrap();
        assert!(records.load().unwrap().0.is_empty());
        // What the disk does not give stays.
        fs::create_dir(folder.path().join("05.json")).unwrap();
        let (read, unread) = records.load().unwrap();
        assert!(read.is_empty() && unread == ["05".to_owned()].into());
    }
}
