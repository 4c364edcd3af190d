//! How long a viewer waits for the first byte of a segment that this node does not have.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::{Remote, file_paths, runtime};
use crate::Context;
use crate::report::{Goal, Row};

const SEGMENTS: usize = 100;
/// A segment of 4 s at 6 Mbit/s.
const BLOCKS: usize = 3;
/// The cheapest viewer: one connection, kept. Of each segment all is read, and the first byte is timed.
pub(super) fn byte(context: &Context) -> Result<Vec<Row>> {
    context.progress.at("reading segments of 3 MiB, each once".to_owned());
    let mut millis = runtime()?.block_on(measure())?;
    millis.sort_by(f64::total_cmp);
    let quantile = |part: f64| millis[((millis.len() - 1) as f64 * part).round() as usize];
    let row = |what: &str, part, goal| Row::figure(what, (quantile(part), "ms"), (goal, "goal"), Goal::AtMost(1.0));
    Ok(vec![
        row("first byte, cold remote segment of 3 MiB: p50", 0.5, 50.0),
        row("first byte, cold remote segment of 3 MiB: p99", 0.99, 200.0),
    ])
}

async fn measure() -> Result<Vec<f64>> {
    let (remote, bodies) = Remote::start(SEGMENTS, BLOCKS).await?;
    let paths = file_paths(SEGMENTS);
    let viewer = reqwest::Client::new();
    // The index comes first, as with every player.
    viewer.get(&remote.urls(&["index".to_owned()]).await?[0]).send().await?.error_for_status()?.bytes().await?;
    let mut millis = Vec::new();
    for (paths, bodies) in paths.chunks(20).zip(bodies.chunks(20 * BLOCKS)) {
        for (url, blocks) in remote.urls(paths).await?.iter().zip(bodies.chunks(BLOCKS)) {
            let begun = Instant::now();
            let mut answer = viewer.get(url).send().await?.error_for_status()?;
            let mut received = answer.chunk().await?.unwrap_or_default().to_vec();
            millis.push(begun.elapsed().as_secs_f64() * 1e3);
            while let Some(more) = answer.chunk().await? {
                received.extend_from_slice(&more);
            }
            ensure!(received == blocks.concat(), "a segment came with other bytes");
        }
    }
    Ok(millis)
}
