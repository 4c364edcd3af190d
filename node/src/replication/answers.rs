//! What other nodes ask about replication.

use super::work::proof;
use super::{Replication, position};
use crate::blocks::refusal;
use crate::deletions::OrderError;
use bytes::Bytes;
use chunkstore_block::{BlockId, Reference};
use dht::core::{Digest, Input, OfferAnswer, Position, Prefix};
use dht::{
    DigestAnswer, DigestRequest, MAX_NAMED_REFERENCES, OrdersPage, PeerId, PeerStatus, Reached, ReferencesPage,
    Refusal, Status, WireEntry,
};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

impl Replication {
    pub(crate) fn status(&self, from: PeerId) -> PeerStatus {
        self.tell(Input::Seen(position(from)));
        let (epoch, orders) = self.0.deletions.position();
        PeerStatus {
            room: self.0.has_room.load(Ordering::Relaxed),
            epoch,
            orders,
            revocations: self.membership().revocations_number(),
            revocations_digest: Some(self.membership().revocations_digest()),
        }
    }

    pub(crate) fn digest(&self, from: PeerId, request: DigestRequest) -> Result<DigestAnswer, Refusal> {
        self.check_loaded()?;
        self.tell(Input::Seen(position(from)));
        let prefix = Prefix::of(&Position::from_bytes(request.prefix), request.bits);
        Ok(match self.core().summarize(&position(from), &prefix) {
            Digest::Children(children) => {
                DigestAnswer::Children(Box::new(children.map(|bucket| (bucket.count, bucket.sum))))
            }
            Digest::Entries(entries) => DigestAnswer::Entries(
                entries
                    .into_iter()
                    .map(|entry| WireEntry { id: entry.id, digest: *entry.digest.as_bytes(), length: entry.length })
                    .collect(),
            ),
        })
    }

    pub(crate) fn offered(&self, from: PeerId, offered: &[(BlockId, u32)]) -> Result<Vec<OfferAnswer>, Refusal> {
        self.check_loaded()?;
        let answers = self.core().offered(self.now(), position(from), offered);
        self.0.told.notify_one();
        Ok(answers)
    }

    pub(crate) async fn prove(&self, id: BlockId, nonce: [u8; 32]) -> Result<[u8; 32], Refusal> {
        let local = self.0.peers.discovery().local_peer_id();
        let proved = self.0.durable.with(move |store| Ok(store.read(&id)?.map(|body| proof(&nonce, local, &body))));
        proved.await.map_err(|error| refusal(&error))?.ok_or_else(not_found)
    }

    pub(crate) async fn references(&self, ids: Vec<BlockId>) -> Result<ReferencesPage, Refusal> {
        let read = self.0.durable.with(move |store| {
            let mut page = ReferencesPage::default();
            for id in ids {
                if !page.push(store.references(&id)?) {
                    break;
                }
            }
            Ok(page)
        });
        read.await.map_err(|error| refusal(&error))
    }

    pub(crate) async fn pulled(&self, id: BlockId) -> Result<(Bytes, Vec<Reference>), Refusal> {
        let read = self.0.durable.with(move |store| {
            // Whoever makes a copy checks it, and asks for a checked read when it is wrong.
            let Some(body) = store.read_unverified(&id)? else { return Ok(None) };
            let references: Vec<_> = store.references(&id)?.into_iter().take(MAX_NAMED_REFERENCES).collect();
            Ok(Some((body, references)))
        });
        read.await.map_err(|error| refusal(&error))?.ok_or_else(not_found)
    }

    pub(crate) async fn authorities(&self, references: Vec<Reference>) -> Result<Vec<String>, Refusal> {
        let read = self.0.durable.with(move |store| {
            let kept = |reference| Ok(store.authority(reference)?.unwrap_or_default());
            references.iter().map(kept).collect::<Result<Vec<_>, _>>()
        });
        let kept = read.await.map_err(|error| refusal(&error))?;
        // They were text when they were verified.
        Ok(kept.into_iter().map(|text| String::from_utf8(text).unwrap_or_default()).collect())
    }

    pub(crate) async fn reach(&self, from: PeerId, at: SocketAddr) -> Result<Reached, Refusal> {
        self.0.peers.dial_back(from, at).await
    }

    pub(crate) fn revocations(&self) -> Bytes {
        self.membership().revocations_bytes().into()
    }

    pub(crate) async fn delete(&self, order: String) -> Result<(), Refusal> {
        let taken = self.0.deletions.take(order).await;
        taken.map(|_| ()).map_err(order_refusal)
    }

    pub(crate) async fn orders(&self, epoch: u64, after: u64) -> Result<OrdersPage, Refusal> {
        self.0.deletions.page(epoch, after).await.map_err(|error| refusal(&error))
    }

    /// A node that does not know yet what it has must not be taken for one that has nothing.
    fn check_loaded(&self) -> Result<(), Refusal> {
        if self.0.is_loaded.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(Refusal::new(Status::Busy, "this node is still reading what it has"))
    }
}

/// A node that could not keep an order says so: it is to be brought again, where one that is refused is not.
fn order_refusal(error: OrderError) -> Refusal {
    match error {
        OrderError::Refused(problem) => Refusal::new(Status::Refused, problem.detail),
        OrderError::Store(error) => refusal(&error),
    }
}

fn not_found() -> Refusal {
    Refusal::new(Status::NotFound, "the block is not here")
}

#[cfg(test)]
mod tests {
    use super::*;
    use chunkstore::StoreError;
    use data_encoding::HEXLOWER;
    use serde_json::Value;

    #[test]
    fn an_order_that_could_not_be_kept_is_not_one_that_is_refused() {
        let status = |error| order_refusal(error).status;
        let problem = control_api::Problem::new(control_api::ErrorKind::PlatformNotPinned, "not pinned");
        assert_eq!(status(OrderError::Refused(problem)), Status::Refused);
        assert_eq!(status(OrderError::Store(StoreError::Stopped)), Status::Internal);
        let full = StoreError::Full { needed_bytes: 3, used_bytes: 1, limit_bytes: 2, room: chunkstore::Room::Upload };
        assert_eq!(status(OrderError::Store(full)), Status::Full);
    }

    /// The vectors of the second implementation, `tests/python/vectors`.
    #[test]
    fn proofs_are_those_of_the_second_implementation() {
        let vector: Value =
            serde_json::from_str(include_str!("../../../tests/python/vectors/replication.json")).unwrap();
        let bytes = |value: &Value| HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap();
        let rows = vector["proofs"].as_array().unwrap();
        assert!(!rows.is_empty());
        for row in rows {
            let nonce = bytes(&row["nonce"]).try_into().unwrap();
            let prover = PeerId::from_bytes(&bytes(&row["prover"])).unwrap();
            let block = bytes(&row["block_byte"]).repeat(row["block_length"].as_u64().unwrap() as usize);
            assert_eq!(proof(&nonce, prover, &block).to_vec(), bytes(&row["proof"]));
        }
    }
}
