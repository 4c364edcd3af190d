//! Deletion orders at this node (`docs/protocol.md` §7).

use crate::backend::Node;
use chunkstore::Deletion;
use chunkstore_block::{PlatformFingerprint, Reference};
use control_api::{DeletionEntry, DeletionOutcome, ErrorKind, Problem, VerifiedDeletion};

/// What an uploader hears.
pub(crate) fn deleted() -> Problem {
    Problem::new(
        ErrorKind::Deleted,
        "The platform has deleted this publication. To publish the film again, register a new content.",
    )
}

impl Node {
    /// Takes an order: durably first, so that nothing new comes in; then ends what is under way, then takes away what is
    /// there, in the background.
    pub(crate) async fn delete(&self, verified: VerifiedDeletion, order: String) -> Result<DeletionOutcome, Problem> {
        let VerifiedDeletion { publication, sequence } = verified;
        let deletion =
            Deletion { publication, sequence, at_seconds: self.clock.unix_seconds(), order: order.into_bytes() };
        let applied = self.blocks.durable.with(move |store| store.delete(deletion)).await;
        let applied = applied.map_err(|error| Problem::internal(&error))?;
        self.uploads.delete(&publication);
        self.housekeeper.wake();
        tracing::info!(
            platform = %publication.platform, publication = %publication.publication, sequence, applied, "deletion order"
        );
        Ok(if applied { DeletionOutcome::Applied } else { DeletionOutcome::Known })
    }

    pub(crate) async fn deletions(
        &self,
        platform: PlatformFingerprint,
        after: u64,
        limit: usize,
    ) -> Result<Vec<DeletionEntry>, Problem> {
        let kept = self.blocks.durable.with(move |store| store.deletions(&platform, after, limit)).await;
        let kept = kept.map_err(|error| Problem::internal(&error))?;
        kept.into_iter().map(entry).collect()
    }

    /// Refuses what is for a publication that was deleted.
    pub(crate) async fn check_not_deleted(&self, publication: Reference) -> Result<(), Problem> {
        match self.blocks.durable.with(move |store| store.is_deleted(&publication)).await {
            Ok(false) => Ok(()),
            Ok(true) => Err(deleted()),
            Err(error) => Err(Problem::internal(&error)),
        }
    }
}

fn entry(deletion: Deletion) -> Result<DeletionEntry, Problem> {
    Ok(DeletionEntry {
        publication: deletion.publication.publication,
        sequence: deletion.sequence,
        received: deletion.at_seconds,
        order: String::from_utf8(deletion.order).map_err(|error| Problem::internal(&error))?,
    })
}
