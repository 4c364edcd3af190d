//! What platforms and nodes sign: token requests, upload authorities, deletion orders, receipts. As a stranger writes them, nothing is granted; with
//! a true signature behind whatever claims, they are taken or refused with a reason.
#![no_main]

use std::sync::LazyLock;

use chunkstore_block::NetworkId;
use control_api::fuzzing::signed;
use control_api::{
    AuthorityVerifier, DeletionVerifier, NodeId, PinnedKeys, PlatformKey, PlatformKeySize, RequestVerifier,
};
use libfuzzer_sys::fuzz_target;

const NOW: u64 = 1_700_000_000;
const NETWORK: NetworkId = NetworkId::from_bytes([1; 16]);
const MAX_UPLOAD: u64 = 1_000;

struct Side {
    key: PlatformKey,
    node: NodeId,
    authorities: AuthorityVerifier,
    deletions: DeletionVerifier,
}

static SIDE: LazyLock<Side> = LazyLock::new(|| {
    let key = PlatformKey::generate(PlatformKeySize::Rsa2048).expect("a key is made");
    let pinned = PinnedKeys::new([key.public_key().clone()]);
    let (authorities, deletions) =
        (AuthorityVerifier::new(pinned.clone(), NETWORK), DeletionVerifier::new(pinned, NETWORK));
    Side { key, node: "12D3KooWNode".parse().expect("it is base58"), authorities, deletions }
});

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let kind = kind % 7;
    if kind == 6 {
        return control_api::fuzzing::receipt(rest);
    }
    match (kind, std::str::from_utf8(rest)) {
        (0..3, Ok(text)) => assert!(!taken(kind, text), "granted to a stranger"),
        (0..3, Err(_)) => {}
        _ => {
            let media_type = ["imira-request", "imira-authority", "imira-deletion"][usize::from(kind - 3)];
            let text = signed(&SIDE.key, media_type, &filled_in(rest));
            let was_taken = taken(kind - 3, &text);
            // One kind is never taken for another.
            for other in (0..3).filter(|other| *other != kind - 3) {
                assert!(!taken(other, &text));
            }
            if was_taken {
                assert!(serde_json::from_slice::<serde_json::Map<_, _>>(&filled_in(rest)).is_ok());
            }
        }
    }
});

fn taken(kind: u8, text: &str) -> bool {
    let Side { key, node, authorities, deletions } = &*SIDE;
    match kind {
        // One for each run: nonces are remembered.
        0 => {
            let pinned = PinnedKeys::new([key.public_key().clone()]);
            let requests = RequestVerifier::new(pinned, node.clone(), NETWORK, NOW - 100, MAX_UPLOAD);
            let verified = requests.verify(text, NOW);
            if verified.is_ok() {
                assert!(requests.verify(text, NOW).is_err(), "taken twice");
            }
            verified.is_ok()
        }
        1 => authorities.verify(text, node, NOW).is_ok() || authorities.verify_kept(text).is_ok(),
        _ => deletions.verify(text).is_ok(),
    }
}

/// A fuzzer finds no fingerprint: `@i` stands for the platform's.
fn filled_in(claims: &[u8]) -> Vec<u8> {
    let fingerprint = SIDE.key.fingerprint().to_string();
    let mut out = Vec::new();
    let mut rest = claims;
    while let Some(at) = rest.windows(2).position(|pair| pair == b"@i") {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(fingerprint.as_bytes());
        rest = &rest[at + 2..];
    }
    out.extend_from_slice(rest);
    out
}
