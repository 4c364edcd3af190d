//! Whole nodes, as processes of their own: blocks put, fetched, repaired, and read past a node that does not answer.

mod nodes;
mod reads;
mod tcp;

use std::time::Duration;

use anyhow::Result;

use crate::measure::{median, settle};
use crate::report::{Goal, Row};
use crate::{Context, Step, Suite};
use nodes::{Cost, Network};

pub(crate) const SUITE: Suite = Suite {
    name: "network",
    steps: &[
        Step { what: "256 MiB fetched by a node that has none of it", run: fetched },
        Step { what: "256 x 1 MiB put on two of three nodes", run: put },
        Step { what: "a node dies: 10,000 blocks of 64 KiB on five", run: died },
        Step { what: "a restart within the grace period", run: restarted },
        Step { what: "one of two holders does not answer", run: reads::black_hole },
        Step { what: "lookups to place 10,000 blocks on 1,000 nodes", run: lookups },
        Step { what: "a digest of 100,000 blocks", run: digest },
    ],
};

const MIB: usize = 1 << 20;
const BLOCKS: usize = 256;
/// Whole networks are started for each round, so there are fewer of them than elsewhere.
const ROUNDS: usize = 5;
/// Blocks under way at a time.
const WRITERS: usize = 8;

/// A node joins one that has everything: with R = 2, all of it is to be on both.
fn fetched(context: &Context) -> Result<Vec<Row>> {
    let bytes = (BLOCKS * MIB) as u64;
    let (mut ours, mut plain, mut peaks) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        context.progress.at(shown(round));
        let reference = tcp::stream(bytes)?;
        let (cost, peak_bytes) = runtime()?.block_on(fetch_once())?;
        settle(&context.folder)?;
        if round > 0 {
            ours.push(cost);
            plain.push(reference);
            peaks.push(peak_bytes);
        }
    }
    let speed = |costs: &[Cost]| median(costs.iter().map(|cost| cost.mib_per_s(bytes)));
    let ratios = || ours.iter().zip(&plain).map(|(ours, plain)| plain.seconds / ours.seconds);
    let spread = (ratios().fold(f64::INFINITY, f64::min), ratios().fold(0.0, f64::max));
    let cpu = median(ours.iter().map(|cost| cost.cpu_per_gib(bytes)));
    let peak = median(peaks.iter().map(|peak| *peak as f64 / 1e6));
    Ok(vec![
        Row::figure(
            "fetch 256 MiB, verified and durable",
            (speed(&ours), "MiB/s"),
            (speed(&plain), "one TCP stream on loopback"),
            Goal::AtLeast(0.15),
        )
        .with_spread(spread),
        Row::figure("the same: CPU of both ends", (cpu, "CPU-s/GiB"), (3.0, "goal"), Goal::AtMost(1.0)),
        Row::figure("the same: peak memory of a node", (peak, "MB"), (150.0, "goal"), Goal::AtMost(1.0)),
    ])
}

async fn fetch_once() -> Result<(Cost, u64)> {
    let mut network = Network::start(1).await;
    network.put_on(0, BLOCKS, MIB).await?;
    network.join();
    let cost = network.until_pulled(1, BLOCKS as u64).await?;
    Ok((cost, network.peak_memory_bytes()))
}

fn put(context: &Context) -> Result<Vec<Row>> {
    let bytes = (BLOCKS * MIB) as u64;
    let (mut costs, mut plain) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        context.progress.at(shown(round));
        // Two copies of everything, as the nodes write.
        let reference = tcp::append_and_sync(&context.folder, 2 * BLOCKS, MIB)?;
        settle(&context.folder)?;
        let cost = runtime()?.block_on(async {
            let network = Network::start(3).await;
            network.put(BLOCKS, MIB, WRITERS).await
        })?;
        settle(&context.folder)?;
        if round > 0 {
            costs.push(cost);
            plain.push(reference);
        }
    }
    let speed = median(costs.iter().map(|cost| cost.mib_per_s(bytes)));
    let disk = median(plain.iter().map(|cost| cost.mib_per_s(bytes)));
    let cpu = median(costs.iter().map(|cost| cost.cpu_per_gib(bytes)));
    Ok(vec![
        Row::figure("put, R = 2 of 3, 8 at a time", (speed, "MiB/s"), (250.0, "goal"), Goal::AtLeast(1.0)),
        Row::figure(
            "the same, against the disk",
            (speed, "MiB/s"),
            (disk, "both copies by append + fdatasync"),
            Goal::None,
        ),
        Row::figure("the same: CPU of all nodes", (cpu, "CPU-s/GiB"), (6.0, "goal"), Goal::AtMost(1.0)),
    ])
}

fn died(context: &Context) -> Result<Vec<Row>> {
    let (count, bytes) = if context.quick { (1_000, 64 << 10) } else { (10_000, 64 << 10) };
    context.progress.at("storing the blocks".to_owned());
    let death = runtime()?.block_on(async {
        let mut network = Network::start(5).await;
        network.put(count, bytes, WRITERS).await?;
        context.progress.at("killed one; waiting for its grace period and for the copies".to_owned());
        network.kill(2).await
    })?;
    let moved = death.moved_bytes as f64 / death.missing_bytes as f64;
    let what = format!("node death to full R, {count} blocks");
    Ok(vec![
        Row::figure(&what, (death.seconds, "s"), (60.0, "goal, from the end of the grace period"), Goal::AtMost(1.0)),
        Row::figure("the same: bytes moved", (moved, "x missing"), (1.2, "goal"), Goal::AtMost(1.0)),
    ])
}

fn restarted(context: &Context) -> Result<Vec<Row>> {
    context.progress.at("restarting a node".to_owned());
    let moved = runtime()?.block_on(async {
        let mut network = Network::start(4).await;
        network.put(BLOCKS, 64 << 10, WRITERS).await?;
        network.restart(1).await
    })?;
    Ok(vec![Row::absolute("restart within grace: blocks moved", (moved as f64, "blocks"), Goal::FigureAtMost(0.0))])
}

fn lookups(context: &Context) -> Result<Vec<Row>> {
    context.progress.at("placing".to_owned());
    let lookups = nodes::lookups_to_place(10_000, 1_000, 2) as f64;
    Ok(vec![Row::figure(
        "lookups to place 10,000 blocks, 1,000 nodes",
        (lookups, "lookups"),
        (200.0, "goal"),
        Goal::AtMost(1.0),
    )])
}

fn digest(context: &Context) -> Result<Vec<Row>> {
    context.progress.at("summing".to_owned());
    let millis = median((0..20).map(|_| nodes::digest_seconds(100_000) * 1e3));
    let figure = Row::figure("a digest of 100,000 blocks", (millis, "ms"), (10.0, "goal"), Goal::AtMost(1.0));
    Ok(vec![figure])
}

fn shown(round: usize) -> String {
    if round == 0 { "warming up".to_owned() } else { format!("round {round} of {ROUNDS}") }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Runtime::new()?)
}

/// Longer than anything here takes on a loaded machine.
const LIMIT: Duration = Duration::from_secs(300);
