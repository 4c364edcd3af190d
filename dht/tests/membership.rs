//! Membership on both planes: who is let in, who is refused by which reason and how fast, and who is cut off later.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod holders;
mod members;

use dht::{Authority, Certificate, MembershipError, PeerEvent, RefusalReason, RevocationList, TransferError};
use members::{ANY_BLOCK, NOW, Node, Setup, gate_refuses, wait_until};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_secs(1);

/// What a peer shows, and how it is refused.
struct Case {
    name: &'static str,
    shown: Option<Certificate>,
    reason: RefusalReason,
}

fn cases(setup: &Setup) -> Vec<Case> {
    let stranger = Authority::generate().unwrap();
    let case = |name, shown, reason| Case { name, shown, reason };
    let issue = |begin, end| Some(setup.authority.issue(setup.network.id(), setup.peer(), begin, end).unwrap());
    let revoked = issue(NOW - 10, NOW + 10);
    setup.revoke(1, &[revoked.as_ref().unwrap().serial()]);
    vec![
        case("none", None, RefusalReason::NoCertificate),
        case("expired", issue(0, NOW - 301), RefusalReason::ExpiredCertificate),
        case("not yet valid", issue(NOW + 301, u64::MAX), RefusalReason::ExpiredCertificate),
        case("revoked", revoked, RefusalReason::RevokedCertificate),
        case(
            "foreign authority",
            Some(stranger.issue(setup.network.id(), setup.peer(), 0, u64::MAX).unwrap()),
            RefusalReason::ForeignCertificate,
        ),
        case(
            "other peer's",
            Some(setup.authority.issue(setup.network.id(), members::new_key().1, 0, u64::MAX).unwrap()),
            RefusalReason::ForeignCertificate,
        ),
        case(
            "other network's",
            Some(setup.authority.issue(dht::Network::generate().unwrap().id(), setup.peer(), 0, u64::MAX).unwrap()),
            RefusalReason::ForeignCertificate,
        ),
    ]
}

#[tokio::test]
async fn bad_certificates_are_refused_at_the_gate_within_a_second() {
    let setup = Setup::new();
    for Case { name, shown, reason } in cases(&setup) {
        // As the dialler, and as the listener.
        for bad_dials in [true, false] {
            let took = gate_refuses(&setup, shown.clone(), bad_dials, reason).await;
            assert!(took < WITHIN, "{name}, dials: {bad_dials}: {took:?}");
        }
    }
}

#[tokio::test]
async fn bad_certificates_are_refused_on_the_block_plane_within_a_second() {
    let setup = Setup::new();
    let good = Node::serve(&setup.member(), members::new_key_of(&setup)).await;
    for (index, Case { name, shown, reason }) in cases(&setup).into_iter().enumerate() {
        let network = setup.knows(shown);
        let begun = Instant::now();
        let client = dht::BlockClient::new(setup.keypair.clone(), Arc::clone(&network)).unwrap();
        let error = client.get(good.peer, *ANY_BLOCK).await.unwrap_err();
        assert!(begun.elapsed() < WITHIN, "{name}: {:?}", begun.elapsed());
        assert!(!matches!(error, TransferError::Refused(_)), "{name} was answered: {error}");
        wait_until(|| good.refused.count() == index as u64 + 1).await;
        assert!(good.refused.count_of(reason) > 0, "{name}: {:?}", good.refused);

        // The bad one listens.
        let bad = Node::serve(&network, setup.keypair.clone()).await;
        let begun = Instant::now();
        let error = good.client.get(bad.peer, *ANY_BLOCK).await.unwrap_err();
        assert!(begun.elapsed() < WITHIN, "{name} listens: {:?}", begun.elapsed());
        let TransferError::Handshake(error) = error else { panic!("{name} listens: {error}") };
        assert_eq!(error.reason(), reason, "{name} listens");
    }
}

#[tokio::test]
async fn clock_skew_of_299_s_is_accepted_and_of_301_s_refused_on_both_planes() {
    let setup = Setup::new();
    let good = Node::serve(&setup.member(), members::new_key_of(&setup)).await;
    for (begin, end, accepted) in
        [(NOW + 299, u64::MAX, true), (NOW + 301, u64::MAX, false), (0, NOW - 299, true), (0, NOW - 301, false)]
    {
        let shown = setup.authority.issue(setup.network.id(), setup.peer(), begin, end).unwrap();
        let network = setup.knows(Some(shown.clone()));
        let client = dht::BlockClient::new(setup.keypair.clone(), network).unwrap();
        let answered = matches!(client.get(good.peer, *ANY_BLOCK).await, Err(TransferError::Refused(_)));
        assert_eq!(answered, accepted, "{begin} to {end} on the block plane");
        match accepted {
            true => members::gate_accepts(&setup, Some(shown)).await,
            false => drop(gate_refuses(&setup, Some(shown), true, RefusalReason::ExpiredCertificate).await),
        }
    }
}

#[tokio::test]
async fn a_revoked_member_is_cut_off_while_connected() {
    let setup = Setup::new();
    let network = setup.member();
    let (first, second, serial) = connected_pair(&setup, &network).await;
    let mut events = first.discovery().subscribe();
    let begun = Instant::now();
    let revoked = setup.list(1, &[serial]);
    assert!(network.membership().offer_revocations(revoked.as_bytes()).unwrap());
    cut_off(&first, &second, &mut events, RefusalReason::RevokedCertificate).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_member_whose_certificate_ends_is_cut_off_while_connected() {
    let setup = Setup::new();
    let network = setup.member();
    let (first, second, _) = connected_pair(&setup, &network).await;
    let mut events = first.discovery().subscribe();
    // The first's clock passes the end of the second's certificate and the skew; its own is good for longer.
    setup.clock.store(NOW + 1_000 + 301, std::sync::atomic::Ordering::Relaxed);
    cut_off(&first, &second, &mut events, RefusalReason::ExpiredCertificate).await;
}

/// Two members that are connected on both planes in both directions; the serial of the second, whose certificate ends at
/// `NOW` + 1,000. The first looks at it every 50 ms.
async fn connected_pair(setup: &Setup, network: &Arc<dht::Network>) -> (Node, Node, dht::Serial) {
    let first = Node::start(network, members::new_key_of(setup), &[]).await;
    let shown = setup.authority.issue(setup.network.id(), setup.peer(), 0, NOW + 1_000).unwrap();
    let serial = shown.serial();
    let mut events = first.discovery().subscribe();
    let second = Node::start(&setup.by_fixed_clock(shown), setup.keypair.clone(), &[&first]).await;
    assert_eq!(members::next(&mut events).await, PeerEvent::Up(second.peer));
    for (from, to) in [(&first, &second), (&second, &first)] {
        assert!(matches!(from.client.get(to.peer, *ANY_BLOCK).await, Err(TransferError::Refused(_))));
    }
    (first, second, serial)
}

async fn cut_off(
    first: &Node,
    second: &Node,
    events: &mut tokio::sync::broadcast::Receiver<PeerEvent>,
    reason: RefusalReason,
) {
    let begun = Instant::now();
    assert_eq!(members::next(events).await, PeerEvent::Down(second.peer.id));
    assert!(first.discovery().peers().await.unwrap().is_empty(), "it is in the routing table still");
    assert!(first.discovery().refusals().count_of(reason) > 0);
    // The connection that it had opened on the block plane; no request was needed for that.
    wait_until(|| first.refused.count_of(reason) > 0).await;
    // Neither direction works again.
    let error = first.client.get(second.peer, *ANY_BLOCK).await.unwrap_err();
    assert!(matches!(&error, TransferError::Handshake(error) if error.reason() == reason), "{error}");
    assert!(!matches!(second.client.get(first.peer, *ANY_BLOCK).await, Err(TransferError::Refused(_))));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_list_of_revocations_cannot_be_forged_or_rolled_back() {
    let setup = Setup::new();
    let membership = setup.member();
    let membership = membership.membership();
    let serial = dht::Serial([1; 16]);
    assert!(membership.offer_revocations(setup.list(2, &[serial]).as_bytes()).unwrap());
    assert!(!membership.offer_revocations(setup.list(1, &[]).as_bytes()).unwrap());
    let stranger = Authority::generate().unwrap();
    let forged = RevocationList::sign(&stranger, setup.network.id(), 9, BTreeSet::new()).unwrap();
    assert_eq!(membership.offer_revocations(forged.as_bytes()), Err(MembershipError::UnknownAuthority));
    assert_eq!(membership.revocations_bytes(), setup.list(2, &[serial]).as_bytes());
}
