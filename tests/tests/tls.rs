//! A node that serves viewers over TLS.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use e2e::{Member, NodeOptions, Stage, Viewer, certificate, random_block};
use std::process::Command;

const BLOCK_BYTES: usize = 300_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_certificate_gives_out_https_addresses_that_curl_plays() {
    let files = tempfile::tempdir().unwrap();
    let (trusted, key) = certificate(files.path());
    let platform = Member::platform_key();
    let pem = platform.public_key().to_pem().unwrap();
    let options = NodeOptions { tls: Some((trusted.clone(), key)), ..NodeOptions::default() };
    let (stage, nodes) = Stage::with_nodes_and(vec![options], &pem).await;
    let member = Member::new(&stage, platform, 1);
    let blocks = vec![random_block(BLOCK_BYTES), random_block(BLOCK_BYTES)];
    let content = member.publish(&[nodes[0].address], 1, &[("film.mp4".to_owned(), blocks.clone())]).await;
    assert_eq!(nodes[0].client.node().await.unwrap().delivery_url, format!("https://{}", nodes[0].delivery));

    let url = Viewer::new().temporary_url(&member, &nodes[0], content).await.at("files/film.mp4").unwrap();
    for (option, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let mut curl = Command::new("curl");
        curl.args([option, "--silent", "--show-error", "--max-time", "60", "--write-out", "%{stderr}%{http_version}"]);
        let output = curl.arg("--cacert").arg(&trusted).arg(&url).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), version);
        assert!(output.stdout == blocks.concat(), "{} bytes came", output.stdout.len());
    }
    // Nobody is served without TLS.
    let plain = reqwest::get(url.replace("https://", "http://")).await;
    assert!(plain.is_err(), "{plain:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_certificate_cannot_be_used_says_why_and_does_not_start() {
    let files = tempfile::tempdir().unwrap();
    let (certificate, key) = certificate(files.path());
    let options = NodeOptions { tls: Some((certificate, key.clone())), ..NodeOptions::default() };
    let (stage, mut nodes) =
        Stage::with_nodes_and(vec![options], &Member::platform_key().public_key().to_pem().unwrap()).await;
    nodes[0].process.kill();
    let refused = || {
        let output = nodes[0].command(&stage.path(""), &["run"]);
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let mode = |mode| std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    mode(0o644);
    let error = refused();
    assert!(error.contains("delivery_tls_key") && error.contains("chmod 600"), "{error}");
    mode(0o600);
    std::fs::write(&key, "nothing").unwrap();
    let error = refused();
    assert!(error.contains("has no private key in PEM form"), "{error}");
}
