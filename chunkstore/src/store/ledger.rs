//! What is stored, being stored and being changed: the only shared state of the store besides the database.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use chunkstore_block::BlockId;

/// Counts bytes and blocks, and sees to it that only one thread changes a block at a time.
#[derive(Debug)]
pub(super) struct Ledger {
    state: Mutex<State>,
    released: Condvar,
}

/// Blocks that are stored or for which room is reserved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stock {
    pub(super) bytes: u64,
    pub(super) blocks: u64,
}

#[derive(Debug)]
struct State {
    stock: Stock,
    claimed: BTreeSet<BlockId>,
}

/// While it lives, nobody else changes these blocks or their references.
pub(super) struct Claim<'a> {
    ledger: &'a Ledger,
    ids: Vec<BlockId>,
}

/// Room for one block, given back unless it is kept.
pub(super) struct Room<'a> {
    ledger: &'a Ledger,
    bytes: u64,
}

impl Ledger {
    pub(super) fn new(stock: Stock) -> Self {
        Self { state: Mutex::new(State { stock, claimed: BTreeSet::new() }), released: Condvar::new() }
    }

    pub(super) fn stock(&self) -> Stock {
        self.lock().stock
    }

    /// Waits until nobody has claimed any of the ids, and claims them all at once: so no two threads can each wait
    /// for what the other has. A thread that has a claim must not ask for another.
    pub(super) fn claim(&self, ids: &[BlockId]) -> Claim<'_> {
        let is_taken = |state: &mut State| ids.iter().any(|id| state.claimed.contains(id));
        let waited = self.released.wait_while(self.lock(), is_taken);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.claimed.extend(ids);
        Claim { ledger: self, ids: ids.to_vec() }
    }

    /// Reserves room for a block under the quota, or says what is used.
    pub(super) fn reserve(&self, bytes: u64, quota_bytes: u64) -> Result<Room<'_>, Stock> {
        let mut state = self.lock();
        match state.stock.bytes.checked_add(bytes) {
            Some(sum) if sum <= quota_bytes => {
                state.stock = Stock { bytes: sum, blocks: state.stock.blocks + 1 };
                Ok(Room { ledger: self, bytes })
            }
            _ => Err(state.stock),
        }
    }

    /// Takes a block of so many bytes off the books.
    pub(super) fn remove(&self, bytes: u64) {
        let mut state = self.lock();
        state.stock.bytes = state.stock.bytes.saturating_sub(bytes);
        state.stock.blocks = state.stock.blocks.saturating_sub(1);
    }

    /// Each change under the lock is whole by itself, so a poisoned ledger is still right.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room<'_> {
    /// The block is stored: the room stays taken.
    pub(super) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.ledger.remove(self.bytes);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut state = self.ledger.lock();
        for id in &self.ids {
            state.claimed.remove(id);
        }
        drop(state);
        self.ledger.released.notify_all();
    }
}
