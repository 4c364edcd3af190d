//! The connections to one peer, and who may ask over which.

use super::TransferError;
use super::connection::{Connection, Ticket};
use super::limits::ClientLimits;
use super::message::{Kind, Request, Response};
use crate::Membership;
use futures::future::BoxFuture;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, Semaphore};

/// Connections for what is short.
const SHORT_CONNECTIONS: usize = 2;
/// Requests under way on each of them.
const SHORT_UNDER_WAY: usize = 8;

/// Opens a connection.
pub(super) type Connect<'a> = &'a (dyn Fn() -> BoxFuture<'a, Result<Connection, TransferError>> + Sync);

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
    /// A connection was opened, or could not be.
    changed: Notify,
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
    /// Others open as many as there may be.
    Wait,
    /// The one chosen ended just now.
    Again,
}

impl PeerPool {
    pub(super) fn new(limits: &ClientLimits) -> Self {
        Self {
            blocks: Lane::new(limits.connections_per_peer, limits.under_way.clamp(1, 16)),
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
        Self { turns, most, connections: Mutex::default(), changed: Notify::new() }
    }

    /// A place on the connection with the fewest requests under way, and whether it was opened for it.
    async fn ticket(&self, membership: &Membership, connect: Connect<'_>) -> Result<(Ticket, bool), TransferError> {
        loop {
            let changed = self.changed.notified();
            match self.choose(membership) {
                Choice::Ask(ticket) => return Ok((ticket, false)),
                Choice::Open => {
                    let opening = Opening(self);
                    let connection = Arc::new(connect().await?);
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
        let least = connections.open.iter().map(|one| (one.under_way(), one)).min_by_key(|(under_way, _)| *under_way);
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
