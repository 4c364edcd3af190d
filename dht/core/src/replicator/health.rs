//! What replication is at.

use super::{Replicator, sync};
use crate::members::State;

/// What replication is at, for operators and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Blocks here, undamaged.
    pub held: u64,
    /// Their bytes.
    pub held_bytes: u64,
    /// Of them, copies for which R closer nodes are known; at most [`crate::Limits::surplus`] are counted.
    pub surplus: u64,
    /// Blocks that are to be here and are known to be elsewhere.
    pub wanted: u64,
    /// Their bytes.
    pub wanted_bytes: u64,
    /// Pulls under way.
    pub pulling: u64,
    /// Nodes that are known, however they are.
    pub known: u64,
    /// Neighbours that answer and have deletion orders that are not in force here, or may have.
    pub behind: u64,
    /// Nodes that answered last time.
    pub members_up: u64,
    /// Nodes within their grace period.
    pub members_silent: u64,
    /// Nodes that are pinged and compared with.
    pub neighbours: u64,
    /// Nodes that proved wrong in the last hour.
    pub distrusted: u64,
    /// Comparisons under way.
    pub syncing: u64,
    /// Outputs that wait for the driver.
    pub outputs: u64,
    /// Blocks pulled, ever.
    pub pulled_blocks: u64,
    /// Their bytes.
    pub pulled_bytes: u64,
    /// Pulls that failed, ever.
    pub failed_pulls: u64,
    /// Blocks offered to others, ever.
    pub offered: u64,
    /// Surplus copies dropped, ever.
    pub dropped: u64,
    /// Audits asked for, ever.
    pub audits: u64,
    /// Audits that were not passed, ever.
    pub failed_audits: u64,
    /// Comparisons begun, ever.
    pub syncs: u64,
    /// Digests asked for, ever.
    pub digests: u64,
    /// Lookups, ever.
    pub lookups: u64,
}

/// How much waits or is under way; every number has a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queues {
    /// Outputs that wait for the driver, at most 4,096.
    pub outputs: usize,
    /// Blocks wanted, at most [`crate::Limits::wants`].
    pub wants: usize,
    /// Pulls under way, at most [`crate::Config::pulls_under_way`].
    pub pulls: usize,
    /// Audits under way, at most 4.
    pub audits: usize,
    /// Comparisons under way, at most 8.
    pub syncs: usize,
    /// Surplus copies that are seen to, at most [`crate::Limits::surplus`].
    pub surplus: usize,
    /// Lookups under way, at most 2.
    pub lookups: usize,
    /// Blocks found lacking in one of the comparisons under way, the largest; at most [`crate::Limits::lacking`].
    pub lacking: usize,
    /// Blocks that nodes are known to lack, at most [`crate::Limits::overflow`].
    pub overflow: usize,
}

impl Replicator {
    /// How much waits or is under way. Costs a look at each comparison.
    #[must_use]
    pub fn queues(&self) -> Queues {
        Queues {
            outputs: self.outputs.len(),
            wants: self.wants.len(),
            pulls: self.wants.under_way(),
            audits: self.audits.len(),
            syncs: self.syncs.len(),
            surplus: self.surplus.len(),
            lookups: self.lookups.len(),
            lacking: self.syncs.values().map(sync::Descent::lacking).max().unwrap_or(0),
            overflow: self.lacking.len(),
        }
    }

    /// What it is at. Costs a walk over the known nodes.
    #[must_use]
    pub fn health(&self) -> Health {
        let count = |state| self.members.iter().filter(|(_, member)| member.state == state).count() as u64;
        Health {
            held: self.holdings.len() as u64,
            held_bytes: self.holdings.bytes(),
            surplus: self.surplus.len() as u64,
            wanted: self.wants.len() as u64,
            wanted_bytes: self.wants.bytes(),
            pulling: self.wants.under_way() as u64,
            known: self.members.len() as u64,
            behind: self
                .members
                .iter()
                .filter(|(_, member)| member.neighbour && member.talks() && !member.is_caught_up())
                .count() as u64,
            members_up: count(State::Up),
            members_silent: count(State::Silent),
            neighbours: self.members.iter().filter(|(_, member)| member.neighbour).count() as u64,
            distrusted: count(State::Distrusted),
            syncing: self.syncs.len() as u64,
            outputs: self.outputs.len() as u64,
            ..self.counts
        }
    }
}
