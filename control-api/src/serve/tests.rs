//! The loop and its connections, with little patience.

use super::*;
use axum::body::{Body, Bytes};
use axum::routing::get;
use futures::stream;
use std::convert::Infallible;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, oneshot};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: n\r\n\r\n";
const NEVER: Duration = Duration::from_secs(3_600);
const SOON: Duration = Duration::from_millis(50);
/// Longer than anything here takes on a loaded machine.
const LIMIT: Duration = Duration::from_secs(60);

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
    root: Option<CertificateDer<'static>>,
}

async fn started(options: ServeOptions, patience: Patience, router: Router) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async move { drop(stopped.await) };
    let task = tokio::spawn(serve_patiently(options, patience, listener, router, stopped));
    Running { address, stop, task, root: None }
}

async fn plain(connections: u32, head: Duration, router: Router) -> Running {
    started(ServeOptions { connections, ..ServeOptions::default() }, Patience { head, stall: NEVER }, router).await
}

async fn secure(patience: Patience, router: Router) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&chain, made.cert.pem()).unwrap();
    std::fs::write(&key, made.key_pair.serialize_pem()).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let certificate = Some(Arc::new(Certificate::open(&chain, &key).unwrap()));
    let running = started(ServeOptions { certificate, ..ServeOptions::default() }, patience, router).await;
    Running { root: Some(made.cert.der().clone()), ..running }
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn connect_http2(&self) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone().unwrap()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut client = client.with_root_certificates(roots).with_no_client_auth();
        client.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(client)).connect(name, self.connect().await).await.unwrap()
    }
}

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

/// Answers when it is told to; says when it was asked.
fn gated() -> (Router, Arc<Notify>, Arc<Notify>) {
    let (entered, leave) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (enter, left) = (Arc::clone(&entered), Arc::clone(&leave));
    let slow = move || async move {
        enter.notify_one();
        left.notified().await;
        "done"
    };
    (hello().route("/gated", get(slow)), entered, leave)
}

async fn answer(stream: &mut TcpStream) -> String {
    let mut buffer = [0; 1024];
    let read = stream.read(&mut buffer).await.unwrap();
    String::from_utf8_lossy(&buffer[..read]).into_owned()
}

async fn until_closed(stream: &mut (impl AsyncReadExt + Unpin)) {
    let closed = tokio::time::timeout(LIMIT, stream.read_to_end(&mut Vec::new())).await;
    drop(closed.expect("the connection is still open"));
}

#[tokio::test]
async fn a_connection_more_than_there_is_room_for_waits_for_a_request_to_end() {
    let (router, entered, leave) = gated();
    let running = plain(1, NEVER, router).await;
    let mut first = running.connect().await;
    first.write_all(b"GET /gated HTTP/1.1\r\nhost: n\r\n\r\n").await.unwrap();
    entered.notified().await;
    let mut second = running.connect().await;
    second.write_all(REQUEST).await.unwrap();
    assert_eq!(second.try_read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    leave.notify_one();
    assert!(answer(&mut first).await.ends_with("done"));
    // The first is kept for its next request no longer, since somebody waits.
    assert!(answer(&mut second).await.ends_with("hello"));
    until_closed(&mut first).await;
}

#[tokio::test]
async fn half_a_head_ends_the_connection() {
    let running = plain(1, SOON, hello()).await;
    let mut slow = running.connect().await;
    slow.write_all(&REQUEST[..20]).await.unwrap();
    until_closed(&mut slow).await;
}

#[tokio::test]
async fn half_a_handshake_ends_the_connection() {
    let running = secure(Patience { head: SOON, stall: NEVER }, hello()).await;
    let mut slow = running.connect().await;
    // The head of a ClientHello of 512 bytes.
    slow.write_all(&[22, 3, 1, 2, 0]).await.unwrap();
    until_closed(&mut slow).await;
}

#[tokio::test]
async fn a_stop_lets_the_request_under_way_end() {
    let (router, entered, leave) = gated();
    let running = plain(8, NEVER, router).await;
    let mut viewer = running.connect().await;
    viewer.write_all(b"GET /gated HTTP/1.1\r\nhost: n\r\n\r\n").await.unwrap();
    entered.notified().await;
    running.stop.send(()).unwrap();
    leave.notify_one();
    assert!(answer(&mut viewer).await.ends_with("done"));
    running.task.await.unwrap();
    assert!(TcpStream::connect(running.address).await.is_err());
}

#[tokio::test]
async fn a_stop_ends_http2_after_its_requests() {
    let (router, entered, leave) = gated();
    let running = secure(Patience { head: NEVER, stall: NEVER }, router).await;
    let (asker, connection) = h2::client::handshake(running.connect_http2().await).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = axum::http::Request::get("https://localhost/gated").body(()).unwrap();
    let answer = asker.ready().await.unwrap().send_request(request, true).unwrap().0;
    entered.notified().await;
    running.stop.send(()).unwrap();
    leave.notify_one();
    assert_eq!(answer.await.unwrap().into_body().data().await.unwrap().unwrap(), "done");
    running.task.await.unwrap();
    connection.await.unwrap().unwrap();
}

#[tokio::test]
async fn http2_without_requests_is_asked_to_end() {
    let running = secure(Patience { head: SOON, stall: NEVER }, hello()).await;
    let (_asker, connection) = h2::client::handshake(running.connect_http2().await).await.unwrap();
    let ended = tokio::time::timeout(LIMIT, connection).await.expect("the connection is still open");
    ended.unwrap();
}

/// A client that sends half a head and then only pings would keep its connection.
#[tokio::test]
async fn http2_with_half_a_head_is_closed() {
    let running = secure(Patience { head: SOON, stall: SOON }, hello()).await;
    let mut stream = running.connect_http2().await;
    // Preface, empty SETTINGS, and HEADERS of stream 1 without END_HEADERS.
    let bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x01\0\0\0\x01\x82";
    stream.write_all(bytes).await.unwrap();
    until_closed(&mut stream).await;
}

/// hyper asks no more of a body whose stream has no window, so nobody would notice.
#[tokio::test]
async fn a_stream_whose_window_stays_shut_ends_its_connection() {
    let (dropped, gone) = oneshot::channel::<()>();
    let dropped = Arc::new(std::sync::Mutex::new(Some(dropped)));
    let endless = move || async move {
        let held = dropped.lock().unwrap().take();
        Body::from_stream(stream::repeat_with(move || {
            let _held = &held;
            Ok::<_, Infallible>(Bytes::from_static(&[7; 1 << 20]))
        }))
    };
    let router = Router::new().route("/", get(endless));
    let running = secure(Patience { head: NEVER, stall: SOON }, router).await;
    let (asker, connection) = h2::client::handshake(running.connect_http2().await).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = axum::http::Request::get("https://localhost/").body(()).unwrap();
    let answer = asker.ready().await.unwrap().send_request(request, true).unwrap().0.await.unwrap();
    let _body = answer.into_body();
    tokio::time::timeout(LIMIT, gone).await.expect("the body is still held").unwrap_err();
    drop(tokio::time::timeout(LIMIT, connection).await.expect("the connection is still open"));
}

/// One that waits for its node, not for its viewer, is no such stream.
#[tokio::test]
async fn a_response_that_has_nothing_to_send_yet_is_not_given_up() {
    let waiting = || async {
        Body::from_stream(stream::once(async {
            tokio::time::sleep(10 * SOON).await;
            Ok::<_, Infallible>("late")
        }))
    };
    let running = secure(Patience { head: SOON, stall: SOON }, Router::new().route("/", get(waiting))).await;
    let (asker, connection) = h2::client::handshake(running.connect_http2().await).await.unwrap();
    tokio::spawn(connection);
    let request = axum::http::Request::get("https://localhost/").body(()).unwrap();
    let answer = asker.ready().await.unwrap().send_request(request, true).unwrap().0.await.unwrap();
    assert_eq!(answer.into_body().data().await.unwrap().unwrap(), "late");
}

#[tokio::test]
async fn the_kernel_ends_what_does_not_read() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    set_user_timeout(&stream).unwrap();
    assert_eq!(rustix::net::sockopt::tcp_user_timeout(&stream).unwrap(), 60_000);
}
