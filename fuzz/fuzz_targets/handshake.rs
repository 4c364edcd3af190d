//! The Noise handshake of the block plane: a stranger's first message opens nothing; a member's identity and certificate are
//! taken only as the protocol says.
#![no_main]

use fuzz::{MEMBERS, open_network};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let members = &*MEMBERS;
    let Some((kind, rest)) = bytes.split_first() else { return };
    let keys = (&members.ours, &members.theirs);
    match kind % 4 {
        0 => dht::fuzzing::transfer::stranger(&open_network(), &members.ours, rest),
        1 => {
            // The preamble of our network, and then whatever.
            let named = [members.preamble(), rest].concat();
            dht::fuzzing::transfer::stranger(&open_network(), &members.ours, &named);
        }
        2 => assert_eq!(dht::fuzzing::transfer::member(&members.network, keys, false, rest), None),
        _ => {
            let let_in = dht::fuzzing::transfer::member(&members.network, keys, true, rest);
            assert_eq!(let_in.is_some(), rest == members.certificate.as_bytes());
        }
    }
});
