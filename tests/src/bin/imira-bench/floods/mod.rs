//! What an honest viewer waits while strangers attack the node, beside what it waits without them.

mod attack;
mod viewers;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::NodeOptions;

use crate::delivery::{CLIENTS, MIB, Origin, files, runtime};
use crate::measure::median;
use crate::report::{Goal, Row};
use crate::{Context, Step, Suite};
pub(crate) use attack::Attack;
use attack::Kind;

pub(crate) const SUITE: Suite = Suite {
    name: "floods",
    steps: &[
        Step { what: "10,000 half-open connections", run: |context| under(context, Kind::HalfOpen) },
        Step { what: "oversized heads and bodies", run: |context| under(context, Kind::Oversized) },
        Step { what: "bad signatures", run: |context| under(context, Kind::Signatures) },
        Step { what: "viewers who do not read", run: |context| under(context, Kind::Readers) },
    ],
};

const ROUNDS: usize = 5;
/// From the start of an attack until it counts: all of its connections are there, and the node has had the 5 s after which it cuts off who
/// takes nothing.
const BUILD_UP: Duration = Duration::from_secs(8);
const SEGMENT_BYTES: usize = 200_000;
const SEGMENTS: usize = 16;
/// Of the file that nobody reads: more than a connection keeps on its way.
const LARGE_BLOCKS: usize = 16;
/// Not less than any attack: connections, and the honest viewers' beside them.
const DESCRIPTORS: u64 = 16_000;

fn under(context: &Context, kind: Kind) -> Result<Vec<Row>> {
    e2e::raise_descriptors(DESCRIPTORS);
    let runtime = runtime()?;
    let mut all = files(&(0..SEGMENTS).map(|_| e2e::random_block(SEGMENT_BYTES)).collect::<Vec<_>>(), 1);
    all.push(("large".to_owned(), (0..LARGE_BLOCKS).map(|_| e2e::random_block(MIB)).collect()));
    // With the settings that a node has by itself, limits of an address included.
    let origin = runtime.block_on(Origin::with_files(&all, NodeOptions::default()));
    let (mut calm, mut attacked, mut descriptors) = (Vec::new(), Vec::new(), 0);
    for round in 0..=ROUNDS {
        context.progress.at(if round == 0 { "warming up".into() } else { format!("round {round} of {ROUNDS}") });
        let quiet = runtime.block_on(viewers::watch(&origin))?;
        let attackers = start(context, &origin, kind, &runtime)?;
        std::thread::sleep(BUILD_UP);
        let loud = runtime.block_on(viewers::watch(&origin))?;
        descriptors = descriptors.max(origin.node.process.descriptors());
        drop(attackers);
        until_gone(&origin)?;
        if round > 0 {
            calm.push(quiet);
            attacked.push(loud);
        }
    }
    ensure!(!origin.node.process.log().contains("panicked"), "a part of the node has panicked");
    let of = |runs: &[viewers::Waits], part: fn(&viewers::Waits) -> f64| median(runs.iter().map(part));
    let ratios = || attacked.iter().zip(&calm).map(|(loud, quiet)| loud.p99_ms / quiet.p99_ms);
    let spread = (ratios().fold(f64::INFINITY, f64::min), ratios().fold(0.0, f64::max));
    let what = kind.text();
    let p99 = (of(&attacked, |waits| waits.p99_ms), "ms");
    let p50 = (of(&attacked, |waits| waits.p50_ms), "ms");
    Ok(vec![
        Row::figure(
            &format!("{what}: p99 of a viewer"),
            p99,
            (of(&calm, |waits| waits.p99_ms), "the same without"),
            Goal::AtMost(3.0),
        )
        .with_spread(spread),
        Row::figure(
            &format!("{what}: p50 of a viewer"),
            p50,
            (of(&calm, |waits| waits.p50_ms), "the same without"),
            Goal::None,
        ),
        Row::figure(
            &format!("{what}: file descriptors of the node"),
            (descriptors as f64, ""),
            (20_000.0, "the usual limit"),
            Goal::AtMost(1.0),
        ),
    ])
}

/// The attackers' process, which ends when this is dropped.
struct Attackers(Child);

impl Drop for Attackers {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// In a process of its own that gives way to the honest viewers, so that what they wait for is the node.
fn start(context: &Context, origin: &Origin, kind: Kind, runtime: &tokio::runtime::Runtime) -> Result<Attackers> {
    let url = runtime.block_on(origin.urls(&["files/large".to_owned()]))?.remove(0);
    let request = context.folder.join("request.jws");
    std::fs::write(&request, origin.viewer.request(&origin.member, &origin.node, origin.content))?;
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &CLIENTS.to_string(), "nice", "-n", "19"]).arg(std::env::current_exe()?);
    command.args(["attack", "--kind", kind.name(), "--url", &url, "--control", &origin.node.control_url, "--request"]);
    command.arg(&request).stdin(Stdio::null());
    Ok(Attackers(command.spawn().context("the attackers do not start")?))
}

/// Waits until the node has closed what the attackers left, so that the next calm is one.
fn until_gone(origin: &Origin) -> Result<()> {
    for _ in 0..600 {
        if origin.node.process.descriptors() < 300 {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    anyhow::bail!("a minute after an attack the node has {} descriptors open", origin.node.process.descriptors())
}
