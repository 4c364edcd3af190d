//! Counts what a replica costs on the wire: both directions of TCP's payload, handshake and all.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, ensure};
use chunkstore_block::{PlatformFingerprint, PublicationId, Reference};
use dht::PeerAddress;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::plane::Served;
use super::{BODIES, MIB, runtime};
use crate::Context;
use crate::report::{Goal, Row};

/// As long as a platform's real one (RSA of 2,048 bits).
const AUTHORITY_BYTES: usize = 850;

pub(super) fn reference() -> Reference {
    Reference { platform: PlatformFingerprint::from_bytes([1; 32]), publication: PublicationId::from_bytes([2; 16]) }
}

pub(super) fn bytes_on_the_wire(context: &Context) -> Result<Vec<Row>> {
    context.progress.at("a pull and a put through a relay that counts".to_owned());
    let (pulled, put) = runtime()?.block_on(async { anyhow::Ok((count_pull().await?, count_put().await?)) })?;
    let row = |what, bytes: u64| {
        let mib = bytes as f64 / MIB as f64;
        Row::figure(what, (mib, "MiB"), (1.0, "the block"), Goal::AtMost(1.02))
    };
    Ok(vec![row("a replica of 1 MiB, pulled: bytes sent", pulled), row("the same, put: bytes sent", put)])
}

async fn count_pull() -> Result<u64> {
    let served = Served::start().await?;
    let relay = Relay::start(served.peer.address).await?;
    let (body, _) = served.client(1, 1)?.pull(relay.in_front_of(served.peer), BODIES[0].0).await?;
    ensure!(body.bytes().len() == MIB, "a block of another length came");
    Ok(relay.bytes.load(Ordering::Relaxed))
}

async fn count_put() -> Result<u64> {
    let served = Served::start().await?;
    let relay = Relay::start(served.peer.address).await?;
    let (id, body) = BODIES[0].clone();
    let authority = "x".repeat(AUTHORITY_BYTES);
    served.client(1, 1)?.put(relay.in_front_of(served.peer), id, body, vec![reference()], authority).await?;
    Ok(relay.bytes.load(Ordering::Relaxed))
}

/// Passes on one connection after another.
struct Relay {
    address: SocketAddr,
    bytes: Arc<AtomicU64>,
}

impl Relay {
    async fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, bytes) = (listener.local_addr()?, Arc::new(AtomicU64::new(0)));
        let counter = Arc::clone(&bytes);
        tokio::spawn(async move {
            loop {
                let (mut from_dialler, mut to_dialler) = listener.accept().await?.0.into_split();
                let (mut from_target, mut to_target) = TcpStream::connect(target).await?.into_split();
                tokio::try_join!(
                    pass_on(&mut from_dialler, &mut to_target, &counter),
                    pass_on(&mut from_target, &mut to_dialler, &counter),
                )?;
            }
            #[allow(unreachable_code)] // Says what the errors above are.
            anyhow::Ok(())
        });
        Ok(Self { address, bytes })
    }

    fn in_front_of(&self, peer: PeerAddress) -> PeerAddress {
        PeerAddress { address: self.address, ..peer }
    }
}

async fn pass_on(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    counter: &AtomicU64,
) -> Result<()> {
    let mut buffer = vec![0; 65_536];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(to.shutdown().await?);
        }
        // Before it goes on: whoever gets the answer finds it counted.
        counter.fetch_add(count as u64, Ordering::Relaxed);
        to.write_all(&buffer[..count]).await?;
    }
}
