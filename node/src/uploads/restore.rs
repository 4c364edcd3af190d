//! Uploads after a restart: what an earlier run knew, and what of it is on disk.

use super::record::{Record, Stage};
use super::resumable::length_of;
use super::staging::{Received, Staging};
use super::upload::{ready, reject};
use super::writer::Slot;
use super::{Upload, Uploads, expired};
use crate::deletions::deleted;
use anyhow::{Context, Result};
use chunkstore::Store;
use chunkstore_block::{PublicationId, Reference};
use control_api::signing::VerifiedUpload;
use control_api::{Authority, AuthorityVerifier, ErrorKind, Phase, Problem, TokenDigest, UploadGrant, UploadStatus};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often the processing of a file may end with the whole process before the file is held to be why.
const MAX_TRIES: u32 = 3;
/// For so long after the end of its token a record is of use, seconds.
const REMEMBERED: u64 = 3_600;

/// What an earlier run leaves to this one.
#[derive(Default)]
pub(crate) struct Restored {
    pub(crate) tokens: Vec<RestoredToken>,
    /// Files that have come and are not processed.
    pub(crate) received: Vec<(Arc<Upload>, Received)>,
}

/// An upload's token.
pub(crate) struct RestoredToken {
    pub(crate) digest: TokenDigest,
    pub(crate) grant: UploadGrant,
    /// Seconds since 1970.
    pub(crate) expires: u64,
}

/// Parts that are not joined, and the SHA-256 where it is known.
type Come = (Vec<(u32, u64)>, Option<[u8; 32]>);

impl Uploads {
    /// Takes up what an earlier run knew, and clears away what nobody needs. `now` in seconds since 1970. Blocks.
    ///
    /// Errors: those of the disk.
    pub(crate) fn restore(&self, authorities: &AuthorityVerifier, store: &Store, now: u64) -> Result<Restored> {
        let (mut restored, mut staged) = (Restored::default(), BTreeSet::new());
        for mut record in self.records.load()? {
            let publication = record.publication;
            let Some(verified) = verified(&record, authorities).filter(|_| now < record.expires + REMEMBERED) else {
                self.records.remove(publication).context("cannot remove an upload's record")?;
                continue;
            };
            let reference = verified.grant.reference;
            let received = self.take_up(&mut record, store.is_deleted(&reference)?, now)?;
            self.records.write(&record)?;
            if matches!(record.stage, Stage::Receiving | Stage::Received { .. }) {
                staged.insert(publication.to_string());
            }
            if let Some(digest) = record.token {
                restored.tokens.push(RestoredToken { digest, grant: verified.grant, expires: record.expires });
            }
            let upload = Arc::new(self.rebuild(verified, record, now)?);
            if let Some((parts, source_sha256)) = received {
                let staging = Staging::of(self.folder(&upload));
                restored.received.push((Arc::clone(&upload), Received { staging, source_sha256, parts }));
            }
            self.known().insert(publication, upload);
        }
        self.clear_staging(&staged)?;
        Ok(restored)
    }

    /// Brings a record up to what is on disk; the parts and the SHA-256 of its file, if that is to be processed.
    fn take_up(&self, record: &mut Record, is_deleted: bool, now: u64) -> Result<Option<Come>> {
        let folder = self.staging.join(record.publication.to_string());
        let is_over = matches!(record.stage, Stage::Rejected { .. });
        if is_deleted && !is_over {
            record.stage = Stage::Rejected { problem: deleted() };
        }
        if let Stage::Receiving = record.stage {
            if now >= record.expires {
                record.stage = Stage::Rejected { problem: expired() };
            } else if let Some(whole) = record.files.get(&0)
                && whole.checked.unwrap_or(u64::MAX).min(length_of(&folder, 0)?) >= record.size
            {
                record.stage = Stage::Received { parts: Vec::new(), tries: 0, source_sha256: None };
            }
        }
        let Stage::Received { parts, tries, source_sha256 } = &mut record.stage else { return Ok(None) };
        let problem = if *tries >= MAX_TRIES {
            let detail = format!(
                "The node ended {tries} times while it processed this file. Tell its operator, or try another node."
            );
            Some(Problem::new(ErrorKind::Internal, detail))
        } else if parts.is_empty() && length_of(&folder, 0)? != record.size {
            let detail = "The file is no longer whole on the node's disk. Upload it again.";
            Some(Problem::new(ErrorKind::Internal, detail))
        } else {
            *tries += 1;
            None
        };
        match problem {
            None => Ok(Some((parts.clone(), *source_sha256))),
            Some(problem) => {
                record.stage = Stage::Rejected { problem };
                Ok(None)
            }
        }
    }

    fn rebuild(&self, verified: VerifiedUpload, record: Record, now: u64) -> Result<Upload> {
        let mut status = UploadStatus::waiting(record.publication, record.size);
        let folder = self.staging.join(record.publication.to_string());
        let (mut slots, mut ended) = (Vec::new(), None);
        match &record.stage {
            Stage::Waiting => {}
            Stage::Receiving => {
                status.phase = Phase::Receiving;
                for (number, file) in &record.files {
                    let offset = length_of(&folder, *number)?.min(file.length).min(file.checked.unwrap_or(u64::MAX));
                    slots.push((*number, Arc::new(Slot::new(offset))));
                }
            }
            Stage::Received { .. } => {
                status.phase = Phase::Receiving;
                status.received_bytes = record.size;
                status.percent = 100.0;
            }
            Stage::Ready { content_key, duration_ms, blocks } => {
                status.received_bytes = record.size;
                ready(&mut status, *content_key, *duration_ms, *blocks);
            }
            Stage::Rejected { problem } => {
                // Somebody ended it; other refusals are of a file that had come whole.
                ended = Some(problem.clone()).filter(|problem| problem.status == 410);
                reject(&mut status, problem.clone());
            }
        }
        let remaining = Duration::from_secs(record.expires.saturating_sub(now));
        let parts = record.files.iter().filter(|(number, _)| **number > 0).map(|(_, file)| file.length);
        let for_joining = parts.max().unwrap_or(0);
        let is_coming = !slots.is_empty();
        let upload = Upload::with(verified, record, status, Arc::clone(&self.records));
        upload.ends_after(remaining);
        if let Some(why) = ended {
            upload.end(why);
        }
        upload.slots().extend(slots);
        upload.for_joining.store(for_joining, Ordering::Relaxed);
        if is_coming {
            upload.report_pause(upload.received_bytes());
        }
        Ok(upload)
    }

    /// Removes what is of no upload that goes on.
    fn clear_staging(&self, staged: &BTreeSet<String>) -> Result<()> {
        let failed = || format!("cannot clear {}", self.staging.display());
        for entry in std::fs::read_dir(&self.staging).with_context(failed)? {
            let entry = entry.with_context(failed)?;
            if entry.file_name().to_str().is_none_or(|name| !staged.contains(name)) {
                drop(Staging::of(entry.path()));
            }
        }
        Ok(())
    }
}

/// The upload as it was verified, if the platform's word for it still counts here.
fn verified(record: &Record, authorities: &AuthorityVerifier) -> Option<VerifiedUpload> {
    let publication: PublicationId = record.publication;
    let reference: Reference = match authorities.verify_kept(&record.authority) {
        Ok(reference) if reference.publication == publication => reference,
        outcome => {
            let why =
                outcome.err().map_or_else(|| "its authority is for another one".to_owned(), |problem| problem.detail);
            tracing::warn!(%publication, why, "an upload of before the restart is given up");
            return None;
        }
    };
    let authority = Authority { reference, bytes: record.authority_bytes, expires: record.authority_expires };
    let grant = UploadGrant { reference, size: record.size };
    Some(VerifiedUpload { grant, authority_jws: record.authority.clone(), authority })
}
