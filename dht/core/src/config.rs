//! What can be set, what it costs, and where the defaults come from.

use std::time::Duration;

/// Settings of replication. [`Config::new`] has the defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Copies of each block (R), 1 to 16. White paper 4.2: 2 or 3. Each costs the bytes of all blocks once more.
    pub replication: usize,
    /// How long a silent node still counts as a holder. Longer: fewer blocks move for nodes that come back; shorter: less
    /// time with a copy less. 10 min: Garage's delay before it resyncs a returned node; a restart takes seconds.
    pub grace: Duration,
    /// Between two pings of a neighbour: about 100 bytes each way for each of at most 64. 5 s is a guess.
    pub ping_interval: Duration,
    /// Between two comparisons with a neighbour: 0.4 KB for equal sets (`docs/protocol.md` §10.3). 60 s is a guess.
    pub sync_interval: Duration,
    /// How long a node must have been known before its proofs count. Longer: a new node's surplus elsewhere stays longer;
    /// shorter: made-up identities need to wait less. 10 min is a guess.
    pub minimum_age: Duration,
    /// How long a proof of possession counts. Shorter: more audits, each one block read on either side. 10 min is a guess.
    pub proof_lifetime: Duration,
    /// How long a copy has been surplus before it is dropped. Longer: more space held; shorter: more moved when nodes flap.
    /// 2 min is a guess: two sync intervals.
    pub drop_delay: Duration,
    /// How long a region serves after its lookup. Shorter: more lookups. `docs/protocol.md` §9.
    pub region_lifetime: Duration,
    /// How long a node that proved wrong is neither holder nor neighbour. `docs/protocol.md` §9.
    pub distrust: Duration,
    /// Bytes of pulls begun in a second, averaged; a second's worth (at least one block) may come at once. `None`: as fast as it goes.
    pub repair_bytes_per_s: Option<u64>,
    /// Pulls under way at a time, each at most 1 MiB in memory. 8: `docs/protocol.md` §10.4.
    pub pulls_under_way: usize,
    /// Decides jitter and which block is audited. Any number; nodes should have different ones, or they act in step.
    pub seed: u64,
    /// How much is remembered at a time.
    pub limits: Limits,
}

/// How much is remembered at a time. What is above it waits and is found again, so that small ones cost time and no blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Blocks found lacking at a peer in one comparison, 84 bytes each; the next one goes on behind them. 4,096: four offers.
    pub lacking: usize,
    /// Blocks remembered that nodes are known to lack although they are to have them, about 300 bytes each. 16,384: 5 MB.
    pub overflow: usize,
    /// Surplus copies that are seen to at a time, about 300 bytes each; the others wait for their turn. 16,384: 5 MB.
    pub surplus: usize,
    /// Blocks wanted at a time, about 300 bytes each; what is above it is found again by a later comparison. 65,536: 20 MB.
    pub wants: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { lacking: 4_096, overflow: 16_384, surplus: 16_384, wants: 65_536 }
    }
}

impl Config {
    /// The defaults, for `replication` copies (taken as 1 to 16).
    #[must_use]
    pub fn new(replication: usize) -> Self {
        Self {
            replication: replication.clamp(1, MAX_REPLICATION),
            grace: Duration::from_secs(600),
            ping_interval: Duration::from_secs(5),
            sync_interval: Duration::from_secs(60),
            minimum_age: Duration::from_secs(600),
            proof_lifetime: Duration::from_secs(600),
            drop_delay: Duration::from_secs(120),
            region_lifetime: Duration::from_secs(60),
            distrust: Duration::from_secs(3600),
            repair_bytes_per_s: None,
            pulls_under_way: 8,
            seed: 0,
            limits: Limits::default(),
        }
    }
}

/// Beyond it a lookup of 20 nodes no longer makes regions of R + 2.
pub const MAX_REPLICATION: usize = 16;
