//! Every refusal of requests and authorities, each by its own error.

use super::*;
use crate::keys::PlatformKeySize;
use crate::tokens::UserKey;
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};

const STARTED: u64 = 1_699_999_000;
const NOW: u64 = 1_700_000_000;
const MAX_UPLOAD: u64 = 1_000_000;

/// Keys are slow to make: one set for all tests.
pub(super) struct Keys {
    pub(super) platform: Arc<PlatformKey>,
    pub(super) stranger: Arc<PlatformKey>,
    user: Jwk,
}

pub(super) fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| Keys {
        platform: Arc::new(PlatformKey::generate(PlatformKeySize::Rsa2048).unwrap()),
        stranger: Arc::new(PlatformKey::generate(PlatformKeySize::Rsa3072).unwrap()),
        user: UserKey::generate().unwrap().jwk().unwrap(),
    })
}

fn node() -> NodeId {
    "12D3KooWNode".parse().unwrap()
}

pub(super) fn network() -> NetworkId {
    NetworkId::from_bytes([1; 16])
}

pub(super) fn publication() -> PublicationId {
    PublicationId::from_bytes([2; 16])
}

pub(super) fn pinned() -> PinnedKeys {
    PinnedKeys::new([keys().platform.public_key().clone()])
}

pub(super) fn request_verifier() -> RequestVerifier {
    RequestVerifier::new(pinned(), node(), network(), STARTED, MAX_UPLOAD)
}

fn authority_claims() -> AuthorityClaims {
    AuthorityClaims {
        node: node(),
        network: network(),
        publication: publication(),
        bytes: 500,
        issued: NOW,
        lifetime: 3_600,
    }
}

pub(super) fn playback() -> RequestClaims {
    let request = TokenRequest::playback(ContentKey::from_bytes([3; 32]));
    RequestClaims {
        node: node(),
        network: network(),
        viewer_key: keys().user.clone(),
        request,
        issued: NOW,
        lifetime: 30,
    }
}

fn upload(size: u64, authority: String) -> RequestClaims {
    RequestClaims { request: TokenRequest::Upload { publication: publication(), size, authority }, ..playback() }
}

pub(super) fn authority() -> String {
    keys().platform.sign_authority(&authority_claims()).unwrap()
}

/// The claims of a good playback request, for tests to spoil.
fn wire() -> Value {
    serde_json::to_value(WireRequest::new(keys().platform.fingerprint(), &playback(), [9; 16])).unwrap()
}

fn sign(claims: &Value) -> String {
    keys().platform.sign_claims(REQUEST_TYPE, claims, MAX_REQUEST_BYTES).unwrap()
}

fn with(member: &str, value: Value) -> String {
    let mut claims = wire();
    claims[member] = value;
    sign(&claims)
}

fn with_header(header: &str) -> String {
    let input = format!(
        "{}.{}",
        BASE64URL_NOPAD.encode(header.as_bytes()),
        BASE64URL_NOPAD.encode(wire().to_string().as_bytes())
    );
    jws::compact(&input, &keys().platform.sign(input.as_bytes()).unwrap())
}

#[track_caller]
fn refused(jws: &str, expected: ErrorKind) {
    assert_eq!(request_verifier().verify(jws, NOW).unwrap_err().kind, expected);
}

#[test]
fn a_good_playback_request_is_taken() {
    let verified = request_verifier().verify(&keys().platform.sign_request(&playback()).unwrap(), NOW).unwrap();
    assert_eq!(verified.platform, keys().platform.fingerprint());
    assert!(
        matches!(verified.action, VerifiedAction::Playback(request, _) if request.content == ContentKey::from_bytes([3; 32]))
    );
}

#[test]
fn a_good_upload_request_is_taken() {
    let text = authority();
    let verified =
        request_verifier().verify(&keys().platform.sign_request(&upload(77, text.clone())).unwrap(), NOW).unwrap();
    let VerifiedAction::Upload(upload, _) = verified.action else { panic!("not an upload") };
    assert_eq!((upload.grant.size, upload.authority.bytes, upload.authority.expires), (77, 500, NOW + 3_600));
    assert_eq!(upload.grant.reference.publication, publication());
    assert_eq!(upload.authority_jws, text);
}

#[test]
fn what_is_not_in_form_is_malformed() {
    let good = keys().platform.sign_request(&playback()).unwrap();
    let long = "a".repeat(MAX_REQUEST_BYTES + 1);
    for text in
        ["", "a", "a.b", "a.b.c", "..", &long, &good.replace('.', "!"), &format!("{good}="), &format!("{good}.x")]
    {
        refused(text, ErrorKind::MalformedRequest);
    }
    refused(&with("jti", json!("ABC")), ErrorKind::MalformedRequest);
    refused(&with("iat", json!("now")), ErrorKind::MalformedRequest);
    refused(&with("act", json!("delete")), ErrorKind::MalformedRequest);
    refused(&with("size", json!(5)), ErrorKind::MalformedRequest);
    refused(&with("aud", json!("not base58: 0OIl")), ErrorKind::MalformedRequest);
}

#[test]
fn other_algorithms_and_types_are_malformed() {
    let kid = keys().platform.fingerprint();
    for header in [
        format!(r#"{{"alg":"none","kid":"{kid}","typ":"imira-request"}}"#),
        format!(r#"{{"alg":"HS256","kid":"{kid}","typ":"imira-request"}}"#),
        format!(r#"{{"alg":"RS256","kid":"{kid}","typ":"imira-request"}}"#),
        format!(r#"{{"alg":"PS256","alg":"none","kid":"{kid}","typ":"imira-request"}}"#),
        format!(r#"{{"alg":"PS256","kid":"{kid}","typ":"imira-authority"}}"#),
        format!(r#"{{"alg":"PS256","kid":"{kid}"}}"#),
        format!(r#"{{"alg":"PS256","kid":"{kid}","typ":"imira-request","crit":["x"]}}"#),
    ] {
        refused(&with_header(&header), ErrorKind::MalformedRequest);
    }
}

#[test]
fn a_platform_must_be_pinned_and_named_once() {
    refused(&keys().stranger.sign_request(&playback()).unwrap(), ErrorKind::PlatformNotPinned);
    refused(&with("iss", json!(keys().stranger.fingerprint())), ErrorKind::PlatformNotPinned);
    let kid = keys().platform.fingerprint();
    refused(&with_header(r#"{"alg":"PS256","typ":"imira-request"}"#), ErrorKind::PlatformNotPinned);
    let twice = format!(r#"{{"alg":"PS256","kid":"{kid}","kid":"{kid}","typ":"imira-request"}}"#);
    refused(&with_header(&twice), ErrorKind::PlatformNotPinned);
}

#[test]
fn a_signature_must_fit() {
    let good = keys().platform.sign_request(&playback()).unwrap();
    let other = keys().platform.sign_request(&playback()).unwrap();
    let (input, _) = good.rsplit_once('.').unwrap();
    let (_, signature) = other.rsplit_once('.').unwrap();
    refused(&format!("{input}.{signature}"), ErrorKind::BadSignature);
    refused(&format!("{input}."), ErrorKind::BadSignature);
    let strange = keys().stranger.sign(input.as_bytes()).unwrap();
    refused(&jws::compact(input, &strange), ErrorKind::BadSignature);
}

#[test]
fn network_and_node_must_be_ours() {
    refused(&with("net", json!(NetworkId::from_bytes([7; 16]))), ErrorKind::WrongNetwork);
    refused(&with("aud", json!("12D3KooWother")), ErrorKind::WrongAudience);
}

#[test]
fn times_are_checked_to_the_second() {
    let at = |iat: u64, exp: u64| {
        let mut claims = wire();
        claims["iat"] = json!(iat);
        claims["exp"] = json!(exp);
        request_verifier().verify(&sign(&claims), NOW).map(|_| ()).map_err(|problem| problem.kind)
    };
    assert_eq!(at(NOW - 39, NOW - 9), Ok(()));
    assert_eq!(at(NOW - 40, NOW - 10), Err(ErrorKind::RequestExpired));
    assert_eq!(at(NOW + 10, NOW + 40), Ok(()));
    assert_eq!(at(NOW + 11, NOW + 41), Err(ErrorKind::RequestFromTheFuture));
    assert_eq!(at(NOW, NOW + 31), Err(ErrorKind::LifetimeTooLong));
    assert_eq!(at(NOW, NOW), Err(ErrorKind::LifetimeTooLong));
    assert_eq!(at(NOW + 5, NOW), Err(ErrorKind::LifetimeTooLong));
    assert_eq!(at(0, u64::MAX), Err(ErrorKind::LifetimeTooLong));
}

#[test]
fn nothing_from_before_the_start_is_taken() {
    let started = |started| RequestVerifier::new(pinned(), node(), network(), started, MAX_UPLOAD);
    let jws = keys().platform.sign_request(&playback()).unwrap();
    assert_eq!(started(NOW + 1).verify(&jws, NOW + 1).unwrap_err().kind, ErrorKind::RequestBeforeStart);
    assert!(started(NOW).verify(&jws, NOW + 1).is_ok());
}

/// A platform whose clock is 10 s ahead signs a request; it is used, the node restarts, and the request is no older than the
/// node: it was good a second time.
#[test]
fn a_restart_makes_no_request_good_again() {
    let ahead = |seconds| RequestClaims { issued: NOW + seconds, ..playback() };
    let used = keys().platform.sign_request(&ahead(10)).unwrap();
    let earlier_run = request_verifier();
    earlier_run.verify(&keys().platform.sign_request(&playback()).unwrap(), NOW).unwrap();
    assert_eq!(earlier_run.largest_accepted(), NOW);
    earlier_run.verify(&used, NOW).unwrap();
    let seen_until = earlier_run.largest_accepted();
    assert_eq!(seen_until, NOW + 10);

    let restarted =
        |seen_until| RequestVerifier::new(pinned(), node(), network(), NOW + 3, MAX_UPLOAD).with_seen_until(seen_until);
    let verifier = restarted(seen_until);
    assert_eq!(verifier.largest_accepted(), seen_until);
    for now in [NOW + 3, NOW + 10, NOW + 49] {
        assert_eq!(verifier.verify(&used, now).unwrap_err().kind, ErrorKind::RequestBeforeStart);
    }
    let fresh = keys().platform.sign_request(&ahead(11)).unwrap();
    verifier.verify(&fresh, NOW + 3).unwrap();
    assert_eq!(verifier.largest_accepted(), NOW + 11);
    // A clock that was years ahead and is right again must not shut the node for years.
    let fresh = keys().platform.sign_request(&ahead(3)).unwrap();
    assert!(restarted(NOW + 100_000_000).verify(&fresh, NOW + 3).is_ok());
}

#[test]
fn a_nonce_is_good_once() {
    let verifier = request_verifier();
    let jws = keys().platform.sign_request(&playback()).unwrap();
    verifier.verify(&jws, NOW).unwrap();
    assert_eq!(verifier.verify(&jws, NOW + 1).unwrap_err().kind, ErrorKind::RequestReplayed);
    assert_eq!(verifier.verify(&jws, NOW + 39).unwrap_err().kind, ErrorKind::RequestReplayed);
    assert_eq!(verifier.verify(&jws, NOW + 40).unwrap_err().kind, ErrorKind::RequestExpired);
}

#[test]
fn the_memory_of_nonces_is_bounded_and_forgets_only_the_dead() {
    let key = |n: u8| NonceKey(PlatformFingerprint::from_bytes([0; 32]), [n; 16]);
    let mut memory = ReplayMemory::new(2);
    assert_eq!(memory.remember(key(1), 10, 0), Verdict::New);
    assert_eq!(memory.remember(key(2), 20, 0), Verdict::New);
    assert_eq!(memory.remember(key(3), 20, 0), Verdict::Full);
    assert_eq!(memory.remember(key(1), 10, 9), Verdict::Seen);
    assert_eq!(memory.remember(key(3), 20, 10), Verdict::New);
    // The clock is set back: the first nonce is forgotten, and must not become good again.
    assert_eq!(memory.remember(key(1), 10, 5), Verdict::Forgotten);
    assert_eq!(memory.until.len(), memory.by_end.len());
}

#[test]
fn a_viewer_key_must_be_rsa_of_a_fair_size() {
    let user = &keys().user;
    let small = BASE64URL_NOPAD.encode(&[0xFF; 128]);
    let large = BASE64URL_NOPAD.encode(&[0xFF; 513]);
    let padded =
        BASE64URL_NOPAD.encode(&[&[0], BASE64URL_NOPAD.decode(user.n.as_bytes()).unwrap().as_slice()].concat());
    for jwk in [
        json!({}),
        json!(5),
        json!({"kty": "EC", "n": user.n, "e": user.e}),
        json!({"kty": "RSA", "n": small, "e": user.e}),
        json!({"kty": "RSA", "n": large, "e": user.e}),
        json!({"kty": "RSA", "n": padded, "e": user.e}),
        json!({"kty": "RSA", "n": format!("{}=", user.n), "e": user.e}),
        json!({"kty": "RSA", "n": user.n, "e": "AQ"}),
        json!({"kty": "RSA", "n": user.n, "e": "AAAA"}),
        json!({"kty": "RSA", "n": user.n, "e": ""}),
    ] {
        refused(&with("jwk", jwk), ErrorKind::BadViewerKey);
    }
}

#[test]
fn an_upload_needs_its_own_authority_and_a_fair_size() {
    let sign = |claims: &RequestClaims| keys().platform.sign_request(claims).unwrap();
    refused(&sign(&upload(5, "a.b.c".to_owned())), ErrorKind::BadAuthority);
    let other = AuthorityClaims { publication: PublicationId::from_bytes([8; 16]), ..authority_claims() };
    refused(&sign(&upload(5, keys().platform.sign_authority(&other).unwrap())), ErrorKind::BadAuthority);
    let elsewhere = AuthorityClaims { node: "12D3KooWother".parse().unwrap(), ..authority_claims() };
    refused(&sign(&upload(5, keys().platform.sign_authority(&elsewhere).unwrap())), ErrorKind::BadAuthority);
    refused(&sign(&upload(MAX_UPLOAD + 1, authority())), ErrorKind::UploadTooLarge);
    let most = sign(&upload(MAX_UPLOAD, authority()));
    assert!(request_verifier().verify(&most, NOW).is_ok());
}

#[test]
fn an_authority_is_checked_each_time_it_is_shown() {
    let verifier = AuthorityVerifier::new(pinned(), network());
    let text = authority();
    let reference = Reference { platform: keys().platform.fingerprint(), publication: publication() };
    let expected = Authority { reference, bytes: 500, expires: NOW + 3_600 };
    assert_eq!(verifier.verify(&text, &node(), NOW), Ok(expected));
    assert_eq!(verifier.verify(&text, &node(), NOW + 3_599), Ok(expected));
    let detail = |shown_by: &NodeId, now| verifier.verify(&text, shown_by, now).unwrap_err().detail;
    assert!(detail(&node(), NOW + 3_600).contains("it ended"));
    assert!(detail(&node(), NOW - 11).contains("it was signed at"));
    assert!(detail(&"12D3KooWother".parse().unwrap(), NOW).contains("shows it"));
    assert_eq!(lock(&verifier.checked).len(), 1);
}

#[test]
fn a_false_authority_is_refused_and_not_remembered() {
    let verifier = AuthorityVerifier::new(pinned(), network());
    let detail = |text: &str| {
        let problem = verifier.verify(text, &node(), NOW).unwrap_err();
        assert_eq!(problem.kind, ErrorKind::BadAuthority);
        problem.detail
    };
    assert!(detail(&keys().stranger.sign_authority(&authority_claims()).unwrap()).contains("not pinned"));
    let good = authority();
    let (input, _) = good.rsplit_once('.').unwrap();
    assert!(detail(&jws::compact(input, &[0; 256])).contains("signature"));
    assert!(detail(&"a".repeat(MAX_AUTHORITY_BYTES + 1)).contains("longer"));
    assert!(detail(&sign(&wire())).contains("typ"));
    assert!(lock(&verifier.checked).is_empty());
    let foreign = AuthorityClaims { network: NetworkId::from_bytes([7; 16]), ..authority_claims() };
    assert!(detail(&keys().platform.sign_authority(&foreign).unwrap()).contains("network"));
    let long = WireAuthority {
        iss: keys().platform.fingerprint(),
        net: network(),
        aud: node(),
        publication: publication(),
        bytes: 1,
        iat: NOW,
        exp: NOW + MAX_AUTHORITY_LIFETIME + 1,
    };
    let text = keys().platform.sign_claims(AUTHORITY_TYPE, &long, MAX_AUTHORITY_BYTES).unwrap();
    assert!(detail(&text).contains("7 days"));
}

#[test]
fn a_signer_refuses_lifetimes_that_nodes_refuse() {
    for lifetime in [0, 31] {
        let signed = keys().platform.sign_request(&RequestClaims { lifetime, ..playback() });
        assert_eq!(signed, Err(SigningError::LifetimeTooLong(lifetime, 30)));
    }
}

#[test]
fn keys_survive_pem_and_hide_in_debug() {
    let key = &keys().platform;
    let pem = key.to_pkcs8_pem().unwrap();
    let again = PlatformKey::from_pkcs8_pem(&pem).unwrap();
    assert_eq!(again.fingerprint(), key.fingerprint());
    let public = PlatformPublicKey::from_pem(&key.public_key().to_pem().unwrap()).unwrap();
    assert_eq!(&public, key.public_key());
    let digest: [u8; 32] = Sha256::digest(public.spki_der()).into();
    assert_eq!(public.fingerprint(), PlatformFingerprint::from_bytes(digest));
    assert!(PlatformPublicKey::from_pem(&pem).is_err());
    assert!(format!("{key:?}").contains("redacted"));
}

#[test]
fn a_scope_must_be_in_form() {
    let scoped = |members: &[(&str, Value)]| {
        let mut claims = wire();
        for (member, value) in members {
            claims[*member] = value.clone();
        }
        sign(&claims)
    };
    for bad in [
        &[("renditions", json!([]))][..],
        &[("renditions", json!(["a", "b", "c", "d", "e"]))],
        &[("renditions", json!([""]))],
        &[("renditions", json!(["x".repeat(65)]))],
        &[("renditions", json!("720p"))],
        &[("from_ms", json!(0))],
        &[("to_ms", json!(10))],
        &[("from_ms", json!(10)), ("to_ms", json!(10))],
        &[("from_ms", json!(-1)), ("to_ms", json!(10))],
        &[("act", json!("revoke")), ("renditions", json!(["720p"]))],
        &[("act", json!("acknowledge")), ("log", json!("0"))],
    ] {
        refused(&scoped(bad), ErrorKind::MalformedRequest);
    }
    let good = scoped(&[("renditions", json!(["720p"])), ("from_ms", json!(0)), ("to_ms", json!(30_000))]);
    let verified = request_verifier().verify(&good, NOW).unwrap();
    let VerifiedAction::Playback(request, _) = verified.action else { panic!("not a playback") };
    let lapse = Some(Lapse { from_ms: 0, to_ms: 30_000 });
    assert_eq!(request.scope, Scope { renditions: vec!["720p".to_owned()], lapse });
}

#[test]
fn what_a_platform_says_comes_as_it_was_said() {
    let said = [
        TokenRequest::playback(ContentKey::from_bytes([3; 32])),
        TokenRequest::Playback(PlaybackRequest {
            content: ContentKey::from_bytes([3; 32]),
            publication: Some(publication()),
            scope: Scope { renditions: vec!["a".to_owned()], lapse: Some(Lapse { from_ms: 1, to_ms: 2 }) },
        }),
        TokenRequest::Revoke { content: ContentKey::from_bytes([3; 32]) },
        TokenRequest::Acknowledge(Acknowledgement { log: "0".repeat(32), through: 7 }),
    ];
    for request in said {
        let claims = RequestClaims { request: request.clone(), ..playback() };
        let verified = request_verifier().verify(&keys().platform.sign_request(&claims).unwrap(), NOW).unwrap();
        let heard = match verified.action {
            VerifiedAction::Playback(request, _) => TokenRequest::Playback(request),
            VerifiedAction::Revoke(content) => TokenRequest::Revoke { content },
            VerifiedAction::Acknowledge(acknowledgement) => TokenRequest::Acknowledge(acknowledgement),
            VerifiedAction::Upload(..) => panic!("nobody asked for an upload"),
        };
        assert_eq!(heard, request);
    }
}

#[test]
fn the_allowance_covers_small_files_and_never_wraps() {
    assert_eq!(AuthorityClaims::allowance(1), 1 << 30);
    assert_eq!(AuthorityClaims::allowance(1 << 30), 4 << 30);
    assert_eq!(AuthorityClaims::allowance(u64::MAX), u64::MAX);
}
