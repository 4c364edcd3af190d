//! What the core wants done: questions to other nodes, pulls, drops.

use super::Replication;
use crate::deletions::OrderError;
use chunkstore_block::BlockId;
use dht::core::{AuditOutcome, Bucket, Digest, Entry, EntryDigest, Input, Output, Position, Prefix};
use dht::{DigestAnswer, DigestRequest, Membership, PeerAddress, PeerId, Status, TransferError};
use sha2::{Digest as _, Sha256};
use std::time::Instant;

/// A lookup of 20 nodes among N settles about log2(N / 20) + 2 bits: this is enough for a million nodes.
const NEAR_BITS: u16 = 17;
/// Keys that are tried; 2^17 have 17 bits in common with the target once on average.
const MOST_KEYS: u64 = 1 << 18;

impl Replication {
    pub(super) async fn carry_out(&self, output: Output) {
        match output {
            Output::Lookup(target) => self.look_up(target).await,
            Output::Ping(peer) => self.ping(peer).await,
            Output::AskDigest { peer, prefix } => self.ask_digest(peer, prefix).await,
            Output::Pull { id, from, .. } => {
                let outcome = self.pull(id, from).await;
                self.tell(Input::Pulled { id, from, outcome });
            }
            Output::Offer { to, entries } => self.offer(to, entries).await,
            Output::AskReferences { peer, ids } => self.ask_references(peer, ids).await,
            Output::Audit { id, by } => {
                let outcome = self.audit(id, by).await;
                self.tell(Input::Audited { id, by, outcome });
            }
            Output::AskOrders { peer, epoch, after } => self.ask_orders(peer, epoch, after).await,
            Output::Drop { id, digest, holders } => self.drop_surplus(id, digest, holders).await,
        }
    }

    async fn look_up(&self, target: Position) {
        let Ok((key, near)) = tokio::task::spawn_blocking(move || key_near(&target)).await else {
            return self.tell(Input::NotFound { target });
        };
        let nodes = match self.0.peers.look_up(key).await {
            // One that was cut off may have missed whoever is closest.
            Ok(found) => found.closest(),
            Err(error) => {
                tracing::debug!(%error, "a lookup failed");
                None
            }
        };
        self.tell(nodes.map_or(Input::NotFound { target }, |nodes| Input::Found { target, near, nodes }));
    }

    async fn ping(&self, peer: Position) {
        let Some(address) = self.address(peer) else { return };
        match self.0.peers.client().ping(address).await {
            Ok(status) => {
                let (number, digest) = (status.revocations, status.revocations_digest);
                if self.membership().wants_revocations_of(address.id, number, digest, Instant::now()) {
                    self.ask_revocations(address).await;
                }
                self.tell(Input::Status { from: peer, room: status.room, epoch: status.epoch, orders: status.orders });
            }
            Err(error) => self.failed(peer, &error),
        }
    }

    /// Lists that are older, or that no authority has signed, are not taken.
    async fn ask_revocations(&self, peer: PeerAddress) {
        let list = match self.0.peers.client().revocations(peer).await {
            Ok(list) => list,
            Err(error) => return tracing::debug!(peer = %peer.id, %error, "no revocation list from this peer"),
        };
        match self.membership().take_revocations_of(peer.id, &list) {
            Ok(true) => tracing::info!(peer = %peer.id, "a newer revocation list came from a peer"),
            Ok(false) => {}
            Err(error) => tracing::warn!(peer = %peer.id, %error, "a peer's revocation list is not taken"),
        }
    }

    pub(super) fn membership(&self) -> &Membership {
        self.0.peers.client().membership()
    }

    async fn ask_digest(&self, peer: Position, prefix: Prefix) {
        let Some(address) = self.address(peer) else { return };
        let request = DigestRequest { bits: prefix.bits(), prefix: *prefix.start().as_bytes() };
        match self.0.peers.client().digest(address, request).await {
            Ok(answer) => self.tell(Input::Digest { from: peer, prefix, digest: digest(answer) }),
            Err(error) => self.failed(peer, &error),
        }
    }

    async fn offer(&self, to: Position, entries: Vec<Entry>) {
        let Some(address) = self.address(to) else { return };
        let named: Vec<_> = entries.iter().map(|entry| (entry.id, entry.length)).collect();
        match self.0.peers.client().offer(address, named).await {
            Ok(answers) => {
                let answers = entries.iter().map(|entry| entry.id).zip(answers).collect();
                self.tell(Input::Offered { to, answers });
            }
            Err(error) => self.failed(to, &error),
        }
    }

    async fn audit(&self, id: BlockId, by: Position) -> AuditOutcome {
        let Some(address) = self.address(by) else { return AuditOutcome::NoAnswer };
        let body = match self.0.durable.with(move |store| store.read(&id)).await {
            Ok(Some(body)) => body,
            // Damaged or gone since: nothing is known of the other copy.
            Ok(None) | Err(_) => return AuditOutcome::Unchecked,
        };
        let Ok(nonce) = dht::random_bytes::<32>() else { return AuditOutcome::Unchecked };
        match self.0.peers.client().audit(address, id, nonce).await {
            Ok(answer) if answer == proof(&nonce, address.id, &body) => AuditOutcome::Proved,
            Ok(_) => {
                tracing::warn!(peer = %address.id, block = %id, "a holder could not prove that it has a block");
                AuditOutcome::Wrong
            }
            Err(error) if error.status() == Some(Status::NotFound) => AuditOutcome::NotThere,
            Err(error) if error.status().is_some() => AuditOutcome::NoAnswer,
            Err(error) => {
                tracing::debug!(peer = %address.id, %error, "no answer to an audit");
                AuditOutcome::NoAnswer
            }
        }
    }

    async fn ask_orders(&self, peer: Position, epoch: u64, after: u64) {
        let Some(address) = self.address(peer) else { return };
        let page = match self.0.peers.client().orders(address, epoch, after).await {
            Ok(page) => page,
            Err(error) => return self.failed(peer, &error),
        };
        for order in page.orders {
            match self.0.deletions.take(order).await {
                Ok(_) => {}
                // It is asked for again: an order that was passed over would bring the video back.
                Err(error @ OrderError::Store(_)) => {
                    tracing::error!(peer = %address.id, %error, "a deletion order could not be kept");
                    return;
                }
                // A platform that this node has not pinned, as a rule: its blocks are not here.
                Err(error) => {
                    tracing::debug!(peer = %address.id, %error, "a deletion order is not taken");
                }
            }
        }
        self.tell(Input::Orders { from: peer, epoch: page.epoch, next: page.next });
    }

    /// Drops a surplus copy, unless it is kept for a publication for which one of its holders does not keep theirs.
    async fn drop_surplus(&self, id: BlockId, digest: EntryDigest, holders: Vec<Position>) {
        let own = match self.0.durable.with(move |store| store.references(&id)).await {
            Ok(own) if EntryDigest::of(&id, &own) == digest => own,
            Ok(_) => return, // the core hears of it
            Err(error) => return tracing::error!(block = %id, %error, "a surplus copy could not be looked at"),
        };
        for holder in holders {
            let Some(address) = self.address(holder) else { return };
            let named = match self.0.peers.client().references(address, vec![id]).await {
                Ok(named) => named.concat(),
                Err(error) => return self.failed(holder, &error),
            };
            if own.iter().any(|reference| !named.contains(reference)) {
                tracing::debug!(block = %id, peer = %address.id, "a surplus copy stays: a holder lacks references");
                return;
            }
        }
        match self.0.durable.with(move |store| store.remove_if_only(&id, &own)).await {
            Ok(true) => tracing::debug!(block = %id, "a surplus copy is dropped: its holders have proved theirs"),
            Ok(false) => tracing::debug!(block = %id, "a surplus copy stays: it has got other references"),
            Err(error) => tracing::error!(block = %id, %error, "a surplus copy could not be dropped"),
        }
    }

    /// Where a node is. If that is not known, the core hears that it does not answer.
    pub(super) fn address(&self, peer: Position) -> Option<PeerAddress> {
        let address = self.0.peers.address(&peer);
        if address.is_none() {
            self.tell(Input::NoAnswer(peer));
        }
        address
    }

    pub(super) fn failed(&self, peer: Position, error: &TransferError) {
        match error.status() {
            Some(Status::Unsupported) => self.tell(Input::Unsupported(peer)),
            // It is there, and has its reasons.
            Some(_) => self.tell(Input::Seen(peer)),
            None => {
                tracing::debug!(%error, "a neighbour does not answer");
                self.tell(Input::NoAnswer(peer));
            }
        }
    }
}

/// A key whose hash, the position that Kademlia looks up, is near `target`; and that position. Tries keys until one has
/// [`NEAR_BITS`] in common, some ten milliseconds on average.
fn key_near(target: &Position) -> (Vec<u8>, Position) {
    let keys = (0..MOST_KEYS).map(|i: u64| i.to_be_bytes().to_vec());
    let mut best = (Vec::new(), Position::of_peer(&[]));
    for key in keys {
        let near = Position::of_peer(&key);
        if near.common_bits(target) > best.1.common_bits(target) {
            best = (key, near);
            if best.1.common_bits(target) >= NEAR_BITS {
                break;
            }
        }
    }
    best
}

/// What an honest holder answers (protocol §10.6).
pub(super) fn proof(nonce: &[u8; 32], prover: PeerId, block: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(nonce);
    hash.update(prover.to_bytes());
    hash.update(block);
    hash.finalize().into()
}

fn digest(answer: DigestAnswer) -> Digest {
    match answer {
        DigestAnswer::Children(children) => Digest::Children(children.map(|(count, sum)| Bucket { count, sum })),
        DigestAnswer::Entries(entries) => {
            let entry = |wire: dht::WireEntry| Entry {
                id: wire.id,
                length: wire.length,
                digest: EntryDigest::from_bytes(wire.digest),
            };
            Digest::Entries(entries.into_iter().map(entry).collect())
        }
    }
}
