//! The gate of discovery: without the key nobody passes, whatever they say; with it, only who shows a certificate.
#![no_main]

use fuzz::{MEMBERS, open_network};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let members = &*MEMBERS;
    let Some((kind, rest)) = bytes.split_first() else { return };
    let ends = (members.theirs.public().to_peer_id(), members.ours.public().to_peer_id());
    match kind % 4 {
        0 => dht::fuzzing::gate::dialler(&open_network(), ends, rest),
        1 => dht::fuzzing::gate::listener(&open_network(), ends, rest),
        2 => {
            // A first message that names network and key, and then whatever.
            let named = [members.gate_opening().as_slice(), rest].concat();
            dht::fuzzing::gate::dialler(&open_network(), ends, &named);
        }
        _ => {
            let passed = dht::fuzzing::gate::member(&members.network, ends, &rest[..rest.len().min(4_096)]);
            assert_eq!(passed, rest == members.certificate.as_bytes());
        }
    }
});
