//! What a node needs for many viewers, beside its cache.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use e2e::NodeOptions;
use futures::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::{MIB, Origin, file_paths, runtime};
use crate::Context;
use crate::report::{Goal, Row};

const IDLE: usize = 10_000;
const ACTIVE: usize = 1_000;
const CACHE_BLOCKS: usize = 64;
/// What each active viewer reads.
const SEGMENTS_EACH: usize = 5;
/// The kernel has 28,000 ports for connections of one address to another.
const PER_ADDRESS: usize = 5_000;

pub(super) fn of_viewers(context: &Context) -> Result<Vec<Row>> {
    e2e::raise_descriptors((IDLE + ACTIVE + 1_000) as u64);
    context.progress.at("10,000 viewers read a segment each and wait; 1,000 read on".to_owned());
    let (idle, peak, cache) = runtime()?.block_on(measure())?;
    let row = |what: &str, bytes: u64, goal| {
        Row::figure(what, (bytes as f64 / 1e6, "MB"), (300.0, "goal, over the cache"), goal)
    };
    Ok(vec![
        row("memory, 10,000 idle + 1,000 active: peak", peak.saturating_sub(cache), Goal::AtMost(1.0)),
        row("the same: more than before, 10,000 idle", idle, Goal::None),
    ])
}

/// Bytes that the idle viewers cost, the most that the node had in all, and what of that was its cache.
async fn measure() -> Result<(u64, u64, u64)> {
    let bodies: Vec<_> = (0..CACHE_BLOCKS).map(|_| e2e::random_block(MIB)).collect();
    let settings = vec![("cache_bytes", (CACHE_BLOCKS * MIB).to_string())];
    let origin = Origin::start(&bodies, NodeOptions { settings, ..NodeOptions::default() }).await;
    let (process, to) = (&origin.node.process, origin.node.delivery);
    let urls = origin.urls(&file_paths(CACHE_BLOCKS)).await?;
    // Fills the cache.
    for url in &urls {
        reqwest::get(url).await?.error_for_status()?.bytes().await?;
    }
    let before = process.memory_bytes();
    let opened = futures::stream::iter(0..IDLE).map(|number| idle(number, to, &urls[number % urls.len()]));
    let idle: Vec<TcpStream> =
        opened.buffer_unordered(100).collect::<Vec<_>>().await.into_iter().collect::<Result<_>>()?;
    let idle_bytes = process.memory_bytes().saturating_sub(before);
    let urls = origin.urls(&file_paths(CACHE_BLOCKS)).await?;
    let active = futures::stream::iter(0..ACTIVE).map(|number| active(number, to, &urls));
    let read: Vec<Result<()>> = active.buffer_unordered(ACTIVE).collect().await;
    read.into_iter().collect::<Result<()>>()?;
    let status = origin.node.client.node().await?;
    ensure!(idle.len() == IDLE && !process.log().contains("panicked"), "not all viewers were served");
    Ok((idle_bytes, process.peak_memory_bytes(), status.cache.used_bytes))
}

/// One who has read 100 bytes, keeps the connection, and asks for nothing more.
async fn idle(number: usize, to: SocketAddr, url: &str) -> Result<TcpStream> {
    let mut stream = connect(number, to).await?;
    let path = &url[url.find("/v1").context("no path")?..];
    let request = format!("GET {path} HTTP/1.1\r\nhost: n\r\nrange: bytes=0-99\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = vec![0; 15];
    stream.read_exact(&mut answer).await?;
    ensure!(answer == b"HTTP/1.1 206 Pa", "{}", String::from_utf8_lossy(&answer));
    Ok(stream)
}

/// One who reads segment after segment.
async fn active(number: usize, to: SocketAddr, urls: &[String]) -> Result<()> {
    let mut stream = connect(number, to).await?;
    let mut buffer = vec![0; 64 << 10];
    for segment in 0..SEGMENTS_EACH {
        let url = &urls[(number + segment) % urls.len()];
        let path = &url[url.find("/v1").context("no path")?..];
        let last = if segment + 1 == SEGMENTS_EACH { "connection: close\r\n" } else { "" };
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: n\r\n{last}\r\n").as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        ensure!(head.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&head));
        let mut left = MIB;
        while left > 0 {
            let most = left.min(buffer.len());
            let read = stream.read(&mut buffer[..most]).await?;
            ensure!(read > 0, "a segment was cut off");
            left -= read;
        }
    }
    Ok(())
}

async fn connect(number: usize, to: SocketAddr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(format!("127.0.1.{}:0", 1 + number / PER_ADDRESS).parse()?)?;
    Ok(socket.connect(to).await?)
}
