//! The program itself, as a shell starts it.

use std::process::{Command, Output, Stdio};

use imira_platform::deletion::Deletion;

use crate::Platform;
use crate::fake_node::{FakeNode, Temper};

const PROGRAM: &str = env!("CARGO_BIN_EXE_imira-platform");

fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().unwrap()
}

fn printed(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_shell_completes_the_commands() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = printed(&["completions", shell]);
        for word in ["imira-platform", "upload", "api-key-file"] {
            assert!(script.contains(word), "{shell} does not complete {word}");
        }
    }
    assert_eq!(run(&["completions", "abacus"]).status.code(), Some(2));
}

#[test]
fn each_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    assert!(printed(&["man"]).contains("imira\\-platform\\-upload(1)"));
    assert_eq!(printed(&["man", "--out", path]), "");
    for page in ["imira-platform.1", "imira-platform-upload.1", "imira-platform-user-add.1"] {
        let text = std::fs::read_to_string(folder.path().join(page)).unwrap();
        assert!(text.contains(".SH SYNOPSIS"), "{page}");
    }
    let missing = folder.path().join("missing");
    let refused = run(&["man", "--out", missing.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("cannot write manual pages into"), "{said}");
}

/// Runs the program as ada, with nobody to ask.
async fn as_ada(platform: &Platform, arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(PROGRAM);
    command.args(arguments).args(["--platform", &platform.url]).env("IMIRA_API_KEY", platform.ada.expose());
    command.stdin(Stdio::null()).output().await.unwrap()
}

fn complaint(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test]
async fn a_content_is_deleted_by_its_id_and_by_its_key() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let platform = Platform::start(&[&node]).await;
    let (first, key) = platform.published("public").await;
    let (second, _) = platform.published("public").await;

    let unasked = complaint(&as_ada(&platform, &["delete", &first]).await);
    assert!(unasked.contains("add --yes"), "{unasked}");
    assert_eq!(platform.show(&first).await["state"], "published");

    let several = complaint(&as_ada(&platform, &["delete", "--yes", &key]).await);
    assert!(several.contains("You published this film 2 times"), "{several}");

    for name in [&first, &key] {
        let deleted = as_ada(&platform, &["delete", "--yes", name]).await;
        assert!(deleted.status.success(), "{deleted:?}");
        assert_eq!(String::from_utf8(deleted.stdout).unwrap(), format!("deleted: {name}\n"));
    }
    for id in [&first, &second] {
        assert_eq!(platform.show(id).await["type"], "urn:imira:error:deleted");
    }
}

#[tokio::test]
async fn a_question_names_ones_own_contents_only() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let platform = Platform::start(&[&node]).await;
    let (id, key) = platform.published("public").await;
    let of_ada = |name: &str| Deletion::new(&platform.url, &platform.ada, name).unwrap();
    for name in [&id, &key] {
        let candidates = of_ada(name).candidates().await.unwrap();
        let shown: Vec<String> = candidates.iter().map(ToString::to_string).collect();
        assert_eq!(shown, [format!("\"Sintel\" (published, {id})")]);
    }
    let of_eve = Deletion::new(&platform.url, &platform.eve, &key).unwrap();
    assert!(of_eve.candidates().await.unwrap().is_empty());
    let refused = of_eve.run().await.unwrap_err().to_string();
    assert!(refused.contains("There is no such content"), "{refused}");
    platform.published("public").await;
    assert_eq!(of_ada(&key).candidates().await.unwrap().len(), 2);
}

#[tokio::test]
async fn what_is_no_content_or_no_platform_is_refused_with_a_reason() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let mut platform = Platform::start(&[&node]).await;
    let id = "0".repeat(32);
    let said = complaint(&as_ada(&platform, &["delete", "--yes", "../me"]).await);
    assert!(said.contains("../me names no content"), "{said}");
    let said = complaint(&as_ada(&platform, &["delete", "--yes", &id]).await);
    assert!(said.contains("There is no such content"), "{said}");
    platform.shut_down().await;
    let said = complaint(&as_ada(&platform, &["delete", "--yes", &id]).await);
    assert!(said.contains("no platform answers at"), "{said}");
    platform.url.clone_from(&node.url);
    let said = complaint(&as_ada(&platform, &["delete", "--yes", &id]).await);
    assert!(said.contains("is the address of a node"), "{said}");
}
