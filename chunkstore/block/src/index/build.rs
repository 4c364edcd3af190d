use std::collections::BTreeMap;

use super::check::{MAX_FRAGMENTS, check_file, check_fragment_length, check_index, limit};
use super::{File, Fragment, Fragments, Index, IndexError, Rendition, Run};
use crate::BlockId;

/// Makes an [`Index`] from the blocks of a content, in order, and the files that they make.
#[derive(Clone, Debug, Default)]
pub struct IndexBuilder {
    fragments: Vec<Fragment>,
    orders: BTreeMap<BlockId, u32>,
    files: Vec<File>,
}

impl IndexBuilder {
    /// With no fragments and no files.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a block of `length` bytes and returns its order, counted from 1. A block that was pushed before keeps
    /// the order it has: a fragment is listed once.
    ///
    /// Refuses a length that no block can have, two lengths for the same id, and more than 16,777,216 fragments.
    pub fn push_fragment(&mut self, id: BlockId, length: u32) -> Result<u32, IndexError> {
        if let Some(&order) = self.orders.get(&id) {
            let first = self.length_of(order);
            return if first == Some(length) {
                Ok(order)
            } else {
                Err(IndexError::TwoLengths { id, first: first.unwrap_or(0), second: length })
            };
        }
        check_fragment_length(length)?;
        limit("fragments.count", self.fragments.len() as u64 + 1, MAX_FRAGMENTS)?;
        self.fragments.push(Fragment { id, length });
        let order = self.fragments.len() as u32; // at most MAX_FRAGMENTS
        self.orders.insert(id, order);
        Ok(order)
    }

    /// Adds a file that is the fragments with these orders, joined. Consecutive orders become one run.
    ///
    /// Refuses orders that have not been pushed, and a path, media type or number of runs that the format does not
    /// allow. Two files with the same path are refused by [`finish`](Self::finish).
    pub fn add_file(
        &mut self,
        path: &str,
        media_type: &str,
        orders: impl IntoIterator<Item = u32>,
    ) -> Result<(), IndexError> {
        let mut file = File { path: path.to_owned(), media_type: media_type.to_owned(), runs: Vec::new() };
        for order in orders {
            let unknown = || IndexError::Run {
                path: path.to_owned(),
                first_order: order,
                blocks: 1,
                fragments: self.fragments.len(),
            };
            let length = self.length_of(order).ok_or_else(unknown)?;
            append(&mut file.runs, order, length);
        }
        check_file(&file)?;
        self.files.push(file);
        Ok(())
    }

    /// The fragments so far, in order.
    pub fn fragments(&self) -> &[Fragment] {
        &self.fragments
    }

    /// The whole, with the files in the order of their paths, checked as a reader would.
    pub fn finish(
        mut self,
        source_sha256: [u8; 32],
        duration_ms: u64,
        renditions: Vec<Rendition>,
    ) -> Result<Index, IndexError> {
        self.files.sort_by(|a, b| a.path.cmp(&b.path));
        let fragments = Fragments::from(self.fragments);
        let index = Index { source_sha256, duration_ms, renditions, fragments, files: self.files };
        check_index(&index)?;
        Ok(index)
    }

    fn length_of(&self, order: u32) -> Option<u32> {
        let place = (order as usize).checked_sub(1)?;
        self.fragments.get(place).map(|fragment| fragment.length)
    }
}

/// Adds one fragment to the end of a file's runs.
fn append(runs: &mut Vec<Run>, order: u32, length: u32) {
    if let Some(run) = runs.last_mut()
        && run.first_order.checked_add(run.blocks) == Some(order)
    {
        run.blocks += 1;
        run.bytes += u64::from(length);
    } else {
        runs.push(Run { first_order: order, blocks: 1, bytes: length.into() });
    }
}
