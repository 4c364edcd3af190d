//! JSON and texts of other programs: what a node answers to a platform, keys, ids. What is read is written so that it is read
//! as the same.
#![no_main]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use chunkstore_block::{BlockId, ContentKey, PublicationId};
use control_api::{
    BlocksResponse, DeletionResponse, DeletionsResponse, FragmentsResponse, Jwk, NodeId, NodeStatus, PeersResponse,
    PlatformPublicKey, PlaybackTokenResponse, Problem, Reachability, TemporaryUrl, Token, UploadStatus,
    UploadTokenResponse, ViewerKey,
};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, rest)) = bytes.split_first() else { return };
    match kind % 16 {
        0 => read_again::<NodeStatus>(rest),
        1 => same_again::<BlocksResponse>(rest),
        2 => same_again::<DeletionResponse>(rest),
        3 => same_again::<DeletionsResponse>(rest),
        4 => same_again::<FragmentsResponse>(rest),
        5 => same_again::<PeersResponse>(rest),
        6 => same_again::<PlaybackTokenResponse>(rest),
        7 => same_again::<UploadTokenResponse>(rest),
        8 => same_again::<Reachability>(rest),
        9 => read_again::<UploadStatus>(rest),
        10 => read_again::<control_api::work::WorkLine>(rest),
        11 => problem(rest),
        12 => key_of_a_viewer(rest),
        13 => key_of_a_platform(rest),
        14 => names(rest),
        _ => address(rest),
    }
});

fn same_again<T: DeserializeOwned + Serialize + PartialEq + Debug>(json: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(json) else { return };
    let written = serde_json::to_vec(&value).expect("what was read is written");
    assert_eq!(serde_json::from_slice::<T>(&written).expect("what was written is read"), value);
}

/// Of what has numbers with a fraction, whose last digit may change, or a problem, which tells a type that it does not know in words.
fn read_again<T: DeserializeOwned + Serialize>(json: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(json) else { return };
    let written = serde_json::to_vec(&value).expect("what was read is written");
    assert!(serde_json::from_slice::<T>(&written).is_ok());
}

/// Another program's words, for logs and terminals.
fn problem(json: &[u8]) {
    let Some(problem) = Problem::from_json(json) else { return };
    for text in [problem.title.as_ref(), &problem.detail] {
        assert!(text.chars().count() <= 2_000 && !text.contains(char::is_control));
    }
}

fn key_of_a_viewer(json: &[u8]) {
    let Ok(jwk) = serde_json::from_slice::<Jwk>(json) else { return };
    if let Ok(key) = ViewerKey::from_jwk(&jwk) {
        let token = Token::parse(&"A".repeat(43)).expect("it is a token");
        assert!(control_api::tokens::encrypt_to_key(&token, &key).is_ok());
    }
}

fn key_of_a_platform(bytes: &[u8]) {
    if let Ok(key) = PlatformPublicKey::from_spki_der(bytes) {
        let again = PlatformPublicKey::from_pem(&key.to_pem().expect("it is written")).expect("it is read");
        assert_eq!(again.fingerprint(), key.fingerprint());
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = PlatformPublicKey::from_pem(text);
    }
}

fn names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    one_spelling::<BlockId>(text);
    one_spelling::<ContentKey>(text);
    one_spelling::<PublicationId>(text);
    one_spelling::<NodeId>(text);
    if let Ok(token) = Token::parse(text) {
        assert_eq!(token.expose(), text);
    }
}

fn one_spelling<T: FromStr + Display>(text: &str) {
    if let Ok(name) = text.parse::<T>() {
        assert_eq!(name.to_string(), text);
    }
}

/// A node's `temporary_url`, and a path that a viewer asks for: it stays below the token.
fn address(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (base, path) = text.split_once('\n').unwrap_or(("http://node.example:7201/v1/t/", text));
    let token = Token::parse(&"A".repeat(43)).expect("it is a token");
    let Ok(url) = TemporaryUrl::new(base, &token) else { return };
    if let Ok(whole) = url.at(path) {
        assert!(whole.contains(token.expose()), "{whole} does not have the token");
        assert!(!whole.contains('?') && !whole.contains('#'), "{whole}");
    }
}
