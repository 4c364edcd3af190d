//! Frames of the block plane as other nodes send them: envelopes, and the CBOR heads and packed bodies of all requests and answers.
//! What is read is written so that it is read as the same.
#![no_main]

use dht::core::{OfferAnswer, Prefix};
use dht::fuzzing::transfer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(envelope) = bytes.first_chunk() {
        transfer::envelope(envelope);
    }
    let Some((&[what, kind, ids, head_length], rest)) = bytes.split_first_chunk() else { return };
    let (head, body) = rest.split_at(rest.len().min(usize::from(head_length) * 4));
    match what % 4 {
        0 => transfer::request(kind, head, body),
        1 => transfer::response(kind, ids.into(), head, body),
        2 => transfer::hello(kind, head),
        _ => prefix(u64::from(kind) * 2 + u64::from(ids % 2), rest),
    }
    if let Some(answer) = OfferAnswer::from_wire(what) {
        assert_eq!(answer as u8, what);
    }
});

fn prefix(bits: u64, bytes: &[u8]) {
    if let Ok(prefix) = Prefix::from_wire(bits, bytes) {
        assert_eq!(prefix.to_wire(), bytes);
        assert!(prefix.children().is_none_or(|children| children.iter().all(|child| prefix.covers(child))));
    }
}
