//! How many bytes of bodies a node holds for its peers, all together and for each (`docs/protocol.md` §11).

use libp2p::PeerId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// Bytes of bodies that are received or sent. Half of it is kept for members that hold nothing yet, so that slow ones, if they
/// are not very many, leave room for one who is not.
#[derive(Debug)]
pub struct BodyBudget {
    total: usize,
    per_member: usize,
    held: Mutex<Held>,
    /// Something was given back.
    freed: Notify,
}

#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    most: usize,
    members: HashMap<PeerId, usize>,
}

impl BodyBudget {
    pub(super) fn new(total: usize, per_member: usize) -> Self {
        Self { total, per_member, held: Mutex::default(), freed: Notify::new() }
    }

    /// Bytes held now.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.lock().bytes
    }

    /// The most bytes that were ever held at once.
    #[must_use]
    pub fn most_held_bytes(&self) -> usize {
        self.lock().most
    }

    /// Room for `bytes` more of a member. `None` if there is none within `patience`.
    pub(super) async fn reserve(self: &Arc<Self>, member: PeerId, bytes: usize, patience: Duration) -> Option<Share> {
        let room = async {
            loop {
                // Made before the look, so that nothing given back in between is missed.
                let freed = self.freed.notified();
                if let Some(share) = self.try_reserve(member, bytes) {
                    return share;
                }
                freed.await;
            }
        };
        timeout(patience, room).await.ok()
    }

    fn try_reserve(self: &Arc<Self>, member: PeerId, bytes: usize) -> Option<Share> {
        let mut held = self.lock();
        let of_member = held.members.get(&member).copied().unwrap_or_default();
        let free = self.total - held.bytes;
        // Who holds something already takes from the upper half only; the lower is for the first block of each. Slow
        // members never come to hold less by themselves, so a share that shrinks as others come would not help.
        let allowed = of_member == 0 || of_member + bytes <= self.per_member && free >= bytes + self.total / 2;
        if bytes > free || !allowed {
            return None;
        }
        held.bytes += bytes;
        held.most = held.most.max(held.bytes);
        *held.members.entry(member).or_default() += bytes;
        Some(Share { budget: Arc::clone(self), member, bytes })
    }

    fn give_back(&self, member: PeerId, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let mut held = self.lock();
        held.bytes -= bytes;
        match held.members.get_mut(&member) {
            Some(of_member) if *of_member > bytes => *of_member -= bytes,
            _ => drop(held.members.remove(&member)),
        }
        drop(held);
        self.freed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A member's hold on some of the budget; given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<BodyBudget>,
    member: PeerId,
    bytes: usize,
}

impl Share {
    /// Gives back what is over `bytes`.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.bytes -= surplus;
        self.budget.give_back(self.member, surplus);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.give_back(self.member, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::identity::Keypair;

    const MIB: usize = 1 << 20;

    fn peer() -> PeerId {
        Keypair::generate_ed25519().public().to_peer_id()
    }

    fn budget() -> Arc<BodyBudget> {
        Arc::new(BodyBudget::new(64 * MIB, 8 * MIB))
    }

    #[test]
    fn a_member_alone_has_its_whole_share_and_no_more() {
        let (budget, member) = (budget(), peer());
        let shares: Vec<_> = std::iter::from_fn(|| budget.try_reserve(member, MIB)).collect();
        assert_eq!(shares.len(), 8);
        drop(shares);
        assert_eq!((budget.held_bytes(), budget.most_held_bytes()), (0, 8 * MIB));
        assert!(budget.lock().members.is_empty());
    }

    #[test]
    fn many_greedy_members_leave_room_for_one_more() {
        let budget = budget();
        let members: Vec<_> = (0..25).map(|_| peer()).collect();
        let mut shares = Vec::new();
        for member in &members {
            shares.extend((0..8).filter_map(|_| budget.try_reserve(*member, MIB)));
        }
        assert_eq!(budget.held_bytes(), (4 * 8 + 21) * MIB);
        assert!(budget.try_reserve(peer(), MIB).is_some());
    }

    #[test]
    fn the_budget_is_never_exceeded() {
        let budget = budget();
        let shares: Vec<_> = (0..100).filter_map(|_| budget.try_reserve(peer(), MIB)).collect();
        assert_eq!(shares.len(), 64);
        assert_eq!(budget.held_bytes(), 64 * MIB);
    }

    #[tokio::test]
    async fn who_waits_gets_what_is_given_back_and_gives_up_in_time() {
        let (budget, member) = (Arc::new(BodyBudget::new(MIB, MIB)), peer());
        let mut first = budget.try_reserve(member, MIB).unwrap();
        assert!(budget.reserve(peer(), MIB, Duration::from_millis(1)).await.is_none());
        let waiting = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { budget.reserve(peer(), MIB / 2, Duration::from_secs(60)).await }
        });
        tokio::task::yield_now().await;
        first.shrink_to(MIB / 2);
        assert!(waiting.await.unwrap().is_some());
    }
}
