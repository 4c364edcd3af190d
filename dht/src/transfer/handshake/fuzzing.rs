//! What a fuzzer says in the handshake of the block plane.
#![allow(clippy::expect_used, missing_docs, reason = "a broken promise is to end the run")]

use super::{
    LocalIdentity, PREAMBLE_BYTES, VERSION, admit, named_key, noise_state, preamble, read_noise, remote_static,
};
use super::{Role, signed_bytes, verify_identity, write_noise};
use crate::Network;
use libp2p::PeerId;
use libp2p::identity::Keypair;

/// Preamble and first message of a stranger: without the key, no message opens.
pub fn stranger(network: &Network, keypair: &Keypair, bytes: &[u8]) {
    let Some((preamble, message)) = bytes.split_first_chunk::<PREAMBLE_BYTES>() else { return };
    let Ok(key) = named_key(preamble, network) else { return };
    let identity = LocalIdentity::new(keypair.clone()).expect("keys are made");
    let noise = noise_state(&identity, &network.id(), key, preamble, Role::Responder);
    let opened = read_noise(&mut noise.expect("a state is made"), message);
    assert!(opened.is_err(), "opened without the key");
}

/// The identity payload of somebody who knows the key; with `signed`, `bytes` are the attachment behind a true identity. Who was let in.
pub fn member(network: &Network, (ours, theirs): (&Keypair, &Keypair), signed: bool, bytes: &[u8]) -> Option<PeerId> {
    let own = LocalIdentity::new(ours.clone()).expect("keys are made");
    let other = LocalIdentity::new(theirs.clone()).expect("keys are made");
    let (id, key) = (network.id(), &network.keys()[0]);
    let preamble = preamble(&id, key.id(&id));
    let mut responder = noise_state(&own, &id, key, &preamble, Role::Responder).expect("a state is made");
    let mut initiator = noise_state(&other, &id, key, &preamble, Role::Initiator).expect("a state is made");
    let first = write_noise(&mut initiator, &[]).expect("it fits");
    read_noise(&mut responder, &first[2..]).expect("it opens");
    let second = write_noise(&mut responder, &[]).expect("it fits");
    read_noise(&mut initiator, &second[2..]).expect("it opens");

    let payload = if signed { with_identity(theirs, network, &other.noise_public, bytes) } else { bytes.to_vec() };
    // Longer than a message may be: the fuzzer's bytes end there.
    let third = write_noise(&mut initiator, &payload[..payload.len().min(4_000)]).expect("it fits");
    let payload = read_noise(&mut responder, &third[2..]).expect("it opens");
    let proved = remote_static(&responder).expect("the third message brought it");
    let (peer, attachment) = verify_identity(&payload, &id, Role::Initiator, proved).ok()?;
    assert!(signed, "an identity without a signature");
    assert_eq!(peer, theirs.public().to_peer_id());
    admit(network, peer, attachment).ok()?;
    Some(peer)
}

fn with_identity(keypair: &Keypair, network: &Network, noise_public: &[u8], attachment: &[u8]) -> Vec<u8> {
    let signature = keypair.sign(&signed_bytes(&network.id(), Role::Initiator, noise_public)).expect("it signs");
    let mut payload = vec![VERSION];
    for field in [&keypair.public().encode_protobuf(), &signature, &attachment[..attachment.len().min(3_000)]] {
        payload.extend_from_slice(&(field.len() as u16).to_be_bytes());
        payload.extend_from_slice(field);
    }
    payload
}
