//! The program itself, as a shell starts it.

use std::process::{Command, Output, Stdio};

use imira_platform::deletion::Deletion;
use imira_platform::upload;
use reqwest::Method;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::Platform;
use crate::fake_node::{FakeNode, Temper};
use crate::uploads::job;

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

/// Starts an upload as ada, reads its standard error up to a line that contains `until`, interrupts it, and returns the rest.
async fn interrupted_upload(platform: &Platform, until: &str) -> String {
    let file = platform.data.path().join("video.mkv");
    std::fs::write(&file, "a video, say").unwrap();
    let mut command = tokio::process::Command::new(PROGRAM);
    command.args(["upload", "--platform", &platform.url]).arg(&file).env("IMIRA_API_KEY", platform.ada.expose());
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    while !lines.next_line().await.unwrap().unwrap().contains(until) {}
    let id = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let mut said = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        said.push_str(&line);
    }
    assert_eq!(child.wait().await.unwrap().code(), Some(1), "{said}");
    said
}

async fn states(platform: &Platform) -> Vec<String> {
    let answer = platform.as_ada(Method::GET, "/api/contents").send().await.unwrap();
    let list: Value = answer.json().await.unwrap();
    list["contents"].as_array().unwrap().iter().map(|content| content["state"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn an_upload_that_is_interrupted_leaves_nothing() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Busy).await;
    let platform = Platform::start(&[&node]).await;
    let said = interrupted_upload(&platform, "trying again").await;
    assert!(said.contains("is deleted"), "{said}");
    assert_eq!(states(&platform).await, [""; 0]);
}

#[tokio::test]
async fn an_upload_that_cannot_be_deleted_is_named_with_the_command_that_does() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Busy).await;
    let mut platform = Platform::start(&[&node]).await;
    let job = job(&platform, true);
    let url = platform.url.clone();
    // Nothing interrupts the registering, nor the deleting.
    let mut calls = 0;
    let gone = async || {
        calls += 1;
        if calls != 2 {
            std::future::pending::<()>().await;
        }
        platform.shut_down().await;
    };
    let said = upload::run_until(&job, gone).await.unwrap_err().to_string();
    assert!(said.contains("no platform answers"), "{said}");
    assert!(said.contains(&format!("imira-platform delete --platform {url} ")), "{said}");
}

#[tokio::test]
async fn a_file_that_has_been_sent_is_processed_without_the_command() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let platform = Platform::start(&[&node]).await;
    // Registering and sending are the first two things that can be interrupted.
    let mut undisturbed = 2_usize;
    let later = async || {
        if let Some(left) = undisturbed.checked_sub(1) {
            undisturbed = left;
            std::future::pending().await
        }
    };
    let said = upload::run_until(&job(&platform, true), later).await.unwrap_err().to_string();
    let list = platform.as_ada(Method::GET, "/api/contents").send().await.unwrap().json::<Value>().await.unwrap();
    let id = list["contents"][0]["id"].as_str().unwrap();
    assert!(said.contains(&format!("imira-platform delete --platform {} {id}", platform.url)), "{said}");
    platform.until(id, "ready").await;
}
