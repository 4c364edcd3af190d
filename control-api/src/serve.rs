//! The loop that accepts connections. `axum::serve` bounds neither their number nor their patience, and both listeners may face strangers.

mod connection;
mod patient;
mod room;
mod tls;
mod tracked;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use connection::Shared;
use room::Room;

pub(crate) use room::Connection;
pub use tls::{Certificate, CertificateError};

/// Connections of one listener at once, unless it is told otherwise. A guess: with a head of 32 KiB each they hold 0.5 GiB.
const MAX_CONNECTIONS: u32 = 16_384;

/// How long the head of a request may take to come, how long a connection may be idle before it, and how long a handshake may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long what is sent may wait for the other side, whether it is gone or only does not read.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// How long to wait when no connection can be accepted, as when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// How a listener serves.
#[derive(Clone)]
pub struct ServeOptions {
    /// With one it speaks TLS, and HTTP/2 or HTTP/1.1 as the client chooses by ALPN; without, HTTP/1.1.
    pub certificate: Option<Arc<Certificate>>,
    /// Connections at once.
    pub connections: u32,
    /// Of them, those of one address, or of one IPv6 network of 64 bits; 0 for any number.
    pub connections_per_address: u32,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self { certificate: None, connections: MAX_CONNECTIONS, connections_per_address: 0 }
    }
}

/// For how long a connection is waited for.
#[derive(Clone, Copy)]
struct Patience {
    head: Duration,
    stall: Duration,
}

/// [`serve_with`] the default options: HTTP/1.1, 16,384 connections, of whomever.
pub async fn serve(listener: TcpListener, router: Router, stop: impl Future<Output = ()>) {
    serve_with(ServeOptions::default(), listener, router, stop).await;
}

/// Serves `router` on `listener` until `stop` resolves; then accepts nothing more, lets the requests under way end, and
/// returns. How long that may take is the caller's to bound: dropping the future does not end them, the end of the runtime does.
///
/// When all places are taken, the connection that has had no request for longest is closed for a new one; a new one of an address that has its
/// share is closed at once. A connection is closed, too, when its handshake or a request's head takes more than 10 s (an idle
/// connection's next one as well), and when its other side takes no bytes for 60 s, or so few that the kernel's buffer does not
/// move. Over HTTP/2 that holds for each request.
pub async fn serve_with(options: ServeOptions, listener: TcpListener, router: Router, stop: impl Future<Output = ()>) {
    let patience = Patience { head: HEAD_TIMEOUT, stall: STALL_TIMEOUT };
    serve_patiently(options, patience, listener, router, stop).await;
}

async fn serve_patiently(
    options: ServeOptions,
    patience: Patience,
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()>,
) {
    let room = Room::new(options.connections, options.connections_per_address);
    let shared = Arc::new(Shared { router, certificate: options.certificate, patience });
    let (running, stopped) = watch::channel(());
    let mut stop = pin!(stop);
    loop {
        let (stream, address) = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener, &room) => accepted,
        };
        let place = tokio::select! {
            () = &mut stop => break,
            place = room.place() => place,
        };
        match room.seat(place, address.ip()) {
            Some(seat) => drop(tokio::spawn(connection::serve(stream, seat, Arc::clone(&shared), stopped.clone()))),
            None => tracing::debug!("a connection of an address that has its share was closed"),
        }
    }
    drop((listener, running));
    room.emptied().await;
}

/// The next connection, for which there need not be room.
async fn accept(listener: &TcpListener, room: &Room) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                // It may be descriptors that are lacking, and an idle connection has one.
                room.make_room();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Makes the kernel close a connection whose other side takes no bytes for 60 s (`TCP_USER_TIMEOUT`, tcp(7)): a viewer that is gone,
/// or one that does not read. Otherwise such a socket keeps its last blocks in memory for as long as the viewer likes.
///
/// Errors: the system's, when the socket is no longer one.
pub fn set_user_timeout(stream: &TcpStream) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_tcp_user_timeout(stream, STALL_TIMEOUT.as_millis() as u32)?)
}

#[cfg(test)]
mod tests;
