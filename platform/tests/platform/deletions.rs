//! `DELETE /api/contents/{content}`: gone at once for people, and in time at every node.

use std::time::Duration;

use chunkstore_block::PublicationId;
use control_api::{DeletionVerifier, PinnedKeys};
use imira_platform::store::Store;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::fake_node::{FakeNode, NETWORK, Temper};
use crate::{PACE, Platform, problem};

impl Platform {
    async fn delete(&self, id: &str) -> reqwest::Response {
        self.as_ada(Method::DELETE, &format!("/api/contents/{id}")).send().await.unwrap()
    }

    /// Deletes a film that has not been published; its publication.
    async fn delete_one(&self) -> PublicationId {
        let (id, _) = self.ready("public").await;
        assert_eq!(self.delete(&id).await.status(), StatusCode::NO_CONTENT);
        id.parse().unwrap()
    }

    /// Waits until it has written down that a node, as it was last started, has all orders: a platform or a node that stops
    /// between an order and that gets or sends it twice. At most 20 s.
    async fn until_settled(&self, node: &FakeNode) {
        let store = Store::open(&self.folder.database()).await.unwrap();
        for _ in 0..1_000 {
            let lacks_some = !store.undelivered(NETWORK, node.peer_id(), 1).await.unwrap().is_empty();
            let confirmed = store.confirmed_start(NETWORK, node.peer_id()).await.unwrap();
            if !lacks_some && confirmed == Some(node.started()) {
                return store.close().await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it is never known that {} has all orders", node.url);
    }

    /// What the orders say, each checked as a node does.
    fn deleted_by(&self, orders: &[String]) -> Vec<(u64, PublicationId)> {
        let key = self.folder.load_key().unwrap();
        let verifier = DeletionVerifier::new(PinnedKeys::new([key.public_key().clone()]), NETWORK.parse().unwrap());
        let verify = |order: &String| {
            let deletion = verifier.verify(order).unwrap();
            assert_eq!(deletion.publication.platform, key.fingerprint());
            (deletion.sequence, deletion.publication.publication)
        };
        orders.iter().map(verify).collect()
    }
}

/// Waits until a node has so many orders; at most 20 s, since a platform looks every 2.
async fn orders_at(node: &FakeNode, count: usize) -> Vec<String> {
    for _ in 0..1_000 {
        if node.orders().len() >= count {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(node.orders().len(), count, "orders at {}", node.url);
    node.orders()
}

#[tokio::test]
async fn what_is_deleted_is_gone_at_once_and_every_node_hears_of_it() {
    let nodes = [
        FakeNode::start("12D3a", 0.1, Temper::Honest).await,
        FakeNode::start("12D3b", 0.2, Temper::Honest).await,
        FakeNode::start("12D3c", 0.3, Temper::Honest).await,
    ];
    let platform = Platform::start(&nodes.each_ref()).await;
    let (id, key) = platform.published("public").await;
    assert_eq!(platform.delete(&id).await.status(), StatusCode::NO_CONTENT);

    for path in [format!("/play/{key}/index"), format!("/proxy/{id}/index"), format!("/api/contents/{id}/fragments")] {
        assert_eq!(problem(platform.get(&path).send().await.unwrap()).await, (404, "not-found".into()), "{path}");
    }
    for path in [format!("/play/{id}/index"), format!("/api/contents/{id}"), format!("/api/contents/{id}/fragments")] {
        let owner = platform.as_ada(Method::GET, &path).send().await.unwrap();
        assert_eq!(problem(owner).await, (410, "deleted".into()), "{path}");
    }
    let list: Value = platform.as_ada(Method::GET, "/api/contents").send().await.unwrap().json().await.unwrap();
    assert_eq!(list["contents"], json!([]));
    assert_eq!(platform.delete(&id).await.status(), StatusCode::NO_CONTENT, "once more is as good");

    for node in &nodes {
        assert_eq!(platform.deleted_by(&orders_at(node, 1).await), [(1, id.parse().unwrap())]);
    }
}

#[tokio::test]
async fn only_the_owner_deletes() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let platform = Platform::start(&[&node]).await;
    let (id, _) = platform.published("public").await;
    let path = format!("/api/contents/{id}");
    let stranger = platform.request(Method::DELETE, &path).bearer_auth(platform.eve.expose());
    assert_eq!(problem(stranger.send().await.unwrap()).await, (404, "not-found".into()));
    let nobody = platform.request(Method::DELETE, &path).send().await.unwrap();
    assert_eq!(problem(nobody).await, (401, "sign-in-required".into()));
    assert_eq!(platform.show(&id).await["state"], "published");
    platform.delete(&id).await;
    let after = platform.request(Method::DELETE, &path).bearer_auth(platform.eve.expose());
    assert_eq!(problem(after.send().await.unwrap()).await, (404, "not-found".into()), "nor learns that it was there");
}

#[tokio::test]
async fn another_publication_of_the_same_film_stays() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let platform = Platform::start(&[&node]).await;
    let (first, key) = platform.published("public").await;
    let (second, same) = platform.published("public").await;
    assert_eq!(key, same);
    // The key does not say which of the two.
    assert_eq!(problem(platform.delete(&key).await).await, (400, "invalid".into()));
    assert_eq!(platform.delete(&first).await.status(), StatusCode::NO_CONTENT);
    let play = platform.get(&format!("/play/{key}/files/720p.mp4")).send().await.unwrap();
    assert_eq!(play.status(), StatusCode::TEMPORARY_REDIRECT);
    // Now it does.
    assert_eq!(platform.delete(&key).await.status(), StatusCode::NO_CONTENT);
    let orders = platform.deleted_by(&orders_at(&node, 2).await);
    assert_eq!(orders, [(1, first.parse().unwrap()), (2, second.parse().unwrap())]);
    let (third, _) = platform.published("public").await;
    assert_eq!(platform.get(&format!("/play/{third}/index")).send().await.unwrap().status(), 307, "published anew");
}

#[tokio::test]
async fn an_upload_under_way_and_what_was_rejected_can_be_deleted_too() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Rejects).await;
    let platform = Platform::start(&[&node]).await;
    let pending = platform.register("public").await["id"].as_str().unwrap().to_owned();
    assert_eq!(platform.delete(&pending).await.status(), StatusCode::NO_CONTENT);
    let registered = platform.register("public").await;
    platform.send_file(&registered).await;
    let rejected = registered["id"].as_str().unwrap();
    platform.until(rejected, "rejected").await;
    assert_eq!(platform.delete(rejected).await.status(), StatusCode::NO_CONTENT);
    let list: Value = platform.as_ada(Method::GET, "/api/contents").send().await.unwrap().json().await.unwrap();
    assert_eq!(list, json!({"contents": [], "me": "ada"}));
    // Some of its blocks may be on nodes.
    let orders = platform.deleted_by(&orders_at(&node, 2).await);
    assert_eq!(orders, [(1, pending.parse().unwrap()), (2, rejected.parse().unwrap())]);
}

/// Parts of a film that was given up would lie on the nodes for ever.
#[tokio::test]
async fn what_the_platform_gives_up_is_ordered_away_and_dismissed_without_another_order() {
    let node = FakeNode::start("12D3a", 0.1, Temper::LiesAboutIndex).await;
    let platform = Platform::start(&[&node]).await;
    let registered = platform.register("public").await;
    platform.send_file(&registered).await;
    let id = registered["id"].as_str().unwrap();
    platform.until(id, "rejected").await;
    assert_eq!(platform.deleted_by(&orders_at(&node, 1).await), [(1, id.parse().unwrap())]);
    assert_eq!(platform.delete(id).await.status(), StatusCode::NO_CONTENT);
    let next = platform.register("public").await;
    let next = next["id"].as_str().unwrap();
    platform.delete(next).await;
    assert_eq!(platform.deleted_by(&orders_at(&node, 2).await)[1].1, next.parse().unwrap());
}

#[tokio::test]
async fn an_empty_file_that_no_node_knows_needs_no_order() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let platform = Platform::start(&[&node]).await;
    let empty = json!({"title": "Nothing", "visibility": "public", "size": 0});
    platform.as_ada(Method::POST, "/api/contents").json(&empty).send().await.unwrap();
    let list: Value = platform.as_ada(Method::GET, "/api/contents").send().await.unwrap().json().await.unwrap();
    assert_eq!(platform.delete(list["contents"][0]["id"].as_str().unwrap()).await.status(), StatusCode::NO_CONTENT);
    let (id, _) = platform.ready("public").await;
    platform.delete(&id).await;
    assert_eq!(platform.deleted_by(&orders_at(&node, 1).await), [(1, id.parse().unwrap())]);
}

#[tokio::test]
async fn a_node_that_was_down_gets_the_orders_when_it_is_back() {
    let there = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let mut away = FakeNode::start("12D3b", 0.9, Temper::Honest).await;
    let platform = Platform::start(&[&there, &away]).await;
    away.vanish();
    let mut deleted = Vec::new();
    for sequence in 1..=2 {
        let (id, _) = platform.ready("public").await;
        platform.delete(&id).await;
        deleted.push((sequence, id.parse().unwrap()));
    }
    assert_eq!(platform.deleted_by(&orders_at(&there, 2).await), deleted);
    away.come_back().await;
    assert_eq!(platform.deleted_by(&orders_at(&away, 2).await), deleted);
    assert_eq!(there.orders().len(), 2, "nobody gets an order twice");
}

#[tokio::test]
async fn orders_and_numbers_survive_a_restart_of_the_platform() {
    let mut node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let mut platform = Platform::start(&[&node]).await;
    let (first, _) = platform.ready("public").await;
    let (second, _) = platform.ready("public").await;
    platform.delete(&first).await;
    platform.until_settled(&node).await;
    node.vanish();
    platform.delete(&second).await;
    platform.restart().await;
    node.come_back().await;
    let both = [(1, first.parse().unwrap()), (2, second.parse().unwrap())];
    assert_eq!(platform.deleted_by(&orders_at(&node, 2).await), both, "each once");
    let (third, _) = platform.ready("public").await;
    platform.delete(&third).await;
    assert_eq!(platform.deleted_by(&orders_at(&node, 3).await)[2], (3, third.parse().unwrap()));
}

#[tokio::test]
async fn a_node_that_fails_is_asked_again_and_holds_up_nobody() {
    let good = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let full = FakeNode::start("12D3b", 0.9, Temper::Honest).await;
    full.refuse_orders(2);
    let platform = Platform::start(&[&good, &full]).await;
    let (id, _) = platform.ready("public").await;
    platform.delete(&id).await;
    orders_at(&good, 1).await;
    assert_eq!(platform.deleted_by(&orders_at(&full, 1).await), [(1, id.parse().unwrap())]);
}

#[tokio::test]
async fn a_node_restored_from_an_old_backup_gets_again_what_it_lacks() {
    let mut node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let mut platform = Platform::start(&[&node]).await;
    let mut deleted = Vec::new();
    for sequence in 1..=4 {
        deleted.push((sequence, platform.delete_one().await));
    }
    platform.until_settled(&node).await;
    // The second and the last are not in the backup.
    node.restart_with(|sequence| sequence % 2 == 1).await;
    let [first, second, third, fourth] = deleted[..] else { unreachable!() };
    assert_eq!(
        platform.deleted_by(&orders_at(&node, 4).await),
        [first, third, second, fourth],
        "the missing ones alone"
    );

    // While the platform is down, and all of them.
    platform.until_settled(&node).await;
    platform.shut_down().await;
    node.restart_with(|_| false).await;
    platform.start_again(PACE).await;
    assert_eq!(platform.deleted_by(&orders_at(&node, 4).await), deleted);
    platform.until_listed(&[&node]).await;
    let fifth = (5, platform.delete_one().await);
    assert_eq!(platform.deleted_by(&orders_at(&node, 5).await)[4], fifth);
}

#[tokio::test]
async fn a_restart_that_lost_nothing_costs_one_question() {
    let mut node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let mut platform = Platform::start(&[&node]).await;
    platform.delete_one().await;
    platform.until_settled(&node).await;
    let before = node.inquiries();
    node.restart_with(|_| true).await;
    platform.until_settled(&node).await;
    assert_eq!((node.orders().len(), node.inquiries()), (1, before + 1));
    // The answer is remembered, by a platform that was started anew as well.
    platform.restart().await;
    platform.until_listed(&[&node]).await;
    platform.delete_one().await;
    orders_at(&node, 2).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!((node.orders().len(), node.inquiries()), (2, before + 1));
}

/// More orders than one page holds, and a node that fails on the way.
#[tokio::test]
async fn many_lost_orders_come_again_in_spite_of_failures() {
    let mut node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let platform = Platform::start(&[&node]).await;
    for _ in 0..205 {
        let registered = platform.register("public").await;
        assert_eq!(platform.delete(registered["id"].as_str().unwrap()).await.status(), StatusCode::NO_CONTENT);
    }
    platform.until_settled(&node).await;
    let mut all = platform.deleted_by(&orders_at(&node, 205).await);
    all.sort_unstable();
    node.refuse_orders(1);
    node.restart_with(|sequence| sequence % 100 < 50).await;
    let mut again = platform.deleted_by(&orders_at(&node, 205).await);
    again.sort_unstable();
    assert_eq!(again, all);
}
