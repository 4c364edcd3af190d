//! Reads of remote blocks by a member that has none, with both holders up and with one that does not answer.

use std::time::Instant;

use anyhow::Result;
use chunkstore_block::BlockId;
use e2e::Reader;
use rustix::process::Signal;

use super::nodes::{Network, R};
use super::{MIB, WRITERS, runtime};
use crate::Context;
use crate::measure::median;
use crate::report::{Goal, Row};

const BLOCKS: usize = 60;

/// The added latency is that of a block whose nearest holder is silent and was not found out before: each read is by a reader that
/// has just come.
pub(super) fn black_hole(context: &Context) -> Result<Vec<Row>> {
    context.progress.at("reading with both holders, then with one of them frozen".to_owned());
    let (quick, slow, extra) = runtime()?.block_on(measure())?;
    Ok(vec![
        Row::figure(
            "one of two holders is silent: added p50",
            ((slow - quick) * 1e3, "ms"),
            (150.0, "goal"),
            Goal::AtMost(1.0),
        ),
        Row::figure("the same: duplicate bytes", (extra * 100.0, "%"), (5.0, "goal"), Goal::AtMost(1.0)),
        Row::figure("a remote block, both holders up: p50", (quick * 1e3, "ms"), (1.0, "ms"), Goal::None),
    ])
}

async fn measure() -> Result<(f64, f64, f64)> {
    let network = Network::start(3).await;
    network.put(BLOCKS, MIB, WRITERS).await?;
    // Blocks whose nearest holder is the one that will be frozen.
    let addresses: Vec<_> = network.nodes.iter().map(|node| node.address).collect();
    let frozen = &network.nodes[0];
    let stored = frozen.stored().await;
    let nearest = |id: &BlockId| e2e::ranked(id, &addresses)[0].id == frozen.address.id;
    let blocks: Vec<_> = stored.iter().map(|block| block.id).filter(nearest).collect();
    let quick = read(&network, &blocks).await?;
    frozen.process.signal(Signal::STOP);
    let slow = read(&network, &blocks).await?;
    frozen.process.signal(Signal::CONT);
    Ok((quick.p50, slow.p50, slow.duplicates.max(quick.duplicates)))
}

struct Reads {
    p50: f64,
    /// Bytes that came beside those that were needed, as a part of these.
    duplicates: f64,
}

/// Each block by a reader of its own, so that none knows yet who is silent.
async fn read(network: &Network, blocks: &[BlockId]) -> Result<Reads> {
    let (mut seconds, mut received, mut needed) = (Vec::new(), 0, 0);
    let addresses: Vec<_> = network.nodes.iter().map(|node| node.address).collect();
    let bootstrap: Vec<_> = network.nodes.iter().map(|node| node.multiaddr.clone()).collect();
    for id in blocks {
        let reader = Reader::join(&network.stage, &addresses, &bootstrap, R).await.peers;
        let begun = Instant::now();
        needed += reader.fetch(*id).await?.len() as u64;
        seconds.push(begun.elapsed().as_secs_f64());
        received += reader.client().received_bytes();
    }
    Ok(Reads { p50: median(seconds.into_iter()), duplicates: received.saturating_sub(needed) as f64 / needed as f64 })
}
