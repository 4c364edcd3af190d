//! One connection, from its handshake to its end.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_rustls::TlsAcceptor;

use super::patient::{Patient, Waits};
use super::room::Seat;
use super::tracked::{Sending, Tracked};
use super::{Certificate, Patience, set_user_timeout};

/// The most bytes of a request's head, over HTTP/1.1 and HTTP/2 alike: the longest path with its token, and a browser's headers, are some 2 KiB.
const MAX_HEAD_BYTES: usize = 32 * 1024;

/// The most bytes of small pieces that wait to be written, and of a head before it is refused. Not less than [`MAX_HEAD_BYTES`].
const MAX_BUFFER_BYTES: usize = 64 * 1024;

/// Requests of one HTTP/2 connection at once. A player has two or three; RFC 9113 §6.5.2 recommends no fewer than 100.
const MAX_STREAMS: u32 = 100;

/// Streams that a client may reset before they were looked at, and streams that this end may reset for errors of the client's, until the
/// connection is closed (CVE-2023-44487 and CVE-2025-8671). A browser that seeks resets one or two at a time.
const MAX_RESETS: usize = 32;

/// What an HTTP/2 client may send ahead, in all and for one request. Bodies of requests are uploads.
const RECEIVE_WINDOW: u32 = 1 << 20;

/// What of a response may lie in the connection beside the block that is being sent.
const SEND_BUFFER_BYTES: usize = 256 * 1024;

/// What the kernel keeps for a viewer besides what is on its way. Its own limit is 4 MiB, which a thousand slow viewers fill.
const UNSENT_BYTES: u32 = 256 * 1024;

/// What all connections of a listener have in common.
pub(super) struct Shared {
    pub(super) router: Router,
    pub(super) certificate: Option<Arc<Certificate>>,
    pub(super) patience: Patience,
}

/// Serves a connection until it ends, is evicted, or the listener has stopped and nothing is under way.
pub(super) async fn serve(stream: TcpStream, seat: Arc<Seat>, shared: Arc<Shared>, stopped: watch::Receiver<()>) {
    let unsent = || SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES);
    if let Err(error) = stream.set_nodelay(true).and_then(|()| set_user_timeout(&stream)).and_then(|()| unsent()) {
        tracing::debug!(%error, "a connection was gone before it was served");
        return;
    }
    tokio::select! {
        () = seat.cut_off() => tracing::debug!("a connection was cut off, since its viewer takes nothing"),
        () = speak(stream, &seat, &shared, stopped) => {}
    }
}

async fn speak(stream: TcpStream, seat: &Arc<Seat>, shared: &Shared, stopped: watch::Receiver<()>) {
    let stream = Patient::new(stream, shared.patience.stall);
    let connection = Connection {
        service: Tracked::new(shared.router.clone(), Arc::clone(seat)),
        seat,
        waits: stream.waits(),
        patience: shared.patience,
        stopped,
    };
    let ended = match &shared.certificate {
        None => connection.speak_http1(stream).await,
        Some(certificate) => connection.speak_tls(stream, certificate).await,
    };
    if let Err(error) = ended {
        tracing::debug!(error = &*error, "a connection broke");
    }
}

/// A connection with or without TLS.
trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

type Broken = Box<dyn std::error::Error + Send + Sync>;

struct Connection<'a> {
    service: Tracked,
    seat: &'a Seat,
    waits: Waits,
    patience: Patience,
    stopped: watch::Receiver<()>,
}

impl Connection<'_> {
    async fn speak_tls(self, stream: impl Stream, certificate: &Certificate) -> Result<(), Broken> {
        let handshake = TlsAcceptor::from(certificate.current()).accept(stream);
        let stream = tokio::select! {
            shaken = timeout(self.patience.head, handshake) => shaken.map_err(|_| timed_out())??,
            () = self.seat.evicted() => return Ok(()),
        };
        match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => self.speak_http2(stream).await,
            _ => self.speak_http1(stream).await,
        }
    }

    async fn speak_http1(mut self, stream: impl Stream) -> Result<(), Broken> {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(self.patience.head)
            .max_buf_size(MAX_BUFFER_BYTES)
            .max_header_size(MAX_HEAD_BYTES);
        let mut served = pin!(http.serve_connection(TokioIo::new(stream), self.service));
        tokio::select! {
            // First, so that the next branch sees what it left.
            biased;
            ended = served.as_mut() => return Ok(ended?),
            () = self.seat.evicted() => {
                // The end of a response may not have left yet.
                if self.seat.is_idle() && !self.waits.get() {
                    tracing::debug!("an idle connection was closed to make room");
                    return Ok(());
                }
            }
            _ = self.stopped.changed() => {}
        }
        served.as_mut().graceful_shutdown();
        Ok(served.await?)
    }

    /// hyper has no limits of time for HTTP/2, so they are here: a connection without requests is asked to end, and one whose viewer
    /// keeps a stream's window shut is closed, with its other streams.
    async fn speak_http2(mut self, stream: impl Stream) -> Result<(), Broken> {
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .max_header_list_size(MAX_HEAD_BYTES as u32)
            .max_concurrent_streams(MAX_STREAMS)
            .max_pending_accept_reset_streams(MAX_RESETS)
            .max_local_error_reset_streams(MAX_RESETS)
            .initial_connection_window_size(RECEIVE_WINDOW)
            .initial_stream_window_size(RECEIVE_WINDOW)
            .max_send_buf_size(SEND_BUFFER_BYTES);
        let sending = self.service.sending();
        let mut served = pin!(http.serve_connection(TokioIo::new(stream), self.service));
        // What is left after that are bytes that nobody takes, or a head that does not end.
        let last_wait = tokio::select! {
            biased;
            ended = served.as_mut() => return Ok(ended?),
            () = stalled(&sending, self.patience) => return Err(timed_out()),
            () = self.seat.evicted() => self.patience.head,
            () = idle(self.seat, self.patience) => self.patience.stall,
            _ = self.stopped.changed() => self.patience.stall,
        };
        served.as_mut().graceful_shutdown();
        tokio::select! {
            ended = served => Ok(ended?),
            () = stalled(&sending, self.patience) => Err(timed_out()),
            () = quiet_for(self.seat, last_wait) => Err(timed_out()),
        }
    }
}

fn timed_out() -> Broken {
    io::Error::from(io::ErrorKind::TimedOut).into()
}

/// Returns when nothing was under way for so long.
async fn quiet_for(seat: &Seat, wait: Duration) {
    every(wait, || seat.is_idle()).await;
}

/// Returns when there was no request for as long as a head may take.
async fn idle(seat: &Seat, patience: Patience) {
    let mut asked = seat.asked();
    every(patience.head, move || std::mem::replace(&mut asked, seat.asked()) == seat.asked() && seat.is_idle()).await;
}

async fn stalled(sending: &Sending, patience: Patience) {
    every(patience.stall / 4, || sending.is_stalled(patience.stall)).await;
}

async fn every(period: Duration, mut look: impl FnMut() -> bool) {
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if look() {
            return;
        }
    }
}
