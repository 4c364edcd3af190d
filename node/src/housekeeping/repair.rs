//! Damaged blocks: which are known, when each is tried next, and getting a good copy from another node.

use super::{Housekeeper, REPAIR_EVERY, lock};
use chunkstore::{MAX_REFERENCES, Room, StoreError};
use chunkstore_block::BlockId;
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::BTreeMap;
use std::pin::pin;
use std::time::{Duration, Instant};

/// After a block was found nowhere, doubled each time: a holder that is away comes back within minutes or days.
const FIRST_WAIT: Duration = Duration::from_secs(30);
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);
/// The least time between two walks through the store in search of damaged blocks that nobody reported.
const WALK_EVERY: Duration = Duration::from_secs(60);
/// Blocks that are asked for at a time: a disk may lose many, and holders that are away cost seconds each. At most 4 MiB of memory.
const REPAIRS_AT_A_TIME: usize = 4;
/// Blocks that such a walk looks at in a step.
const WALK_STEP: usize = 1_000;
const WALK_PAUSE: Duration = Duration::from_millis(10);

/// The damaged blocks that are known.
#[derive(Default)]
pub(super) struct Repairs {
    blocks: BTreeMap<BlockId, Attempts>,
    walked: Option<Instant>,
}

#[derive(Default)]
struct Attempts {
    failures: u32,
    /// At once if it was never tried.
    due: Option<Instant>,
    is_reported: bool,
}

/// What became of a damaged block.
enum Repaired {
    Replaced,
    /// It has gone, or is whole after all.
    Unneeded,
    Failed(String),
}

impl Repairs {
    pub(super) fn add(&mut self, damaged: &[BlockId]) {
        for id in damaged {
            self.blocks.entry(*id).or_default();
        }
    }

    /// What nobody has is logged once more.
    pub(super) fn report_again(&mut self) {
        for attempts in self.blocks.values_mut() {
            attempts.is_reported = false;
        }
    }

    /// Takes what a walk found as the whole truth.
    fn replace(&mut self, damaged: Vec<BlockId>) {
        let mut before = std::mem::take(&mut self.blocks);
        self.blocks = damaged.into_iter().map(|id| (id, before.remove(&id).unwrap_or_default())).collect();
    }

    /// Whether the store counts others than are known, and it is time to look for them.
    fn must_walk(&mut self, counted: u64, now: Instant) -> bool {
        let is_time = self.walked.is_none_or(|walked| now.saturating_duration_since(walked) >= WALK_EVERY);
        let must = is_time && counted != self.blocks.len() as u64;
        if must {
            self.walked = Some(now);
        }
        must
    }

    fn due(&self, now: Instant) -> Vec<BlockId> {
        let is_due = |attempts: &Attempts| attempts.due.is_none_or(|due| due <= now);
        self.blocks.iter().filter(|(_, attempts)| is_due(attempts)).map(|(id, _)| *id).collect()
    }

    fn done(&mut self, id: &BlockId) {
        self.blocks.remove(id);
    }

    /// Whether this failure is to be logged.
    fn failed(&mut self, id: &BlockId, now: Instant) -> bool {
        let attempts = self.blocks.entry(*id).or_default();
        let wait = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(attempts.failures)).min(LONGEST_WAIT);
        attempts.failures += 1;
        attempts.due = Some(now + wait);
        !std::mem::replace(&mut attempts.is_reported, true)
    }
}

impl Housekeeper {
    /// Tries every damaged block that is due.
    pub(super) async fn repair(self) -> Result<Duration, StoreError> {
        let counted = self.0.durable.store().usage().damaged_blocks;
        let must_walk = lock(&self.0.repairs).must_walk(counted, Instant::now());
        // Found by a read, or before the node was started.
        if must_walk && let Some(damaged) = self.find_damaged().await? {
            lock(&self.0.repairs).replace(damaged);
        }
        let due = lock(&self.0.repairs).due(Instant::now());
        let repairs = stream::iter(due).map(async |id| self.repair_one(id).await.map(|repaired| (id, repaired)));
        let mut repairs = pin!(repairs.buffer_unordered(REPAIRS_AT_A_TIME));
        loop {
            tokio::select! {
                () = self.0.stop.cancelled() => return Ok(REPAIR_EVERY),
                repaired = repairs.try_next() => match repaired? {
                    Some((id, repaired)) => self.note(id, repaired),
                    None => return Ok(REPAIR_EVERY),
                },
            }
        }
    }

    fn note(&self, id: BlockId, repaired: Repaired) {
        let mut repairs = lock(&self.0.repairs);
        match repaired {
            Repaired::Unneeded => repairs.done(&id),
            Repaired::Replaced => {
                repairs.done(&id);
                tracing::info!(block = %id, "a damaged block was replaced by another node's copy");
            }
            Repaired::Failed(reason) => {
                if repairs.failed(&id, Instant::now()) {
                    tracing::error!(block = %id, reason, "a damaged block could not be replaced; it is tried again");
                }
            }
        }
    }

    async fn repair_one(&self, id: BlockId) -> Result<Repaired, StoreError> {
        let known = self.0.durable.with(move |store| Ok((store.has(&id)?, store.references(&id)?)));
        let (is_whole, mut references) = known.await?;
        if is_whole || references.is_empty() {
            return Ok(Repaired::Unneeded);
        }
        references.truncate(MAX_REFERENCES); // the block keeps those that it has
        let body = match self.0.peers.fetch(id).await {
            Ok(body) => body,
            Err(error) => return Ok(Repaired::Failed(error.to_string())),
        };
        match self.0.durable.with(move |store| store.put(id, body, &references, Room::Repair)).await {
            Ok(_) => Ok(Repaired::Replaced),
            // It is garbage that has not been collected yet.
            Err(StoreError::Deleted { .. }) => Ok(Repaired::Unneeded),
            Err(error) => Ok(Repaired::Failed(error.to_string())),
        }
    }

    /// Walks through the whole store; `None` if the node is stopping.
    async fn find_damaged(&self) -> Result<Option<Vec<BlockId>>, StoreError> {
        let (mut damaged, mut after) = (Vec::new(), None);
        loop {
            let step = self.0.durable.with(move |store| {
                let blocks = store.list(after, WALK_STEP)?;
                let mut found = Vec::new();
                for block in &blocks {
                    if !store.has(&block.id)? {
                        found.push(block.id);
                    }
                }
                Ok((found, blocks.len() == WALK_STEP, blocks.last().map(|block| block.id)))
            });
            let (found, goes_on, last) = step.await?;
            damaged.extend(found);
            after = last;
            if !goes_on {
                return Ok(Some(damaged));
            }
            if self.stops_within(WALK_PAUSE).await {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> BlockId {
        BlockId::of(&[number])
    }

    #[test]
    fn a_block_that_nobody_has_is_tried_ever_more_seldom_and_reported_once_a_round() {
        let (mut repairs, start) = (Repairs::default(), Instant::now());
        repairs.add(&[id(1)]);
        assert_eq!(repairs.due(start), [id(1)]);
        assert!(repairs.failed(&id(1), start));
        assert_eq!(repairs.due(start), []);
        let later = start + FIRST_WAIT;
        assert_eq!(repairs.due(later), [id(1)]);
        assert!(!repairs.failed(&id(1), later));
        assert_eq!(repairs.due(later + FIRST_WAIT), []);
        assert_eq!(repairs.due(later + 2 * FIRST_WAIT), [id(1)]);
        // Found again by the scrub, it keeps its turn.
        repairs.add(&[id(1)]);
        assert_eq!(repairs.due(later), []);
        repairs.report_again();
        assert!(repairs.failed(&id(1), later));
        for _ in 0..100 {
            repairs.failed(&id(1), later);
        }
        assert_eq!(repairs.due(later + LONGEST_WAIT), [id(1)]);
    }

    #[test]
    fn the_store_is_walked_only_when_the_books_name_others() {
        let (mut repairs, start) = (Repairs::default(), Instant::now());
        assert!(!repairs.must_walk(0, start));
        assert!(repairs.must_walk(2, start));
        assert!(!repairs.must_walk(2, start), "not all the time");
        assert!(repairs.must_walk(2, start + WALK_EVERY));
        repairs.failed(&id(3), start);
        repairs.replace(vec![id(1), id(3)]);
        assert!(!repairs.must_walk(2, start + 9 * WALK_EVERY));
        assert_eq!(repairs.due(start), [id(1)], "the other one keeps its turn");
        repairs.done(&id(1));
        repairs.done(&id(3));
        assert!(!repairs.must_walk(0, start + 9 * WALK_EVERY));
    }
}
