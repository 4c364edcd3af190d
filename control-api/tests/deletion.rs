//! Deletion orders over HTTP: taken from anybody who has one, listed for nodes that were away.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub, dead_code)]

mod support;

use chunkstore_block::{ContentKey, NetworkId, PublicationId, Reference};
use control_api::{DeletionClaims, DeletionOutcome, ErrorKind, PlatformKey, PlatformKeySize};
use support::{STARTED, Served, network, serve};

fn claims(number: u8) -> DeletionClaims {
    let publication = PublicationId::from_bytes([number; 16]);
    DeletionClaims { network: network(), publication, sequence: number.into(), issued: STARTED }
}

async fn refusal(served: &Served, order: &str) -> ErrorKind {
    served.client.delete(order).await.unwrap_err().problem().unwrap().kind
}

#[tokio::test]
async fn an_order_is_applied_once_and_known_afterwards() {
    let served = serve().await;
    let order = served.platform.sign_deletion(&claims(1)).unwrap();
    let publication = Reference { platform: served.platform.fingerprint(), publication: claims(1).publication };
    for outcome in [DeletionOutcome::Applied, DeletionOutcome::Known] {
        let answer = served.client.delete(&order).await.unwrap();
        assert_eq!((answer.publication, answer.sequence, answer.outcome), (publication, 1, outcome));
    }
}

#[tokio::test]
async fn orders_are_listed_page_by_page_and_word_for_word() {
    let served = serve().await;
    let orders: Vec<_> = (1..=3).map(|number| served.platform.sign_deletion(&claims(number)).unwrap()).collect();
    for order in &orders {
        served.client.delete(order).await.unwrap();
    }
    let platform = served.platform.fingerprint();
    let (mut listed, mut after) = (Vec::new(), Some(0));
    while let Some(from) = after {
        let page = served.client.deletions(platform, from, 2).await.unwrap();
        assert!(page.deletions.len() <= 2);
        listed.extend(page.deletions.into_iter().map(|entry| entry.order));
        after = page.next;
    }
    assert_eq!(listed, orders);
    assert_eq!(served.client.deletions(platform, 3, 2).await.unwrap().deletions, []);
    for limit in [0, 501] {
        let error = served.client.deletions(platform, 0, limit).await.unwrap_err();
        assert_eq!(error.problem().unwrap().kind, ErrorKind::Invalid);
    }
}

#[tokio::test]
async fn what_is_no_order_of_a_pinned_platform_is_refused() {
    let served = serve().await;
    let stranger = PlatformKey::generate(PlatformKeySize::Rsa2048).unwrap();
    let elsewhere = DeletionClaims { network: NetworkId::from_bytes([9; 16]), ..claims(1) };
    let request = served.playback(ContentKey::from_bytes([3; 32]));
    for (order, expected) in [
        (stranger.sign_deletion(&claims(1)).unwrap(), ErrorKind::PlatformNotPinned),
        (served.platform.sign_deletion(&elsewhere).unwrap(), ErrorKind::WrongNetwork),
        (served.platform.sign_request(&request).unwrap(), ErrorKind::MalformedRequest),
        ("a".repeat(20_000), ErrorKind::MalformedRequest),
    ] {
        assert_eq!(refusal(&served, &order).await, expected);
    }
    assert!(served.backend.0.deletions.lock().unwrap().is_empty());
}
