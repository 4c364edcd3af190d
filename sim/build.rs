//! Which commit the simulator was built from, for whoever wants to repeat a run.

use std::{path::Path, process::Command};

/// All that what a run does follows from.
const SOURCES: [&str; 10] = [
    "build.rs",
    "Cargo.toml",
    "src",
    "tests",
    "../Cargo.toml",
    "../Cargo.lock",
    "../chunkstore/block/Cargo.toml",
    "../chunkstore/block/src",
    "../dht/core/Cargo.toml",
    "../dht/core/src",
];

fn main() {
    let commit = git(&["rev-parse", "--short=12", "HEAD"]);
    // Without its locks, git leaves the index as it is.
    let status = ["--no-optional-locks", "status", "--porcelain", "--untracked-files=no", "--"];
    let changed = git(&[status.as_slice(), &SOURCES].concat()).is_some_and(|files| !files.is_empty());
    let dirty = if changed { "-dirty" } else { "" };
    println!("cargo::rustc-env=IMIRA_COMMIT={}{dirty}", commit.as_deref().unwrap_or("unknown"));
    SOURCES.iter().for_each(|source| println!("cargo::rerun-if-changed={source}"));
    // The log has a line for each commit and checkout. A file that is not there would be looked for by building each time.
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", file]).filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

/// What git says, if there is a git and a repository.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
