//! The connections to one peer, and who may ask over which.

use super::TransferError;
use super::connection::{Connection, Ticket};
use super::limits::ClientLimits;
use super::message::{Kind, MAX_UNDER_WAY, Request, Response};
use crate::Membership;
use futures::future::BoxFuture;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, Semaphore};

/// Connections for what is short.
const SHORT_CONNECTIONS: usize = 2;
/// Requests under way on each of them.
const SHORT_UNDER_WAY: usize = 8;

/// Opens a connection that tells when a place on it becomes free.
pub(super) type Connect<'a> = &'a (dyn Fn(Arc<Notify>) -> BoxFuture<'a, Result<Connection, TransferError>> + Sync);

/// The connections to one peer: some for blocks, and some for what is short and should not wait behind blocks.
pub(super) struct PeerPool {
    blocks: Lane,
    short: Lane,
}

/// Connections that are equally good for a request.
struct Lane {
    turns: Semaphore,
    most: usize,
    connections: Mutex<Connections>,
    /// A connection was opened, or could not be, or has a place for a request again.
    changed: Arc<Notify>,
}

#[derive(Default)]
struct Connections {
    open: Vec<Arc<Connection>>,
    opening: usize,
}

/// How to go on.
enum Choice {
    Ask(Ticket),
    Open,
    /// Others open as many as there may be, or all that there may be are full.
    Wait,
    /// The one chosen ended just now.
    Again,
}

impl PeerPool {
    pub(super) fn new(limits: &ClientLimits) -> Self {
        Self {
            blocks: Lane::new(limits.connections_per_peer, limits.under_way.clamp(1, MAX_UNDER_WAY)),
            short: Lane::new(SHORT_CONNECTIONS, SHORT_UNDER_WAY),
        }
    }

    /// One request over a connection that there is, or over a new one where there is none or those that there are turn out
    /// dead. Every request of version 1 may be sent twice without harm.
    pub(super) async fn ask(
        &self,
        request: Request,
        membership: &Membership,
        connect: Connect<'_>,
    ) -> Result<Response, TransferError> {
        let carries_a_block = matches!(request.kind(), Kind::Get | Kind::Put | Kind::Pull);
        let lane = if carries_a_block { &self.blocks } else { &self.short };
        #[allow(clippy::expect_used)] // The semaphore is never closed.
        let _turn = lane.turns.acquire().await.expect("the semaphore is open");
        loop {
            let (ticket, is_new) = lane.ticket(membership, connect).await?;
            match ticket.ask(request.clone()).await {
                // The peer closed it while it was idle. It is not chosen again, so this ends with a new one at the latest. A peer
                // that is slow is not asked the same again.
                Err(TransferError::Io(error)) if !is_new && error.kind() != io::ErrorKind::TimedOut => {}
                other => return other,
            }
        }
    }
}

impl Lane {
    fn new(most: usize, under_way: usize) -> Self {
        let turns = Semaphore::new(most * under_way);
        Self { turns, most, connections: Mutex::default(), changed: Arc::default() }
    }

    /// A place on the connection with the fewest requests under way, and whether it was opened for it.
    async fn ticket(&self, membership: &Membership, connect: Connect<'_>) -> Result<(Ticket, bool), TransferError> {
        loop {
            let changed = self.changed.notified();
            match self.choose(membership) {
                Choice::Ask(ticket) => return Ok((ticket, false)),
                Choice::Open => {
                    let opening = Opening(self);
                    let connection = Arc::new(connect(Arc::clone(&self.changed)).await?);
                    let ticket = connection.ticket();
                    self.lock().open.push(connection);
                    drop(opening);
                    if let Some(ticket) = ticket {
                        return Ok((ticket, true));
                    }
                }
                Choice::Wait => changed.await,
                Choice::Again => {}
            }
        }
    }

    fn choose(&self, membership: &Membership) -> Choice {
        let now = membership.now();
        let mut connections = self.lock();
        connections.open.retain(|one| !one.has_ended() && membership.still_admitted(one.admission(), now).is_ok());
        let free = connections.open.iter().filter(|one| !one.is_full());
        let least = free.map(|one| (one.under_way(), one)).min_by_key(|(under_way, _)| *under_way);
        let may_open = connections.open.len() + connections.opening < self.most;
        match least {
            Some((under_way, one)) if under_way == 0 || !may_open => one.ticket().map_or(Choice::Again, Choice::Ask),
            _ if may_open => {
                connections.opening += 1;
                Choice::Open
            }
            _ => Choice::Wait,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// That a connection is being opened; over when dropped.
struct Opening<'a>(&'a Lane);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.lock().opening -= 1;
        self.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::super::channel::Channel;
    use super::super::handshake::{self, LocalIdentity};
    use super::super::message::hello;
    use super::*;
    use crate::{BlockClient, Keypair, Network, PeerAddress};
    use bytes::Bytes;
    use chunkstore_block::BlockId;
    use std::time::Duration;
    use tokio::net::TcpListener;

    /// Longer than a request takes that is sent at all.
    const WHILE: Duration = Duration::from_millis(200);
    const SOON: Duration = Duration::from_secs(5);

    async fn next(channel: &mut Channel) -> Option<u32> {
        let ready = tokio::time::timeout(WHILE, channel.receiver.ready()).await;
        ready.is_ok_and(|open| open.unwrap()).then_some(())?;
        Some(channel.receiver.receive(SOON).await.unwrap().unwrap().request_id)
    }

    /// The client had as many requests under way as it liked, whatever the peer's hello said.
    #[tokio::test]
    async fn as_many_requests_are_under_way_as_the_peer_allows() {
        let (network, keypair) = (Arc::new(Network::generate().unwrap()), Keypair::generate_ed25519());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = PeerAddress { id: keypair.public().to_peer_id(), address: listener.local_addr().unwrap() };
        let limits = ClientLimits { connections_per_peer: 1, under_way: 8 };
        let client = BlockClient::with_limits(Keypair::generate_ed25519(), Arc::clone(&network), limits).unwrap();
        let asked: Vec<_> = (0..5_u8)
            .map(|number| {
                let client = client.clone();
                tokio::spawn(async move { client.get(peer, BlockId::of(&[number])).await })
            })
            .collect();
        let identity = LocalIdentity::new(keypair).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let mut channel = handshake::respond(stream, &identity, &network).await.unwrap();
        channel.sender.send(&hello(2)).await.unwrap();
        let mut under_way = Vec::new();
        for left in (0..5).rev() {
            while let Some(request) = next(&mut channel).await {
                under_way.push(request);
            }
            assert_eq!(under_way.len(), 2.min(left + 1));
            let answer =
                Response::Block(Bytes::from_static(b"not it")).into_frame(Kind::Get as u8, under_way.remove(0));
            channel.sender.send(&answer).await.unwrap();
        }
        for asked in asked {
            assert!(matches!(asked.await.unwrap(), Err(TransferError::WrongBytes)));
        }
    }

    #[test]
    fn a_peer_that_allows_no_requests_is_not_asked() {
        assert!(super::super::message::check_hello(&hello(0)).is_err());
        for (said, allowed) in [(1, 1), (16, 16), (17, 16)] {
            assert_eq!(super::super::message::check_hello(&hello(said)).unwrap(), allowed);
        }
    }
}
