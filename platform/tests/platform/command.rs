//! The program itself, as a shell starts it.

use std::process::{Command, Output};

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
