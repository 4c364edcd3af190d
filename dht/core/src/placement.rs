//! Ranking of nodes for a block, and the comparison of where it is with where it belongs.

use crate::Position;

/// The `r` candidates closest to `target`, closest first. Each candidate is a name with its position; equal
/// positions keep the order of the candidates. Costs one comparison sort of the candidates.
#[must_use]
pub fn closest<T: Clone>(target: &Position, candidates: &[(T, Position)], r: usize) -> Vec<T> {
    let mut ranked: Vec<_> = candidates.iter().collect();
    ranked.sort_by_key(|(_, position)| target.distance(position));
    ranked.into_iter().take(r).map(|(name, _)| name.clone()).collect()
}

/// Where a block is against where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement<T> {
    /// Nodes among the R closest that lack the block.
    pub missing: Vec<T>,
    /// Holders that are not among the R closest.
    pub surplus: Vec<T>,
}

impl<T: Clone + PartialEq> Placement<T> {
    /// Compares the `holders` of a block with the nodes it `belongs` on.
    #[must_use]
    pub fn compare(belongs: &[T], holders: &[T]) -> Self {
        let without = |all: &[T], these: &[T]| all.iter().filter(|x| !these.contains(x)).cloned().collect();
        Self { missing: without(belongs, holders), surplus: without(holders, belongs) }
    }

    /// Whether the block is on exactly the nodes it belongs on.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.missing.is_empty() && self.surplus.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn missing_and_surplus_are_told_apart() {
        let placement = Placement::compare(&["a", "b"], &["b", "c"]);
        assert_eq!(placement, Placement { missing: vec!["a"], surplus: vec!["c"] });
        assert!(!placement.is_exact());
        assert!(Placement::compare(&["a", "b"], &["b", "a"]).is_exact());
    }

    proptest! {
        #[test]
        fn nobody_left_out_is_closer(target: [u8; 32], nodes in prop::collection::vec(any::<[u8; 32]>(), 1..40), r in 1_usize..5) {
            let target = Position::from_bytes(target);
            let candidates: Vec<_> =
                nodes.iter().enumerate().map(|(i, bytes)| (i, Position::from_bytes(*bytes))).collect();
            let chosen = closest(&target, &candidates, r);
            prop_assert_eq!(chosen.len(), r.min(candidates.len()));
            let farthest = chosen.iter().map(|i| target.distance(&candidates[*i].1)).max().unwrap();
            for (i, position) in &candidates {
                prop_assert!(chosen.contains(i) || target.distance(position) >= farthest);
            }
        }
    }
}
