//! Frames cut into Noise messages as a member likes, over a real connection: each comes whole and within its limits, or not at all.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_all().build().expect("a runtime is made"));

fuzz_target!(|bytes: &[u8]| {
    let (mut messages, mut rest) = (Vec::new(), bytes);
    while let Some((length, behind)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes(*length) & 0x0fff);
        let Some((message, behind)) = behind.split_at_checked(length) else { break };
        messages.push(message);
        rest = behind;
    }
    RUNTIME.block_on(dht::fuzzing::transfer::frames(&messages, rest));
});
