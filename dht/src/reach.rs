//! Whether this node can be reached from outside: only another node can tell.

use crate::transfer::{Reached, Refusal, Status, TransferError};
use crate::{DiscoveryError, PeerAddress, Peers};
use libp2p::PeerId;
use lru::LruCache;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// A peer that asks sooner is told to wait: each question costs two handshakes.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// Peers whose last question is remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// Questions that are being answered.
const MAX_UNDER_WAY: usize = 8;
/// Peers that are asked until one answers.
const MAX_ASKED: usize = 4;

/// Keeps others from making this node connect all the time.
pub(crate) struct DialBacks {
    asked: Mutex<LruCache<PeerId, Instant>>,
    under_way: Semaphore,
}

impl DialBacks {
    pub(crate) fn new() -> Self {
        Self { asked: Mutex::new(LruCache::new(REMEMBERED)), under_way: Semaphore::new(MAX_UNDER_WAY) }
    }

    fn may(&self, peer: PeerId) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.get(&peer).is_some_and(|last| last.elapsed() < AGAIN_AFTER) {
            return false;
        }
        asked.put(peer, Instant::now());
        true
    }
}

impl Peers {
    /// Connects to a peer anew on both planes, to tell it whether that works. `at` is where its question came from, with the port
    /// that it named: nobody can have another one dialled.
    ///
    /// # Errors
    /// [`Status::Busy`] when it asks too often, or too many ask at once.
    pub async fn dial_back(&self, from: PeerId, at: SocketAddr) -> Result<Reached, Refusal> {
        let busy = |text| Refusal::new(Status::Busy, text);
        let Ok(_place) = self.dial_backs().under_way.try_acquire() else {
            return Err(busy("too many ask to be reached"));
        };
        if !self.dial_backs().may(from) {
            return Err(busy("ask again after 10 s"));
        }
        let peer = PeerAddress { id: from, address: at };
        let (tcp, udp) = tokio::join!(self.client().can_reach(peer), self.discovery().can_reach(peer));
        Ok(Reached { tcp, udp })
    }

    /// Asks a member that is connected whether it reaches this node at `port`, and who that was.
    ///
    /// # Errors
    /// [`ReachError`] when nobody could be asked.
    pub async fn reached_from_outside(&self, port: u16) -> Result<(PeerId, Reached), ReachError> {
        let mut last = ReachError::Alone;
        for peer in self.discovery().connected().await?.into_iter().take(MAX_ASKED) {
            match self.client().ask_to_reach(peer, port).await {
                Ok(reached) => return Ok((peer.id, reached)),
                Err(error) => last = ReachError::NoAnswer(error),
            }
        }
        Err(last)
    }
}

/// Why it is not known whether this node can be reached.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// No other node is connected.
    #[error("no other node is connected that could be asked")]
    Alone,
    /// Those who were asked did not say.
    #[error("no node that was asked told it: {0}")]
    NoAnswer(#[source] TransferError),
    /// The node is shutting down.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_is_dialled_once_in_ten_seconds() {
        let dial_backs = DialBacks::new();
        let peers = [(); 2].map(|()| libp2p::identity::Keypair::generate_ed25519().public().to_peer_id());
        assert!(dial_backs.may(peers[0]) && dial_backs.may(peers[1]));
        assert!(!dial_backs.may(peers[0]) && !dial_backs.may(peers[1]));
    }
}
