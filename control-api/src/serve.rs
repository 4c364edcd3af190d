//! The loop that accepts connections. `axum::serve` bounds neither their number nor their patience, and both listeners may face strangers.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Connections of one listener at once; more wait in the kernel's backlog. A guess: with [`MAX_BUFFER_BYTES`] they hold 1 GiB of
/// headers at most.
const MAX_CONNECTIONS: u32 = 16_384;

/// How long the head of a request may take to come, and how long a connection may be idle before it.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long sent bytes may wait for the other side, whether it is gone or only does not read.
const USER_TIMEOUT: Duration = Duration::from_secs(60);

/// The most bytes of a request's head, and of small pieces that wait to be written.
const MAX_BUFFER_BYTES: usize = 64 * 1024;

/// How long to wait when no connection can be accepted, as when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Serves `router` (HTTP/1.1) on `listener` until `stop` resolves; then accepts nothing more, lets the requests under way end, and
/// returns. How long that may take is the caller's to bound: dropping the future does not end them, the end of the runtime does.
///
/// At most 16,384 connections are open at once. One is closed when a request's head takes more than 10 s (an idle connection
/// too), and when its other side takes no bytes for 60 s ([`set_user_timeout`]).
pub async fn serve(listener: TcpListener, router: Router, stop: impl Future<Output = ()>) {
    serve_at_most(MAX_CONNECTIONS, HEADER_TIMEOUT, listener, router, stop).await;
}

async fn serve_at_most(
    connections: u32,
    patience: Duration,
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()>,
) {
    let room = Arc::new(Semaphore::new(connections as usize));
    let (running, stopped) = watch::channel(());
    let mut stop = pin!(stop);
    loop {
        let (stream, permit) = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener, &room) => accepted,
        };
        tokio::spawn(connection(stream, permit, router.clone(), patience, stopped.clone()));
    }
    drop((listener, running));
    // Every permit is back when the last connection has ended. An error means a closed semaphore, and nobody closes it.
    let _ = room.acquire_many(connections).await;
}

/// The next connection, once there is room for it.
async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        // Waits for ever on a closed semaphore; nobody closes it.
        let Ok(permit) = Arc::clone(room).acquire_owned().await else { return std::future::pending().await };
        match listener.accept().await {
            Ok((stream, _)) => return (stream, permit),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                drop(permit);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection to its end. `stopped` ends when the listener is to stop.
async fn connection(
    stream: TcpStream,
    _permit: OwnedSemaphorePermit,
    router: Router,
    patience: Duration,
    mut stopped: watch::Receiver<()>,
) {
    if let Err(error) = stream.set_nodelay(true).and_then(|()| set_user_timeout(&stream)) {
        tracing::debug!(%error, "a connection was gone before it was served");
        return;
    }
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(patience).max_buf_size(MAX_BUFFER_BYTES);
    let mut served = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        _ = stopped.changed() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

/// Makes the kernel close a connection whose other side takes no bytes for 60 s (`TCP_USER_TIMEOUT`, tcp(7)): a viewer that is gone,
/// or one that does not read. Otherwise such a socket keeps its last blocks in memory for as long as the viewer likes.
///
/// Errors: the system's, when the socket is no longer one.
pub fn set_user_timeout(stream: &TcpStream) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_tcp_user_timeout(stream, USER_TIMEOUT.as_millis() as u32)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::{Notify, oneshot};

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: n\r\n\r\n";
    const NEVER: Duration = Duration::from_secs(3_600);

    async fn started(connections: u32, patience: Duration, router: Router) -> (std::net::SocketAddr, Running) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async move { drop(stopped.await) };
        (address, Running { stop, task: tokio::spawn(serve_at_most(connections, patience, listener, router, stopped)) })
    }

    struct Running {
        stop: oneshot::Sender<()>,
        task: tokio::task::JoinHandle<()>,
    }

    fn hello() -> Router {
        Router::new().route("/", get(|| async { "hello" }))
    }

    async fn answer(stream: &mut TcpStream) -> String {
        let mut buffer = [0; 1024];
        let read = stream.read(&mut buffer).await.unwrap();
        String::from_utf8_lossy(&buffer[..read]).into_owned()
    }

    #[tokio::test]
    async fn a_connection_more_than_there_is_room_for_waits() {
        let (address, _running) = started(1, NEVER, hello()).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        first.write_all(REQUEST).await.unwrap();
        assert!(answer(&mut first).await.ends_with("hello"));
        let mut second = TcpStream::connect(address).await.unwrap();
        second.write_all(REQUEST).await.unwrap();
        // The first is answered again while the second waits; then its place becomes free.
        first.write_all(REQUEST).await.unwrap();
        assert!(answer(&mut first).await.ends_with("hello"));
        assert_eq!(second.try_read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(first);
        assert!(answer(&mut second).await.ends_with("hello"));
    }

    #[tokio::test]
    async fn half_a_head_ends_the_connection() {
        let (address, _running) = started(1, Duration::from_millis(50), hello()).await;
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(&REQUEST[..20]).await.unwrap();
        let mut rest = Vec::new();
        // Long before hyper's own 30 s.
        let ended = tokio::time::timeout(Duration::from_secs(15), slow.read_to_end(&mut rest)).await;
        ended.expect("the connection is still open").unwrap();
    }

    #[tokio::test]
    async fn a_stop_lets_the_request_under_way_end() {
        let (entered, leave) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (enter, left) = (Arc::clone(&entered), Arc::clone(&leave));
        let slow = move || async move {
            enter.notify_one();
            left.notified().await;
            "done"
        };
        let (address, running) = started(8, NEVER, Router::new().route("/", get(slow))).await;
        let mut viewer = TcpStream::connect(address).await.unwrap();
        viewer.write_all(REQUEST).await.unwrap();
        entered.notified().await;
        running.stop.send(()).unwrap();
        leave.notify_one();
        assert!(answer(&mut viewer).await.ends_with("done"));
        running.task.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn the_kernel_ends_what_does_not_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        set_user_timeout(&stream).unwrap();
        assert_eq!(rustix::net::sockopt::tcp_user_timeout(&stream).unwrap(), 60_000);
    }
}
