//! What goes into the replication core and what comes out.

use crate::{Digest, Entry, EntryDigest, Position, Prefix};
use chunkstore_block::BlockId;

/// Something happened. Each may come twice, late, or for something long forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "lives for one call; few are under way")]
pub enum Input {
    /// This node's store has the block, undamaged, with these references. Said for every block at start, for each new one, and
    /// again when its references change.
    Held(Entry),
    /// This node's store does not have the block, or no longer undamaged.
    Gone(BlockId),
    /// Evidence that a node is up: a connection of its own, any answer, discovery that spoke to it. Said before a request of the node
    /// is answered.
    Seen(Position),
    /// The node was a member when this node last ran ([`crate::Replicator::known`]); said at start only. It counts as silent: a
    /// whole network that is restarted moves nothing while its nodes find each other.
    Known(Position),
    /// The answer to a ping.
    Status {
        /// Who answered.
        from: Position,
        /// Whether it takes blocks.
        room: bool,
        /// Of its deletion orders; another one at each start.
        epoch: u64,
        /// How many orders it has.
        orders: u64,
    },
    /// A ping or any other request failed: unreachable or timed out.
    NoAnswer(Position),
    /// A lookup ended.
    Found {
        /// What was asked for.
        target: Position,
        /// What was looked up: a position near it whose preimage is known (Kademlia looks up hashes); in simulations the target itself.
        near: Position,
        /// The closest nodes, without this one, at most 20. Fewer than 20 are taken for all there are.
        nodes: Vec<Position>,
    },
    /// A lookup failed; it is tried later.
    NotFound {
        /// What was looked up.
        target: Position,
    },
    /// The answer to [`Output::AskDigest`].
    Digest {
        /// Who answered.
        from: Position,
        /// What was asked.
        prefix: Prefix,
        /// The answer.
        digest: Digest,
    },
    /// The answer to [`Output::Offer`].
    Offered {
        /// Who answered.
        to: Position,
        /// For each block of the offer.
        answers: Vec<(BlockId, OfferAnswer)>,
    },
    /// A pull ended. Where it stored the block, [`Input::Held`] comes besides.
    Pulled {
        /// Which block.
        id: BlockId,
        /// From whom.
        from: Position,
        /// How.
        outcome: PullOutcome,
    },
    /// An audit ended.
    Audited {
        /// Of which block.
        id: BlockId,
        /// Who was to prove that it has it.
        by: Position,
        /// How.
        outcome: AuditOutcome,
    },
    /// Deletion orders came from a node and are in force here.
    Orders {
        /// From whom.
        from: Position,
        /// Of its orders.
        epoch: u64,
        /// What to ask after next time.
        next: u64,
    },
    /// Whether this node's own store takes blocks. May be said again without a change.
    Room(bool),
    /// A reader got wrong bytes from this node.
    Wrong(Position),
    /// The node is of before: it is up, and asked for blocks only.
    Unsupported(Position),
    /// Compare with all neighbours now.
    SyncNow,
}

/// Something is to be done. The driver does it and says how it ended, with an input of the kind named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Ping the node: [`Input::Status`], [`Input::NoAnswer`] or [`Input::Unsupported`].
    Ping(Position),
    /// Find the 20 nodes closest to the position: [`Input::Found`] or [`Input::NotFound`].
    Lookup(Position),
    /// Ask for a digest: [`Input::Digest`], [`Input::NoAnswer`] or [`Input::Unsupported`].
    AskDigest {
        /// Whom.
        peer: Position,
        /// Of which positions.
        prefix: Prefix,
    },
    /// Fetch the block with its references and store it: [`Input::Pulled`], and [`Input::Held`] if it was stored.
    Pull {
        /// Which block.
        id: BlockId,
        /// Its bytes, as the holder says.
        length: u32,
        /// From whom.
        from: Position,
    },
    /// Offer blocks: [`Input::Offered`], [`Input::NoAnswer`] or [`Input::Unsupported`].
    Offer {
        /// To whom.
        to: Position,
        /// Which; at most 1,024.
        entries: Vec<Entry>,
    },
    /// Ask for the references of blocks and add those that are lacking: [`Input::Held`] for each block that changed.
    AskReferences {
        /// Whom.
        peer: Position,
        /// Of which blocks; at most 256.
        ids: Vec<BlockId>,
    },
    /// Let the node prove that it has the block, against this node's own copy: [`Input::Audited`].
    Audit {
        /// Which block.
        id: BlockId,
        /// Who is to prove.
        by: Position,
    },
    /// Ask for deletion orders and apply them: [`Input::Orders`], [`Input::NoAnswer`] or [`Input::Unsupported`].
    AskOrders {
        /// Whom.
        peer: Position,
        /// Of its orders.
        epoch: u64,
        /// The last that is known here.
        after: u64,
    },
    /// Remove this node's copy: [`Input::Gone`]. Before that, ask the holders one by one for their references of it (`refs`), and do not remove
    /// unless its own references are among those of each, and its own digest is still this one: a reference that only this copy has
    /// would go with it. Without [`Input::Gone`] it is said again later.
    Drop {
        /// Which block.
        id: BlockId,
        /// Of the copy here, as it was when the holders were asked for proofs.
        digest: EntryDigest,
        /// The R closer nodes that proved possession.
        holders: Vec<Position>,
    },
}

/// What a node says to a block that it is offered; the numbers are those of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfferAnswer {
    /// It is not among those who would have it.
    NotMine = 0,
    /// It has it.
    Have = 1,
    /// It comes to fetch it.
    WillPull = 2,
    /// It has no room.
    Full = 3,
}

impl OfferAnswer {
    /// From the wire; `None` for a number that means nothing.
    #[must_use]
    pub const fn from_wire(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::NotMine),
            1 => Some(Self::Have),
            2 => Some(Self::WillPull),
            3 => Some(Self::Full),
            _ => None,
        }
    }
}

/// How a pull ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullOutcome {
    /// The block is durable here.
    Stored,
    /// The peer does not have it.
    NotThere,
    /// Nothing that is pinned and not deleted refers to it at this holder: it was not stored. Other holders are asked.
    Unwanted,
    /// This node's own store has no room. Nothing more is pulled until [`Input::Room`] says otherwise.
    Full,
    /// This node's own store failed, whatever the peer did. The block is fetched again after 10 s.
    Failed,
    /// No answer, in time.
    NoAnswer,
    /// The bytes were not the block.
    Wrong,
}

/// How an audit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditOutcome {
    /// The proof is right.
    Proved,
    /// The peer says that it does not have the block.
    NotThere,
    /// The proof is wrong.
    Wrong,
    /// No answer.
    NoAnswer,
    /// This node could not check the proof, whatever the peer did: its own copy is unreadable, say.
    Unchecked,
}
