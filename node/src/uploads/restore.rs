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

/// What of a file is to be processed, and whether its record has to be written anew.
enum Found {
    AsRecorded(Option<Come>),
    Changed(Option<Come>),
}

impl Uploads {
    /// Takes up what an earlier run knew, and clears away what nobody needs. `now` in seconds since 1970. Blocks.
    ///
    /// Errors: those of the disk.
    pub(crate) fn restore(&self, authorities: &AuthorityVerifier, store: &Store, now: u64) -> Result<Restored> {
        let mut restored = Restored::default();
        // What cannot be read today stays where it is.
        let (records, mut staged) = self.records.load()?;
        for record in records {
            let publication = record.publication;
            let Some(verified) = verified(&record, authorities).filter(|_| is_of_use(&record, now)) else {
                self.records.remove(publication).context("cannot remove an upload's record")?;
                continue;
            };
            let is_deleted = store.is_deleted(&verified.grant.reference)?;
            match self.restore_one(record, verified, is_deleted, now, &mut restored) {
                Ok(true) => _ = staged.insert(publication.to_string()),
                Ok(false) => {}
                // One upload that cannot be taken up keeps nobody from watching.
                Err(error) => {
                    tracing::error!(%publication, error = format!("{error:#}"), "an upload is left alone until the next start");
                    staged.insert(publication.to_string());
                }
            }
        }
        self.clear_staging(&staged)?;
        Ok(restored)
    }

    /// Whether the upload goes on.
    fn restore_one(
        &self,
        mut record: Record,
        verified: VerifiedUpload,
        is_deleted: bool,
        now: u64,
        restored: &mut Restored,
    ) -> Result<bool> {
        let publication = record.publication;
        let received = match self.take_up(&mut record, is_deleted, now)? {
            Found::AsRecorded(received) => received,
            Found::Changed(received) => {
                self.records.write(&record)?;
                received
            }
        };
        let goes_on = matches!(record.stage, Stage::Receiving | Stage::Received { .. });
        let token = record.token.map(|digest| RestoredToken { digest, grant: verified.grant, expires: record.expires });
        let upload = Arc::new(self.rebuild(verified, record, now)?);
        restored.tokens.extend(token);
        if let Some((parts, source_sha256)) = received {
            let staging = Staging::of(self.folder(&upload));
            restored.received.push((Arc::clone(&upload), Received { staging, source_sha256, parts }));
        }
        self.known().insert(publication, upload);
        Ok(goes_on)
    }

    /// Brings a record up to what is on disk.
    fn take_up(&self, record: &mut Record, is_deleted: bool, now: u64) -> Result<Found> {
        let folder = self.staging.join(record.publication.to_string());
        let is_over = matches!(record.stage, Stage::Rejected { .. });
        let mut stage = None;
        if is_deleted && !is_over {
            stage = Some(Stage::Rejected { problem: deleted() });
        } else if let Stage::Receiving = record.stage {
            if now >= record.expires {
                stage = Some(Stage::Rejected { problem: expired() });
            } else if let Some(whole) = record.files.get(&0)
                && whole.checked.unwrap_or(u64::MAX).min(length_of(&folder, 0)?) >= record.size
            {
                stage = Some(Stage::Received { parts: Vec::new(), tries: 0, source_sha256: None });
            }
        } else if let Stage::Received { parts, tries, .. } = &record.stage {
            let detail = if *tries >= MAX_TRIES {
                Some(format!(
                    "The node ended {tries} times while it processed this file. Tell its operator, or try another node."
                ))
            } else if parts.is_empty() && length_of(&folder, 0)? != record.size {
                Some("The file is no longer whole on the node's disk. Upload it again.".to_owned())
            } else {
                None
            };
            stage = detail.map(|detail| Stage::Rejected { problem: Problem::new(ErrorKind::Internal, detail) });
        }
        let is_changed = stage.is_some();
        record.stage = stage.unwrap_or(record.stage.clone());
        let received = match &record.stage {
            Stage::Received { parts, source_sha256, .. } => Some((parts.clone(), *source_sha256)),
            Stage::Waiting | Stage::Receiving | Stage::Ready { .. } | Stage::Rejected { .. } => None,
        };
        Ok(if is_changed { Found::Changed(received) } else { Found::AsRecorded(received) })
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
        let are_joined = matches!(&record.stage, Stage::Received { parts, .. } if parts.is_empty());
        let for_joining = if are_joined { 0 } else { record.longest_part() };
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
                Staging::of(entry.path()).remove();
            }
        }
        Ok(())
    }
}

/// Whether a record is to be taken up: what had come whole was acknowledged, however long it has waited.
fn is_of_use(record: &Record, now: u64) -> bool {
    now < record.expires + REMEMBERED || matches!(record.stage, Stage::Received { .. })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_waits_to_be_processed_is_of_use_when_its_token_is_long_over() {
        let mut record = Record::new(PublicationId::from_bytes([1; 16]), 9);
        record.expires = 1_000;
        record.stage = Stage::Receiving;
        assert!(is_of_use(&record, 1_000 + REMEMBERED - 1) && !is_of_use(&record, 1_000 + REMEMBERED));
        record.stage = Stage::Received { parts: Vec::new(), tries: 0, source_sha256: None };
        assert!(is_of_use(&record, 1_000 + 100 * REMEMBERED));
    }
}
