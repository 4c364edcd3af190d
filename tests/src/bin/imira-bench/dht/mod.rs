//! The block plane: blocks of 1 MiB from one node to another over loopback, beside plain TCP and libp2p's own streams.
//!
//! Both ends are in this process. Bodies are in memory, random and distinct; what comes is checked against its id.

mod cold;
mod libp2p_streams;
mod plain;
mod plane;
mod relay;

use std::sync::{Arc, LazyLock};

use anyhow::Result;
use bytes::Bytes;
use chunkstore_block::BlockId;

use crate::measure::{Compared, alternate};
use crate::report::{Goal, Row};
use crate::{Context, Step, Suite};

pub(crate) const SUITE: Suite = Suite {
    name: "dht",
    steps: &[
        Step { what: "1 MiB blocks over one connection, against plain TCP", run: against_tcp },
        Step { what: "1 MiB blocks over one connection, against libp2p", run: against_libp2p },
        Step { what: "a cold block", run: cold::latency },
        Step { what: "bytes on the wire", run: relay::bytes_on_the_wire },
    ],
};

const MIB: usize = 1 << 20;
/// More than the processor's cache holds, and little enough to stay mapped.
const BLOCKS: usize = 64;
/// Fetches in a run.
const FETCHES: usize = 512;
/// Requests under way at a time, ours and libp2p's.
const UNDER_WAY: usize = 4;

type Blocks = Arc<Vec<(BlockId, Bytes)>>;

/// Made once, before any clock starts.
static BODIES: LazyLock<Blocks> = LazyLock::new(|| Arc::new((0..BLOCKS).map(|_| random_block()).collect()));

fn random_block() -> (BlockId, Bytes) {
    let body = e2e::random_block(MIB);
    (BlockId::of(&body), body)
}

fn against_tcp(context: &Context) -> Result<Vec<Row>> {
    let runtime = runtime()?;
    let ours = runtime.block_on(plane::Pair::start(UNDER_WAY))?;
    let alone = runtime.block_on(plane::Pair::start(1))?;
    let reference = plain::Pair::start()?;
    let row = |what, pair: &plane::Pair, under_way, goal| -> Result<Row> {
        let fetch = || runtime.block_on(pair.fetch(FETCHES, under_way));
        let compared = alternate(context.progress, fetch, || reference.fetch(FETCHES))?;
        Ok(Row::speed(what, "plain TCP request/response", goal, &compared))
    };
    Ok(vec![
        row("get 1 MiB, verified, 1 connection", &ours, UNDER_WAY, Goal::AtLeast(0.3))?,
        row("the same, one request at a time", &alone, 1, Goal::None)?,
    ])
}

fn against_libp2p(context: &Context) -> Result<Vec<Row>> {
    let runtime = runtime()?;
    let ours = runtime.block_on(plane::Pair::start(UNDER_WAY))?;
    let theirs = runtime.block_on(libp2p_streams::Pair::start())?;
    let compare = |verify| {
        alternate(
            context.progress,
            || runtime.block_on(ours.fetch(FETCHES, UNDER_WAY)),
            || runtime.block_on(theirs.fetch(FETCHES, verify)),
        )
    };
    let cpu = |what, compared: &Compared, reference_is, goal| {
        let (ours, reference) = (compared.ours.cpu_per_gib(), compared.reference.cpu_per_gib());
        Row::figure(what, (ours, "CPU-s/GiB"), (reference, reference_is), goal).with_spread(compared.cpu_spread())
    };
    let (verified, bare) = (compare(true)?, compare(false)?);
    Ok(vec![
        cpu("get 1 MiB, verified: CPU of both ends", &verified, "libp2p TCP+Noise+yamux, verified", Goal::AtMost(0.65)),
        cpu("the same, against unverified streams", &bare, "libp2p TCP+Noise+yamux, no hash", Goal::None),
        Row::speed("the same: speed", "libp2p TCP+Noise+yamux, verified", Goal::None, &verified),
    ])
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Runtime::new()?)
}
