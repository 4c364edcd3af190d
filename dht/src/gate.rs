//! The gate: both ends of a fresh QUIC connection prove the network key before anything else (`docs/protocol.md` §3.1).
//!
//! The MACs cover the `PeerId`s that TLS proved on this connection, so a peer without the key that relays the
//! messages of two members gets nowhere.

use crate::network::{expand, random};
use crate::{Admission, KeyId, MembershipError, Network, NetworkError, NetworkKey, RefusalReason};
use chunkstore_block::NetworkId;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use libp2p::PeerId;
use sha2::{Digest, Sha256};
use std::time::Duration;
use zeroize::Zeroizing;

/// How long a connection may stand without having passed the gate. A round trip and a half must fit.
pub const GATE_DEADLINE: Duration = Duration::from_millis(700);

const MAGIC: [u8; 3] = *b"iMG";
const VERSION: u8 = 1;
const MAC_BYTES: usize = 32;
/// Room for membership certificates of later versions.
const MAX_ATTACHMENT_BYTES: usize = 4096;

/// Which end of a connection: the dialler or the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The dialler, `I` in the protocol.
    Initiator,
    /// The listener, `R`.
    Responder,
}

impl Role {
    /// `b'I'` or `b'R'`, as MACs, signatures and stream keys carry it.
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Self::Initiator => b'I',
            Self::Responder => b'R',
        }
    }

    /// The role of the other end.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Initiator => Self::Responder,
            Self::Responder => Self::Initiator,
        }
    }
}

/// What a connection has when it has passed the gate: keys, and whom by what.
pub(crate) struct Passed {
    pub(crate) session: Session,
    pub(crate) admission: Admission,
}

/// What both ends of a gated connection share; the streams' keys come from it.
pub(crate) struct Session(Zeroizing<[u8; 32]>);

impl Session {
    /// A session from a given secret, for tests of what is built on it.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn from_secret(secret: [u8; 32]) -> Self {
        Self(Zeroizing::new(secret))
    }

    /// `key(s, x)`: the key under which `sender` seals the stream with QUIC id `stream_id`.
    pub(crate) fn stream_key(&self, stream_id: u64, sender: Role) -> Zeroizing<[u8; 32]> {
        let mut info = b"imira/1/stream".to_vec();
        info.extend_from_slice(&stream_id.to_be_bytes());
        info.push(sender.byte());
        #[allow(clippy::expect_used)] // Hkdf refuses keys shorter than the hash, 32 bytes.
        let hkdf = Hkdf::<Sha256>::from_prk(self.0.as_slice()).expect("the secret is as long as the hash");
        expand(&hkdf, &info)
    }
}

/// The two ends of the connection as TLS proved them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub(crate) initiator: PeerId,
    pub(crate) responder: PeerId,
}

impl Ends {
    /// `ctx` of the protocol document.
    fn context(&self, network: &NetworkId) -> Vec<u8> {
        let mut ctx = b"imira/1/gate".to_vec();
        ctx.extend_from_slice(network.as_bytes());
        for peer in [self.initiator, self.responder] {
            let bytes = peer.to_bytes();
            ctx.extend_from_slice(&u16_len(bytes.len()));
            ctx.extend_from_slice(&bytes);
        }
        ctx
    }
}

/// What an end puts into its messages: a fresh nonce, and its certificate if it has one.
struct Own {
    nonce: [u8; 32],
    attachment: Vec<u8>,
}

impl Own {
    fn of(network: &Network) -> Result<Self, GateError> {
        Ok(Self { nonce: random()?, attachment: network.membership().attachment() })
    }
}

/// Runs the dialler's side on the connection's first stream.
///
/// # Errors
/// [`GateError`]; the caller closes the connection.
pub(crate) async fn initiate<S>(network: &Network, ends: Ends, stream: S) -> Result<Passed, GateError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    initiate_with(network, ends, &Own::of(network)?, stream).await
}

async fn initiate_with<S>(network: &Network, ends: Ends, own: &Own, mut stream: S) -> Result<Passed, GateError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let first = first_message(network, own);
    stream.write_all(&first).await?;
    stream.flush().await?;

    let (second, mac) = read_second(&mut stream).await.map_err(closed_without_a_word)?;
    let key = chosen_key(network, &second)?;
    let mut transcript = ends.context(&network.id());
    transcript.extend_from_slice(&first);
    transcript.extend_from_slice(&second);
    verify_mac(key, &network.id(), Role::Responder, &transcript, &mac)?;
    transcript.extend_from_slice(&mac);
    let admission = admit(network, ends.responder, &second, SECOND_FIXED)?;

    let third = with_attachment(vec![VERSION], own);
    transcript.extend_from_slice(&third);
    let mac = make_mac(key, &network.id(), Role::Initiator, &transcript);
    transcript.extend_from_slice(&mac);
    stream.write_all(&[&third[..], &mac].concat()).await?;
    stream.close().await?;
    Ok(Passed { session: session(key, &transcript), admission })
}

/// Runs the listener's side on the connection's first stream.
///
/// # Errors
/// [`GateError`]; the caller closes the connection.
pub(crate) async fn respond<S>(network: &Network, ends: Ends, stream: S) -> Result<Passed, GateError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    respond_with(network, ends, &Own::of(network)?, stream).await
}

async fn respond_with<S>(network: &Network, ends: Ends, own: &Own, mut stream: S) -> Result<Passed, GateError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (first, offered) = read_first(&mut stream, &network.id()).await?;
    let key =
        network.keys().iter().find(|key| offered.contains(&key.id(&network.id()))).ok_or(GateError::NoCommonKey)?;
    let mut transcript = ends.context(&network.id());
    transcript.extend_from_slice(&first);

    let second = second_message(key.id(&network.id()), own);
    transcript.extend_from_slice(&second);
    let mac = make_mac(key, &network.id(), Role::Responder, &transcript);
    transcript.extend_from_slice(&mac);
    stream.write_all(&[&second[..], &mac].concat()).await?;
    stream.flush().await?;

    let (third, mac) = read_third(&mut stream).await?;
    transcript.extend_from_slice(&third);
    verify_mac(key, &network.id(), Role::Initiator, &transcript, &mac)?;
    transcript.extend_from_slice(&mac);
    let admission = admit(network, ends.initiator, &third, THIRD_FIXED)?;
    stream.close().await?;
    Ok(Passed { session: session(key, &transcript), admission })
}

/// A listener that shares no key closes and says nothing, so the close is the message.
fn closed_without_a_word(error: GateError) -> GateError {
    if matches!(error, GateError::Io(_)) { GateError::Closed } else { error }
}

/// Whether a peer that has proved the key is a member, by what its message of `fixed` bytes carries.
fn admit(network: &Network, peer: PeerId, message: &[u8], fixed: usize) -> Result<Admission, GateError> {
    let membership = network.membership();
    // `read_with_attachment` has read the length and what it says.
    Ok(membership.admit(peer, &message[fixed + 2..], membership.now())?)
}

fn session(key: &NetworkKey, transcript: &[u8]) -> Session {
    Session(key.session_secret(&Sha256::digest(transcript).into()))
}

fn first_message(network: &Network, own: &Own) -> Vec<u8> {
    let mut message = MAGIC.to_vec();
    message.push(VERSION);
    message.extend_from_slice(network.id().as_bytes());
    message.extend_from_slice(&own.nonce);
    // A network holds one or two keys (`Network::new`), so the count fits its byte.
    message.push(network.keys().len() as u8);
    for key in network.keys() {
        message.extend_from_slice(&key.id(&network.id()).0);
    }
    message
}

async fn read_first<S>(stream: &mut S, network: &NetworkId) -> Result<(Vec<u8>, Vec<KeyId>), GateError>
where
    S: AsyncRead + Unpin,
{
    let mut message = vec![0; 3 + 1 + 16 + 32 + 1];
    stream.read_exact(&mut message).await?;
    if message[..3] != MAGIC || message[3] != VERSION {
        return Err(GateError::NotTheGate);
    }
    if message[4..20] != *network.as_bytes() {
        return Err(GateError::OtherNetwork);
    }
    let count = usize::from(message[52]);
    if !(1..=2).contains(&count) {
        return Err(GateError::NotTheGate);
    }
    let mut offered = Vec::with_capacity(count);
    for _ in 0..count {
        let mut id = [0; 8];
        stream.read_exact(&mut id).await?;
        message.extend_from_slice(&id);
        offered.push(KeyId(id));
    }
    Ok((message, offered))
}

fn second_message(key: KeyId, own: &Own) -> Vec<u8> {
    let mut message = vec![VERSION];
    message.extend_from_slice(&key.0);
    message.extend_from_slice(&own.nonce);
    with_attachment(message, own)
}

/// The message with this node's certificate behind it, if it has one.
fn with_attachment(mut message: Vec<u8>, own: &Own) -> Vec<u8> {
    message.extend_from_slice(&u16_len(own.attachment.len()));
    message.extend_from_slice(&own.attachment);
    message
}

/// M2 before its attachment's length: version, key id, nonce.
const SECOND_FIXED: usize = 1 + 8 + 32;
/// M3 before its attachment's length: version.
const THIRD_FIXED: usize = 1;

async fn read_second<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(Vec<u8>, [u8; MAC_BYTES]), GateError> {
    read_with_attachment(stream, SECOND_FIXED).await
}

async fn read_third<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(Vec<u8>, [u8; MAC_BYTES]), GateError> {
    read_with_attachment(stream, THIRD_FIXED).await
}

/// Reads a message of `fixed` bytes that begin with the version, an attachment and a MAC: (all but the MAC, the MAC).
async fn read_with_attachment<S>(stream: &mut S, fixed: usize) -> Result<(Vec<u8>, [u8; MAC_BYTES]), GateError>
where
    S: AsyncRead + Unpin,
{
    let mut message = vec![0; fixed + 2];
    stream.read_exact(&mut message).await?;
    if message[0] != VERSION {
        return Err(GateError::NotTheGate);
    }
    let length = usize::from(u16::from_be_bytes([message[fixed], message[fixed + 1]]));
    if length > MAX_ATTACHMENT_BYTES {
        return Err(GateError::NotTheGate);
    }
    message.resize(fixed + 2 + length, 0);
    stream.read_exact(&mut message[fixed + 2..]).await?;
    let mut mac = [0; MAC_BYTES];
    stream.read_exact(&mut mac).await?;
    Ok((message, mac))
}

fn chosen_key<'n>(network: &'n Network, second: &[u8]) -> Result<&'n NetworkKey, GateError> {
    let mut id = [0; 8];
    id.copy_from_slice(&second[1..9]);
    network.key_by_id(KeyId(id)).ok_or(GateError::NoCommonKey)
}

fn mac_of(key: &NetworkKey, network: &NetworkId, sender: Role, transcript: &[u8]) -> Hmac<Sha256> {
    #[allow(clippy::expect_used)] // HMAC takes keys of any length (RFC 2104 §2).
    let mut mac = Hmac::<Sha256>::new_from_slice(key.gate_key(network).as_slice()).expect("any length is a key");
    mac.update(&[sender.byte()]);
    mac.update(transcript);
    mac
}

fn make_mac(key: &NetworkKey, network: &NetworkId, sender: Role, transcript: &[u8]) -> [u8; MAC_BYTES] {
    mac_of(key, network, sender, transcript).finalize().into_bytes().into()
}

/// Compares in constant time.
fn verify_mac(
    key: &NetworkKey,
    network: &NetworkId,
    sender: Role,
    transcript: &[u8],
    mac: &[u8; MAC_BYTES],
) -> Result<(), GateError> {
    mac_of(key, network, sender, transcript).verify_slice(mac).map_err(|_| GateError::WrongProof)
}

/// A length below 65,536 as its two bytes.
fn u16_len(length: usize) -> [u8; 2] {
    debug_assert!(length <= usize::from(u16::MAX));
    (length as u16).to_be_bytes()
}

/// Why a connection did not pass the gate. Logged and counted here, never told to the peer.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The QUIC handshake below failed.
    #[error("the QUIC connection failed: {0}")]
    Quic(String),
    /// The peer says something that is not the gate of version 1.
    #[error("the peer does not speak the gate of protocol version 1")]
    NotTheGate,
    /// The peer is of another network.
    #[error("the peer belongs to another network")]
    OtherNetwork,
    /// Neither of its keys is one of ours.
    #[error("the peer has none of this network's keys")]
    NoCommonKey,
    /// It closed the connection instead of answering.
    #[error(
        "the peer closed the connection: it is of another network, or has none of our keys, or asks for a certificate"
    )]
    Closed,
    /// Its MAC does not fit: it lacks the key, or somebody between the two ends relays.
    #[error("the peer's proof of the network key does not fit this connection")]
    WrongProof,
    /// It has the key, and is not a member.
    #[error("the peer is not a member of this network: {0}")]
    NotAMember(#[from] MembershipError),
    /// It took longer than [`GATE_DEADLINE`].
    #[error("the peer did not prove the network key in time")]
    TooSlow,
    /// The stream broke.
    #[error("the connection broke during the gate: {0}")]
    Io(#[from] std::io::Error),
    /// No nonce could be made.
    #[error(transparent)]
    Randomness(#[from] NetworkError),
}

impl GateError {
    /// Under what such a refusal is counted.
    #[must_use]
    pub fn reason(&self) -> RefusalReason {
        match self {
            Self::NotTheGate | Self::Randomness(_) => RefusalReason::Protocol,
            Self::OtherNetwork => RefusalReason::OtherNetwork,
            Self::NoCommonKey | Self::WrongProof => RefusalReason::WrongKey,
            Self::NotAMember(error) => error.reason(),
            Self::TooSlow => RefusalReason::TooSlow,
            Self::Quic(_) | Self::Closed | Self::Io(_) => RefusalReason::Closed,
        }
    }
}

#[cfg(feature = "fuzzing")]
pub mod fuzzing;
#[cfg(test)]
mod vectors;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_util::compat::TokioAsyncReadCompatExt;

    fn peer() -> PeerId {
        libp2p::identity::Keypair::generate_ed25519().public().to_peer_id()
    }

    async fn run(
        (a, a_ends): (&Network, Ends),
        (b, b_ends): (&Network, Ends),
    ) -> (Result<Passed, GateError>, Result<Passed, GateError>) {
        let (left, right) = tokio::io::duplex(4096);
        tokio::join!(initiate(a, a_ends, left.compat()), respond(b, b_ends, right.compat()))
    }

    #[tokio::test]
    async fn members_agree_on_keys_for_each_stream_and_direction() {
        let network = Network::generate().unwrap();
        let ends = Ends { initiator: peer(), responder: peer() };
        let (a, b) = run((&network, ends), (&network, ends)).await;
        let (a, b) = (a.unwrap(), b.unwrap());
        assert_eq!((a.admission.peer(), b.admission.peer()), (ends.responder, ends.initiator));
        let (a, b) = (a.session, b.session);
        assert_eq!(*a.stream_key(4, Role::Initiator), *b.stream_key(4, Role::Initiator));
        assert_ne!(*a.stream_key(4, Role::Initiator), *a.stream_key(4, Role::Responder));
        assert_ne!(*a.stream_key(4, Role::Initiator), *a.stream_key(8, Role::Initiator));
        let (c, _) = run((&network, ends), (&network, ends)).await;
        assert_ne!(*a.stream_key(4, Role::Initiator), *c.unwrap().session.stream_key(4, Role::Initiator));
    }

    #[tokio::test]
    async fn another_key_is_refused() {
        let ours = Network::generate().unwrap();
        let theirs = Network::new(ours.id(), vec![NetworkKey::generate().unwrap()]).unwrap();
        let ends = Ends { initiator: peer(), responder: peer() };
        let (a, b) = run((&theirs, ends), (&ours, ends)).await;
        assert!(a.is_err());
        assert!(matches!(b, Err(GateError::NoCommonKey)));
    }

    #[tokio::test]
    async fn a_key_id_without_its_key_is_refused() {
        // The stranger names our key id, but has to prove the key: play the listener's part by hand.
        let ours = Network::generate().unwrap();
        let ends = Ends { initiator: peer(), responder: peer() };
        let (left, right) = tokio::io::duplex(4096);
        let forged = async {
            let mut stream = right.compat();
            read_first(&mut stream, &ours.id()).await.unwrap();
            let second = second_message(ours.keys()[0].id(&ours.id()), &Own::of(&ours).unwrap());
            stream.write_all(&[&second[..], &[7; 32]].concat()).await.unwrap();
            stream
        };
        let (result, _stream) = tokio::join!(initiate(&ours, ends, left.compat()), forged);
        assert!(matches!(result, Err(GateError::WrongProof)));
    }

    #[tokio::test]
    async fn a_relay_between_two_members_is_refused_by_both() {
        // The relay has an identity of its own on each side, so the ends differ although the bytes are the same.
        let network = Network::generate().unwrap();
        let (alice, bob, relay) = (peer(), peer(), peer());
        let (a, b) = run(
            (&network, Ends { initiator: alice, responder: relay }),
            (&network, Ends { initiator: relay, responder: bob }),
        )
        .await;
        assert!(matches!(a, Err(GateError::WrongProof)));
        assert!(b.is_err());
    }

    #[tokio::test]
    async fn rotation_finds_the_common_key() {
        let (old, new) = (NetworkKey::generate().unwrap(), NetworkKey::generate().unwrap());
        let id = NetworkId::from_bytes([9; 16]);
        let before = Network::new(id, vec![old.clone()]).unwrap();
        let during = Network::new(id, vec![new.clone(), old]).unwrap();
        let after = Network::new(id, vec![new]).unwrap();
        let ends = Ends { initiator: peer(), responder: peer() };
        for (a, b, works) in
            [(&before, &during, true), (&during, &after, true), (&after, &during, true), (&before, &after, false)]
        {
            let (left, right) = run((a, ends), (b, ends)).await;
            assert_eq!((left.is_ok(), right.is_ok()), (works, works));
        }
    }

    /// The lengths of the messages, and whether the initiator sends them.
    const WITHOUT_CERTIFICATES: [(usize, bool); 3] = [(61, true), (75, false), (35, true)];
    /// 162 bytes of certificate, each.
    const WITH_CERTIFICATES: [(usize, bool); 3] = [(61, true), (75 + 162, false), (35 + 162, true)];

    /// Passes the messages on, with one byte changed; what went over the wire.
    async fn relay(
        (left, right): (tokio::io::DuplexStream, tokio::io::DuplexStream),
        lengths: [(usize, bool); 3],
        change: Option<usize>,
    ) -> Vec<Vec<u8>> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut left, mut right) = (left, right);
        let (mut seen, mut messages) = (0, Vec::new());
        for (length, to_right) in lengths {
            let mut bytes = vec![0; length];
            let (from, to) = if to_right { (&mut left, &mut right) } else { (&mut right, &mut left) };
            if from.read_exact(&mut bytes).await.is_err() {
                return messages;
            }
            if let Some(position) = change.filter(|position| (seen..seen + length).contains(position)) {
                bytes[position - seen] ^= 0x10;
            }
            seen += length;
            let passed_on = to.write_all(&bytes).await;
            messages.push(bytes);
            if passed_on.is_err() {
                return messages;
            }
        }
        messages
    }

    async fn no_changed_byte_is_accepted((a, b, ends): (&Network, &Network, Ends), lengths: [(usize, bool); 3]) {
        let clean = relayed((a, b, ends), lengths, None).await.expect("it is over in time");
        assert!(clean.0.is_ok() && clean.1.is_ok(), "nothing was changed");
        let (begin, end) = (lengths[0].0, lengths[0].0 + lengths[1].0);
        let positions = 0..end + lengths[2].0;
        futures::future::join_all(positions.map(|position| async move {
            // A changed length makes a side wait for more, which the deadline ends.
            let Some((initiator, responder)) = relayed((a, b, ends), lengths, Some(position)).await else { return };
            assert!(responder.is_err(), "accepted with byte {position} changed");
            // The last message is the initiator's own: it cannot know that it arrived otherwise.
            let initiator_saw = (begin..end).contains(&position);
            assert!(!initiator_saw || initiator.is_err(), "the initiator accepted byte {position} changed");
        }))
        .await;
    }

    type Outcome = (Result<Passed, GateError>, Result<Passed, GateError>);

    async fn relayed(
        (a, b, ends): (&Network, &Network, Ends),
        lengths: [(usize, bool); 3],
        change: Option<usize>,
    ) -> Option<Outcome> {
        let (left, outer_left) = tokio::io::duplex(4096);
        let (outer_right, right) = tokio::io::duplex(4096);
        let gate = async { tokio::join!(initiate(a, ends, left.compat()), respond(b, ends, right.compat())) };
        let both = async { tokio::join!(gate, relay((outer_left, outer_right), lengths, change)).0 };
        tokio::time::timeout(Duration::from_secs(1), both).await.ok()
    }

    #[tokio::test]
    async fn a_flipped_byte_anywhere_is_refused() {
        let network = Network::generate().unwrap();
        let ends = Ends { initiator: peer(), responder: peer() };
        no_changed_byte_is_accepted((&network, &network, ends), WITHOUT_CERTIFICATES).await;
    }

    /// The network as `peer` knows it, with a certificate for it.
    fn certified(network: &Network, authority: &crate::Authority, peer: PeerId) -> Network {
        let certificate = authority.issue(network.id(), peer, 0, 1_000).unwrap();
        let clock = std::sync::Arc::new(|| 500);
        let members = crate::Membership::new(network.id(), vec![authority.public()], Some(certificate), clock).unwrap();
        network.clone().with_membership(std::sync::Arc::new(members))
    }

    #[tokio::test]
    async fn a_flipped_byte_anywhere_is_refused_with_certificates() {
        let (network, authority) = (Network::generate().unwrap(), crate::Authority::generate().unwrap());
        let ends = Ends { initiator: peer(), responder: peer() };
        let a = certified(&network, &authority, ends.initiator);
        let b = certified(&network, &authority, ends.responder);
        no_changed_byte_is_accepted((&a, &b, ends), WITH_CERTIFICATES).await;
    }

    #[tokio::test]
    async fn a_recorded_gate_cannot_be_replayed() {
        let (network, authority) = (Network::generate().unwrap(), crate::Authority::generate().unwrap());
        let ends = Ends { initiator: peer(), responder: peer() };
        let a = certified(&network, &authority, ends.initiator);
        let b = certified(&network, &authority, ends.responder);
        for (a, b, lengths) in [(&network, &network, WITHOUT_CERTIFICATES), (&a, &b, WITH_CERTIFICATES)] {
            let (left, outer_left) = tokio::io::duplex(4096);
            let (outer_right, right) = tokio::io::duplex(4096);
            let (initiator, responder, messages) = tokio::join!(
                initiate(a, ends, left.compat()),
                respond(b, ends, right.compat()),
                relay((outer_left, outer_right), lengths, None)
            );
            assert!(initiator.is_ok() && responder.is_ok(), "the recorded gate was passed");
            let [first, second, third] = <[Vec<u8>; 3]>::try_from(messages).unwrap();

            // To the same responder, under the same PeerIds, from the same network: its nonce is another one now.
            let (left, right) = tokio::io::duplex(4096);
            let mut left = left.compat();
            left.write_all(&[&first[..], &third].concat()).await.unwrap();
            assert!(matches!(respond(b, ends, right.compat()).await, Err(GateError::WrongProof)));

            // To the same initiator.
            let (left, right) = tokio::io::duplex(4096);
            let mut right = right.compat();
            right.write_all(&second).await.unwrap();
            assert!(matches!(initiate(a, ends, left.compat()).await, Err(GateError::WrongProof)));
        }
    }

    #[tokio::test]
    async fn a_certificate_is_asked_for_where_authorities_are_named_and_shown_in_any_case() {
        let (network, authority) = (Network::generate().unwrap(), crate::Authority::generate().unwrap());
        let ends = Ends { initiator: peer(), responder: peer() };
        let asking = certified(&network, &authority, ends.responder);
        let (_, b) = run((&network, ends), (&asking, ends)).await;
        assert!(matches!(b, Err(GateError::NotAMember(MembershipError::NoCertificate))));
        // The initiator has a certificate and names no authority yet, as in a network that is about to begin with them.
        let certificate = authority.issue(network.id(), ends.initiator, 0, 1_000).unwrap();
        let members = crate::Membership::open(network.id());
        members.set_certificate(certificate);
        let showing = network.clone().with_membership(std::sync::Arc::new(members));
        let (a, b) = run((&showing, ends), (&asking, ends)).await;
        assert!(a.is_ok() && b.is_ok());
    }
}
