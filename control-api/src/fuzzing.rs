//! The decoders of what strangers send, for the fuzz targets (`fuzz/`). Feature `fuzzing` only; not an interface.
//!
//! Each function takes a fuzzer's bytes and panics where the decoder breaks what it promises.
#![allow(missing_docs, reason = "a broken promise is to end the run")]

pub use crate::routes::fuzzing::{bearer, range, upload_headers};

use std::sync::LazyLock;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

use crate::jws;
use crate::receipt::{ALGORITHM, ED25519_PEER, RECEIPT_TYPE};
use crate::{NodeId, PlatformKey, Receipt};

/// A JWS of the platform with these bytes for claims, however wrong they are.
#[allow(clippy::expect_used, reason = "a key that cannot sign is to end the run")]
pub fn signed(key: &PlatformKey, media_type: &str, claims: &[u8]) -> String {
    let input = jws::signing_input(media_type, &key.fingerprint().to_string(), claims);
    jws::compact(&input, &key.sign(input.as_bytes()).expect("the key signs"))
}

/// A text is no receipt of a node that did not sign it; claims that a node signed, however wrong they are, are taken or refused. `@n` stands for its name.
#[allow(clippy::expect_used, reason = "a key that cannot be made is to end the run")]
pub fn receipt(bytes: &[u8]) {
    static NODE: LazyLock<(Ed25519KeyPair, NodeId)> = LazyLock::new(|| {
        let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("it is a seed");
        let name = bs58::encode([&ED25519_PEER, key.public_key().as_ref()].concat()).into_string();
        (key, name.parse().expect("it is base58"))
    });
    let (key, node) = &*NODE;
    let claims = String::from_utf8_lossy(bytes).replace("@n", node.as_str());
    assert!(Receipt::verify(&claims, node).is_err(), "a stranger's");
    let input = jws::signing_input_with(ALGORITHM, RECEIPT_TYPE, node.as_str(), claims.as_bytes());
    let text = jws::compact(&input, key.sign(input.as_bytes()).as_ref());
    if let Ok(receipt) = Receipt::verify(&text, node) {
        assert_eq!(receipt.node, *node);
    }
}
