//! What strangers may do to the delivery listener, and what an honest viewer gets meanwhile. Nothing here is timed: `make bench SUITE=floods`
//! says how long an honest viewer waits.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub, dead_code)]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use control_api::{ServeOptions, TemporaryUrl};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{Served, serve_delivery};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

const BLOCK: &[u8] = &[7; 1 << 20];
const FILE: &str = "files/film.mp4";

async fn opened(options: ServeOptions) -> (Served, TemporaryUrl) {
    let served = serve_delivery(options).await;
    let key = served.backend.add_content("film.mp4", &[BLOCK]).key();
    let url = served.temporary_url(key).await;
    (served, url)
}

fn places(connections: u32, connections_per_address: u32) -> ServeOptions {
    ServeOptions { connections, connections_per_address, ..ServeOptions::default() }
}

/// A viewer who has not been here before.
async fn watch(url: &TemporaryUrl) -> usize {
    let answer = reqwest::Client::new().get(url.at(FILE).unwrap()).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.bytes().await.unwrap().len()
}

async fn connect_from(source: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
    socket.connect(to).await.unwrap()
}

/// Returns when the other side has closed or reset the connection; what came before.
async fn until_closed(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await;
    drop(ended.expect("the connection is still open"));
    String::from_utf8_lossy(&answer).into_owned()
}

fn raise_descriptors(wanted: u64) {
    let limit = getrlimit(Resource::Nofile);
    let maximum = limit.maximum.unwrap_or(u64::MAX);
    assert!(maximum >= wanted, "the test needs {wanted} file descriptors, and {maximum} is the hard limit");
    setrlimit(Resource::Nofile, Rlimit { current: Some(maximum.min(65_536)), ..limit }).unwrap();
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Ten times as many connections as there are places, each with half a head: the oldest ones go, and who asks is answered.
#[tokio::test]
async fn half_open_connections_make_room_for_those_who_ask() {
    const PLACES: usize = 50;
    raise_descriptors(2_000);
    let (served, url) = opened(places(PLACES as u32, 0)).await;
    let before = descriptors();
    let mut slow = Vec::new();
    for number in 0..10 * PLACES {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        // A reset may have come already: it is among the oldest.
        drop(stream.write_all(b"GET /v1/t/x HTTP/1.1\r\nhost:").await);
        slow.push(stream);
        if number % 100 == 99 {
            assert_eq!(watch(&url).await, BLOCK.len());
        }
    }
    // Beside the clients' ends, as many as there are places, the honest viewer's, and the runtime's own.
    assert!(descriptors() <= before + slow.len() + PLACES + 10, "{} from {before}", descriptors());
    let first = slow.swap_remove(0);
    assert_eq!(until_closed(first).await, "");
}

#[tokio::test]
async fn one_address_has_its_share_of_the_connections() {
    let (served, url) = opened(places(1_000, 4)).await;
    let mut kept = Vec::new();
    for _ in 0..4 {
        kept.push(connect_from("127.0.0.9", served.address).await);
    }
    assert_eq!(until_closed(connect_from("127.0.0.9", served.address).await).await, "");
    assert_eq!(watch(&url).await, BLOCK.len());
    // When one of its own ends there is room again.
    drop(kept.pop());
    loop {
        let mut again = connect_from("127.0.0.9", served.address).await;
        let mut answer = [0; 15];
        let asked = again.write_all(b"GET /healthz HTTP/1.1\r\nhost: n\r\n\r\n").await;
        if asked.is_ok() && again.read_exact(&mut answer).await.is_ok() {
            assert_eq!(&answer, b"HTTP/1.1 200 OK");
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn heads_that_are_too_long_are_refused() {
    let (served, url) = opened(ServeOptions::default()).await;
    let long_path = format!("GET /{} HTTP/1.1\r\nhost: n\r\n\r\n", "a".repeat(100_000));
    let long_header = format!("GET / HTTP/1.1\r\nhost: n\r\nx: {}\r\n\r\n", "a".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\nhost: n\r\n{}\r\n", "x: y\r\n".repeat(1_000));
    let endless = format!("GET / HTTP/1.1\r\nhost: n\r\nx: {}", "a".repeat(1_000_000));
    for head in [long_path, long_header, many, endless] {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        drop(stream.write_all(head.as_bytes()).await);
        let answer = until_closed(stream).await;
        // What was not read resets the connection, and may take the answer with it.
        let refused = answer.starts_with("HTTP/1.1 431 ") || answer.starts_with("HTTP/1.1 414 ") || answer.is_empty();
        assert!(refused, "{answer}");
    }
    assert_eq!(watch(&url).await, BLOCK.len());
}

/// Nobody reads the body of a GET: it ends the connection, and is not waited for.
#[tokio::test]
async fn a_body_that_nobody_asked_for_is_not_read() {
    let (served, url) = opened(ServeOptions::default()).await;
    let path = url.at("index").unwrap();
    let path = &path[path.find("/v1").unwrap()..];
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: n\r\ncontent-length: 1000000000000\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    let mut sent = 0;
    while let Ok(length) = stream.write(&[0; 65_536]).await {
        sent += length;
        assert!(sent < 100_000_000, "the node goes on reading");
    }
}

/// As many viewers as there are transfers ask and read nothing. The next one waits for one of them to be given up, and is served.
#[tokio::test]
async fn viewers_who_do_not_read_make_room_for_one_who_does() {
    const TRANSFERS: usize = 1_024;
    raise_descriptors(4_000);
    let served = serve_delivery(ServeOptions::default()).await;
    // More than the kernel keeps for a connection, so that the node is left with the rest of it.
    let key = served.backend.add_content("film.mp4", &[BLOCK; 16]).key();
    let url = served.temporary_url(key).await;
    let path = url.at(FILE).unwrap();
    let head = format!("GET {} HTTP/1.1\r\nhost: n\r\n\r\n", &path[path.find("/v1").unwrap()..]);
    let mut slow = Vec::new();
    for _ in 0..TRANSFERS {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        let mut stream = socket.connect(served.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    while served.transfers.running() < TRANSFERS {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let client = reqwest::Client::new();
    loop {
        let answer = client.get(&path).send().await.unwrap();
        if answer.status() == 200 {
            assert_eq!(answer.bytes().await.unwrap().len(), 16 * BLOCK.len());
            break;
        }
        assert!(answer.text().await.unwrap().contains("urn:imira:error:busy"));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The first of them was cut off: what it gets is not the whole file.
    let mut first = slow.swap_remove(0);
    let mut received = Vec::new();
    drop(tokio::time::timeout(Duration::from_secs(60), first.read_to_end(&mut received)).await.expect("still open"));
    assert!(received.len() < 16 * BLOCK.len(), "{}", received.len());
}
