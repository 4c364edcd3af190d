//! The handshake: `Noise_XXpsk0` with the network key, and the node keys inside it (`docs/protocol.md` §4.1).

#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing;

use super::TransferError;
use super::channel::Channel;
use super::cipher;
use crate::{Admission, KeyId, MembershipError, Network, NetworkKey, RefusalReason, Role};
use chunkstore_block::NetworkId;
use libp2p::PeerId;
use libp2p::identity::{Keypair, PublicKey};
use snow::{Builder, HandshakeState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

const PATTERN: &str = "Noise_XXpsk0_25519_ChaChaPoly_SHA256";
const MAGIC: [u8; 4] = *b"iMBP";
const VERSION: u8 = 1;
const PREAMBLE_BYTES: usize = 4 + 1 + 16 + 8;
const MAX_MESSAGE_BYTES: usize = 4096;
const STATIC_KEY_BYTES: usize = 32;

/// Who this node is on the block plane: its node key, its network, and an X25519 key made at start.
pub(super) struct LocalIdentity {
    keypair: Keypair,
    noise_private: Zeroizing<Vec<u8>>,
    noise_public: Vec<u8>,
}

impl LocalIdentity {
    pub(super) fn new(keypair: Keypair) -> Result<Self, TransferError> {
        let noise = Builder::new(pattern()?).generate_keypair().map_err(noise_failed)?;
        Ok(Self { keypair, noise_private: Zeroizing::new(noise.private), noise_public: noise.public })
    }

    /// The identity payload: node key, its signature of the X25519 key, and its certificate if there is one.
    fn payload(&self, network: &Network, role: Role) -> Result<Vec<u8>, TransferError> {
        let signature = self
            .keypair
            .sign(&signed_bytes(&network.id(), role, &self.noise_public))
            .map_err(|error| HandshakeError::Noise(error.to_string()))?;
        let mut payload = vec![VERSION];
        for field in [self.keypair.public().encode_protobuf(), signature, network.membership().attachment()] {
            // Ed25519 keys, signatures and certificates are far below 65,536 bytes.
            payload.extend_from_slice(&(field.len() as u16).to_be_bytes());
            payload.extend_from_slice(&field);
        }
        Ok(payload)
    }
}

/// Dials' side: proves the key, this node and the peer. Leaves the hello frame to the caller.
pub(super) async fn initiate(
    mut stream: TcpStream,
    identity: &LocalIdentity,
    network: &Network,
    key: &NetworkKey,
    wanted: PeerId,
) -> Result<Channel, TransferError> {
    stream.set_nodelay(true)?;
    let preamble = preamble(&network.id(), key.id(&network.id()));
    let mut noise = noise_state(identity, &network.id(), key, &preamble, Role::Initiator)?;
    let first = write_noise(&mut noise, &[])?;
    stream.write_all(&[&preamble[..], &first].concat()).await?;
    let second = read_message(&mut stream).await.map_err(|_| closed_without_a_word())?;
    let theirs = read_noise(&mut noise, &second)?;
    let (answers, attachment) = verify_identity(&theirs, &network.id(), Role::Responder, remote_static(&noise)?)?;
    if answers != wanted {
        return Err(HandshakeError::OtherPeer { answers: answers.into(), wanted: wanted.into() }.into());
    }
    let admission = admit(network, answers, attachment)?;
    let third = write_noise(&mut noise, &identity.payload(network, Role::Initiator)?)?;
    stream.write_all(&third).await?;
    Channel::new(stream, cipher::split(&mut noise)?, admission)
}

/// Listener's side. Sends nothing to a peer that has not proved the network key in its first message.
pub(super) async fn respond(
    mut stream: TcpStream,
    identity: &LocalIdentity,
    network: &Network,
) -> Result<Channel, TransferError> {
    stream.set_nodelay(true)?;
    let mut preamble = [0; PREAMBLE_BYTES];
    stream.read_exact(&mut preamble).await?;
    let key = named_key(&preamble, network)?;
    let mut noise = noise_state(identity, &network.id(), key, &preamble, Role::Responder)?;
    let first = read_message(&mut stream).await?;
    // psk0: whoever lacks the key has made a message that does not open.
    let first = read_noise(&mut noise, &first).map_err(|_| HandshakeError::WrongProof)?;
    if !first.is_empty() {
        return Err(TransferError::Protocol("the first handshake message has a payload"));
    }
    stream.write_all(&write_noise(&mut noise, &identity.payload(network, Role::Responder)?)?).await?;
    let theirs = read_noise(&mut noise, &read_message(&mut stream).await?)?;
    let (peer, attachment) = verify_identity(&theirs, &network.id(), Role::Initiator, remote_static(&noise)?)?;
    let admission = admit(network, peer, attachment)?;
    Channel::new(stream, cipher::split(&mut noise)?, admission)
}

/// Whether a peer that has proved key and identity is a member.
fn admit(network: &Network, peer: PeerId, attachment: &[u8]) -> Result<Admission, HandshakeError> {
    let membership = network.membership();
    Ok(membership.admit(peer, attachment, membership.now())?)
}

/// A listener that shares no key closes and says nothing, so the close is the message.
fn closed_without_a_word() -> TransferError {
    HandshakeError::Closed.into()
}

fn preamble(network: &NetworkId, key: KeyId) -> [u8; PREAMBLE_BYTES] {
    let mut preamble = [0; PREAMBLE_BYTES];
    preamble[..4].copy_from_slice(&MAGIC);
    preamble[4] = VERSION;
    preamble[5..21].copy_from_slice(network.as_bytes());
    preamble[21..].copy_from_slice(&key.0);
    preamble
}

fn named_key<'n>(preamble: &[u8; PREAMBLE_BYTES], network: &'n Network) -> Result<&'n NetworkKey, TransferError> {
    if preamble[..4] != MAGIC || preamble[4] != VERSION {
        return Err(TransferError::Protocol("not a block plane of version 1"));
    }
    if preamble[5..21] != *network.id().as_bytes() {
        return Err(HandshakeError::OtherNetwork.into());
    }
    let mut id = [0; 8];
    id.copy_from_slice(&preamble[21..]);
    network.key_by_id(KeyId(id)).ok_or_else(|| HandshakeError::UnknownKey.into())
}

fn noise_state(
    identity: &LocalIdentity,
    network: &NetworkId,
    key: &NetworkKey,
    preamble: &[u8],
    role: Role,
) -> Result<HandshakeState, TransferError> {
    let (psk, prologue) = (key.blocks_psk(network), prologue(preamble));
    let builder = noise_builder(identity, &psk, &prologue)?;
    match role {
        Role::Initiator => builder.build_initiator(),
        Role::Responder => builder.build_responder(),
    }
    .map_err(noise_failed)
}

fn prologue(preamble: &[u8]) -> Vec<u8> {
    [b"imira/1/blocks", preamble].concat()
}

fn noise_builder<'b>(
    identity: &'b LocalIdentity,
    psk: &'b [u8; 32],
    prologue: &'b [u8],
) -> Result<Builder<'b>, TransferError> {
    Builder::new(pattern()?)
        .local_private_key(&identity.noise_private)
        .and_then(|builder| builder.psk(0, psk))
        .and_then(|builder| builder.prologue(prologue))
        .map_err(noise_failed)
}

fn pattern() -> Result<snow::params::NoiseParams, TransferError> {
    PATTERN.parse().map_err(noise_failed)
}

/// A Noise message with its length before it.
fn write_noise(noise: &mut HandshakeState, payload: &[u8]) -> Result<Vec<u8>, TransferError> {
    let mut message = vec![0; 2 + MAX_MESSAGE_BYTES];
    let length = noise.write_message(payload, &mut message[2..]).map_err(noise_failed)?;
    message[..2].copy_from_slice(&(length as u16).to_be_bytes());
    message.truncate(2 + length);
    Ok(message)
}

fn read_noise(noise: &mut HandshakeState, message: &[u8]) -> Result<Vec<u8>, TransferError> {
    let mut payload = vec![0; MAX_MESSAGE_BYTES];
    let length = noise.read_message(message, &mut payload).map_err(noise_failed)?;
    payload.truncate(length);
    Ok(payload)
}

async fn read_message(stream: &mut TcpStream) -> Result<Vec<u8>, TransferError> {
    let length = usize::from(stream.read_u16().await?);
    if length > MAX_MESSAGE_BYTES {
        return Err(TransferError::Protocol("a handshake message is longer than 4,096 bytes"));
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

fn remote_static(noise: &HandshakeState) -> Result<&[u8], TransferError> {
    noise.get_remote_static().ok_or(TransferError::Protocol("the handshake names no static key"))
}

fn signed_bytes(network: &NetworkId, role: Role, noise_public: &[u8]) -> Vec<u8> {
    debug_assert_eq!(noise_public.len(), STATIC_KEY_BYTES);
    [b"imira/1/noise-static", &network.as_bytes()[..], &[role.byte()], noise_public].concat()
}

/// Checks the peer's signature of its X25519 key; its `PeerId`, and its attachment unread.
fn verify_identity<'p>(
    payload: &'p [u8],
    network: &NetworkId,
    role: Role,
    noise_public: &[u8],
) -> Result<(PeerId, &'p [u8]), TransferError> {
    let bad = TransferError::Protocol("the peer's identity does not decode");
    let Some((&VERSION, rest)) = payload.split_first() else { return Err(bad) };
    let Some((key, rest)) = take_field(rest) else { return Err(bad) };
    let Some((signature, rest)) = take_field(rest) else { return Err(bad) };
    let Some((attachment, [])) = take_field(rest) else { return Err(bad) };
    let key = PublicKey::try_decode_protobuf(key).map_err(|_| bad)?;
    if !key.verify(&signed_bytes(network, role, noise_public), signature) {
        return Err(HandshakeError::BadSignature.into());
    }
    Ok((key.to_peer_id(), attachment))
}

fn take_field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

fn noise_failed(error: snow::Error) -> TransferError {
    HandshakeError::Noise(error.to_string()).into()
}

/// Why a handshake failed. Logged and counted here, never told to the peer.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// It names another network.
    #[error("the peer belongs to another network")]
    OtherNetwork,
    /// It names a key that we do not have.
    #[error("the peer names a network key that is not one of ours")]
    UnknownKey,
    /// It names a key of ours that it does not have.
    #[error("the peer's proof of the network key is wrong")]
    WrongProof,
    /// It closed instead of answering.
    #[error("the peer closed: it is of another network, has none of our keys, or asks for a certificate")]
    Closed,
    /// Noise could not go on.
    #[error("{0}")]
    Noise(String),
    /// The node key did not sign the key of this handshake.
    #[error("the peer's signature does not fit its node key")]
    BadSignature,
    /// Somebody else is at the address.
    #[error("{answers} answers where {wanted} was expected")]
    OtherPeer {
        /// Who is there.
        answers: Box<PeerId>,
        /// Who should be.
        wanted: Box<PeerId>,
    },
    /// It has the key, and is not a member.
    #[error("the peer is not a member of this network: {0}")]
    NotAMember(#[from] MembershipError),
    /// It took longer than the protocol allows.
    #[error("the handshake took too long")]
    TooSlow,
}

impl HandshakeError {
    /// Under what such a refusal is counted.
    #[must_use]
    pub fn reason(&self) -> RefusalReason {
        match self {
            Self::OtherNetwork => RefusalReason::OtherNetwork,
            Self::UnknownKey | Self::WrongProof => RefusalReason::WrongKey,
            Self::Closed => RefusalReason::Closed,
            Self::Noise(_) | Self::BadSignature | Self::OtherPeer { .. } => RefusalReason::Protocol,
            Self::NotAMember(error) => error.reason(),
            Self::TooSlow => RefusalReason::TooSlow,
        }
    }
}

#[cfg(test)]
pub(super) mod vectors;
