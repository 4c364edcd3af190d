//! How nodes find one another and move blocks, under one network key (white paper 4.2, `docs/protocol.md`).
//!
//! - [`Network`]: the network id and key that all members share, and [`Membership`]: who is one, where authorities say so.
//! - [`Discovery`]: libp2p Kademlia over QUIC/UDP, behind the gate and sealed; used for routing only.
//! - [`BlockServer`], [`BlockClient`]: the block plane, `Noise_XXpsk0` over TCP.
//! - [`Peers`]: both together: fetch a block from its holders, put a block on the nodes it belongs on.
//! - [`core`]: placement, without IO.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod addresses;
mod discovery;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod gate;
mod membership;
mod muxer;
mod network;
mod peers;
mod reach;
mod refusals;
mod seal;
mod transfer;
#[cfg(test)]
mod vectors;

pub use dht_core as core;
pub use discovery::{
    Discovery, DiscoveryConfig, DiscoveryError, Found, LookupCounts, PeerAddress, PeerEvent, bootstrap_peer,
    peer_address,
};
pub use gate::{GATE_DEADLINE, GateError, Role};
pub use libp2p::identity::Keypair;
pub use libp2p::{Multiaddr, PeerId};
pub use membership::{
    Admission, Authority, AuthorityId, AuthorityKey, CLOCK_SKEW_S, Certificate, MAX_AUTHORITIES, MAX_REVOKED,
    Membership, MembershipError, RevocationList, Serial, UnixClock,
};
pub use muxer::{GatedConnection, MuxerError, gated_quic};
pub use network::{KeyId, Network, NetworkError, NetworkKey, random_bytes};
pub use peers::{Local, Peers, PeersError};
pub use reach::ReachError;
pub use refusals::{RefusalReason, Refusals};
pub use seal::{SealError, SealedStream};
pub use transfer::{
    BlockClient, BlockHandler, BlockServer, BodyBudget, ClientLimits, DigestAnswer, DigestRequest, HandshakeError,
    MAX_IDS_PER_REQUEST, MAX_NAMED_REFERENCES, MAX_REFERENCE_IDS, MAX_REFERENCES_PER_REQUEST, OrdersPage, PeerStatus,
    PutRequest, Reached, ReferencesPage, Refusal, ServerLimits, Status, TransferError, WireEntry,
};
