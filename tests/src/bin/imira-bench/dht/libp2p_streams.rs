//! The other reference: the same blocks over one stream of libp2p's TCP, Noise and yamux, without its swarm and without the
//! negotiation of a protocol for each stream, which only cost more.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use chunkstore_block::BlockId;
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt as _, SubstreamBox};
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, PortUse, TransportEvent};
use libp2p::core::{Endpoint, upgrade};
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId, Transport, noise, tcp, yamux};
use tokio::sync::Mutex;

use super::{BODIES, MIB, UNDER_WAY};
use crate::measure::{Run, Stopwatch};

/// The asking end of a stream whose other end answers.
pub(super) struct Pair {
    stream: Mutex<(SubstreamBox, Vec<u8>)>,
}

impl Pair {
    pub(super) async fn start() -> Result<Self> {
        let (mut listening, mut dialling) = (transport()?, transport()?);
        listening.listen_on(ListenerId::next(), "/ip4/127.0.0.1/tcp/0".parse()?)?;
        let address = listened(&mut listening).await?;
        let accepted = tokio::spawn(async move { accept(listening).await });
        let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
        let (_, mut muxer) = dialling.dial(address, options)?.await?;
        let mut stream = poll_fn(|cx| open(&mut muxer, cx)).await?;
        tokio::spawn(drive(muxer));
        // The first bytes open the stream at the other end.
        stream.write_all(BODIES[0].0.as_bytes()).await?;
        stream.flush().await?;
        let mut body = vec![0; MIB];
        stream.read_exact(&mut body).await?;
        accepted.await??;
        Ok(Self { stream: Mutex::new((stream, body)) })
    }

    /// One block after another into the same memory, with as many requests ahead as ours has.
    pub(super) async fn fetch(&self, fetches: usize, verify: bool) -> Result<Run> {
        let (stream, body) = &mut *self.stream.lock().await;
        let id = |at: usize| BODIES[at % BODIES.len()].0;
        let watch = Stopwatch::start();
        for at in 0..UNDER_WAY.min(fetches) {
            stream.write_all(id(at).as_bytes()).await?;
        }
        for at in 0..fetches {
            stream.flush().await?;
            stream.read_exact(body).await?;
            if at + UNDER_WAY < fetches {
                stream.write_all(id(at + UNDER_WAY).as_bytes()).await?;
            }
            if verify {
                stream.flush().await?;
                ensure!(BlockId::of(body) == id(at), "another block came");
            }
        }
        Ok(watch.stop((fetches * MIB) as u64))
    }
}

type Connection = (PeerId, StreamMuxerBox);

fn transport() -> Result<Boxed<Connection>> {
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
    let noise = noise::Config::new(&Keypair::generate_ed25519())?;
    Ok(tcp.upgrade(upgrade::Version::V1Lazy).authenticate(noise).multiplex(yamux::Config::default()).boxed())
}

async fn listened(transport: &mut Boxed<Connection>) -> Result<Multiaddr> {
    loop {
        let event = poll_fn(|cx| Pin::new(&mut *transport).poll(cx)).await;
        if let TransportEvent::NewAddress { listen_addr, .. } = event {
            return Ok(listen_addr);
        }
    }
}

/// Takes one connection and one stream, and answers on it.
async fn accept(mut transport: Boxed<Connection>) -> Result<()> {
    loop {
        match poll_fn(|cx| Pin::new(&mut transport).poll(cx)).await {
            TransportEvent::Incoming { upgrade, .. } => {
                let (_, mut muxer) = upgrade.await?;
                let stream = poll_fn(|cx| take(&mut muxer, cx)).await?;
                tokio::spawn(drive(muxer));
                tokio::spawn(answer(stream));
                return Ok(());
            }
            TransportEvent::ListenerClosed { .. } | TransportEvent::ListenerError { .. } => bail!("cannot listen"),
            TransportEvent::NewAddress { .. } | TransportEvent::AddressExpired { .. } => {}
        }
    }
}

async fn answer(mut stream: SubstreamBox) -> Result<()> {
    let mut id = [0; 32];
    loop {
        stream.read_exact(&mut id).await?;
        let known = BODIES.iter().find(|(known, _)| *known.as_bytes() == id).context("no such block")?;
        stream.write_all(&known.1).await?;
        stream.flush().await?;
    }
}

fn open(muxer: &mut StreamMuxerBox, cx: &mut Context<'_>) -> Poll<Result<SubstreamBox>> {
    if let Poll::Ready(stream) = muxer.poll_outbound_unpin(cx) {
        return Poll::Ready(stream.map_err(|error| anyhow!(error)));
    }
    turn(muxer, cx)
}

fn take(muxer: &mut StreamMuxerBox, cx: &mut Context<'_>) -> Poll<Result<SubstreamBox>> {
    if let Poll::Ready(stream) = muxer.poll_inbound_unpin(cx) {
        return Poll::Ready(stream.map_err(|error| anyhow!(error)));
    }
    turn(muxer, cx)
}

/// Lets a connection work; comes back when it ends.
fn turn<T>(muxer: &mut StreamMuxerBox, cx: &mut Context<'_>) -> Poll<Result<T>> {
    loop {
        match muxer.poll_unpin(cx) {
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(anyhow!(error))),
            Poll::Pending => return Poll::Pending,
        }
    }
}

async fn drive(mut muxer: StreamMuxerBox) -> Result<()> {
    poll_fn(|cx| turn(&mut muxer, cx)).await
}
