//! Deletion orders (`docs/protocol.md` §7): a platform takes a publication back.

use chunkstore_block::{NetworkId, PlatformFingerprint, PublicationId, Reference};
use serde::{Deserialize, Serialize};

use super::{SigningError, check_signature, pinned_key};
use crate::jws::{Jws, JwsError};
use crate::keys::{PinnedKeys, PlatformKey};
use crate::problem::{ErrorKind, Problem};

/// The most bytes of a deletion order (`docs/protocol.md` §7).
pub const MAX_DELETION_BYTES: usize = 4_096;

/// The highest sequence number: every reader of JSON has it exactly.
pub const MAX_SEQUENCE: u64 = (1 << 53) - 1;

const DELETION_TYPE: &str = "imira-deletion";

/// A deletion order in words; [`PlatformKey::sign_deletion`] makes the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeletionClaims {
    /// The network that keeps the publication.
    pub network: NetworkId,
    /// What is deleted.
    pub publication: PublicationId,
    /// The platform's own number of the order, 1 to [`MAX_SEQUENCE`]; higher than that of every order before.
    pub sequence: u64,
    /// Now, seconds since 1970. Nothing depends on it.
    pub issued: u64,
}

/// A deletion order that passed every check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifiedDeletion {
    /// What is deleted, for good.
    pub publication: Reference,
    /// The platform's own number of the order.
    pub sequence: u64,
}

impl PlatformKey {
    /// Makes a deletion order.
    pub fn sign_deletion(&self, claims: &DeletionClaims) -> Result<String, SigningError> {
        if !(1..=MAX_SEQUENCE).contains(&claims.sequence) {
            return Err(SigningError::Sequence(claims.sequence));
        }
        let wire = WireDeletion {
            iss: self.fingerprint(),
            net: claims.network,
            publication: claims.publication,
            seq: claims.sequence,
            iat: claims.issued,
        };
        self.sign_claims(DELETION_TYPE, &wire, MAX_DELETION_BYTES)
    }
}

#[derive(Serialize, Deserialize)]
struct WireDeletion {
    iss: PlatformFingerprint,
    net: NetworkId,
    #[serde(rename = "pub")]
    publication: PublicationId,
    seq: u64,
    iat: u64,
}

/// Checks deletion orders. It remembers nothing: an order that is shown again is as good as before.
#[derive(Clone, Debug)]
pub struct DeletionVerifier {
    keys: PinnedKeys,
    network: NetworkId,
}

impl DeletionVerifier {
    /// A verifier for a node of `network` that serves the platforms of `keys`.
    pub fn new(keys: PinnedKeys, network: NetworkId) -> Self {
        Self { keys, network }
    }

    /// Checks an order, whoever brings it and however old it is.
    ///
    /// Errors: `malformed-request`, `bad-sequence`, `platform-not-pinned`, `bad-signature`, `wrong-network`.
    pub fn verify(&self, jws: &str) -> Result<VerifiedDeletion, Problem> {
        let parsed = Jws::parse(jws, DELETION_TYPE, MAX_DELETION_BYTES).map_err(malformed)?;
        let wire: WireDeletion = parsed.claims().map_err(malformed)?;
        if !(1..=MAX_SEQUENCE).contains(&wire.seq) {
            let detail = format!("seq must be 1 to {MAX_SEQUENCE}, a new one for each order, and is {}.", wire.seq);
            return Err(Problem::new(ErrorKind::BadSequence, detail));
        }
        let key = pinned_key(&self.keys, &parsed, &wire.iss)?;
        check_signature(&key, &parsed)?;
        if wire.net != self.network {
            let detail = format!(
                "The order is for the network {} and this node is a member of {}. Send it to a node of its own.",
                wire.net, self.network
            );
            return Err(Problem::new(ErrorKind::WrongNetwork, detail));
        }
        let publication = Reference { platform: wire.iss, publication: wire.publication };
        Ok(VerifiedDeletion { publication, sequence: wire.seq })
    }
}

fn malformed(error: JwsError) -> Problem {
    let detail = format!("The order must be a compact JWS as in docs/protocol.md, section 7: {error}.");
    Problem::new(ErrorKind::MalformedRequest, detail)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{authority, keys, network, pinned, playback, publication, request_verifier};
    use super::super::{AUTHORITY_TYPE, REQUEST_TYPE};
    use super::*;
    use serde_json::{Value, json};

    fn claims() -> DeletionClaims {
        DeletionClaims { network: network(), publication: publication(), sequence: 7, issued: 1_700_000_000 }
    }

    fn order() -> String {
        keys().platform.sign_deletion(&claims()).unwrap()
    }

    fn verifier() -> DeletionVerifier {
        DeletionVerifier::new(pinned(), network())
    }

    /// The claims of a good order, for tests to spoil.
    fn wire() -> Value {
        json!({"iss": keys().platform.fingerprint(), "net": network(), "pub": publication(), "seq": 7, "iat": 1})
    }

    fn signed(media_type: &str, claims: &Value) -> String {
        keys().platform.sign_claims(media_type, claims, 100_000).unwrap()
    }

    fn with(member: &str, value: Value) -> String {
        let mut claims = wire();
        claims[member] = value;
        signed(DELETION_TYPE, &claims)
    }

    #[track_caller]
    fn refused(jws: &str, expected: ErrorKind) {
        let problem = verifier().verify(jws).unwrap_err();
        assert_eq!(problem.kind, expected, "{problem}");
    }

    #[test]
    fn a_good_order_is_taken_as_often_as_it_is_shown() {
        let (verifier, order) = (verifier(), order());
        for _ in 0..2 {
            let verified = verifier.verify(&order).unwrap();
            let publication = Reference { platform: keys().platform.fingerprint(), publication: publication() };
            assert_eq!(verified, VerifiedDeletion { publication, sequence: 7 });
        }
        // Neither aud nor exp, so that anybody may pass it on at any time.
        let payload = data_encoding::BASE64URL_NOPAD.decode(order.split('.').nth(1).unwrap().as_bytes()).unwrap();
        let claims: serde_json::Map<String, Value> = serde_json::from_slice(&payload).unwrap();
        assert_eq!(claims.keys().collect::<Vec<_>>(), ["iat", "iss", "net", "pub", "seq"]);
    }

    #[test]
    fn a_forged_order_is_refused() {
        let order = order();
        let (head, rest) = order.split_once('.').unwrap();
        let (_, signature) = rest.split_once('.').unwrap();
        let other = wire().to_string().replace("\"seq\":7", "\"seq\":8");
        let forged = format!("{head}.{}.{signature}", data_encoding::BASE64URL_NOPAD.encode(other.as_bytes()));
        refused(&forged, ErrorKind::BadSignature);
        // Signed with another key in the pinned one's name.
        let wire = wire();
        let input = crate::jws::signing_input(
            DELETION_TYPE,
            &keys().platform.fingerprint().to_string(),
            wire.to_string().as_bytes(),
        );
        let stolen = crate::jws::compact(&input, &keys().stranger.sign(input.as_bytes()).unwrap());
        refused(&stolen, ErrorKind::BadSignature);
    }

    #[test]
    fn only_a_pinned_platform_deletes_and_only_its_own() {
        refused(&keys().stranger.sign_deletion(&claims()).unwrap(), ErrorKind::PlatformNotPinned);
        // A pinned platform that names another one as the issuer.
        refused(&with("iss", json!(keys().stranger.fingerprint())), ErrorKind::PlatformNotPinned);
    }

    #[test]
    fn another_networks_order_is_refused() {
        let other = DeletionClaims { network: NetworkId::from_bytes([9; 16]), ..claims() };
        refused(&keys().platform.sign_deletion(&other).unwrap(), ErrorKind::WrongNetwork);
    }

    #[test]
    fn a_sequence_number_begins_with_one_and_is_exact() {
        for sequence in [0, MAX_SEQUENCE + 1, u64::MAX] {
            let wrong = DeletionClaims { sequence, ..claims() };
            assert_eq!(keys().platform.sign_deletion(&wrong), Err(SigningError::Sequence(sequence)));
            refused(&with("seq", json!(sequence)), ErrorKind::BadSequence);
        }
        for wrong in [json!(-1), json!(1.5), json!("7"), json!(null)] {
            refused(&with("seq", wrong), ErrorKind::MalformedRequest);
        }
        assert!(verifier().verify(&with("seq", json!(MAX_SEQUENCE))).is_ok());
    }

    #[test]
    fn orders_requests_and_authorities_are_never_taken_for_one_another() {
        refused(&authority(), ErrorKind::MalformedRequest);
        refused(&keys().platform.sign_request(&playback()).unwrap(), ErrorKind::MalformedRequest);
        for media_type in [AUTHORITY_TYPE, REQUEST_TYPE, "JWT", ""] {
            refused(&signed(media_type, &wire()), ErrorKind::MalformedRequest);
        }
        let order = order();
        assert_eq!(request_verifier().verify(&order, 1_700_000_000).unwrap_err().kind, ErrorKind::MalformedRequest);
        let authorities = super::super::AuthorityVerifier::new(pinned(), network());
        let node = "12D3KooWNode".parse().unwrap();
        assert_eq!(authorities.verify(&order, &node, 1_700_000_000).unwrap_err().kind, ErrorKind::BadAuthority);
    }

    #[test]
    fn what_is_too_long_or_no_order_is_refused() {
        let long = with("note", json!("a".repeat(MAX_DELETION_BYTES)));
        refused(&long, ErrorKind::MalformedRequest);
        assert!(verifier().verify(&long).unwrap_err().detail.contains("longer than 4096 bytes"));
        for text in ["", "a.b.c", "nonsense"] {
            refused(text, ErrorKind::MalformedRequest);
        }
        for member in ["iss", "net", "pub", "seq", "iat"] {
            refused(&with(member, json!(null)), ErrorKind::MalformedRequest);
        }
    }
}
