//! What a fuzzer says at the gate.
#![allow(clippy::expect_used, missing_docs, reason = "a broken promise is to end the run")]

use super::{Ends, Own, initiate_with, respond_with};
use crate::Network;
use crate::fuzzing::Said;
use futures::FutureExt;
use libp2p::PeerId;
use tokio_util::compat::TokioAsyncReadCompatExt;

/// A dialler that does not know the key says `bytes`: nobody passes.
pub fn dialler(network: &Network, (initiator, responder): (PeerId, PeerId), bytes: &[u8]) {
    let (ends, own) = (Ends { initiator, responder }, own(Vec::new()));
    let passed = respond_with(network, ends, &own, Said(bytes)).now_or_never().expect("all has been said");
    assert!(passed.is_err(), "passed the gate without the key");
}

/// A listener that does not know the key answers `bytes`.
pub fn listener(network: &Network, (initiator, responder): (PeerId, PeerId), bytes: &[u8]) {
    let (ends, own) = (Ends { initiator, responder }, own(Vec::new()));
    let passed = initiate_with(network, ends, &own, Said(bytes)).now_or_never().expect("all has been said");
    assert!(passed.is_err(), "passed the gate without the key");
}

/// A member that knows the key shows `attachment` for a certificate, to a network whose authorities are in `network`. Whether it
/// passed.
pub fn member(network: &Network, (initiator, responder): (PeerId, PeerId), attachment: &[u8]) -> bool {
    let ends = Ends { initiator, responder };
    let (left, right) = tokio::io::duplex(16_384);
    let (shown, own) = (own(attachment.to_vec()), own(network.membership().attachment()));
    let both = async {
        futures::join!(
            initiate_with(network, ends, &shown, left.compat()),
            respond_with(network, ends, &own, right.compat())
        )
    };
    let (_, passed) = futures::executor::block_on(both);
    passed.is_ok()
}

fn own(attachment: Vec<u8>) -> Own {
    Own { nonce: [7; 32], attachment }
}
