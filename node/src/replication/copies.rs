//! Copies of other nodes' blocks, and the references that come with them (`docs/protocol.md` §10.3 and §10.4).

use super::Replication;
use chunkstore::{MAX_REFERENCES, Room, Store, StoreError};
use chunkstore_block::{Block, BlockId, Reference};
use dht::core::{Position, PullOutcome};
use dht::{MAX_REFERENCES_PER_REQUEST, PeerAddress, TransferError};
use std::collections::BTreeSet;

/// What came of storing a copy.
enum Kept {
    Outcome(PullOutcome),
    /// Nobody has shown yet that these publications are their platforms' own.
    Unproved(BTreeSet<Reference>),
}

impl Replication {
    /// Fetches a block with its references and makes it durable. The core hears of the block before it hears that the pull is
    /// over, so that it does not want it once more in between.
    pub(super) async fn pull(&self, id: BlockId, from: Position) -> PullOutcome {
        let Some(address) = self.address(from) else { return PullOutcome::NoAnswer };
        let (block, references) = match self.0.peers.client().pull(address, id).await {
            Ok(pulled) => pulled,
            Err(TransferError::WrongBytes) => return self.judge(address, id).await,
            Err(error) => return no_copy(address, id, &error),
        };
        match self.keep(address, block, references).await {
            Ok(outcome) => outcome,
            Err(error) => {
                tracing::error!(block = %id, %error, "a copy could not be stored");
                if matches!(error, StoreError::DiskFull { .. }) {
                    self.disk_is_full();
                    PullOutcome::Full
                } else {
                    PullOutcome::Failed
                }
            }
        }
    }

    /// What a holder is that sent wrong bytes for a copy, which it need not have checked: one whose disk has damaged the block
    /// finds that out when it is asked for a checked read, one that lies does so again.
    async fn judge(&self, holder: PeerAddress, id: BlockId) -> PullOutcome {
        match self.0.peers.client().get(holder, id).await {
            // Also one whose checked read is right: what it sent before was not what it has.
            Ok(_) | Err(TransferError::WrongBytes) => {
                tracing::warn!(peer = %holder.id, block = %id, "a holder sent wrong bytes for a copy");
                PullOutcome::Wrong
            }
            Err(error) => no_copy(holder, id, &error),
        }
    }

    async fn keep(
        &self,
        holder: PeerAddress,
        block: Block,
        references: Vec<Reference>,
    ) -> Result<PullOutcome, StoreError> {
        let id = block.id();
        let mut references = self.pinned(references);
        let outcome = match self.store_if_proved(block.clone(), references.clone()).await? {
            Kept::Outcome(outcome) => outcome,
            Kept::Unproved(unproved) => {
                let proved = match self.words_for(holder, &unproved).await {
                    Ok(words) => self.admit(words).await?,
                    Err(error) => return Ok(no_copy(holder, id, &error)),
                };
                references.retain(|reference| !unproved.contains(reference) || proved.contains(reference));
                self.0.durable.with(move |store| store_copy(store, &block, &references)).await?
            }
        };
        if outcome == PullOutcome::Stored {
            self.look_at(vec![id]).await?;
        }
        Ok(outcome)
    }

    async fn store_if_proved(&self, block: Block, references: Vec<Reference>) -> Result<Kept, StoreError> {
        self.0
            .durable
            .with(move |store| {
                let unproved = unproved(store, &references)?;
                if unproved.is_empty() {
                    store_copy(store, &block, &references).map(Kept::Outcome)
                } else {
                    Ok(Kept::Unproved(unproved))
                }
            })
            .await
    }

    /// Takes over the references that another holder of these blocks has.
    pub(super) async fn ask_references(&self, peer: Position, mut ids: Vec<BlockId>) {
        let Some(holder) = self.address(peer) else { return };
        // Each answer has one block at least.
        while !ids.is_empty() {
            let named = match self.0.peers.client().references(holder, ids.clone()).await {
                Ok(named) => named,
                Err(error) => return self.failed(peer, &error),
            };
            let answered = ids.drain(..named.len().min(ids.len()));
            let named = answered.zip(named.into_iter().map(|named| self.pinned(named))).collect();
            if let Err(error) = self.take_over(holder, named).await {
                return tracing::error!(%error, "references that another holder has could not be added");
            }
        }
    }

    async fn take_over(&self, holder: PeerAddress, named: Vec<(BlockId, Vec<Reference>)>) -> Result<(), StoreError> {
        let all: BTreeSet<_> = named.iter().flat_map(|(_, references)| references).copied().collect();
        let mut unproved = self.0.durable.with(move |store| unproved(store, &all)).await?;
        match self.words_for(holder, &unproved).await {
            Ok(words) => {
                let proved = self.admit(words).await?;
                unproved.retain(|publication| !proved.contains(publication));
            }
            Err(error) => tracing::debug!(peer = %holder.id, %error, "a holder does not show whose its blocks are"),
        }
        self.0
            .durable
            .with(move |store| {
                for (id, references) in named {
                    let proved: Vec<_> = references.into_iter().filter(|one| !unproved.contains(one)).collect();
                    for portion in proved.chunks(MAX_REFERENCES) {
                        add_living(store, id, portion)?;
                    }
                }
                Ok(())
            })
            .await
    }

    /// Of what another node names, what is of the platforms that this one serves.
    fn pinned(&self, references: Vec<Reference>) -> Vec<Reference> {
        references.into_iter().filter(|reference| self.0.authorities.serves(&reference.platform)).collect()
    }

    /// Asks a holder for the platforms' word that these publications are their own: those for which it has one, verified.
    async fn words_for(
        &self,
        holder: PeerAddress,
        publications: &BTreeSet<Reference>,
    ) -> Result<Vec<(Reference, String)>, TransferError> {
        let publications: Vec<_> = publications.iter().copied().collect();
        let mut proved = Vec::with_capacity(publications.len());
        for asked in publications.chunks(MAX_REFERENCES_PER_REQUEST) {
            let words = self.0.peers.client().authorities(holder, asked.to_vec()).await?;
            for (publication, word) in asked.iter().zip(words).filter(|(_, word)| !word.is_empty()) {
                match self.0.authorities.verify_kept(&word) {
                    Ok(signed_for) if signed_for == *publication => proved.push((*publication, word)),
                    Ok(_) => tracing::warn!(peer = %holder.id, "a holder shows an authority of another publication"),
                    Err(problem) => {
                        tracing::warn!(peer = %holder.id, detail = problem.detail, "a holder shows a bad authority");
                    }
                }
            }
        }
        Ok(proved)
    }

    /// Keeps the words, not those for what was deleted here; which publications have one now.
    async fn admit(&self, words: Vec<(Reference, String)>) -> Result<BTreeSet<Reference>, StoreError> {
        self.0
            .durable
            .with(move |store| {
                let mut admitted = BTreeSet::new();
                for (publication, word) in words {
                    match store.admit(&publication, word.as_bytes()) {
                        Ok(()) => _ = admitted.insert(publication),
                        Err(StoreError::Deleted { .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(admitted)
            })
            .await
    }
}

/// Why a holder gave no copy.
fn no_copy(holder: PeerAddress, id: BlockId, error: &TransferError) -> PullOutcome {
    tracing::debug!(peer = %holder.id, block = %id, %error, "no copy from this holder");
    if error.status().is_some() { PullOutcome::NotThere } else { PullOutcome::NoAnswer }
}

/// Those of the publications for which no platform's word is kept here.
fn unproved<'a>(
    store: &Store,
    publications: impl IntoIterator<Item = &'a Reference>,
) -> Result<BTreeSet<Reference>, StoreError> {
    let mut unproved = BTreeSet::new();
    for publication in publications {
        if store.authority(publication)?.is_none() {
            unproved.insert(*publication);
        }
    }
    Ok(unproved)
}

fn store_copy(store: &Store, block: &Block, references: &[Reference]) -> Result<PullOutcome, StoreError> {
    let mut portions = references.chunks(MAX_REFERENCES);
    let Some(first) = portions.next() else { return Ok(PullOutcome::Unwanted) };
    match store.put_verified(block, first, Room::Repair) {
        Ok(_) => {}
        Err(StoreError::Deleted { .. }) => return Ok(PullOutcome::Unwanted),
        Err(StoreError::Full { .. }) => return Ok(PullOutcome::Full),
        Err(error) => return Err(error),
    }
    for more in portions {
        add_living(store, block.id(), more)?;
    }
    Ok(PullOutcome::Stored)
}

/// Adds references to a block that is here; what was deleted is left out.
fn add_living(store: &Store, id: BlockId, references: &[Reference]) -> Result<(), StoreError> {
    match store.add_references(&[id], references) {
        Ok(_) | Err(StoreError::Deleted { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
