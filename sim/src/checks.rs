//! What must hold at every step. Counted as things happen; nothing is scanned.

use crate::node::{Block, Publication};
use dht_core::{Config, Queues, Time};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

/// Something happened that must not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The last copy of a block for a publication went, and not because so many holders died at once.
    #[error("block {block} of publication {publication} has no copy left after {what} at {at_ms} ms")]
    Lost {
        /// Which block.
        block: u32,
        /// Of which publication.
        publication: u16,
        /// What took the last copy.
        what: &'static str,
        /// When.
        at_ms: u64,
    },
    /// A copy was dropped that was needed.
    #[error(
        "node {node} dropped its copy of block {block} of publication {publication} at {at_ms} ms, which left {left} of {replication}"
    )]
    Dropped {
        /// Which node.
        node: usize,
        /// Which block.
        block: u32,
        /// Of which publication.
        publication: u16,
        /// When.
        at_ms: u64,
        /// Copies left.
        left: u32,
        /// Copies that there are to be.
        replication: usize,
    },
    /// A node with a tombstone took a reference to the publication.
    #[error("publication {publication}, deleted there, came back on node {node} at {at_ms} ms")]
    Returned {
        /// Which publication.
        publication: u16,
        /// Which node.
        node: usize,
        /// When.
        at_ms: u64,
    },
    /// A node stored other bytes than the block's.
    #[error("node {node} stored wrong bytes for block {block} at {at_ms} ms")]
    WrongBytes {
        /// Which node.
        node: usize,
        /// Which block.
        block: u32,
        /// When.
        at_ms: u64,
    },
    /// A node that is up has a deleted publication long after its deletion.
    #[error("node {node} still has the deleted publication {publication} at the end")]
    Undeleted {
        /// Which publication.
        publication: u16,
        /// Which node.
        node: usize,
    },
    /// A node stored more than it may.
    #[error("node {node} has {used} of {quota} bytes at {at_ms} ms")]
    OverQuota {
        /// Which node.
        node: usize,
        /// Bytes stored.
        used: u64,
        /// Bytes allowed.
        quota: u64,
        /// When.
        at_ms: u64,
    },
    /// Something waits in numbers above its bound.
    #[error("node {node} is over a bound at {at_ms} ms: {queues:?}")]
    OverBound {
        /// Which node.
        node: usize,
        /// What waits there.
        queues: Box<Queues>,
        /// When.
        at_ms: u64,
    },
    /// The faults are over, and blocks are not where they belong.
    #[error("{wrong} blocks are not on exactly their closest nodes, {minutes} min after the last fault")]
    NotSettled {
        /// How many blocks.
        wrong: usize,
        /// Minutes since the last fault.
        minutes: u64,
    },
}

/// Where a run went wrong. The same settings go wrong at the same event again, and not before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{violation} (event {event})")]
pub struct Failure {
    /// What happened.
    pub violation: Violation,
    /// How many events had been handled by then, this one included.
    pub event: u64,
}

/// Copies of a block with a reference to one publication, on disks that are not lost for ever.
#[derive(Clone, Debug, Default)]
struct Copies {
    /// It was stored on R nodes and is not deleted.
    acknowledged: bool,
    count: u32,
    /// When copies were destroyed lately, and on which nodes.
    destroyed: VecDeque<(Time, usize)>,
    /// Nodes whose copy is damaged and which do not know it.
    rotten: BTreeSet<usize>,
}

pub(crate) struct Checks {
    replication: usize,
    /// In this time after a copy was destroyed it is there again.
    repair_window: Duration,
    config: Config,
    /// Of each block, for each of its publications.
    copies: Vec<BTreeMap<Publication, Copies>>,
    /// Blocks of a publication of which more than R - 1 copies were destroyed within the repair window.
    pub(crate) excused: Vec<(Block, Publication)>,
    first: Option<Violation>,
}

impl Checks {
    pub(crate) fn new(config: &Config, blocks: usize) -> Self {
        // Until the pings fail, the grace period, comparisons and transfers.
        let repair_window = config.grace + 2 * config.sync_interval + Duration::from_secs(180);
        Self {
            replication: config.replication,
            repair_window,
            config: config.clone(),
            copies: vec![BTreeMap::new(); blocks],
            excused: Vec::new(),
            first: None,
        }
    }

    /// The first thing that went wrong.
    pub(crate) fn violation(&mut self) -> Option<Violation> {
        self.first.take()
    }

    pub(crate) fn report(&mut self, violation: Violation) {
        self.first.get_or_insert(violation);
    }

    pub(crate) fn acknowledged(&mut self, block: Block, publication: Publication) {
        let copies = self.copies(block, publication);
        copies.acknowledged = copies.count > 0;
        // All R threw it away.
        if copies.count == 0 {
            self.excused.push((block, publication));
        }
    }

    /// For which publications the block was stored on R nodes, and is neither deleted nor lost with an excuse.
    pub(crate) fn acknowledged_of(&self, block: Block) -> impl Iterator<Item = Publication> {
        let all = self.copies[block as usize].iter();
        all.filter(|(_, copies)| copies.acknowledged).map(|(publication, _)| *publication)
    }

    pub(crate) fn deleted(&mut self, block: Block, publication: Publication) {
        self.copies(block, publication).acknowledged = false;
    }

    pub(crate) fn stored(&mut self, block: Block, publication: Publication) {
        self.copies(block, publication).count += 1;
    }

    /// A node took the block and did not keep it.
    pub(crate) fn thrown_away(&mut self, now: Time, node: usize, block: Block, publication: Publication) {
        self.recent(now, block, publication);
        self.copies(block, publication).destroyed.push_back((now, node));
    }

    /// A fault destroyed a copy that had these references.
    pub(crate) fn destroyed(
        &mut self,
        now: Time,
        node: usize,
        block: Block,
        of: &BTreeSet<Publication>,
        what: &'static str,
    ) {
        for publication in of.iter().copied() {
            self.thrown_away(now, node, block, publication);
            let copies = self.copies(block, publication);
            copies.count -= 1;
            if copies.count > 0 || !copies.acknowledged {
                continue;
            }
            if self.unrepaired(now, block, publication) >= self.replication {
                self.deleted(block, publication);
                self.excused.push((block, publication));
            } else {
                self.report(Violation::Lost { block, publication, what, at_ms: now.as_millis() });
            }
        }
    }

    /// A node notices, only now, that a copy of it was destroyed.
    pub(crate) fn noticed(&mut self, now: Time, node: usize, block: Block) {
        let publications: Vec<_> = self.copies[block as usize].keys().copied().collect();
        for publication in publications {
            if self.copies(block, publication).rotten.remove(&node) {
                self.thrown_away(now, node, block, publication);
            }
        }
    }

    /// A copy with these references was destroyed, and the node does not know it.
    pub(crate) fn rotted(&mut self, now: Time, node: usize, block: Block, of: &BTreeSet<Publication>) {
        self.unnoticed(node, block, of);
        self.destroyed(now, node, block, of, "rot");
    }

    /// The node does not know that what it has for these publications is damaged.
    pub(crate) fn unnoticed<'a>(&mut self, node: usize, block: Block, of: impl IntoIterator<Item = &'a Publication>) {
        for publication in of {
            self.copies(block, *publication).rotten.insert(node);
        }
    }

    /// A node removed a reference because its publication was deleted.
    pub(crate) fn removed(&mut self, block: Block, publication: Publication) {
        self.copies(block, publication).count -= 1;
    }

    /// A node dropped its copy as surplus: R others have it with its references, but for those that were destroyed since they proved it.
    pub(crate) fn dropped(&mut self, now: Time, node: usize, block: Block, of: &BTreeSet<Publication>) {
        let replication = self.replication;
        for publication in of.iter().copied() {
            let recent = self.recent(now, block, publication);
            let copies = self.copies(block, publication);
            copies.count -= 1;
            let left = copies.count;
            if copies.acknowledged && (left == 0 || left as usize + recent < replication) {
                let at_ms = now.as_millis();
                self.report(Violation::Dropped { node, block, publication, at_ms, left, replication });
            }
        }
    }

    pub(crate) fn within_bounds(&mut self, now: Time, node: usize, queues: Queues) {
        let within = queues.outputs <= 4_096
            && queues.wants <= self.config.limits.wants
            && queues.pulls <= self.config.pulls_under_way
            && queues.audits <= 4
            && queues.syncs <= 8
            && queues.surplus <= self.config.limits.surplus
            && queues.lookups <= 2
            && queues.lacking <= self.config.limits.lacking
            && queues.overflow <= self.config.limits.overflow;
        if !within {
            self.report(Violation::OverBound { node, queues: Box::new(queues), at_ms: now.as_millis() });
        }
    }

    fn copies(&mut self, block: Block, publication: Publication) -> &mut Copies {
        self.copies[block as usize].entry(publication).or_default()
    }

    /// Nodes on which copies were destroyed within the repair window, or without anybody having noticed: what is not known to be damaged cannot be
    /// repaired.
    fn unrepaired(&mut self, now: Time, block: Block, publication: Publication) -> usize {
        self.recent(now, block, publication);
        let copies = self.copies(block, publication);
        let destroyed: BTreeSet<_> = copies.destroyed.iter().map(|(_, node)| *node).collect();
        destroyed.union(&copies.rotten).count()
    }

    /// Nodes on which copies were destroyed within the repair window.
    fn recent(&mut self, now: Time, block: Block, publication: Publication) -> usize {
        let repair_window = self.repair_window;
        let destroyed = &mut self.copies(block, publication).destroyed;
        while destroyed.front().is_some_and(|(time, _)| now.since(*time) > repair_window) {
            destroyed.pop_front();
        }
        destroyed.iter().map(|(_, node)| node).collect::<BTreeSet<_>>().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dht_core::Limits;

    const PUBLICATION: Publication = 3;

    fn checks() -> Checks {
        let mut checks = Checks::new(&Config::new(2), 1);
        checks.stored(0, PUBLICATION);
        checks.stored(0, PUBLICATION);
        checks.acknowledged(0, PUBLICATION);
        checks
    }

    #[test]
    fn the_last_copy_may_go_only_with_the_others() {
        let of = BTreeSet::from([PUBLICATION]);
        let (start, later) = (Time::ZERO, Time::ZERO + Duration::from_secs(3_600));
        let mut at_once = checks();
        at_once.destroyed(start, 1, 0, &of, "a death");
        at_once.destroyed(start, 2, 0, &of, "a death");
        assert_eq!((at_once.violation(), at_once.excused.as_slice()), (None, [(0, PUBLICATION)].as_slice()));
        let mut one_by_one = checks();
        one_by_one.destroyed(start, 1, 0, &of, "a death");
        one_by_one.destroyed(later, 2, 0, &of, "a death");
        let lost = Violation::Lost { block: 0, publication: PUBLICATION, what: "a death", at_ms: 3_600_000 };
        assert_eq!(one_by_one.violation(), Some(lost));
        let mut twice_at_one = checks();
        twice_at_one.destroyed(start, 1, 0, &of, "damage");
        twice_at_one.stored(0, PUBLICATION);
        twice_at_one.destroyed(start, 1, 0, &of, "damage");
        twice_at_one.dropped(start, 2, 0, &of);
        assert!(twice_at_one.violation().is_some(), "one node is one holder");
    }

    #[test]
    fn a_copy_that_has_rotted_is_excused_until_that_is_noticed() {
        let of = BTreeSet::from([PUBLICATION]);
        let (start, later) = (Time::ZERO, Time::ZERO + Duration::from_secs(3_600));
        let much_later = later + Duration::from_secs(3_600);
        let mut unnoticed = checks();
        unnoticed.rotted(start, 1, 0, &of);
        unnoticed.destroyed(later, 2, 0, &of, "a death");
        assert_eq!((unnoticed.violation(), unnoticed.excused.len()), (None, 1));
        let mut noticed = checks();
        noticed.rotted(start, 1, 0, &of);
        noticed.noticed(later, 1, 0);
        noticed.destroyed(much_later, 2, 0, &of, "a death");
        assert!(matches!(noticed.violation(), Some(Violation::Lost { .. })), "it was to be repaired");
        let mut needed = checks();
        needed.rotted(start, 1, 0, &of);
        needed.dropped(later, 2, 0, &of);
        assert!(matches!(needed.violation(), Some(Violation::Dropped { .. })), "an old proof is no proof");
    }

    #[test]
    fn a_needed_copy_may_not_be_dropped() {
        let of = BTreeSet::from([PUBLICATION]);
        let mut checks = checks();
        checks.stored(0, PUBLICATION);
        checks.dropped(Time::ZERO, 7, 0, &of);
        assert_eq!(checks.violation(), None);
        checks.dropped(Time::ZERO, 7, 0, &of);
        assert!(matches!(checks.violation(), Some(Violation::Dropped { node: 7, block: 0, left: 1, .. })));
    }

    #[test]
    fn a_copy_for_another_publication_does_not_stand_in() {
        let mut checks = checks();
        checks.stored(0, 4);
        checks.stored(0, 4);
        checks.dropped(Time::ZERO, 7, 0, &BTreeSet::from([PUBLICATION]));
        assert!(matches!(checks.violation(), Some(Violation::Dropped { publication: PUBLICATION, left: 1, .. })));
    }

    #[test]
    fn a_queue_over_its_bound_is_seen() {
        let Limits { lacking, overflow, surplus, wants } = Limits::default();
        let full =
            Queues { outputs: 4_096, wants, pulls: 8, audits: 4, syncs: 8, surplus, lookups: 2, lacking, overflow };
        let seen = |queues| {
            let mut checks = checks();
            checks.within_bounds(Time::ZERO, 0, queues);
            checks.violation()
        };
        assert_eq!(seen(full), None);
        let queues: [fn(&mut Queues) -> &mut usize; 9] = [
            |queues| &mut queues.outputs,
            |queues| &mut queues.wants,
            |queues| &mut queues.pulls,
            |queues| &mut queues.audits,
            |queues| &mut queues.syncs,
            |queues| &mut queues.surplus,
            |queues| &mut queues.lookups,
            |queues| &mut queues.lacking,
            |queues| &mut queues.overflow,
        ];
        for queue in queues {
            let mut over = full;
            *queue(&mut over) += 1;
            assert_eq!(seen(over), Some(Violation::OverBound { node: 0, queues: Box::new(over), at_ms: 0 }));
        }
    }
}
