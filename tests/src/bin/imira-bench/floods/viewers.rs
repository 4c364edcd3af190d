//! Honest viewers: each asks for a segment of 200 KB, reads it, and asks for the next one at its time.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use tokio::time::{Instant, sleep_until};

use super::{SEGMENT_BYTES, SEGMENTS};
use crate::delivery::{Origin, file_paths};

const VIEWERS: u32 = 30;
const PERIOD: Duration = Duration::from_millis(200);
const SEGMENTS_EACH: u32 = 25;

/// What the viewers waited, from the moment when a segment was due until its last byte.
pub(super) struct Waits {
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

pub(super) async fn watch(origin: &Origin) -> Result<Waits> {
    let urls = origin.urls(&file_paths(SEGMENTS)).await?;
    let begin = Instant::now() + Duration::from_millis(50);
    let viewers = (0..VIEWERS).map(|number| viewer(number, begin + PERIOD * number / VIEWERS, &urls));
    let mut waits: Vec<f64> = try_join_all(viewers).await?.concat();
    waits.sort_by(f64::total_cmp);
    let quantile = |part: f64| waits[((waits.len() - 1) as f64 * part).round() as usize];
    Ok(Waits { p50_ms: quantile(0.5), p99_ms: quantile(0.99) })
}

/// Every other viewer comes anew for each segment, since it is those whom a full node turns away.
async fn viewer(number: u32, begin: Instant, urls: &[String]) -> Result<Vec<f64>> {
    let kept = usize::from(number.is_multiple_of(2));
    let client = reqwest::Client::builder().pool_max_idle_per_host(kept).timeout(Duration::from_secs(20)).build()?;
    let mut waits = Vec::new();
    for segment in 0..SEGMENTS_EACH {
        let due = begin + PERIOD * segment;
        sleep_until(due).await;
        let url = &urls[(number + segment) as usize % urls.len()];
        let answer = client.get(url).send().await.context("a viewer was not answered")?.error_for_status()?;
        ensure!(answer.bytes().await?.len() == SEGMENT_BYTES, "a viewer got only a part");
        waits.push(due.elapsed().as_secs_f64() * 1e3);
    }
    Ok(waits)
}
