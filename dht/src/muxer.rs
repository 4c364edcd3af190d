//! The QUIC transport with the gate in front of it and every stream sealed.

use crate::gate::{self, Ends, GATE_DEADLINE, GateError, Passed, Role, Session};
use crate::refusals::Refusals;
use crate::seal::SealedStream;
use crate::{Admission, MembershipError, Network};
use futures::ready;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent, StreamMuxerExt};
use libp2p::core::transport::Transport;
use libp2p::identity::Keypair;
use libp2p::{PeerId, quic};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::time::{Interval, MissedTickBehavior};

/// Distance between the ids of consecutive bidirectional streams that one end opens (RFC 9000 §2.1).
const STREAM_ID_STEP: u64 = 4;

/// libp2p's QUIC transport, whose connections appear only after the gate. Refusals add one to `refused`.
pub fn gated_quic(
    keypair: &Keypair,
    network: Arc<Network>,
    refused: Arc<Refusals>,
) -> impl Transport<Output = (PeerId, GatedConnection), Error: Send + Sync, Dial: Send, ListenerUpgrade: Send>
+ Send
+ Unpin
+ use<> {
    let local = keypair.public().to_peer_id();
    quic::tokio::Transport::new(quic_config(keypair)).and_then(move |(remote, connection), point| {
        let role = if point.is_dialer() { Role::Initiator } else { Role::Responder };
        pass_gate(network, local, remote, connection, role, refused)
    })
}

/// Windows far below libp2p's 10 and 15 MB: a stranger fills them before the gate has refused it, and nothing that is
/// said over UDP is longer than a Kademlia packet of 16 KiB.
fn quic_config(keypair: &Keypair) -> quic::Config {
    let mut config = quic::Config::new(keypair);
    config.max_stream_data = 64 << 10;
    config.max_connection_data = 512 << 10;
    config.max_concurrent_stream_limit = 64;
    config
}

async fn pass_gate(
    network: Arc<Network>,
    local: PeerId,
    remote: PeerId,
    mut connection: quic::Connection,
    role: Role,
    refused: Arc<Refusals>,
) -> Result<(PeerId, GatedConnection), GateError> {
    let outcome =
        match tokio::time::timeout(GATE_DEADLINE, run_gate(&network, local, remote, &mut connection, role)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(GateError::TooSlow),
        };
    match outcome {
        Ok(passed) => Ok((remote, GatedConnection::new(connection, passed, role, network))),
        Err(error) => {
            if let Some(since_last) = refused.note(error.reason()) {
                tracing::warn!(peer = %remote, ?role, %error, since_last, "refused at the gate");
            }
            // Tell the peer now instead of letting the connection time out; how it takes that does not matter.
            drop(connection.close().await);
            Err(error)
        }
    }
}

async fn run_gate(
    network: &Network,
    local: PeerId,
    remote: PeerId,
    connection: &mut quic::Connection,
    role: Role,
) -> Result<Passed, GateError> {
    let quic_failed = |error: quic::Error| GateError::Quic(error.to_string());
    match role {
        Role::Initiator => {
            let stream = poll_fn(|cx| connection.poll_outbound_unpin(cx)).await.map_err(quic_failed)?;
            gate::initiate(network, Ends { initiator: local, responder: remote }, stream).await
        }
        Role::Responder => {
            let stream = poll_fn(|cx| connection.poll_inbound_unpin(cx)).await.map_err(quic_failed)?;
            gate::respond(network, Ends { initiator: remote, responder: local }, stream).await
        }
    }
}

/// A QUIC connection that has passed the gate; all its streams are sealed. It ends when the peer's membership does.
pub struct GatedConnection {
    inner: quic::Connection,
    session: Session,
    role: Role,
    admission: Admission,
    network: Arc<Network>,
    recheck: Interval,
    /// QUIC id of the next stream that this end opens. QUIC numbers streams in the order in which they are
    /// opened and hands them over in that order (RFC 9000 §2.1), so counting gives the id.
    next_outbound: u64,
    next_inbound: u64,
}

impl GatedConnection {
    fn new(inner: quic::Connection, passed: Passed, role: Role, network: Arc<Network>) -> Self {
        let Passed { session, admission } = passed;
        // The dialler's stream 0 was the gate's.
        let (of_dialler, of_listener) = (STREAM_ID_STEP, 1);
        let (next_outbound, next_inbound) = match role {
            Role::Initiator => (of_dialler, of_listener),
            Role::Responder => (of_listener, of_dialler),
        };
        let mut recheck = tokio::time::interval(network.membership().recheck_interval());
        recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { inner, session, role, admission, network, recheck, next_outbound, next_inbound }
    }

    /// Looks at the peer's membership whenever it is time to.
    fn check_membership(&mut self, cx: &mut Context<'_>) -> Result<(), MembershipError> {
        let membership = self.network.membership();
        if membership.authorities().is_empty() {
            return Ok(());
        }
        while self.recheck.poll_tick(cx).is_ready() {
            membership.still_admitted(&self.admission, membership.now())?;
        }
        Ok(())
    }
}

impl StreamMuxer for GatedConnection {
    type Substream = SealedStream<quic::Stream>;
    type Error = MuxerError;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Self::Substream, Self::Error>> {
        let stream = ready!(self.inner.poll_inbound_unpin(cx))?;
        let id = self.next_inbound;
        self.next_inbound += STREAM_ID_STEP;
        Poll::Ready(Ok(SealedStream::new(stream, &self.session, id, self.role)))
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Self::Substream, Self::Error>> {
        let stream = ready!(self.inner.poll_outbound_unpin(cx))?;
        let id = self.next_outbound;
        self.next_outbound += STREAM_ID_STEP;
        Poll::Ready(Ok(SealedStream::new(stream, &self.session, id, self.role)))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_close_unpin(cx).map_err(MuxerError::Quic)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        self.check_membership(cx)?;
        self.inner.poll_unpin(cx).map_err(MuxerError::Quic)
    }
}

/// Why a gated connection has ended.
#[derive(Debug, thiserror::Error)]
pub enum MuxerError {
    /// QUIC's reason.
    #[error("the connection broke: {0}")]
    Quic(#[from] quic::Error),
    /// The peer was a member, and is one no more.
    #[error("the peer is not a member any more: {0}")]
    NotAMember(#[from] MembershipError),
}
