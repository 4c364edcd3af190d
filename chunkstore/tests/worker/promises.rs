//! What acknowledgements promise, and whether a store keeps it.

use std::collections::{BTreeMap, BTreeSet};

use chunkstore_block::BlockId;

use super::event::{Action, Event};
use super::publication::Publication;

/// A block that a store holds, read and found intact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holding {
    pub(crate) id: BlockId,
    pub(crate) length: usize,
    pub(crate) publications: BTreeSet<Publication>,
}

/// What is in a store from which all that was deleted has been collected.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub(crate) holdings: Vec<Holding>,
    /// As far as it remembers.
    pub(crate) deleted: BTreeSet<Publication>,
}

/// What must be in a store, by what its user was told.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    blocks: BTreeMap<BlockId, Promise>,
    deletions: BTreeMap<Publication, Deletion>,
    acknowledged: u64,
}

#[derive(Debug)]
struct Promise {
    length: usize,
    stored: Stored,
    /// These it must have if it is there, except those that were deleted.
    publications: BTreeSet<Publication>,
    /// These it may have, with the same exception.
    possible: BTreeSet<Publication>,
}

/// What was begun and not acknowledged may have happened or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    Yes,
    No,
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deletion {
    /// It may have happened or not.
    Begun,
    Done,
    /// It was pruned.
    Forgotten,
}

impl Found {
    pub(super) fn new(events: Vec<Event>) -> Self {
        let mut found = Self::default();
        for event in events {
            match event {
                Event::Holds(holding) => found.holdings.push(holding),
                Event::Deleted(publication) => drop(found.deleted.insert(publication)),
                Event::Begins(_) | Event::Done(_) | Event::Failed(_) | Event::Sound => {}
            }
        }
        found
    }
}

impl Promises {
    /// How many acknowledgements there were.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// How many publications were deleted, and how many of these deletions the store has forgotten.
    pub(crate) fn deletions(&self) -> (u64, u64) {
        let forgotten = self.deletions.values().filter(|deletion| **deletion == Deletion::Forgotten).count();
        (self.deletions.len() as u64, forgotten as u64)
    }

    pub(crate) fn note(&mut self, event: &Event) {
        match event {
            Event::Begins(action) => self.begins(action),
            Event::Done(action) => {
                self.acknowledged += 1;
                self.done(action);
            }
            Event::Failed(_) | Event::Deleted(_) | Event::Holds(_) | Event::Sound => {}
        }
    }

    /// What the store owes and does not have, or has and should not. From here on, what was open is what was found.
    pub(crate) fn settle(&mut self, found: &Found) -> Vec<String> {
        let held: BTreeMap<BlockId, &Holding> = found.holdings.iter().map(|holding| (holding.id, holding)).collect();
        let mut broken: Vec<String> = held
            .keys()
            .filter(|id| !self.blocks.contains_key(id))
            .map(|id| format!("{id} was never put and is there"))
            .collect();
        broken.extend(self.settle_deletions(found));
        for (id, promise) in &mut self.blocks {
            promise.forget(&self.deletions);
            broken.extend(promise.settle(held.get(id).copied()).map(|reason| format!("{id} {reason}")));
        }
        self.blocks.retain(|_, promise| promise.stored == Stored::Yes);
        broken
    }

    /// Leaves those that have happened.
    fn settle_deletions(&mut self, found: &Found) -> Vec<String> {
        let strange = found.deleted.iter().filter(|publication| !self.deletions.contains_key(publication));
        let mut broken: Vec<_> = strange.map(|publication| format!("nobody has deleted {publication}")).collect();
        let used: BTreeSet<_> = found.holdings.iter().flat_map(|holding| &holding.publications).collect();
        self.deletions.retain(|publication, deletion| {
            let is_used = used.contains(publication);
            let (after, reason) = deletion.settle(found.deleted.contains(publication), publication.is_old(), is_used);
            broken.extend(reason.map(|reason| format!("the deletion of {publication} {reason}")));
            after.inspect(|after| *deletion = *after).is_some()
        });
        broken
    }

    fn begins(&mut self, action: &Action) {
        match action {
            Action::Put { id, length, publication } => {
                let promise = self.blocks.entry(*id).or_insert_with(|| Promise::new(*length));
                promise.possible.insert(*publication);
                if promise.stored != Stored::Yes {
                    promise.stored = Stored::Unknown;
                    promise.publications.clear(); // a removal that was begun before may have taken them
                }
            }
            Action::Refer { id, publication } => drop(self.promise(id).possible.insert(*publication)),
            Action::Remove { id } => self.promise(id).stored = Stored::Unknown,
            Action::Delete { publication } => {
                self.deletions.entry(*publication).or_insert(Deletion::Begun);
            }
        }
    }

    fn done(&mut self, action: &Action) {
        match action {
            Action::Put { id, publication, .. } | Action::Refer { id, publication } => self.referred(id, *publication),
            Action::Remove { id } => {
                let promise = self.promise(id);
                *promise = Promise::new(promise.length);
            }
            Action::Delete { publication } => drop(self.deletions.insert(*publication, Deletion::Done)),
        }
    }

    fn referred(&mut self, id: &BlockId, publication: Publication) {
        let promise = self.promise(id);
        promise.publications.insert(publication);
        promise.stored = Stored::Yes;
        // An earlier child had begun to delete it, and it was taken: so that had not happened.
        self.deletions.remove(&publication);
    }

    fn promise(&mut self, id: &BlockId) -> &mut Promise {
        self.blocks.get_mut(id).unwrap_or_else(|| panic!("{id} was found by a child and never put by one"))
    }
}

impl Deletion {
    /// What it is now that it was found so, if it has happened, and what is wrong with that.
    fn settle(self, is_remembered: bool, is_old: bool, is_used: bool) -> (Option<Self>, Option<&'static str>) {
        match (self, is_remembered) {
            (Self::Begun | Self::Done, true) => (Some(Self::Done), None),
            (Self::Begun, false) if is_used || !is_old => (None, None),
            (Self::Begun | Self::Done, false) if is_old => (Some(Self::Forgotten), None),
            (Self::Begun | Self::Done, false) => (Some(self), Some("was acknowledged and is lost")),
            (Self::Forgotten, true) => (Some(self), Some("was forgotten and came back")),
            (Self::Forgotten, false) => (Some(self), None),
        }
    }
}

impl Promise {
    fn new(length: usize) -> Self {
        Self { length, stored: Stored::No, publications: BTreeSet::new(), possible: BTreeSet::new() }
    }

    /// What was deleted keeps nothing.
    fn forget(&mut self, deletions: &BTreeMap<Publication, Deletion>) {
        self.publications.retain(|publication| !deletions.contains_key(publication));
        self.possible.retain(|publication| !deletions.contains_key(publication));
        if self.possible.is_empty() {
            self.stored = Stored::No;
        } else if self.publications.is_empty() {
            self.stored = Stored::Unknown;
        }
    }

    fn settle(&mut self, held: Option<&Holding>) -> Option<String> {
        let before = self.stored;
        self.stored = if held.is_some() { Stored::Yes } else { Stored::No };
        let Some(held) = held else { return (before == Stored::Yes).then(|| "was acknowledged and is gone".into()) };
        let lost: Vec<_> = self.publications.difference(&held.publications).map(Publication::to_string).collect();
        let strange: Vec<_> = held.publications.difference(&self.possible).map(Publication::to_string).collect();
        self.publications.clone_from(&held.publications);
        self.possible.clone_from(&held.publications);
        match () {
            () if before == Stored::No => Some("was removed or deleted and is there".into()),
            () if held.length != self.length => Some(format!("has {} bytes, not {}", held.length, self.length)),
            () if !lost.is_empty() => Some(format!("has lost its references to {lost:?}")),
            () if !strange.is_empty() => Some(format!("refers to {strange:?}, which nobody wanted")),
            () if held.publications.is_empty() => Some("is kept for nothing".into()),
            () => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One whose deletion is kept, and one whose deletion may be pruned.
    const NEW: u64 = 1 << 63;
    const OLD: u64 = 1 << 63 | 1 << 62;

    fn id(number: u8) -> BlockId {
        BlockId::from_bytes([number; 32])
    }

    fn publication(number: u64) -> Publication {
        number.to_string().parse().unwrap()
    }

    fn put(number: u8, publication_number: u64) -> Action {
        Action::Put { id: id(number), length: 10, publication: publication(publication_number) }
    }

    fn refer(number: u8, publication_number: u64) -> Action {
        Action::Refer { id: id(number), publication: publication(publication_number) }
    }

    fn remove(number: u8) -> Action {
        Action::Remove { id: id(number) }
    }

    fn delete(number: u64) -> Action {
        Action::Delete { publication: publication(number) }
    }

    fn holding(number: u8, publications: &[u64]) -> Holding {
        Holding { id: id(number), length: 10, publications: publications.iter().copied().map(publication).collect() }
    }

    fn found(holdings: &[Holding], deleted: &[u64]) -> Found {
        Found { holdings: holdings.to_vec(), deleted: deleted.iter().copied().map(publication).collect() }
    }

    fn promises(begun: &[Action], done: &[Action]) -> Promises {
        let mut promises = Promises::default();
        for action in done {
            promises.note(&Event::Begins(action.clone()));
            promises.note(&Event::Done(action.clone()));
        }
        begun.iter().for_each(|action| promises.note(&Event::Begins(action.clone())));
        promises
    }

    #[test]
    fn what_was_acknowledged_must_be_there() {
        let after = |holdings: &[Holding]| promises(&[], &[put(1, 7), refer(1, 8)]).settle(&found(holdings, &[]));
        assert!(after(&[holding(1, &[7, 8])]).is_empty());
        assert_eq!(after(&[]), [format!("{} was acknowledged and is gone", id(1))]);
        assert_eq!(after(&[holding(1, &[7])]), [format!("{} has lost its references to [\"8\"]", id(1))]);
        assert_eq!(after(&[holding(1, &[7, 8, 9])]).len(), 1);
        assert_eq!(after(&[holding(1, &[7, 8]), holding(2, &[])]), [format!("{} was never put and is there", id(2))]);
        let short = Holding { length: 9, ..holding(1, &[7, 8]) };
        assert_eq!(after(&[short]), [format!("{} has 9 bytes, not 10", id(1))]);
    }

    #[test]
    fn what_was_removed_must_be_gone() {
        let removed = || promises(&[], &[put(1, 7), remove(1)]);
        assert!(removed().settle(&found(&[], &[])).is_empty());
        assert_eq!(removed().settle(&found(&[holding(1, &[7])], &[])).len(), 1);
    }

    #[test]
    fn what_was_begun_may_have_happened_and_then_stays_as_it_was_found() {
        for held in [&[holding(1, &[7])][..], &[]] {
            for mut promises in [promises(&[put(1, 7)], &[]), promises(&[remove(1)], &[put(1, 7)])] {
                assert!(promises.settle(&found(held, &[])).is_empty());
                assert!(promises.settle(&found(held, &[])).is_empty());
                let other = if held.is_empty() { vec![holding(1, &[7])] } else { vec![] };
                assert_eq!(promises.settle(&found(&other, &[])).len(), 1);
            }
        }
    }

    /// Nobody looked between a removal that was begun and the next put: the references from before may be gone.
    #[test]
    fn a_put_after_a_removal_that_was_begun_promises_its_own_reference_only() {
        for held in [&[7, 8][..], &[8]] {
            let mut promises = promises(&[remove(1)], &[put(1, 7)]);
            promises.note(&Event::Begins(put(1, 8)));
            promises.note(&Event::Done(put(1, 8)));
            assert!(promises.settle(&found(&[holding(1, held)], &[])).is_empty());
        }
    }

    #[test]
    fn what_was_deleted_takes_what_only_it_needed_and_nothing_else() {
        let done = [put(1, NEW), put(2, NEW), refer(2, 7), put(3, 7), delete(NEW)];
        let after = |holdings: &[Holding], deleted: &[u64]| promises(&[], &done).settle(&found(holdings, deleted));
        assert!(after(&[holding(2, &[7]), holding(3, &[7])], &[NEW]).is_empty());
        let lost = format!("the deletion of {NEW} was acknowledged and is lost");
        assert_eq!(after(&[holding(2, &[7]), holding(3, &[7])], &[]), [lost]);
        let left = format!("{} was removed or deleted and is there", id(1));
        assert_eq!(after(&[holding(1, &[NEW]), holding(2, &[7]), holding(3, &[7])], &[NEW]), [left.as_str()]);
        assert_eq!(after(&[holding(1, &[]), holding(2, &[7]), holding(3, &[7])], &[NEW]), [left]);
        assert_eq!(after(&[holding(2, &[7, NEW]), holding(3, &[7])], &[NEW]).len(), 1);
        assert_eq!(after(&[holding(3, &[7])], &[NEW]), [format!("{} was acknowledged and is gone", id(2))]);
        assert_eq!(after(&[holding(2, &[7]), holding(3, &[7])], &[NEW, OLD]), [format!("nobody has deleted {OLD}")]);
    }

    #[test]
    fn a_deletion_that_was_begun_has_happened_to_all_blocks_or_to_none() {
        for number in [NEW, OLD] {
            let begun = || promises(&[delete(number)], &[put(1, number), put(2, number), refer(2, 7)]);
            let (before, after) = ([holding(1, &[number]), holding(2, &[7, number])], [holding(2, &[7])]);
            let half = [holding(1, &[number]), holding(2, &[7])];
            assert!(begun().settle(&found(&before, &[])).is_empty());
            assert!(begun().settle(&found(&after, &[number])).is_empty());
            assert_eq!(begun().settle(&found(&after, &[])).is_empty(), number == OLD, "pruned");
            assert!(!begun().settle(&found(&half, &[])).is_empty());
            assert!(!begun().settle(&found(&half, &[number])).is_empty());
            assert!(!begun().settle(&found(&before, &[number])).is_empty());
        }
    }

    #[test]
    fn a_deletion_is_settled_by_what_is_found_and_by_what_is_acknowledged_later() {
        let mut promises = promises(&[delete(NEW)], &[put(1, NEW)]);
        // Nobody looked, and the next child could use it.
        promises.note(&Event::Begins(refer(1, NEW)));
        promises.note(&Event::Done(refer(1, NEW)));
        assert_eq!(promises.settle(&found(&[], &[NEW])).len(), 2);
        let held = [holding(1, &[NEW])];
        let mut promises = self::promises(&[delete(NEW)], &[put(1, NEW)]);
        assert!(promises.settle(&found(&held, &[])).is_empty());
        assert_eq!(promises.settle(&found(&[], &[NEW])).len(), 2, "it had not happened");
    }

    #[test]
    fn an_old_deletion_may_be_forgotten_once() {
        let mut promises = promises(&[], &[put(1, OLD), delete(OLD)]);
        assert!(promises.settle(&found(&[], &[OLD])).is_empty());
        assert!(promises.settle(&found(&[], &[])).is_empty());
        assert_eq!(promises.deletions(), (1, 1));
        assert_eq!(promises.settle(&found(&[], &[OLD])).len(), 1);
        assert_eq!(promises.settle(&found(&[holding(1, &[OLD])], &[])).len(), 1);
    }

    #[test]
    fn events_are_read_as_they_are_said() {
        let mut events: Vec<Event> = [put(1, 7), refer(2, u64::MAX), remove(3), delete(NEW)].map(Event::Done).into();
        events.extend([Event::Begins(put(2, 0)), Event::Failed("no room".into()), Event::Sound]);
        events.extend([Event::Holds(holding(1, &[])), Event::Holds(holding(2, &[3, 4]))]);
        events.push(Event::Deleted(publication(OLD)));
        for event in events {
            assert_eq!(Event::parse(&format!("test name ... {event}")), Some(event));
        }
        assert_eq!(Event::parse("running 1 test"), None);
    }
}
