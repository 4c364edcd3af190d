//! Which blocks have changed: for whoever keeps books of its own beside the store's.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, OnceLock};

use chunkstore_block::BlockId;

use super::record::Op;
use super::writer::lock;

/// Changes that wait for the watcher; with more it has to list the store anew. 2.5 MB.
const MOST_WAITING: usize = 65_536;

/// What has changed since it was last asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// These blocks came, went, were damaged or made whole, or have other references: what they are now, the store says.
    Blocks(Vec<BlockId>),
    /// Too many: everything may have changed.
    TooMany,
}

/// Collects the ids of changed blocks for one watcher, and nothing as long as there is none.
#[derive(Default)]
pub(super) struct Changes {
    waiting: Mutex<Waiting>,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
struct Waiting {
    ids: BTreeSet<BlockId>,
    are_too_many: bool,
}

impl Changes {
    /// From now on changes are collected, and `wake` is called after each. `false` if somebody watches already.
    pub(super) fn watch(&self, wake: Box<dyn Fn() + Send + Sync>) -> bool {
        self.wake.set(wake).is_ok()
    }

    /// Notes what a record has changed. Called after it was applied, so that whoever looks then sees the change.
    pub(super) fn note(&self, op: &Op) {
        let Some(wake) = self.wake.get() else { return };
        let ids: &[BlockId] = match op {
            Op::Put { id, .. } | Op::Damage { id, .. } | Op::Drop { id, .. } => std::slice::from_ref(id),
            Op::Refer { ids, .. } | Op::Sweep { ids, .. } | Op::Remove { ids } => ids,
            // Where a copy lies, and what is remembered of publications, changes no block.
            Op::Move { .. } | Op::Delete(_) | Op::Prune { .. } | Op::Admit { .. } => return,
        };
        let mut waiting = lock(&self.waiting);
        if waiting.ids.len() + ids.len() > MOST_WAITING {
            *waiting = Waiting { ids: BTreeSet::new(), are_too_many: true };
        } else if !waiting.are_too_many {
            waiting.ids.extend(ids);
        }
        drop(waiting);
        wake();
    }

    /// Takes up to `limit` changes; an empty list when there are none.
    pub(super) fn take(&self, limit: usize) -> Changed {
        let mut waiting = lock(&self.waiting);
        if std::mem::take(&mut waiting.are_too_many) {
            return Changed::TooMany;
        }
        let rest = match waiting.ids.iter().nth(limit).copied() {
            Some(first_left) => waiting.ids.split_off(&first_left),
            None => BTreeSet::new(),
        };
        Changed::Blocks(std::mem::replace(&mut waiting.ids, rest).into_iter().collect())
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn remove(range: std::ops::Range<u32>) -> Op {
        Op::Remove { ids: range.map(|i| BlockId::of(&i.to_be_bytes())).collect() }
    }

    #[test]
    fn changes_are_taken_in_portions_and_named_once() {
        let changes = Changes::default();
        changes.note(&remove(0..1));
        assert_eq!(changes.take(9), Changed::Blocks(vec![]), "nobody watches");
        let woken = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&woken);
        assert!(changes.watch(Box::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        })));
        assert!(!changes.watch(Box::new(|| ())), "there is one watcher");
        changes.note(&remove(0..3));
        changes.note(&remove(1..4));
        assert_eq!(woken.load(Ordering::Relaxed), 2);
        let mut taken = BTreeSet::new();
        for expected in [3, 1, 0] {
            let Changed::Blocks(ids) = changes.take(3) else { panic!("not so many") };
            assert_eq!(ids.len(), expected);
            taken.extend(ids);
        }
        assert_eq!(taken.len(), 4);
    }

    #[test]
    fn what_is_too_much_is_said_once() {
        let changes = Changes::default();
        changes.watch(Box::new(|| ()));
        for start in 0..=MOST_WAITING as u32 / 1_000 {
            changes.note(&remove(start * 1_000..(start + 1) * 1_000));
        }
        assert_eq!(changes.take(10), Changed::TooMany);
        assert_eq!(changes.take(10), Changed::Blocks(vec![]));
    }
}
