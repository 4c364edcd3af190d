//! The one thread that changes the store: it takes what callers hand in, a group at a time, makes the group durable with
//! one sync, and applies it.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::StoreError;
use super::catalog::{Catalog, Outcome, Written};
use super::index::Database;
use super::log::Log;
use super::record::Op;

/// Most bytes of bodies in a group: beyond, a sync takes as long as the disk needs for the bytes anyway.
const GROUP_BYTES: usize = 32 << 20;
/// Most records in a group.
const GROUP_RECORDS: usize = 256;

/// A change that waits for the writer.
struct Request {
    op: Op,
    body: Bytes,
    /// Whether the body is what its id says, as soon as the caller knows; none if that is known already.
    verdict: Option<Receiver<bool>>,
    reply: SyncSender<Result<Outcome, StoreError>>,
}

/// A change that was handed in.
pub(super) struct Pending {
    verdict: Option<SyncSender<bool>>,
    reply: Receiver<Result<Outcome, StoreError>>,
}

/// Where callers hand in changes. Bounded by the callers: each waits for its own.
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Default)]
struct State {
    requests: VecDeque<Request>,
    is_closed: bool,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), filled: Condvar::new() }
    }

    /// Hands in a change whose body, if any, is verified.
    pub(super) fn submit(&self, op: Op, body: Bytes) -> Pending {
        self.push(op, body, None)
    }

    /// Hands in a block whose bytes are still to be verified: it becomes visible after [`Pending::judge`].
    pub(super) fn submit_unverified(&self, op: Op, body: Bytes) -> Pending {
        let (send, receive) = sync_channel(1);
        Pending { verdict: Some(send), ..self.push(op, body, Some(receive)) }
    }

    /// Nothing is taken any more; what was handed in is still done.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.filled.notify_all();
    }

    fn push(&self, op: Op, body: Bytes, verdict: Option<Receiver<bool>>) -> Pending {
        let (send, receive) = sync_channel(1);
        let mut state = self.lock();
        if !state.is_closed {
            state.requests.push_back(Request { op, body, verdict, reply: send });
            self.filled.notify_one();
        }
        Pending { verdict: None, reply: receive }
    }

    /// Waits for changes and takes a group of them; `None` when the queue is closed and empty.
    fn take(&self) -> Option<Vec<Request>> {
        let is_waiting = |state: &mut State| state.requests.is_empty() && !state.is_closed;
        let waited = self.filled.wait_while(self.lock(), is_waiting);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        let mut group = Vec::new();
        let mut bytes = 0;
        while let Some(request) = state.requests.pop_front() {
            bytes += request.body.len();
            group.push(request);
            if bytes >= GROUP_BYTES || group.len() == GROUP_RECORDS {
                break;
            }
        }
        (!group.is_empty()).then_some(group)
    }

    /// No code of others runs under the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    /// Says whether the body is what its id says.
    pub(super) fn judge(&self, is_right: bool) {
        if let Some(verdict) = &self.verdict {
            // The writer may have failed to write it and gone on: the reply says so.
            let _ = verdict.send(is_right);
        }
    }

    /// Waits until the change is durable and applied.
    pub(super) fn wait(self) -> Result<Outcome, StoreError> {
        drop(self.verdict);
        self.reply.recv().unwrap_or(Err(StoreError::Stopped))
    }
}

/// What the thread owns and shares.
pub(super) struct Writer {
    pub(super) queue: Arc<Queue>,
    pub(super) log: Log,
    pub(super) catalog: Arc<Mutex<Catalog<Database>>>,
    pub(super) database: Arc<Database>,
}

impl Writer {
    /// Works until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let _closed = CloseAtEnd(Arc::clone(&self.queue));
        while let Some(group) = self.queue.take() {
            self.write(group);
        }
    }

    fn write(&mut self, group: Vec<Request>) {
        let mut written = Vec::with_capacity(group.len());
        for request in group {
            if !self.log.fits(request.op.pages()) {
                self.roll(&mut written);
            }
            match self.log.append(&request.op, &request.body) {
                Ok(at) => written.push((request, at)),
                Err(error) => answer(&request, Err(error)),
            }
        }
        self.commit(&mut written);
    }

    /// Finishes a segment and begins the next. What fails comes up again at the next append.
    fn roll(&mut self, written: &mut Vec<(Request, Written)>) {
        self.commit(written);
        if let Err(error) = self.log.roll() {
            tracing::warn!(%error, "a new segment of the block store cannot be made");
        } else if let Err(error) = self.database.flush(false) {
            // The records stay in the log, so nothing is lost; a restart has more of them to read.
            tracing::warn!(%error, "the block store's index cannot be flushed");
        }
    }

    /// Makes records durable, applies them in their order and answers.
    fn commit(&mut self, written: &mut Vec<(Request, Written)>) {
        match self.log.sync() {
            Ok(()) => {
                for (request, at) in written.drain(..) {
                    let outcome = self.apply(&request, at);
                    answer(&request, outcome);
                }
            }
            Err(error) => {
                let reason = error.to_string();
                tracing::error!(%error, "the block store cannot be synced");
                for (request, _) in written.drain(..) {
                    let source = std::io::Error::other(reason.clone());
                    answer(&request, Err(StoreError::folder(std::path::Path::new("segments"), source)));
                }
            }
        }
    }

    fn apply(&self, request: &Request, at: Written) -> Result<Outcome, StoreError> {
        let is_right = request.verdict.as_ref().is_none_or(|verdict| verdict.recv().unwrap_or(false));
        let mut catalog = lock(&self.catalog);
        if is_right { catalog.apply(&request.op, at) } else { catalog.discard(at).map(|()| Outcome::Ignored) }
    }
}

fn answer(request: &Request, outcome: Result<Outcome, StoreError>) {
    // The caller waits, unless its thread has panicked.
    let _ = request.reply.send(outcome);
}

/// Takes a lock whose holder may have panicked: what it guards is changed whole or not at all.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets nobody wait for a thread that has ended, for whatever reason.
struct CloseAtEnd(Arc<Queue>);

impl Drop for CloseAtEnd {
    fn drop(&mut self) {
        self.0.close();
        self.0.lock().requests.clear();
    }
}
