//! The daemon as its operator has it: commands, reload, stop, and what its control listener says.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use control_api::types::Readiness;
use control_api::{Clock, ErrorKind, PlatformKey, PlatformKeySize, RequestClaims, SystemClock, TokenRequest, UserKey};
use e2e::{Node, NodeOptions, Stage, certificate, clip, eventually, run, run_ok, run_tool};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const LIMIT: Duration = Duration::from_secs(60);
/// A stop takes 5 s at most; what is above is for a loaded machine.
const STOP_LIMIT: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_exchanged_by_a_reload_and_a_transfer_goes_on() {
    let (stage, nodes, platform) = Stage::with_platform(2).await;
    let published = platform.publish(&clip(&stage.path(""), 20));
    let node = &nodes[0];
    let (old, new) = (platform.key(), PlatformKey::generate(PlatformKeySize::Rsa2048).unwrap());
    let content = published.key;
    let mut slow = SlowReader::start(&stage, node, &old, &content.to_string()).await;

    let folder = node.data().join("platforms");
    fs::write(folder.join("new.pem"), new.public_key().to_pem().unwrap()).unwrap();
    reload(node, "platform is served from now on", 1).await;
    for key in [&old, &new] {
        assert_eq!(asked(&stage, node, key, content).await, None, "both are good while one takes the other's place");
    }
    // What the old key began goes on, until that key is taken away.
    slow.read_to_the_end().await;
    fs::remove_file(folder.join(format!("{}.pem", old.fingerprint()))).unwrap();
    reload(node, "platform is served no more", 1).await;
    assert_eq!(asked(&stage, node, &old, content).await, Some(ErrorKind::PlatformNotPinned));
    assert_eq!(asked(&stage, node, &new, content).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_changes_nothing() {
    let key = PlatformKey::generate(PlatformKeySize::Rsa2048).unwrap();
    let (stage, nodes) = Stage::with_nodes(1, &key.public_key().to_pem().unwrap()).await;
    let node = &nodes[0];
    let quota = || async { node.client.node().await.unwrap().storage.quota_bytes };
    let before = quota().await;
    let file = node.data().join("config.toml");
    let good = fs::read_to_string(&file).unwrap();
    let with = |name: &str, value: &str| {
        let exchange = |line: &str| match line.starts_with(&format!("{name} = ")) {
            true => format!("{name} = {value}\n"),
            false => format!("{line}\n"),
        };
        good.lines().map(exchange).collect::<String>()
    };
    // The quota is good, and something else is not.
    fs::write(&file, with("quota_bytes", "1000000").replace("replication = 2", "replication = 0")).unwrap();
    let stranger = PlatformKey::generate(PlatformKeySize::Rsa2048).unwrap();
    let pem = node.data().join("platforms/stranger.pem");
    fs::write(&pem, stranger.public_key().to_pem().unwrap()).unwrap();
    reload(node, "all stays as it was", 1).await;
    assert!(node.process.log().contains("replication is 0"), "{}", node.process.log());
    assert_eq!(quota().await, before);
    let content = chunkstore_block::ContentKey::from_bytes([1; 32]);
    assert_eq!(asked(&stage, node, &stranger, content).await, Some(ErrorKind::PlatformNotPinned));
    // And a key that is none.
    fs::write(&file, with("quota_bytes", "1000000")).unwrap();
    fs::write(&pem, "no key").unwrap();
    reload(node, "all stays as it was", 2).await;
    assert_eq!(quota().await, before);
    fs::remove_file(&pem).unwrap();

    fs::write(&file, with("quota_bytes", "1000000").replace("sync_seconds = 60", "sync_seconds = 61")).unwrap();
    reload(node, "the configuration was read anew", 1).await;
    assert_eq!(quota().await, 1_000_000);
    assert!(node.process.log().contains("wait for a restart"), "{}", node.process.log());
    assert!(node.process.log().contains("sync_seconds"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_shown_after_a_reload() {
    let files = tempfile::tempdir().unwrap();
    let (shown, key) = certificate(files.path());
    let old = files.path().join("old.pem");
    fs::copy(&shown, &old).unwrap();
    let options = NodeOptions { tls: Some((shown.clone(), key.clone())), ..NodeOptions::default() };
    let platform = PlatformKey::generate(PlatformKeySize::Rsa2048).unwrap();
    let (_stage, nodes) = Stage::with_nodes_and(vec![options], &platform.public_key().to_pem().unwrap()).await;
    let node = &nodes[0];
    let is_trusted = |certificate: &Path| {
        let url = format!("https://{}/healthz", node.delivery);
        let mut curl = Command::new("curl");
        let status = curl.args(["--silent", "--fail", "--max-time", "60", &url, "--cacert"]).arg(certificate).status();
        status.unwrap().success()
    };
    assert!(is_trusted(&old));
    certificate(files.path());
    reload(node, "the configuration was read anew", 1).await;
    assert!(is_trusted(&shown) && !is_trusted(&old));
    // One that cannot be used is passed over, and the last one shown.
    fs::write(&key, "nothing").unwrap();
    reload(node, "all stays as it was", 1).await;
    assert!(node.process.log().contains("certificate"), "{}", node.process.log());
    assert!(is_trusted(&shown));
}

/// A viewer that does not read holds nothing up; one that reads gets all that it began.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_transfers_end_and_cuts_those_that_do_not() {
    let (stage, mut nodes, platform) = Stage::with_platform(2).await;
    let published = platform.publish(&clip(&stage.path(""), 20));
    let (key, content) = (platform.key(), published.key.to_string());
    let mut reads = SlowReader::start(&stage, &nodes[0], &key, &content).await;
    let end = tokio::spawn(async move { reads.read_to_the_end().await });
    let _does_not = SlowReader::start(&stage, &nodes[1], &key, &content).await;
    for node in &mut nodes {
        // Both say that they ended well.
        node.process.stop(STOP_LIMIT);
    }
    end.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_video_goes_in_and_out_by_the_command_line() {
    let (stage, mut nodes, platform) = Stage::with_platform(2).await;
    let (home, control) = (stage.path(""), nodes[0].control_url.clone());
    let pem = home.join("platform.key.pem");
    fs::write(&pem, &*platform.key().to_pkcs8_pem().unwrap()).unwrap();
    let by_platform = ["--platform-key", pem.to_str().unwrap(), "--control", &control];
    let video = clip(&home, 5);
    let video = video.to_str().unwrap();
    let key = run_ok("imira-node", &[["put", video].as_slice(), &by_platform].concat());

    // The same by a grant that somebody hands on.
    let size = fs::metadata(video).unwrap().len().to_string();
    let grant = home.join("grant.json");
    fs::write(&grant, run_ok("imira-node", &[["token", "upload", "--size", &size].as_slice(), &by_platform].concat()))
        .unwrap();
    let again = run_ok("imira-node", &["put", video, "--grant", grant.to_str().unwrap(), "--json"]);
    let status: serde_json::Value = serde_json::from_str(&again).unwrap();
    assert_eq!(status["phase"], "ready");

    let files = run_ok("imira-node", &[["get", "content", &key].as_slice(), &by_platform].concat());
    let path = files.lines().map(|line| line.split('\t').next().unwrap()).find(|path| path.ends_with(".mp4")).unwrap();
    let out = home.join("out.mp4");
    run_ok(
        "imira-node",
        &[["get", "content", &key, path, "--out", out.to_str().unwrap()].as_slice(), &by_platform].concat(),
    );
    let url = run_ok(
        "imira-node",
        &[["token", "playback", &key, &format!("files/{path}")].as_slice(), &by_platform].concat(),
    );
    let served = reqwest::get(url).await.unwrap().bytes().await.unwrap();
    assert!(served == fs::read(&out).unwrap(), "the file is not what the node serves");

    // A stopped node's store has all blocks here, since R is 2.
    nodes[0].process.stop(STOP_LIMIT);
    let stored = home.join("stored.mp4");
    let command = ["get", "content", &key, path, "--out", stored.to_str().unwrap()];
    let output = nodes[0].command(&home, &command);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(served == fs::read(&stored).unwrap());
    let refused = nodes[0].command(&home, &command);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("must not exist"));
}

#[test]
fn settings_come_from_file_environment_and_flags() {
    let stage = Stage::new();
    let (data, network) = (stage.path("node"), stage.path("network.toml"));
    let data = data.to_str().unwrap();
    run_ok("imira-node", &["init", "--data", data, "--network", network.to_str().unwrap(), "--quota-bytes", "1000"]);
    let printed = |arguments: &[&str], environment: &[(&str, &str)]| {
        let output = run("imira-node", &[["run", "--print-config"].as_slice(), arguments].concat(), environment);
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (_, text) = printed(&["--data", data], &[]);
    assert!(text.contains("quota_bytes = 1000  # config.toml"), "{text}");
    let variables = [("IMIRA_NODE_DATA", data), ("IMIRA_NODE_QUOTA_BYTES", "2000"), ("IMIRA_NODE_TRANSCODES", "3")];
    let (_, text) = printed(&["--quota-bytes", "3000"], &variables);
    assert!(text.contains("quota_bytes = 3000  # flag, --quota-bytes"), "{text}");
    assert!(text.contains("transcodes = 3  # environment, IMIRA_NODE_TRANSCODES"), "{text}");
    let (succeeded, text) = printed(&["--data", data], &[("IMIRA_NODE_QOUTA_BYTES", "1")]);
    assert!(!succeeded && text.contains("is IMIRA_NODE_QUOTA_BYTES meant?"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_listener_says_how_it_is_and_to_whom() {
    let key = PlatformKey::generate(PlatformKeySize::Rsa2048).unwrap();
    let (_stage, nodes) = Stage::with_nodes_and(vec![json_log()], &key.public_key().to_pem().unwrap()).await;
    let (http, url) = (reqwest::Client::new(), &nodes[0].control_url);
    let answer = http.get(format!("{url}/readyz")).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    let readiness: Readiness = answer.json().await.unwrap();
    assert_eq!(readiness.reasons.iter().map(|one| one.reason.as_str()).collect::<Vec<_>>(), ["too-few-nodes"]);
    let metrics = http.get(format!("{url}/metrics")).send().await.unwrap().text().await.unwrap();
    for line in ["imira_storage_quota_bytes 107374182400", "imira_ready 0", "imira_peers 0"] {
        assert!(metrics.lines().any(|found| found == line), "no {line} in\n{metrics}");
    }
    // A web page under a name that was made to mean this machine.
    for path in ["/", "/v1/node", "/metrics"] {
        let rebound = http.get(format!("{url}{path}")).header("host", "evil.example:7301").send().await.unwrap();
        assert_eq!(rebound.status(), 421, "{path}");
        assert!(rebound.headers().get("access-control-allow-origin").is_none());
    }
    let log = nodes[0].process.log();
    let up = log.lines().find(|line| line.contains("node is up")).unwrap();
    let up: serde_json::Value = serde_json::from_str(up).unwrap();
    assert_eq!(up["fields"]["peer_id"], nodes[0].address.id.to_base58());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_s_page_shows_a_running_node_at_every_width() {
    let (stage, nodes, platform) = Stage::with_platform(2).await;
    platform.publish(&clip(&stage.path(""), 5));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("platform/web/e2e/operator.mjs");
    let output = run_tool("node", &[script.to_str().unwrap(), "--url", &nodes[0].control_url]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

fn json_log() -> NodeOptions {
    NodeOptions { settings: vec![("log_format", "\"json\"".to_owned())], ..NodeOptions::default() }
}

/// Sends SIGHUP and waits until the log says so for the `count`th time.
async fn reload(node: &Node, says: &str, count: usize) {
    node.process.signal(rustix::process::Signal::HUP);
    eventually(says, LIMIT, || async { (node.process.log().matches(says).count() >= count).then_some(()) }).await;
}

fn claims(stage: &Stage, node: &Node, user: &UserKey, content: chunkstore_block::ContentKey) -> RequestClaims {
    RequestClaims {
        node: node.address.id.to_base58().parse().unwrap(),
        network: stage.network_id(),
        viewer_key: user.jwk().unwrap(),
        request: TokenRequest::playback(content),
        issued: SystemClock.unix_seconds(),
        lifetime: 30,
    }
}

/// Asks for a playback token; the refusal, if it is one.
async fn asked(
    stage: &Stage,
    node: &Node,
    key: &PlatformKey,
    content: chunkstore_block::ContentKey,
) -> Option<ErrorKind> {
    let request = key.sign_request(&claims(stage, node, &UserKey::generate().unwrap(), content)).unwrap();
    let error = node.client.request_playback(&request).await.err()?;
    Some(error.problem().unwrap_or_else(|| panic!("{error}")).kind)
}

/// A viewer that has begun a file and reads no further for now.
struct SlowReader {
    stream: TcpStream,
    left: usize,
}

impl SlowReader {
    async fn start(stage: &Stage, node: &Node, key: &PlatformKey, content: &str) -> Self {
        let pem = stage.path("slow.key.pem");
        fs::write(&pem, &*key.to_pkcs8_pem().unwrap()).unwrap();
        let by_platform = ["--platform-key", pem.to_str().unwrap(), "--control", &node.control_url];
        let files = run_ok("imira-node", &[["get", "content", content].as_slice(), &by_platform].concat());
        let size = |line: &str| line.split('\t').nth(1).unwrap().parse::<usize>().unwrap();
        let largest = files.lines().max_by_key(|line| size(line)).unwrap();
        let path = format!("files/{}", largest.split('\t').next().unwrap());
        let url = run_ok("imira-node", &[["token", "playback", content, &path].as_slice(), &by_platform].concat());
        let path = url.splitn(4, '/').nth(3).unwrap();
        let mut stream = TcpStream::connect(node.delivery).await.unwrap();
        let request = format!("GET /{path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
        Self { stream, left: size(largest) }
    }

    async fn read_to_the_end(&mut self) {
        let mut body = Vec::new();
        self.stream.read_to_end(&mut body).await.unwrap();
        assert_eq!(body.len(), self.left, "the transfer was cut off");
    }
}
