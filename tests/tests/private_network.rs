//! A network with an authority, as its operator works with it; and a network whose first node is gone.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use e2e::{Node, NodeOptions, Stage, eventually, run_ok};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);

struct Private {
    stage: Stage,
    network: PathBuf,
    authority: PathBuf,
}

impl Private {
    fn new() -> Self {
        let stage = Stage::new();
        let (network, authority) = (stage.path("private.toml"), stage.path("authority.toml"));
        run_ok("imira-node", &["network", "new", "--out", text(&network), "--authority", text(&authority)]);
        Self { stage, network, authority }
    }

    /// A node that has no certificate, and ends at once for that reason.
    async fn stranger(&self, bootstrap: &[&Node]) -> Node {
        let options = NodeOptions { network: Some(self.network.clone()), ..NodeOptions::brisk() };
        let bootstrap: Vec<_> = bootstrap.iter().map(|node| node.multiaddr.clone()).collect();
        let mut node = self.stage.start_node(&options, self.stage.free_address(), &bootstrap);
        let begun = Instant::now();
        while !node.process.has_ended() {
            assert!(begun.elapsed() < SOON, "it runs without a certificate");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(node.process.log().contains("imira-node network issue"), "{}", node.process.log());
        node
    }

    async fn member(&self, bootstrap: &[&Node]) -> Node {
        let mut node = self.stranger(bootstrap).await;
        let issue = ["network", "issue", "--authority", text(&self.authority), "--network", text(&self.network)];
        assert!(node.command(self.folder(), &issue).status.success());
        node.restart();
        node
    }

    /// Takes a node's certificate back; the list for it.
    fn revoke(&self, node: &Node) -> PathBuf {
        let list = self.stage.path("list");
        let certificate = file(node, "certificate");
        let files = ["--network", text(&self.network), "--list", text(&list), text(&certificate)];
        run_ok("imira-node", &[&["network", "revoke", "--authority", text(&self.authority)][..], &files].concat());
        list
    }

    fn folder(&self) -> &Path {
        self.network.parent().unwrap()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn file(node: &Node, name: &str) -> PathBuf {
    node.store().parent().unwrap().join(name)
}

async fn knows(node: &Node, other: &Node) -> bool {
    let id = other.address.id.to_base58();
    node.client.peers().await.unwrap().iter().any(|peer| peer.peer_id.as_str() == id)
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_those_with_a_certificate_until_it_is_revoked() {
    let private = Private::new();
    let first = private.member(&[]).await;
    let second = private.member(&[&first]).await;
    let third = private.member(&[&first]).await;
    for node in [&first, &second, &third] {
        node.wait_for_peers(2).await;
    }
    let list = private.revoke(&second);
    std::fs::copy(list, file(&first, "revocations")).unwrap();
    let begun = Instant::now();
    eventually("the revoked member's end", SOON, || async { (!knows(&first, &second).await).then_some(()) }).await;
    // 2 s until the file is looked at, and 10 s from then on.
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    let refused = first.client.node().await.unwrap().refused;
    let revoked = refused.udp.get("revoked_certificate").copied().unwrap_or(0);
    assert!(revoked > 0, "{refused:?}");
    // It tries to come back, and is refused; the two others go on.
    eventually("a refusal at the gate", SOON, || async {
        first.process.log().contains("has been revoked").then_some(())
    })
    .await;
    assert!(!knows(&first, &second).await && knows(&first, &third).await);
    eventually("the list at the third node", SOON, || async { file(&third, "revocations").exists().then_some(()) })
        .await;
    assert!(!first.process.log().contains(&secret(&private.authority)), "the authority's secret is in a log");
}

/// Two authorities each issue list number 1, and each list comes to another node: the sums of the numbers were equal, and nobody
/// asked.
#[tokio::test(flavor = "multi_thread")]
async fn lists_of_two_authorities_with_the_same_number_reach_all_nodes() {
    let mut private = Private::new();
    let second = private.stage.path("second-authority.toml");
    run_ok("imira-node", &["network", "authority", "new", "--out", text(&second)]);
    let key = run_ok("imira-node", &["network", "authority", "show", text(&second)]);
    let known = std::fs::read_to_string(&private.network).unwrap();
    std::fs::write(&private.network, known.replace("authorities = [", &format!("authorities = [\"{}\", ", key.trim())))
        .unwrap();
    let nodes = [private.member(&[]).await, private.member(&[]).await];
    let revoke = |authority: &Path, list: &str| {
        let list = private.stage.path(list);
        let files = ["--network", text(&private.network), "--list", text(&list), "00112233445566778899aabbccddeeff"];
        run_ok("imira-node", &[&["network", "revoke", "--authority", text(authority)][..], &files].concat());
        list
    };
    let lists = [revoke(&private.authority, "first"), revoke(&second, "second")];
    for (list, node) in lists.iter().zip(&nodes) {
        std::fs::copy(list, file(node, "revocations")).unwrap();
    }
    private.authority = second;
    let last = private.member(&[&nodes[0], &nodes[1]]).await;
    let both: u64 = lists.iter().map(|list| std::fs::metadata(list).unwrap().len()).sum();
    for node in nodes.iter().chain([&last]) {
        eventually("both lists at every node", SOON, || async {
            std::fs::metadata(file(node, "revocations")).is_ok_and(|kept| kept.len() == both).then_some(())
        })
        .await;
    }
}

/// The value of `secret = "..."`.
fn secret(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    let line = text.lines().find(|line| line.starts_with("secret")).unwrap();
    line.split('"').nth(1).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_nothing_wrong_with_a_node_that_runs_or_is_stopped_and_what_is_wrong_with_a_stranger() {
    let private = Private::new();
    let first = private.member(&[]).await;
    let second = private.member(&[&first]).await;
    let mut third = private.member(&[&first]).await;
    for node in [&first, &second, &third] {
        node.wait_for_peers(2).await;
    }
    third.process.stop(Duration::from_secs(10));
    let doctor = |node: &Node| node.command(private.folder(), &["doctor"]);
    // Two that have not asked before: whoever asks is called back once in 10 s.
    for (node, running) in [(&second, true), (&third, false)] {
        let examined = doctor(node);
        let said = printed(&examined);
        assert_eq!(examined.status.code(), Some(0), "running: {running}\n{said}");
        assert!(said.contains("reached this node over TCP and UDP"), "running: {running}\n{said}");
        assert!(said.contains("ok    membership: this node has a certificate"), "{said}");
        assert_eq!(said.contains("the node is running"), running, "{said}");
    }
    let stranger = private.stranger(&[&first]).await;
    let examined = doctor(&stranger);
    assert_eq!(examined.status.code(), Some(1), "{}", printed(&examined));
    assert!(printed(&examined).contains("FAIL  membership"), "{}", printed(&examined));
}

fn printed(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The third met the second by way of the first, which was its only bootstrap peer and is gone for good.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_comes_back_when_its_bootstrap_peers_are_gone() {
    let stage = Stage::new();
    let mut nodes = Vec::<Node>::new();
    for _ in 0..3 {
        let bootstrap: Vec<_> = nodes.first().map(|first| first.multiaddr.clone()).into_iter().collect();
        nodes.push(stage.start_node(&NodeOptions::brisk(), stage.free_address(), &bootstrap));
    }
    for node in &nodes {
        node.wait_for_peers(2).await;
    }
    let [mut first, second, mut third] = <[Node; 3]>::try_from(nodes).ok().unwrap();
    third.process.stop(Duration::from_secs(10));
    first.process.kill();
    third.restart();
    eventually("the third knowing the second", SOON, || async {
        third.client.node().await.ok()?;
        knows(&third, &second).await.then_some(())
    })
    .await;
}
