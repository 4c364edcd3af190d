//! The other nodes, as far as this one knows them (`docs/protocol.md` §9).

use crate::{Position, Time};
use std::collections::BTreeMap;
use std::time::Duration;

/// Nodes that are known; of more, those farthest from this one are forgotten. 1 MiB.
const MAX_MEMBERS: usize = 4_096;
/// Failures in a row that make a node silent.
const FAILURES: u8 = 2;

/// What is known of one node.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) state: State,
    /// First direct evidence of it; proofs of possession count after the minimum age only.
    pub(super) known_since: Time,
    pub(super) first_failure: Option<Time>,
    failures: u8,
    pub(super) distrusted_until: Option<Time>,
    /// Whether it takes blocks, as it said last.
    pub(super) has_room: bool,
    /// Whether it takes part in replication.
    pub(super) is_supported: bool,
    /// Audits in a row to which it had not the block that it had in its digests.
    pub(super) strikes: u8,
    /// How far its deletion orders are known here: epoch and count.
    pub(super) orders: (u64, u64),
    pub(super) is_pinged: bool,
    pub(super) is_neighbour: bool,
}

/// Whether a node is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Others name it; it has not been heard of by this node itself.
    Named,
    /// It answers.
    Up,
    /// It does not, since then.
    Silent(Time),
}

/// What a piece of evidence changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing that matters.
    Same,
    /// A node is there that was not.
    New,
    /// A silent one answers again.
    Back,
    /// It does not answer any more.
    Silent,
    /// It never did, and is forgotten.
    Forgotten,
}

/// All of them.
#[derive(Clone, Debug)]
pub(super) struct Members {
    local: Position,
    known: BTreeMap<Position, Member>,
    /// Those that count as holders, this node included, ascending.
    holders: Vec<Position>,
}

impl Members {
    pub(super) fn new(local: Position) -> Self {
        Self { local, known: BTreeMap::new(), holders: vec![local] }
    }

    pub(super) fn get(&self, node: &Position) -> Option<&Member> {
        self.known.get(node)
    }

    pub(super) fn get_mut(&mut self, node: &Position) -> Option<&mut Member> {
        self.known.get_mut(node)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Position, &Member)> {
        self.known.iter()
    }

    pub(super) fn neighbours(&self) -> impl Iterator<Item = Position> {
        self.known.iter().filter(|(_, member)| member.is_neighbour).map(|(node, _)| *node)
    }

    pub(super) fn is_up(&self, node: &Position) -> bool {
        self.known.get(node).is_some_and(|member| member.state == State::Up)
    }

    /// Whether copies of this node count.
    pub(super) fn is_holder(&self, node: &Position) -> bool {
        self.holders.binary_search(node).is_ok()
    }

    /// The `n` holders closest to `target`, closest first, this node included where it belongs.
    pub(super) fn closest(&self, target: &Position, n: usize) -> Vec<Position> {
        let mut found = Vec::with_capacity(n);
        nearest_first(&self.holders, 0, target, n, &mut found);
        found
    }

    /// Somebody names a node. Whether it is new here: it counts when it has answered, and not before.
    pub(super) fn name(&mut self, now: Time, node: Position) -> bool {
        if node == self.local || self.known.contains_key(&node) {
            return false;
        }
        self.insert(now, node, State::Named)
    }

    /// A node was heard of directly.
    pub(super) fn heard(&mut self, now: Time, node: Position) -> Change {
        if node == self.local {
            return Change::Same;
        }
        let Some(member) = self.known.get_mut(&node) else {
            let is_kept = self.insert(now, node, State::Up);
            self.rank();
            return if is_kept { Change::New } else { Change::Same };
        };
        (member.failures, member.first_failure, member.is_pinged) = (0, None, false);
        let before = std::mem::replace(&mut member.state, State::Up);
        match before {
            State::Up => Change::Same,
            State::Silent(_) => Change::Back,
            State::Named => {
                member.known_since = now;
                self.rank();
                Change::New
            }
        }
    }

    /// A node did not answer.
    pub(super) fn failed(&mut self, now: Time, node: &Position) -> Change {
        let Some(member) = self.known.get_mut(node) else { return Change::Same };
        member.failures = member.failures.saturating_add(1);
        let since = *member.first_failure.get_or_insert(now);
        if member.failures < FAILURES {
            return Change::Same;
        }
        match member.state {
            State::Up => {
                member.state = State::Silent(since);
                Change::Silent
            }
            State::Silent(_) => Change::Same,
            State::Named => {
                self.known.remove(node);
                Change::Forgotten
            }
        }
    }

    /// Gives a silent node up. Whether it was still silent.
    pub(super) fn give_up(&mut self, node: &Position) -> bool {
        if !self.known.get(node).is_some_and(|member| matches!(member.state, State::Silent(_))) {
            return false;
        }
        self.known.remove(node);
        self.rank();
        true
    }

    /// Whether this changed anything.
    pub(super) fn distrust(&mut self, node: &Position, until: Time) -> bool {
        let Some(member) = self.known.get_mut(node) else { return false };
        let before = member.distrusted_until.replace(until);
        member.strikes = 0;
        self.rank();
        before.is_none()
    }

    pub(super) fn trust(&mut self, node: &Position) {
        if let Some(member) = self.known.get_mut(node) {
            member.distrusted_until = None;
            self.rank();
        }
    }

    /// Whether a node has been known for `age`.
    pub(super) fn is_known_for(&self, now: Time, node: &Position, age: Duration) -> bool {
        self.known.get(node).is_some_and(|member| member.state == State::Up && now.since(member.known_since) >= age)
    }

    fn insert(&mut self, now: Time, node: Position, state: State) -> bool {
        let member = Member {
            state,
            known_since: now,
            first_failure: None,
            failures: 0,
            distrusted_until: None,
            has_room: true,
            is_supported: true,
            strikes: 0,
            orders: (0, 0),
            is_pinged: false,
            is_neighbour: false,
        };
        self.known.insert(node, member);
        if self.known.len() <= MAX_MEMBERS {
            return true;
        }
        let farthest = self.known.keys().max_by_key(|node| self.local.distance(node)).copied();
        if let Some(node) = farthest {
            self.known.remove(&node);
        }
        farthest != Some(node)
    }

    fn rank(&mut self) {
        self.holders.clear();
        let counted = |member: &Member| member.state != State::Named && member.distrusted_until.is_none();
        self.holders.extend(self.known.iter().filter(|(_, member)| counted(member)).map(|(node, _)| *node));
        let at = self.holders.partition_point(|node| *node < self.local);
        self.holders.insert(at, self.local);
    }
}

/// Walks the binary tree of the sorted `nodes` below `depth` bits, the half with `target` first. Costs about n times the logarithm of
/// their number.
fn nearest_first(nodes: &[Position], depth: u16, target: &Position, n: usize, found: &mut Vec<Position>) {
    const FEW: usize = 8;
    if nodes.is_empty() || found.len() >= n {
        return;
    }
    if nodes.len() <= FEW {
        let mut few = nodes.to_vec();
        few.sort_by_key(|node| target.distance(node));
        few.truncate(n - found.len());
        found.extend(few);
        return;
    }
    let (low, high) = nodes.split_at(nodes.partition_point(|node| !node.bit(depth)));
    let (near, far) = if target.bit(depth) { (high, low) } else { (low, high) };
    nearest_first(near, depth + 1, target, n, found);
    nearest_first(far, depth + 1, target, n, found);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::closest;
    use proptest::prelude::*;

    fn at(seconds: u64) -> Time {
        Time::from_millis(seconds * 1_000)
    }

    #[test]
    fn a_node_is_silent_after_two_failures_and_back_with_one_answer() {
        let (local, node) = (Position::from_bytes([0; 32]), Position::from_bytes([1; 32]));
        let mut members = Members::new(local);
        assert!(members.name(at(0), node));
        assert!(!members.is_holder(&node), "others' word does not make a holder");
        assert_eq!(members.heard(at(1), node), Change::New);
        assert!(members.is_holder(&node));
        assert_eq!(members.failed(at(2), &node), Change::Same);
        assert_eq!(members.failed(at(3), &node), Change::Silent);
        assert_eq!(members.get(&node).unwrap().state, State::Silent(at(2)));
        assert!(members.is_holder(&node), "within its grace period");
        assert_eq!(members.heard(at(4), node), Change::Back);
        members.failed(at(5), &node);
        members.failed(at(6), &node);
        assert!(members.give_up(&node));
        assert!(members.name(at(10), node) && !members.is_holder(&node), "named by others only");
        assert_eq!(members.heard(at(11), node), Change::New);
        assert!(!members.is_known_for(at(12), &node, Duration::from_secs(2)));
        assert!(members.is_known_for(at(13), &node, Duration::from_secs(2)));
        assert!(members.distrust(&node, at(20)));
        assert!(!members.is_holder(&node));
        members.trust(&node);
        assert!(members.is_holder(&node));
    }

    #[test]
    fn one_that_others_name_and_that_never_answers_is_forgotten() {
        let mut members = Members::new(Position::from_bytes([0; 32]));
        let node = Position::from_bytes([1; 32]);
        members.name(at(0), node);
        members.failed(at(1), &node);
        assert_eq!(members.failed(at(2), &node), Change::Forgotten);
        assert!(members.get(&node).is_none());
    }

    proptest! {
        #[test]
        fn the_walk_ranks_as_sorting_does(target: [u8; 32], nodes in prop::collection::btree_set(any::<[u8; 32]>(), 1..60), shared in 0_usize..32, n in 1_usize..9) {
            // Clustered nodes, too.
            let nodes: Vec<_> = nodes.into_iter().map(|mut node| {
                node[..shared].copy_from_slice(&target[..shared]);
                Position::from_bytes(node)
            }).collect();
            let mut members = Members::new(nodes[0]);
            for node in &nodes {
                members.heard(Time::ZERO, *node);
            }
            let target = Position::from_bytes(target);
            let all: Vec<_> = nodes.iter().map(|node| (*node, *node)).collect();
            prop_assert_eq!(members.closest(&target, n), closest(&target, &all, n));
        }
    }
}
