//! Membership certificates and revocation lists: nothing is taken without an authority's signature, whatever the bytes.
#![no_main]

use fuzz::{MEMBERS, NOW};
use libfuzzer_sys::fuzz_target;

/// Ed25519.
const SIGNATURE_BYTES: usize = 64;

fuzz_target!(|bytes: &[u8]| {
    let members = &*MEMBERS;
    let Some((kind, rest)) = bytes.split_first() else { return };
    let peer = members.theirs.public().to_peer_id();
    let bytes = match kind % 4 {
        0 | 1 => rest.to_vec(),
        2 => edited(members.certificate.as_bytes(), rest),
        _ => edited(members.list.as_bytes(), rest),
    };
    match kind % 2 {
        0 => dht::fuzzing::membership::certificate(&members.membership(), &members.authority, peer, &bytes, NOW),
        _ => dht::fuzzing::membership::revocations(&members.membership(), &members.authority, &bytes),
    }
});

/// A good one without its signature, with some bytes changed and others behind it: a fuzzer finds no ids.
fn edited(good: &[u8], edits: &[u8]) -> Vec<u8> {
    let mut bytes = good[..good.len() - SIGNATURE_BYTES].to_vec();
    let (edits, behind) = edits.as_chunks();
    for [place, value] in edits {
        let place = usize::from(*place) % bytes.len();
        bytes[place] = *value;
    }
    bytes.extend_from_slice(behind);
    bytes
}
