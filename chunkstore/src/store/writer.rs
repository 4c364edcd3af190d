//! How the store is changed. Callers append their records to the log one after the other; one thread makes durable what
//! has come together, with one sync, applies it in the order of the records, and answers. So the next records are
//! written while the last are synced, and many callers share a sync.

use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::fdatasync;

use super::StoreError;
use super::catalog::{Catalog, Outcome, Written};
use super::changes::Changes;
use super::index::Database;
use super::log::Log;
use super::record::{Op, Place};

/// A record that was appended and is not durable yet.
struct Request {
    op: Op,
    at: Written,
    file: Arc<File>,
    /// Whether the body is what its id says, as soon as the caller knows; none if that is known already.
    verdict: Option<Receiver<bool>>,
    reply: SyncSender<Result<Outcome, StoreError>>,
}

/// A record that is durable and not in the index yet.
struct Late {
    op: Op,
    at: Written,
    is_right: bool,
}

/// A change that was handed in.
pub(super) struct Pending {
    verdict: Option<SyncSender<bool>>,
    reply: Receiver<Result<Outcome, StoreError>>,
}

/// Where callers hand in changes. Bounded by the callers: each waits for its own.
pub(super) struct Queue {
    log: Mutex<Log>,
    state: Mutex<State>,
    filled: Condvar,
    catalog: Arc<Mutex<Catalog<Database>>>,
    /// Durable records that the index did not take, oldest first. The index must have all records up to some point, so none
    /// is applied before these. Whoever handed them in was told of the error; like all that was not acknowledged, they may
    /// still happen.
    late: Mutex<VecDeque<Late>>,
    /// Whether there are any. While that is so nothing is appended: it would not be in the books.
    is_late: AtomicBool,
    changes: Changes,
}

#[derive(Default)]
struct State {
    requests: VecDeque<Request>,
    is_closed: bool,
}

impl Queue {
    pub(super) fn new(log: Log, catalog: Arc<Mutex<Catalog<Database>>>) -> Self {
        Self {
            log: Mutex::new(log),
            state: Mutex::default(),
            filled: Condvar::new(),
            catalog,
            late: Mutex::default(),
            is_late: AtomicBool::new(false),
            changes: Changes::default(),
        }
    }

    pub(super) fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Hands in a change whose body, if any, is verified.
    pub(super) fn submit(&self, op: Op, body: &[u8]) -> Pending {
        self.append(op, body, None)
    }

    /// Hands in a block whose bytes are still to be verified: it becomes visible after [`Pending::judge`].
    pub(super) fn submit_unverified(&self, op: Op, body: &[u8]) -> Pending {
        let (send, receive) = sync_channel(1);
        Pending { verdict: Some(send), ..self.append(op, body, Some(receive)) }
    }

    /// Nothing is taken any more; what was handed in is still done.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.filled.notify_all();
    }

    /// Ends the last segment where its records end, when the writer has ended.
    pub(super) fn finish_log(&self) -> Result<(), StoreError> {
        lock(&self.log).close()
    }

    /// Gives back the room on the disk that is kept for records without bodies, for as long as the guard is held.
    pub(super) fn give_up_spare(&self) -> Result<WithoutSpare<'_>, StoreError> {
        let mut log = lock(&self.log);
        log.give_up_spare()?;
        Ok(WithoutSpare(log))
    }

    /// Whether durable records wait for the index: what it says now may change without anybody asking for it.
    pub(super) fn is_late(&self) -> bool {
        self.is_late.load(Ordering::Acquire)
    }

    /// Whether a change would be taken now.
    pub(super) fn takes_changes(&self) -> bool {
        !self.is_late() && !self.lock().is_closed
    }

    /// Applies what the index did not take before, if it does now.
    pub(super) fn catch_up(&self) -> Result<(), StoreError> {
        if !self.is_late() {
            return Ok(());
        }
        self.apply_late(&mut lock(&self.late))
    }

    fn apply_late(&self, late: &mut VecDeque<Late>) -> Result<(), StoreError> {
        while let Some(first) = late.front() {
            self.apply_one(first)?;
            late.pop_front();
        }
        self.is_late.store(false, Ordering::Release);
        Ok(())
    }

    /// Applies a durable record, behind those that are late.
    fn apply(&self, record: Late) -> Result<Outcome, StoreError> {
        let mut late = lock(&self.late);
        let applied = self.apply_late(&mut late).and_then(|()| self.apply_one(&record));
        if let Err(error) = &applied {
            tracing::error!(%error, "the block store's index takes no changes");
            late.push_back(record);
            self.is_late.store(true, Ordering::Release);
        }
        applied
    }

    fn apply_one(&self, record: &Late) -> Result<Outcome, StoreError> {
        if !record.is_right {
            return lock(&self.catalog).discard(record.at).map(|()| Outcome::Ignored);
        }
        let outcome = lock(&self.catalog).apply(&record.op, record.at)?;
        self.changes.note(&record.op);
        Ok(outcome)
    }

    /// Records must be handed on in the order in which they lie, so the log is held until this one is.
    fn append(&self, op: Op, body: &[u8], verdict: Option<Receiver<bool>>) -> Pending {
        let (reply, receive) = sync_channel(1);
        let ready = if self.lock().is_closed { Err(StoreError::Stopped) } else { self.catch_up() };
        if let Err(error) = ready {
            drop(reply.send(Err(error)));
            return Pending { verdict: None, reply: receive };
        }
        let mut log = lock(&self.log);
        match log.append(&op, body) {
            Ok((at, file)) => self.push(Request { op, at, file, verdict, reply }),
            Err(error) => drop(reply.send(Err(error))),
        }
        Pending { verdict: None, reply: receive }
    }

    fn push(&self, request: Request) {
        let mut state = self.lock();
        if !state.is_closed {
            state.requests.push_back(request);
            self.filled.notify_one();
        }
    }

    /// Waits for records and takes all; `None` when the queue is closed and empty.
    fn take(&self) -> Option<VecDeque<Request>> {
        let is_waiting = |state: &mut State| state.requests.is_empty() && !state.is_closed;
        let waited = self.filled.wait_while(self.lock(), is_waiting);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        Some(std::mem::take(&mut state.requests)).filter(|requests| !requests.is_empty())
    }

    /// No code of others runs under the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Nothing is appended meanwhile, so nobody takes the spare room. It is taken again when this goes.
pub(super) struct WithoutSpare<'a>(MutexGuard<'a, Log>);

impl Drop for WithoutSpare<'_> {
    fn drop(&mut self) {
        self.0.take_spare();
    }
}

impl Pending {
    /// Says whether the body is what its id says.
    pub(super) fn judge(&self, is_right: bool) {
        if let Some(verdict) = &self.verdict {
            // The record may not have been written: the reply says so.
            let _ = verdict.send(is_right);
        }
    }

    /// Waits until the change is durable and applied.
    pub(super) fn wait(self) -> Result<Outcome, StoreError> {
        drop(self.verdict);
        self.reply.recv().unwrap_or(Err(StoreError::Stopped))
    }
}

/// The thread that syncs and applies.
pub(super) struct Writer {
    pub(super) queue: Arc<Queue>,
    pub(super) database: Arc<Database>,
    /// The segment of the last record.
    pub(super) segment: u32,
    /// A segment that could not be synced: of what was appended to it since nothing may be acknowledged, whatever a later
    /// sync says, since the system forgets pages that it could not write.
    pub(super) failed_segment: Option<u32>,
}

impl Writer {
    /// Works until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let _closed = CloseAtEnd(Arc::clone(&self.queue));
        while let Some(mut requests) = self.queue.take() {
            while let Some(first) = requests.front() {
                let segment = first.at.place.segment;
                let own = requests.partition_point(|request| request.at.place.segment == segment);
                let rest = requests.split_off(own);
                self.commit(segment, std::mem::replace(&mut requests, rest));
            }
        }
    }

    /// Makes records of one segment durable, applies them in their order and answers.
    fn commit(&mut self, segment: u32, requests: VecDeque<Request>) {
        self.note_segment(segment);
        match self.sync(segment, &requests) {
            Ok(()) => {
                for request in requests {
                    self.apply(request);
                }
            }
            Err(error) => {
                tracing::error!(%error, segment, "a segment of the block store cannot be synced");
                for request in requests {
                    let source = std::io::Error::new(error.kind(), error.to_string());
                    answer(&request.reply, Err(StoreError::folder(Path::new("segments"), source)));
                }
            }
        }
    }

    fn sync(&mut self, segment: u32, requests: &VecDeque<Request>) -> std::io::Result<()> {
        if self.failed_segment == Some(segment) {
            return Err(std::io::Error::other("an earlier sync has failed"));
        }
        let Some(request) = requests.front() else { return Ok(()) };
        let synced = fdatasync(&request.file);
        if synced.is_err() {
            self.failed_segment = Some(segment);
            lock(&self.queue.log).abandon(segment);
            self.cut(segment, &request.file, request.at.place);
        }
        Ok(synced?)
    }

    /// Takes away what could not be synced and was not acknowledged: a start would find it in the page cache and take it for
    /// durable. Where even that fails, nothing more is written, so that nothing comes to rest on it.
    fn cut(&self, segment: u32, file: &File, from: Place) {
        if let Err(error) = file.set_len(from.offset()).and_then(|()| file.sync_all()) {
            tracing::error!(%error, segment, "the block store writes no more: its disk fails. Restart the node on one that works");
            self.queue.close();
        }
    }

    /// With each new segment the index is flushed, so that a start after a crash has at most two to read.
    fn note_segment(&mut self, segment: u32) {
        if std::mem::replace(&mut self.segment, segment) == segment {
            return;
        }
        if let Err(error) = self.database.flush(false) {
            // The records stay in the log, so nothing is lost; a restart has more of them to read.
            tracing::warn!(%error, "the block store's index cannot be flushed");
        }
    }

    fn apply(&self, request: Request) {
        let Request { op, at, verdict, reply, .. } = request;
        let is_right = verdict.is_none_or(|verdict| verdict.recv().unwrap_or(false));
        answer(&reply, self.queue.apply(Late { op, at, is_right }));
    }
}

fn answer(reply: &SyncSender<Result<Outcome, StoreError>>, outcome: Result<Outcome, StoreError>) {
    // The caller waits, unless it does not care or its thread has panicked.
    let _ = reply.send(outcome);
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
