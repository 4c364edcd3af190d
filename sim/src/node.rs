//! A node: the production replicator and a model of its disk.

use chunkstore_block::{BlockId, PlatformFingerprint, PublicationId, Reference};
use dht_core::{Config, Entry, EntryDigest, Input, Position, Replicator, Time};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

/// What a disk that lies about having written may lose when the power goes. Linux writes out what is 30 s old (vm.dirty_expire_centisecs).
const UNSYNCED: Duration = Duration::from_secs(30);

/// A block, by its place in the list of all blocks.
pub(crate) type Block = u32;

/// A publication, by its number.
pub(crate) type Publication = u16;

/// What there is to know of a block.
pub(crate) struct BlockFacts {
    pub(crate) id: BlockId,
    pub(crate) position: Position,
    pub(crate) length: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Power {
    Up,
    /// Down, with its disk; it comes back.
    Down,
    /// For ever, with its disk.
    Dead,
}

/// What a node makes of the blocks that it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conduct {
    Honest,
    /// Keeps nothing and names everything.
    Claims,
    /// Keeps nothing, names everything, and gives other bytes.
    GivesWrongBytes,
}

pub(crate) struct Node {
    pub(crate) position: Position,
    pub(crate) power: Power,
    /// If it is not up.
    pub(crate) off_since: Time,
    /// Another one at each start: what was meant for an earlier one is lost.
    pub(crate) start: u64,
    pub(crate) replicator: Replicator,
    pub(crate) wake: Option<Time>,
    pub(crate) conduct: Conduct,
    /// What it answers to digests is wrong.
    pub(crate) wrong_sums: bool,
    /// Has offered what it never gives, and is never caught up with.
    pub(crate) hoards: bool,
    /// What it may store; less while its disk is full.
    pub(crate) quota_bytes: u64,
    pub(crate) usual_quota_bytes: u64,
    pub(crate) used_bytes: u64,
    /// What was written in the last seconds, oldest first.
    pub(crate) written: VecDeque<(Time, Block)>,
    /// Its lookups leave nodes out.
    pub(crate) misled: bool,
    pub(crate) store: BTreeMap<Block, BTreeSet<Publication>>,
    /// What of it is damaged, which the node does not know.
    pub(crate) rotten: BTreeSet<Block>,
    pub(crate) tombstones: BTreeSet<Publication>,
    pub(crate) orders: Vec<Publication>,
    pub(crate) uplink_free_at: Time,
    pub(crate) downlink_free_at: Time,
}

impl Node {
    pub(crate) fn new(position: Position, config: Config, quota_bytes: u64, now: Time) -> Self {
        Self {
            position,
            power: Power::Down,
            off_since: now,
            start: 0,
            replicator: Replicator::new(config, position, now),
            wake: None,
            conduct: Conduct::Honest,
            wrong_sums: false,
            hoards: false,
            quota_bytes,
            usual_quota_bytes: quota_bytes,
            used_bytes: 0,
            written: VecDeque::new(),
            misled: false,
            store: BTreeMap::new(),
            rotten: BTreeSet::new(),
            tombstones: BTreeSet::new(),
            orders: Vec::new(),
            uplink_free_at: Time::ZERO,
            downlink_free_at: Time::ZERO,
        }
    }

    /// Starts the node: a new replicator that is told what the disk has.
    pub(crate) fn begin(&mut self, config: Config, now: Time, blocks: &[BlockFacts]) {
        self.power = Power::Up;
        self.start += 1;
        (self.uplink_free_at, self.downlink_free_at) = (now, now);
        self.wake = None;
        let known = self.replicator.known();
        self.replicator = Replicator::new(config, self.position, now);
        known.into_iter().for_each(|node| self.replicator.handle_input(now, Input::Known(node)));
        for (block, publications) in &self.store {
            self.replicator.handle_input(now, Input::Held(entry(&blocks[*block as usize], publications)));
        }
        self.replicator.handle_input(now, Input::Room(self.has_room()));
    }

    pub(crate) fn is_up(&self) -> bool {
        self.power == Power::Up
    }

    /// Whether what it names is not there to be read.
    pub(crate) fn lies(&self) -> bool {
        self.conduct != Conduct::Honest
    }

    /// Whether the block is there to be read.
    pub(crate) fn has(&self, block: Block) -> bool {
        !self.lies() && self.store.contains_key(&block)
    }

    /// Notes what was written, and forgets what a disk has surely written out.
    pub(crate) fn note_written(&mut self, now: Time, block: Block) {
        self.forget_synced(now);
        self.written.push_back((now, block));
    }

    pub(crate) fn forget_synced(&mut self, now: Time) {
        while self.written.front().is_some_and(|(time, _)| now.since(*time) > UNSYNCED) {
            self.written.pop_front();
        }
    }

    /// Room for one more block of any size, as the store reckons.
    pub(crate) fn has_room(&self) -> bool {
        self.used_bytes + chunkstore_block::MAX_BLOCK_BYTES as u64 <= self.quota_bytes
    }
}

pub(crate) fn entry(facts: &BlockFacts, publications: &BTreeSet<Publication>) -> Entry {
    let references: Vec<_> = publications.iter().map(|number| reference(*number)).collect();
    Entry { id: facts.id, length: facts.length, digest: EntryDigest::of(&facts.id, &references) }
}

/// Ascending with the number.
fn reference(number: Publication) -> Reference {
    let mut publication = [0; 16];
    publication[..2].copy_from_slice(&number.to_be_bytes());
    Reference {
        platform: PlatformFingerprint::from_bytes([1; 32]),
        publication: PublicationId::from_bytes(publication),
    }
}
