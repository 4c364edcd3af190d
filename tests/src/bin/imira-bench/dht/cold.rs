//! How long one block takes from a holder that is known and to which there is no connection yet.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::plane::Served;
use super::{BODIES, MIB, runtime};
use crate::Context;
use crate::report::{Goal, Row};

/// Enough for a 99th percentile: ten are slower.
const FETCHES: usize = 1_000;
/// As many before them do not count.
const WARM_UP: usize = 100;

pub(super) fn latency(context: &Context) -> Result<Vec<Row>> {
    context.progress.at(format!("{FETCHES} fetches, each over a connection of its own"));
    let mut ms = runtime()?.block_on(fetch_all())?;
    ms.sort_by(f64::total_cmp);
    let at = |percent: usize| ms[ms.len() * percent / 100];
    Ok(vec![
        Row::figure("cold 1 MiB block, handshake, hash: p50", (at(50), "ms"), (3.0, "goal"), Goal::AtMost(1.0)),
        Row::figure("the same: p99", (at(99), "ms"), (10.0, "goal"), Goal::AtMost(1.0)),
    ])
}

async fn fetch_all() -> Result<Vec<f64>> {
    let served = Served::start().await?;
    let mut ms = Vec::with_capacity(FETCHES);
    for at in 0..WARM_UP + FETCHES {
        // Its keys are made before the clock starts, as in a node that has been up for a while.
        let client = served.client(1, 1)?;
        let begun = Instant::now();
        let body = client.get(served.peer, BODIES[at % BODIES.len()].0).await?;
        let taken = begun.elapsed().as_secs_f64() * 1e3;
        ensure!(body.len() == MIB, "a block of another length came");
        if at >= WARM_UP {
            ms.push(taken);
        }
    }
    Ok(ms)
}
