//! Certificates and revocation lists of a fuzzer.
#![allow(clippy::expect_used, missing_docs, reason = "a broken promise is to end the run")]

use super::{Authority, Certificate, Membership, MembershipError, RevocationList};
use libp2p::PeerId;

/// As they are, and with a true signature of `authority` behind them.
pub fn certificate(membership: &Membership, authority: &Authority, peer: PeerId, bytes: &[u8], now: u64) {
    let signed = [bytes, &authority.sign(super::certificate::SIGNED_AS, bytes)].concat();
    assert!(read_certificate(membership, peer, bytes, now).is_err(), "admitted without a signature");
    if read_certificate(membership, peer, &signed, now).is_ok() {
        let certificate = Certificate::parse(&signed).expect("an admitted one decodes");
        assert_eq!((certificate.peer(), certificate.network()), (peer, membership.network));
        assert!(certificate.is_storage_node());
    }
}

fn read_certificate(membership: &Membership, peer: PeerId, bytes: &[u8], now: u64) -> Result<(), MembershipError> {
    if let Ok(certificate) = Certificate::parse(bytes) {
        assert_eq!(certificate.as_bytes(), bytes);
    }
    membership.admit(peer, bytes, now).map(|_| ())
}

/// As they are, and with a true signature of `authority` behind them.
pub fn revocations(membership: &Membership, authority: &Authority, bytes: &[u8]) {
    if let Ok(list) = RevocationList::parse(bytes) {
        assert_eq!(list.as_bytes(), bytes);
    }
    let before = membership.revocations_bytes();
    assert!(!membership.offer_revocations(bytes).unwrap_or(false), "taken without a signature");
    assert_eq!(membership.revocations_bytes(), before);
    let signed = [bytes, &authority.sign(super::revocations::SIGNED_AS, bytes)].concat();
    if membership.offer_revocations(&signed).unwrap_or(false) {
        assert!(!membership.offer_revocations(&signed).expect("it was taken before"), "taken twice");
        assert!(membership.offer_revocations(&membership.revocations_bytes()).is_ok());
    }
}
