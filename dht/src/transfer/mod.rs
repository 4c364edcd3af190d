//! The block plane: blocks between nodes over TCP (`docs/protocol.md` §4).

mod budget;
mod buffers;
mod channel;
mod cipher;
mod client;
mod connection;
mod frame;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod handshake;
mod limits;
mod message;
mod pool;
mod server;
#[cfg(test)]
mod vectors;

pub use budget::BodyBudget;
pub use client::BlockClient;
pub use handshake::HandshakeError;
pub use limits::{ClientLimits, ServerLimits};
pub use message::{
    DigestAnswer, DigestRequest, MAX_IDS_PER_REQUEST, MAX_NAMED_REFERENCES, MAX_REFERENCE_IDS,
    MAX_REFERENCES_PER_REQUEST, OrdersPage, PeerStatus, Reached, ReferencesPage, Refusal, Status, WireEntry,
};
pub use server::{BlockHandler, BlockServer, PutRequest};

use crate::RefusalReason;
use std::io;

/// Why a request on the block plane has no answer, or a bad one.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The address cannot be listened on.
    #[error("{0}")]
    Listen(#[source] io::Error),
    /// TCP did not connect in time.
    #[error("the peer cannot be reached: {0}")]
    Unreachable(String),
    /// The handshake failed: another key or network, another peer, another protocol.
    #[error("the handshake failed: {0}")]
    Handshake(#[from] HandshakeError),
    /// The connection broke or timed out.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// What came is not a frame of this protocol.
    #[error("the peer breaks the protocol: {0}")]
    Protocol(&'static str),
    /// The peer answered no.
    #[error("the peer answered {}: {}", .0.status.name(), .0.text)]
    Refused(Refusal),
    /// The peer sent bytes that are not the block that was asked for.
    #[error("the peer sent bytes whose SHA-256 is not the block id")]
    WrongBytes,
}

impl TransferError {
    /// Under what a failed handshake is counted.
    pub(crate) fn reason(&self) -> RefusalReason {
        match self {
            Self::Handshake(error) => error.reason(),
            Self::Io(_) => RefusalReason::Closed,
            Self::Protocol(_) | Self::Listen(_) | Self::Unreachable(_) | Self::Refused(_) | Self::WrongBytes => {
                RefusalReason::Protocol
            }
        }
    }

    /// The status of a refusal, if it is one.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        if let Self::Refused(refusal) = self { Some(refusal.status) } else { None }
    }
}
