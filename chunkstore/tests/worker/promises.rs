//! What acknowledgements promise, and whether a store keeps it.

use std::collections::{BTreeMap, BTreeSet};

use chunkstore_block::BlockId;

use super::event::{Action, Event};

/// A block that a store holds, read and found intact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holding {
    pub(crate) id: BlockId,
    pub(crate) length: usize,
    pub(crate) references: BTreeSet<u8>,
}

/// What must be in a store, by what its user was told.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    blocks: BTreeMap<BlockId, Promise>,
    acknowledged: u64,
}

#[derive(Debug)]
struct Promise {
    length: usize,
    stored: Stored,
    /// These it must have if it is there.
    references: BTreeSet<u8>,
    /// These it may have besides.
    possible: BTreeSet<u8>,
}

/// What was begun and not acknowledged may have happened or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    Yes,
    No,
    Unknown,
}

impl Promises {
    /// How many acknowledgements there were.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    pub(crate) fn note(&mut self, event: &Event) {
        match event {
            Event::Begins(action) => self.begins(action),
            Event::Done(action) => {
                self.acknowledged += 1;
                self.done(action);
            }
            Event::Failed(_) | Event::Holds(_) | Event::Sound => {}
        }
    }

    /// What the store owes and does not have, or has and should not. From here on, what was open is what was found.
    pub(crate) fn settle(&mut self, holdings: &[Holding]) -> Vec<String> {
        let held: BTreeMap<BlockId, &Holding> = holdings.iter().map(|holding| (holding.id, holding)).collect();
        let mut broken: Vec<String> = held
            .keys()
            .filter(|id| !self.blocks.contains_key(id))
            .map(|id| format!("{id} was never put and is there"))
            .collect();
        for (id, promise) in &mut self.blocks {
            broken.extend(promise.settle(held.get(id).copied()).map(|reason| format!("{id} {reason}")));
        }
        self.blocks.retain(|_, promise| promise.stored == Stored::Yes);
        broken
    }

    fn begins(&mut self, action: &Action) {
        match action {
            Action::Put { id, length, reference } => {
                let promise = self.blocks.entry(*id).or_insert_with(|| Promise::new(*length));
                promise.possible.insert(*reference);
                if promise.stored == Stored::No {
                    promise.stored = Stored::Unknown;
                }
            }
            Action::Refer { id, reference } => drop(self.promise(id).possible.insert(*reference)),
            Action::Remove { id } => self.promise(id).stored = Stored::Unknown,
        }
    }

    fn done(&mut self, action: &Action) {
        match action {
            Action::Put { id, reference, .. } | Action::Refer { id, reference } => {
                let promise = self.promise(id);
                promise.references.insert(*reference);
                promise.stored = Stored::Yes;
            }
            Action::Remove { id } => {
                let promise = self.promise(id);
                *promise = Promise::new(promise.length);
            }
        }
    }

    fn promise(&mut self, id: &BlockId) -> &mut Promise {
        self.blocks.get_mut(id).unwrap_or_else(|| panic!("{id} was found by a child and never put by one"))
    }
}

impl Promise {
    fn new(length: usize) -> Self {
        Self { length, stored: Stored::No, references: BTreeSet::new(), possible: BTreeSet::new() }
    }

    fn settle(&mut self, held: Option<&Holding>) -> Option<String> {
        let before = self.stored;
        self.stored = if held.is_some() { Stored::Yes } else { Stored::No };
        let Some(held) = held else { return (before == Stored::Yes).then(|| "was acknowledged and is gone".into()) };
        let lost: Vec<_> = self.references.difference(&held.references).copied().collect();
        let strange: Vec<_> = held.references.difference(&self.possible).copied().collect();
        self.references.clone_from(&held.references);
        self.possible.clone_from(&held.references);
        match () {
            () if before == Stored::No => Some("was removed and is there".into()),
            () if held.length != self.length => Some(format!("has {} bytes, not {}", held.length, self.length)),
            () if !lost.is_empty() => Some(format!("has lost the references {lost:?}")),
            () if !strange.is_empty() => Some(format!("has the references {strange:?} that nobody gave it")),
            () => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> BlockId {
        BlockId::from_bytes([number; 32])
    }

    fn put(number: u8, reference: u8) -> Action {
        Action::Put { id: id(number), length: 10, reference }
    }

    fn holding(number: u8, references: &[u8]) -> Holding {
        Holding { id: id(number), length: 10, references: references.iter().copied().collect() }
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
        let refer = Action::Refer { id: id(1), reference: 8 };
        let after = |holdings: &[Holding]| promises(&[], &[put(1, 7), refer.clone()]).settle(holdings);
        assert!(after(&[holding(1, &[7, 8])]).is_empty());
        assert_eq!(after(&[]), [format!("{} was acknowledged and is gone", id(1))]);
        assert_eq!(after(&[holding(1, &[7])]), [format!("{} has lost the references [8]", id(1))]);
        assert_eq!(after(&[holding(1, &[7, 8, 9])]).len(), 1);
        assert_eq!(after(&[holding(1, &[7, 8]), holding(2, &[])]), [format!("{} was never put and is there", id(2))]);
        let short = Holding { length: 9, ..holding(1, &[7, 8]) };
        assert_eq!(after(&[short]), [format!("{} has 9 bytes, not 10", id(1))]);
    }

    #[test]
    fn what_was_removed_must_be_gone() {
        let removed = || promises(&[], &[put(1, 7), Action::Remove { id: id(1) }]);
        assert!(removed().settle(&[]).is_empty());
        assert_eq!(removed().settle(&[holding(1, &[7])]).len(), 1);
    }

    #[test]
    fn what_was_begun_may_have_happened_and_then_stays_as_it_was_found() {
        for found in [&[holding(1, &[7])][..], &[]] {
            for mut promises in [promises(&[put(1, 7)], &[]), promises(&[Action::Remove { id: id(1) }], &[put(1, 7)])] {
                assert!(promises.settle(found).is_empty());
                assert!(promises.settle(found).is_empty());
                let other = if found.is_empty() { vec![holding(1, &[7])] } else { vec![] };
                assert_eq!(promises.settle(&other).len(), 1);
            }
        }
    }

    #[test]
    fn events_are_read_as_they_are_said() {
        let remove = Action::Remove { id: id(3) };
        let refer = Action::Refer { id: id(2), reference: 255 };
        let mut events: Vec<Event> = [put(1, 7), refer, remove].map(Event::Done).into();
        events.extend([Event::Begins(put(2, 0)), Event::Failed("no room".into()), Event::Sound]);
        events.extend([Event::Holds(holding(1, &[])), Event::Holds(holding(2, &[3, 4]))]);
        for event in events {
            assert_eq!(Event::parse(&format!("test name ... {event}")), Some(event));
        }
        assert_eq!(Event::parse("running 1 test"), None);
    }
}
