//! The attackers. Each connection comes again when the node closes it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;

const HALF_OPEN: usize = 10_000;
const READERS: usize = 1_500;
const OVERSIZED: usize = 32;
const SIGNERS: usize = 64;
/// So many attackers share an address: fewer than a node allows, so that they are not stopped by that alone.
const PER_ADDRESS: usize = 500;
/// Slowloris: a byte of the head now and then, so that the connection looks alive.
const DRIBBLE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    HalfOpen,
    Oversized,
    Signatures,
    Readers,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::HalfOpen => "half-open",
            Self::Oversized => "oversized",
            Self::Signatures => "signatures",
            Self::Readers => "readers",
        }
    }

    pub(super) fn text(self) -> &'static str {
        match self {
            Self::HalfOpen => "10,000 half-open",
            Self::Oversized => "oversized heads and bodies",
            Self::Signatures => "bad signatures",
            Self::Readers => "1,500 who do not read",
        }
    }
}

#[derive(Args)]
pub(crate) struct Attack {
    #[arg(long, value_enum)]
    kind: Kind,
    /// A temporary URL of a file
    #[arg(long)]
    url: String,
    /// The control listener
    #[arg(long)]
    control: String,
    /// A file with a signed request
    #[arg(long)]
    request: PathBuf,
}

impl Attack {
    /// Attacks until it is killed.
    pub(crate) fn run(&self) -> Result<()> {
        e2e::raise_descriptors(super::DESCRIPTORS);
        let (host, path) = split(&self.url)?;
        let request = std::fs::read_to_string(&self.request)?;
        let (control, _) = split(&format!("{}/", self.control))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            match self.kind {
                Kind::HalfOpen => crowd(HALF_OPEN, |number| slow_head(number, host)).await,
                Kind::Oversized => crowd(OVERSIZED, |number| oversized(number, host, control)).await,
                Kind::Signatures => crowd(SIGNERS, |_| bad_signature(control, &request)).await,
                Kind::Readers => crowd(READERS, |number| unread(number, host, &path)).await,
            }
        });
        Ok(())
    }
}

fn split(url: &str) -> Result<(SocketAddr, String)> {
    let rest = url.strip_prefix("http://").context("no http URL")?;
    let (host, path) = rest.split_once('/').context("no path")?;
    Ok((host.parse()?, format!("/{path}")))
}

/// As many at a time, each again and again.
async fn crowd<F: Future<Output = Option<()>>>(size: usize, attack: impl Fn(usize) -> F) {
    let attack = &attack;
    let again = move |number| async move {
        loop {
            if attack(number).await.is_none() {
                sleep(Duration::from_millis(100)).await;
            }
        }
    };
    futures::future::join_all((0..size).map(again)).await;
}

async fn connect(number: usize, to: SocketAddr) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().ok()?;
    socket.set_recv_buffer_size(4_096).ok()?;
    socket.bind(format!("127.0.2.{}:0", 1 + number / PER_ADDRESS).parse().ok()?).ok()?;
    socket.connect(to).await.ok()
}

async fn slow_head(number: usize, to: SocketAddr) -> Option<()> {
    let mut stream = connect(number, to).await?;
    stream.write_all(b"GET /v1/t/x/index HTTP/1.1\r\nhost: n\r\nx: ").await.ok()?;
    loop {
        sleep(DRIBBLE).await;
        stream.write_all(b"x").await.ok()?;
    }
}

/// A head of 10 MB, a head of a million lines, and a body of 10 GB where 16 KiB are allowed.
async fn oversized(number: usize, delivery: SocketAddr, control: SocketAddr) -> Option<()> {
    let piece = [b'a'; 16_384];
    let lines = b"x: y\r\n".repeat(2_000);
    let (to, head, more): (_, &[u8], &[u8]) = match number % 3 {
        0 => (delivery, b"GET / HTTP/1.1\r\nhost: n\r\nx: ", &piece),
        1 => (delivery, b"GET / HTTP/1.1\r\nhost: n\r\n", &lines),
        _ => (
            control,
            b"POST /v1/tokens HTTP/1.1\r\nhost: n\r\ncontent-type: application/jose\r\ncontent-length: 10000000000\r\n\r\n",
            &piece,
        ),
    };
    let mut stream = connect(number, to).await?;
    stream.write_all(head).await.ok()?;
    for _ in 0..640 {
        stream.write_all(more).await.ok()?;
    }
    Some(())
}

/// A request whose signature is of the right length and wrong, over a kept connection.
async fn bad_signature(control: SocketAddr, request: &str) -> Option<()> {
    let (signed, signature) = request.trim().rsplit_once('.')?;
    let first = if signature.starts_with('A') { "B" } else { "A" };
    let body = format!("{signed}.{first}{}", &signature[1..]);
    let head = format!(
        "POST /v1/tokens HTTP/1.1\r\nhost: n\r\ncontent-type: application/jose\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(control).await.ok()?;
    let mut answer = vec![0; 4_096];
    loop {
        stream.write_all(head.as_bytes()).await.ok()?;
        stream.write_all(body.as_bytes()).await.ok()?;
        if stream.read(&mut answer).await.ok()? == 0 {
            return None;
        }
    }
}

/// Asks for a file and reads nothing of it.
async fn unread(number: usize, to: SocketAddr, path: &str) -> Option<()> {
    let mut stream = connect(number, to).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: n\r\n\r\n").as_bytes()).await.ok()?;
    loop {
        sleep(Duration::from_secs(1)).await;
        // Notices when it has been closed, without reading.
        stream.write_all(b"\r\n").await.ok()?;
    }
}
