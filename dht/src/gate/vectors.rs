//! The gate of the second implementation (see `crate::vectors`).

use super::*;
use crate::vectors::{array, bytes, load, network_id, node, rows, text};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio_util::compat::TokioAsyncReadCompatExt;

fn network(vector: &Value, keys: &Value) -> Network {
    let keys = rows(keys).iter().map(|key| NetworkKey::from_hex(text(key)).unwrap());
    Network::new(network_id(&vector["network_id"]), keys.collect()).unwrap()
}

fn ends(vector: &Value) -> Ends {
    Ends { initiator: node(&vector["dialler"]).1, responder: node(&vector["listener"]).1 }
}

fn own(case: &Value, side: &str) -> Own {
    let field = |name| &case[format!("{side}_{name}")];
    Own { nonce: array(field("nonce")), attachment: bytes(field("attachment")) }
}

#[test]
fn keys_are_derived_as_the_document_says() {
    let vector = load("gate");
    let network = network_id(&vector["network_id"]);
    for row in rows(&vector["keys"]) {
        let key = NetworkKey::from_hex(text(&row["key"])).unwrap();
        assert_eq!(key.id(&network).0, array(&row["key_id"]));
        assert_eq!(*key.gate_key(&network), array(&row["gate_key"]));
        assert_eq!(*key.blocks_psk(&network), array(&row["blocks_psk"]));
    }
}

/// Both sides, each with what it reads prepared; what each wrote, and what it has from it.
async fn played(vector: &Value, case: &Value, [m1, m2, m3]: [&[u8]; 3]) -> [(Result<Passed, GateError>, Vec<u8>); 2] {
    let (dialler, listener) = (network(vector, &case["dialler_keys"]), network(vector, &case["listener_keys"]));
    let (ours, theirs) = (own(case, "dialler"), own(case, "listener"));
    let initiated = side(m2, |stream| initiate_with(&dialler, ends(vector), &ours, stream)).await;
    let read = [m1, m3].concat();
    let responded = side(&read, |stream| respond_with(&listener, ends(vector), &theirs, stream)).await;
    [initiated, responded]
}

/// Lets one side read this, and then the end.
async fn side<F>(
    reads: &[u8],
    play: impl FnOnce(tokio_util::compat::Compat<tokio::io::DuplexStream>) -> F,
) -> (Result<Passed, GateError>, Vec<u8>)
where
    F: Future<Output = Result<Passed, GateError>>,
{
    let (mut wire, stream) = tokio::io::duplex(16 << 10);
    wire.write_all(reads).await.unwrap();
    wire.shutdown().await.unwrap();
    let passed = play(stream.compat()).await;
    let mut written = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut wire, &mut written).await.unwrap();
    (passed, written)
}

#[tokio::test]
async fn the_messages_and_what_comes_of_them_are_the_same() {
    let vector = load("gate");
    for case in rows(&vector["cases"]) {
        let [m1, m2, m3] = ["m1", "m2", "m3"].map(|name| bytes(&case[name]));
        let context = ends(&vector).context(&network_id(&vector["network_id"]));
        assert_eq!(context, bytes(&case["context"]));
        assert_eq!(Sha256::digest([&context[..], &m1, &m2, &m3].concat()).as_slice(), bytes(&case["hash"]));
        let [initiated, responded] = played(&vector, case, [&m1, &m2, &m3]).await;
        assert_eq!(initiated.1, [&m1[..], &m3].concat(), "{}", case["name"]);
        assert_eq!(responded.1, m2, "{}", case["name"]);
        for passed in [initiated.0, responded.0] {
            assert_eq!(*passed.unwrap().session.0, array(&case["session_secret"]), "{}", case["name"]);
        }
    }
}

#[tokio::test]
async fn what_the_second_implementation_refuses_this_one_does() {
    let vector = load("gate");
    let case = rows(&vector["cases"]).iter().find(|case| text(&case["name"]) == "both have both keys").unwrap();
    let good = ["m1", "m2", "m3"].map(|name| bytes(&case[name]));
    for row in rows(&vector["refused"]) {
        let mut messages = good.clone();
        let changed = ["m1", "m2", "m3"].iter().position(|name| *name == text(&row["message"])).unwrap();
        messages[changed] = bytes(&row["bytes"]);
        let [initiated, responded] = played(&vector, case, [&messages[0], &messages[1], &messages[2]]).await;
        let refuses = if changed == 1 { initiated.0 } else { responded.0 };
        assert!(refuses.is_err(), "{} of {}", row["name"], row["message"]);
    }
}
