//! After a deletion: takes the references of deleted publications away, and gives the space of what nothing needs back.

use crate::blocks::Durable;
use chunkstore::StoreError;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// References taken away in one step: some milliseconds, in which no put is acknowledged.
const STEP_REFERENCES: usize = 1_000;
/// Bytes written anew in one step to empty a segment.
const STEP_BYTES: u64 = 16 << 20;
/// After a failure, for example a full disk.
const PAUSE: Duration = Duration::from_secs(30);

/// Wakes the sweep. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Sweeper(Arc<Notify>);

impl Sweeper {
    /// Something was deleted.
    pub(crate) fn wake(&self) {
        self.0.notify_one();
    }

    /// Sweeps once at the start, for what an earlier run left, and whenever it is woken, until `stop`.
    pub(crate) async fn run(self, durable: Durable, stop: CancellationToken) {
        loop {
            let swept = sweep(&durable, &stop).await;
            let pause = async {
                match &swept {
                    Ok(()) => self.0.notified().await,
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
            };
            if let Err(error) = &swept {
                tracing::error!(%error, "deleted blocks could not be removed; trying again");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = pause => {}
            }
        }
    }
}

async fn sweep(durable: &Durable, stop: &CancellationToken) -> Result<(), StoreError> {
    let (mut blocks, mut bytes, mut is_done) = (0, 0, false);
    while !is_done && !stop.is_cancelled() {
        let step = durable.with(|store| store.collect(STEP_REFERENCES)).await?;
        (blocks, is_done) = (blocks + step.blocks, step.is_done);
    }
    is_done = false;
    while !is_done && !stop.is_cancelled() {
        let step = durable.with(|store| store.reclaim(STEP_BYTES)).await?;
        (bytes, is_done) = (bytes + step.given_back_bytes, step.is_done);
    }
    if blocks > 0 {
        tracing::info!(blocks, given_back_bytes = bytes, "deleted blocks are gone");
    }
    Ok(())
}
