//! The delivery listener with a certificate: HTTP/2 and HTTP/1.1, to real clients and to hostile ones.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub, dead_code)]

mod support;
#[path = "support/tls.rs"]
mod tls;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;

use axum::http::Request;
use bytes::Bytes;
use chunkstore_block::BlockId;
use control_api::{Certificate, CertificateError, TemporaryUrl};
use support::{Served, serve_delivery};
use tls::{Files, connect, write_key};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const BLOCKS: [&[u8]; 2] = [b"0123456789", b"abcdefghij"];
const H2: &[&[u8]] = &[b"h2"];

async fn opened(files: &Files) -> (Served, TemporaryUrl) {
    let served = serve_delivery(files.options()).await;
    let key = served.backend.add_content("film.mp4", &BLOCKS).key();
    let url = served.temporary_url(key).await;
    (served, url)
}

/// Debian's curl, as a client that shares no code with the server.
async fn curl(arguments: &[&str], trusted: &Path, url: String) -> Output {
    let mut curl = tokio::process::Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "60", "--cacert"]).arg(trusted).args(arguments).arg(url);
    curl.output().await.expect("the tests need curl: scripts/setup.sh installs it")
}

#[tokio::test]
async fn curl_plays_over_http2_and_over_http1() {
    let files = Files::new();
    let (_served, url) = opened(&files).await;
    assert!(url.at("index").unwrap().starts_with("https://localhost:"));
    let path = url.at("files/film.mp4").unwrap();
    for (option, version) in [("--http2", "2"), ("--http1.1", "1.1"), ("--tls-max", "2")] {
        let tls = if option == "--tls-max" { vec![option, "1.2"] } else { vec![option] };
        let say = ["--write-out", "|%{http_version} %{http_code}", "--range", "5-14"];
        let output = curl(&[&tls[..], &say].concat(), &files.certificate, path.clone()).await;
        let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(said, format!("56789abcde|{version} 206"), "{error}");
    }
    let unknown = url.at("blocks/ff").unwrap();
    let output = curl(&["--http2", "--write-out", "|%{http_code}"], &files.certificate, unknown).await;
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("|404"));
}

#[tokio::test]
async fn many_requests_share_one_connection() {
    let files = Files::new();
    let root = files.renew();
    let (served, url) = opened(&files).await;
    let stream = connect(served.address.port(), root, H2).await.unwrap();
    let (mut asker, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut answers = Vec::new();
    for _ in 0..50 {
        asker = asker.ready().await.unwrap();
        let path = url.at(&format!("blocks/{}", BlockId::of(BLOCKS[0]))).unwrap();
        answers.push(asker.send_request(Request::get(path).body(()).unwrap(), true).unwrap().0);
    }
    for answer in answers {
        let answer = answer.await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.headers()["content-length"].to_str().unwrap()), (200, "10"));
        let mut body = answer.into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), BLOCKS[0]);
    }
}

#[tokio::test]
async fn a_client_without_tls_is_turned_away_and_others_are_served() {
    let files = Files::new();
    let root = files.renew();
    let (served, _) = opened(&files).await;
    let mut plain = tokio::net::TcpStream::connect(served.address).await.unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: n\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // Ends with a TLS alert or a reset, not with an answer.
    drop(plain.read_to_end(&mut answer).await);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    let mut stream = connect(served.address.port(), root, &[b"http/1.1"]).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: n\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"), "{answer}");
}

#[tokio::test]
async fn a_new_certificate_is_taken_without_a_restart() {
    let files = Files::new();
    let old = files.renew();
    let certificate = files.open();
    let options = control_api::ServeOptions { certificate: Some(certificate.clone()), ..Default::default() };
    let port = serve_delivery(options).await.address.port();
    let mut kept = connect(port, old.clone(), &[]).await.unwrap();
    let new = files.renew();
    // Nothing happens until it is told.
    connect(port, old.clone(), &[]).await.unwrap();
    certificate.reload().unwrap();
    connect(port, new.clone(), &[]).await.unwrap();
    connect(port, old, &[]).await.unwrap_err();
    // What was open goes on.
    kept.write_all(b"GET /healthz HTTP/1.1\r\nhost: n\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    kept.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("ok\n"));
    // A pair that does not fit changes nothing.
    write_key(&files.key, &rcgen::KeyPair::generate().unwrap().serialize_pem());
    assert!(matches!(certificate.reload(), Err(CertificateError::Unusable { .. })));
    connect(port, new, &[]).await.unwrap();
}

#[test]
fn files_that_cannot_be_used_are_refused_with_what_to_do() {
    let refused = |certificate: &Path, key: &Path| Certificate::open(certificate, key).err().unwrap().to_string();
    let files = Files::new();
    let other = Files::new();
    let error = refused(&files.certificate, &other.key);
    assert!(error.contains("cannot be used together") && error.contains("key.pem"), "{error}");
    let error = refused(&files.folder.path().join("absent"), &files.key);
    assert!(error.contains("absent cannot be read"), "{error}");
    // Swapped: the key's text is in no message.
    write_key(&files.certificate, &std::fs::read_to_string(&files.certificate).unwrap());
    let error = refused(&files.key, &files.certificate);
    assert!(error.contains("has no certificate in PEM form"), "{error}");
    let error = refused(&files.certificate, &files.certificate);
    assert!(error.contains("has no private key in PEM form"), "{error}");
    for (mode, good) in [(0o600, true), (0o640, true), (0o400, true), (0o644, false), (0o660, false), (0o604, false)] {
        std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(mode)).unwrap();
        match Certificate::open(&files.certificate, &files.key) {
            Ok(_) => assert!(good, "{mode:o}"),
            Err(error) => assert!(!good && error.to_string().contains("chmod 600"), "{mode:o}: {error}"),
        }
    }
}

/// CVE-2023-44487: requests that are taken back at once cost a server work without being counted as open.
#[tokio::test]
async fn a_flood_of_resets_ends_the_connection_and_no_other() {
    let files = Files::new();
    let root = files.renew();
    let (served, url) = opened(&files).await;
    let path = url.at("files/film.mp4").unwrap();
    let honest = connect(served.address.port(), root.clone(), H2).await.unwrap();
    let (honest, connection) = h2::client::handshake(honest).await.unwrap();
    tokio::spawn(connection);

    // By hand, for the library's client would not do it: heads and resets of 10,000 streams in one go.
    let mut hostile = connect(served.address.port(), root, H2).await.unwrap();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00".to_vec();
    let head = b"\x82\x87\x84\x41\x01n"; // GET, https, /, authority "n"
    for stream in (1..20_000_u32).step_by(2) {
        bytes.extend([&[0, 0, head.len() as u8, 1, 5], &stream.to_be_bytes()[..], head].concat());
        bytes.extend([&[0, 0, 4, 3, 0], &stream.to_be_bytes()[..], &[0, 0, 0, 8]].concat());
    }
    let (mut answers, mut requests) = tokio::io::split(&mut hostile);
    let mut answer = Vec::new();
    let (_, _) = tokio::join!(requests.write_all(&bytes), answers.read_to_end(&mut answer));
    assert_eq!(goaway(&answer), Some(11), "ENHANCE_YOUR_CALM");

    let mut honest = honest.ready().await.unwrap();
    let answer = honest.send_request(Request::get(path).body(()).unwrap(), true).unwrap().0.await.unwrap();
    assert_eq!(answer.status(), 200);
}

/// The error code of the last GOAWAY among the frames (RFC 9113 §4.1, §6.8).
fn goaway(mut frames: &[u8]) -> Option<u32> {
    let mut code = None;
    while let Some((head, rest)) = frames.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (payload, rest) = rest.split_at_checked(length)?;
        if head[3] == 7 {
            code = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
        frames = rest;
    }
    code
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused_and_streams_are_counted() {
    let files = Files::new();
    let root = files.renew();
    let (served, url) = opened(&files).await;
    let stream = connect(served.address.port(), root, H2).await.unwrap();
    let (mut asker, mut connection) = h2::client::handshake(stream).await.unwrap();
    let settled = std::future::poll_fn(|context| {
        drop(std::pin::Pin::new(&mut connection).poll(context));
        match connection.max_concurrent_send_streams() {
            100 => std::task::Poll::Ready(()),
            _ => std::task::Poll::Pending,
        }
    });
    settled.await;
    tokio::spawn(connection);
    asker = asker.ready().await.unwrap();
    let long = Request::get(url.at("index").unwrap()).header("x-long", "a".repeat(60_000)).body(()).unwrap();
    let answer = asker.send_request(long, true).unwrap().0.await;
    match answer {
        Ok(answer) => assert_eq!(answer.status(), 431),
        Err(error) => assert!(error.is_reset() || error.is_go_away() || error.is_io(), "{error:?}"),
    }
}

/// A viewer that opens no window gets no bytes, and keeps nobody else from theirs.
#[tokio::test]
async fn a_window_that_stays_shut_holds_up_nobody_else() {
    let files = Files::new();
    let root = files.renew();
    let (served, _) = opened(&files).await;
    let large = vec![7; 1 << 20];
    let key = served.backend.add_content("large.mp4", &[&large[..], b"end"]).key();
    let url = served.temporary_url(key).await;
    let stream = connect(served.address.port(), root, H2).await.unwrap();
    let (asker, connection) =
        h2::client::Builder::new().initial_connection_window_size(1 << 22).handshake::<_, Bytes>(stream).await.unwrap();
    tokio::spawn(connection);
    let get = || Request::get(url.at("files/large.mp4").unwrap()).body(()).unwrap();
    let mut asker = asker.ready().await.unwrap();
    let shut = asker.send_request(get(), true).unwrap().0.await.unwrap().into_body();
    asker = asker.ready().await.unwrap();
    let mut open = asker.send_request(get(), true).unwrap().0.await.unwrap().into_body();
    let mut received = 0;
    while let Some(bytes) = open.data().await {
        let length = bytes.unwrap().len();
        received += length;
        open.flow_control().release_capacity(length).unwrap();
    }
    assert_eq!(received, large.len() + 3);
    assert_eq!(served.transfers.running(), 1);
    drop(shut);
}
