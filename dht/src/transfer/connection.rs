//! The asking end of one connection: several requests under way, answers in any order.

use super::TransferError;
use super::channel::{Channel, Receiver, Sender};
use super::frame::Frame;
use super::message::{Request, Response};
use crate::{Admission, Network};
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex as AsyncMutex, Notify, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The next answer with its wait: 1 MiB at 50 KB/s, with room.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// An answer whose first byte has come.
const FRAME_DEADLINE: Duration = Duration::from_secs(25);
/// Idle connections are closed after this, well before the other end does it.
const IDLE_DEADLINE: Duration = Duration::from_secs(30);

/// A connection that a task of its own reads. It ends when this is dropped, when it has been idle for long, when an answer
/// does not come, or when the peer is a member no more.
pub(super) struct Connection {
    shared: Arc<Shared>,
    admission: Admission,
    _reader: DropGuard,
}

struct Shared {
    /// None when the connection has ended.
    sender: AsyncMutex<Option<Sender>>,
    waiting: Mutex<Waiting>,
}

/// Who waits for which answer.
struct Waiting {
    next_id: u32,
    /// Requests that the peer lets be under way.
    allowed: usize,
    /// Told whenever one fewer is, and at the end.
    freed: Arc<Notify>,
    answers: HashMap<u32, oneshot::Sender<Result<Frame, TransferError>>>,
    /// The last time that an answer came, or that a request was made when none was under way.
    since: Instant,
    ended: bool,
}

/// A place among the requests under way.
pub(super) struct Ticket {
    connection: Arc<Connection>,
    id: u32,
    answer: oneshot::Receiver<Result<Frame, TransferError>>,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Queued,
    Sending,
    Sent,
}

impl Connection {
    /// `allowed` is what the peer's hello says; `freed` is told whenever a place has become free.
    pub(super) fn new(channel: Channel, network: Arc<Network>, allowed: usize, freed: Arc<Notify>) -> Self {
        let Channel { sender, receiver, admission } = channel;
        let (answers, since) = (HashMap::new(), Instant::now());
        let waiting = Waiting { next_id: 1, allowed, freed, answers, since, ended: false };
        let shared = Arc::new(Shared { sender: AsyncMutex::new(Some(sender)), waiting: Mutex::new(waiting) });
        let stop = CancellationToken::new();
        tokio::spawn(read_until_the_end(receiver, Arc::clone(&shared), network, admission, stop.clone()));
        Self { shared, admission, _reader: stop.drop_guard() }
    }

    /// By what the peer was let in.
    pub(super) fn admission(&self) -> &Admission {
        &self.admission
    }

    pub(super) fn has_ended(&self) -> bool {
        self.shared.waiting().ended
    }

    /// Requests under way.
    pub(super) fn under_way(&self) -> usize {
        self.shared.waiting().answers.len()
    }

    /// Whether the peer lets no more requests be under way.
    pub(super) fn is_full(&self) -> bool {
        let waiting = self.shared.waiting();
        waiting.answers.len() >= waiting.allowed
    }

    /// A place for one request more. `None` when the connection is full or has ended.
    pub(super) fn ticket(self: &Arc<Self>) -> Option<Ticket> {
        let (tell, answer) = oneshot::channel();
        let id = self.shared.waiting().enter(tell)?;
        Some(Ticket { connection: Arc::clone(self), id, answer, stage: Stage::Queued })
    }
}

impl Ticket {
    /// Sends the request and waits for its answer.
    pub(super) async fn ask(mut self, request: Request) -> Result<Response, TransferError> {
        let (ids, kind) = (request.id_count(), request.kind());
        let frame = request.into_frame(self.id);
        let connection = Arc::clone(&self.connection);
        let Self { answer, stage, .. } = &mut self;
        let sent = async {
            let mut sender = connection.shared.sender.lock().await;
            *stage = Stage::Sending;
            sender.as_mut().ok_or_else(closed)?.send(&frame).await
        };
        tokio::select! {
            // The reader knows better why a connection ended.
            biased;
            failed = &mut *answer => return Err(failed.map_err(|_| closed())?.err().unwrap_or_else(closed)),
            sent = sent => sent?,
        }
        *stage = Stage::Sent;
        let answer = answer.await.map_err(|_| closed())??;
        let response = Response::from_frame(answer, kind, self.id, ids);
        if let Err(error) = &response {
            connection.shared.waiting().end(error);
        }
        response
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut waiting = self.connection.shared.waiting();
        match self.stage {
            Stage::Queued => {
                waiting.answers.remove(&self.id);
                waiting.freed.notify_waiters();
            }
            // Half a frame was written: nothing can come after it.
            Stage::Sending => waiting.end(&closed()),
            // Its answer has come, or will, and be thrown away: its place is taken until then.
            Stage::Sent => {}
        }
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn enter(&mut self, tell: oneshot::Sender<Result<Frame, TransferError>>) -> Option<u32> {
        if self.ended || self.answers.len() >= self.allowed {
            return None;
        }
        if self.answers.is_empty() {
            self.since = Instant::now();
        }
        let id = self.next_id;
        // Far fewer are under way than there are numbers, and 0 is the hello's.
        self.next_id = id.checked_add(1).unwrap_or(1);
        self.answers.insert(id, tell);
        Some(id)
    }

    fn answered(&mut self, frame: Frame) -> Result<(), TransferError> {
        let asked = self.answers.remove(&frame.request_id);
        let tell = asked.ok_or(TransferError::Protocol("an answer to a question that was not asked"))?;
        self.since = Instant::now();
        self.freed.notify_waiters();
        // Whoever asked may be gone.
        drop(tell.send(Ok(frame)));
        Ok(())
    }

    fn end(&mut self, error: &TransferError) {
        self.ended = true;
        for (_, tell) in self.answers.drain() {
            drop(tell.send(Err(again(error))));
        }
        self.freed.notify_waiters();
    }

    /// When the next answer must begin, or the connection has been idle for long enough.
    fn deadline(&self) -> Instant {
        self.since + if self.answers.is_empty() { IDLE_DEADLINE } else { ANSWER_DEADLINE }
    }

    /// Ends the connection if the deadline has passed, which moves while the reader waits.
    fn end_if_late(&mut self) -> bool {
        let late = self.deadline() <= Instant::now();
        if late {
            self.end(&io::Error::from(io::ErrorKind::TimedOut).into());
        }
        late
    }
}

async fn read_until_the_end(
    mut receiver: Receiver,
    shared: Arc<Shared>,
    network: Arc<Network>,
    admission: Admission,
    stop: CancellationToken,
) {
    let ended = tokio::select! {
        ended = read_answers(&mut receiver, &shared) => ended.err().unwrap_or_else(closed),
        expelled = network.membership().expelled(&admission) => {
            tracing::info!(peer = %admission.peer(), %expelled, "disconnected");
            closed()
        }
        () = stop.cancelled() => closed(),
    };
    shared.waiting().end(&ended);
    // Whoever is sending has just been told, and lets go of it.
    drop(shared.sender.lock().await.take());
}

async fn read_answers(receiver: &mut Receiver, shared: &Shared) -> Result<(), TransferError> {
    loop {
        let deadline = shared.waiting().deadline();
        match timeout_at(deadline, receiver.ready()).await {
            Ok(is_open) => {
                if !is_open? {
                    return Ok(());
                }
            }
            Err(_) if shared.waiting().end_if_late() => return Ok(()),
            Err(_) => continue,
        }
        let begun = receiver.begin(FRAME_DEADLINE).await?;
        let frame = receiver.finish(begun).await?;
        shared.waiting().answered(frame)?;
    }
}

/// The same error for one more who waited.
fn again(error: &TransferError) -> TransferError {
    match error {
        TransferError::Protocol(what) => TransferError::Protocol(what),
        TransferError::Io(error) => io::Error::new(error.kind(), error.to_string()).into(),
        TransferError::Listen(_)
        | TransferError::Unreachable(_)
        | TransferError::Handshake(_)
        | TransferError::Refused(_)
        | TransferError::WrongBytes => io::Error::other(error.to_string()).into(),
    }
}

fn closed() -> TransferError {
    io::Error::new(io::ErrorKind::UnexpectedEof, "closed before the answer").into()
}
