//! The handshake of the second implementation (see `crate::vectors`), with fixed ephemeral keys.

use super::*;
use crate::transfer::cipher::{Opening, Sealing};
use crate::vectors::{array, bytes, load, network_id, node, rows, text};
use crate::{Certificate, Membership};
use serde_json::Value;
use std::sync::Arc;

/// The network as one side knows it, with the certificate that it shows.
fn network(vector: &Value, side: &Value) -> Network {
    let network = network_id(&vector["network_id"]);
    let members = Membership::open(network);
    // Behind the version, the key and the signature, each with its length.
    let attachment = bytes(&side["identity"])[1 + 2 + 36 + 2 + 64 + 2..].to_vec();
    if !attachment.is_empty() {
        members.set_certificate(Certificate::parse(&attachment).unwrap());
    }
    let key = NetworkKey::from_hex(text(&vector["key"])).unwrap();
    Network::new(network, vec![key]).unwrap().with_membership(Arc::new(members))
}

fn identity(side: &Value) -> LocalIdentity {
    let (keypair, _) = node(side);
    let (noise_private, noise_public) = (bytes(&side["static_secret"]).into(), bytes(&side["static_public"]));
    LocalIdentity { keypair, noise_private, noise_public }
}

fn noise(vector: &Value, side: &Value, role: Role) -> HandshakeState {
    let (identity, psk, ephemeral) = (identity(side), array(&vector["psk"]), bytes(&side["ephemeral_secret"]));
    let prologue = prologue(&bytes(&vector["preamble"]));
    let builder = noise_builder(&identity, &psk, &prologue).unwrap();
    let builder = builder.fixed_ephemeral_key_for_testing_only(&ephemeral);
    match role {
        Role::Initiator => builder.build_initiator(),
        Role::Responder => builder.build_responder(),
    }
    .unwrap()
}

/// Both ends of the vector's connection: I's, then R's.
pub(in crate::transfer) fn ends(vector: &Value) -> [(Sealing, Opening); 2] {
    let (i, r) = (&vector["I"], &vector["R"]);
    let (mut one, mut other) = (noise(vector, i, Role::Initiator), noise(vector, r, Role::Responder));
    let said = |side, role| identity(side).payload(&network(vector, side), role).unwrap();
    let identities = [said(i, Role::Initiator), said(r, Role::Responder)];
    assert_eq!(identities, [bytes(&i["identity"]), bytes(&r["identity"])]);

    let first = write_noise(&mut one, &[]).unwrap();
    assert_eq!(first, bytes(&vector["n1"]));
    assert!(read_noise(&mut other, &first[2..]).unwrap().is_empty());
    let second = write_noise(&mut other, &identities[1]).unwrap();
    assert_eq!(second, bytes(&vector["n2"]));
    let heard = read_noise(&mut one, &second[2..]).unwrap();
    assert_eq!(proven(vector, &heard, Role::Responder, &one), node(r).1);
    let third = write_noise(&mut one, &identities[0]).unwrap();
    assert_eq!(third, bytes(&vector["n3"]));
    let heard = read_noise(&mut other, &third[2..]).unwrap();
    assert_eq!(proven(vector, &heard, Role::Initiator, &other), node(i).1);
    assert_eq!(one.get_handshake_hash(), bytes(&vector["handshake_hash"]));
    [cipher::split(&mut one).unwrap(), cipher::split(&mut other).unwrap()]
}

fn proven(vector: &Value, heard: &[u8], role: Role, noise: &HandshakeState) -> PeerId {
    let network = network_id(&vector["network_id"]);
    verify_identity(heard, &network, role, remote_static(noise).unwrap()).unwrap().0
}

#[test]
fn the_handshake_is_the_same() {
    let vector = load("blockplane");
    let (network, key) = (network_id(&vector["network_id"]), NetworkKey::from_hex(text(&vector["key"])).unwrap());
    assert_eq!(PATTERN, text(&vector["protocol"]));
    assert_eq!(key.id(&network).0, array(&vector["key_id"]));
    assert_eq!(*key.blocks_psk(&network), array(&vector["psk"]));
    let preamble = preamble(&network, key.id(&network));
    assert_eq!(preamble.to_vec(), bytes(&vector["preamble"]));
    assert_eq!(prologue(&preamble), bytes(&vector["prologue"]));
    ends(&vector);
    assert!(!rows(&vector["frames"]).is_empty());
}
