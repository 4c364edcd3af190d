//! Which commit the simulator was built from, for whoever wants to repeat a run.

use std::process::Command;

fn main() {
    let said = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    let commit =
        said.ok().filter(|output| output.status.success()).and_then(|output| String::from_utf8(output.stdout).ok());
    println!("cargo::rustc-env=IMIRA_COMMIT={}", commit.as_deref().map_or("unknown", str::trim));
    println!("cargo::rerun-if-changed=../.git/HEAD");
    println!("cargo::rerun-if-changed=../.git/refs/heads");
}
