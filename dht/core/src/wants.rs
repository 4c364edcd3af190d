//! Blocks that are to be here and are elsewhere (`docs/protocol.md` §10.4).

use crate::{Position, Time};
use chunkstore_block::BlockId;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// The first time that a want waits for deletion orders; then it is as long as it has waited.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Holders remembered for a wanted block: as many as an offer may come from.
const MAX_HOLDERS: usize = 8;

#[derive(Clone, Debug)]
pub(crate) struct Want {
    pub(crate) id: BlockId,
    pub(crate) length: u32,
    /// Who says that it has the block.
    pub(crate) holders: Vec<Position>,
    /// Somebody offered it, so it is taken whatever the ranking says by then.
    pub(crate) offered: bool,
    /// The holder whose deletion orders it waits for, and since when.
    awaits: Option<(Position, Time)>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    Waiting(Time),
    Pulling { from: Position, until: Time },
}

/// A position read from its last byte. In order of position, a holder would see nothing of its own fetched for as long as it takes to fetch what others have,
/// and take this node for one that only says that it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Shuffled([u8; 32]);

impl Shuffled {
    fn of(position: &Position) -> Self {
        let mut bytes = *position.as_bytes();
        bytes.reverse();
        Self(bytes)
    }

    fn position(mut self) -> Position {
        self.0.reverse();
        Position::from_bytes(self.0)
    }
}

/// Every want is in exactly one of `ready`, `waiting` and `pulling`.
#[derive(Debug)]
pub(crate) struct Wants {
    most: usize,
    all: BTreeMap<Position, Want>,
    /// Fewest known copies first, then in an order without regard to who has them.
    ready: BTreeSet<(usize, Shuffled)>,
    waiting: BTreeSet<(Time, Position)>,
    pulling: BTreeSet<Position>,
    /// How many have this holder only.
    only: BTreeMap<Position, usize>,
    bytes: u64,
}

impl Wants {
    pub(crate) const fn new(most: usize) -> Self {
        Self {
            most,
            all: BTreeMap::new(),
            ready: BTreeSet::new(),
            waiting: BTreeSet::new(),
            pulling: BTreeSet::new(),
            only: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// Notes that `holder` has the block; a new want waits until `not_before`. False if there are too many: a holder alone fills at most
    /// half of what the others leave, so that nobody can take all places with what it never gives.
    pub(crate) fn add(
        &mut self,
        position: Position,
        want: (BlockId, u32),
        holder: Position,
        offered: bool,
        not_before: Option<Time>,
    ) -> bool {
        if let Some(mut known) = self.take(&position) {
            if !known.holders.contains(&holder) && known.holders.len() < MAX_HOLDERS {
                known.holders.push(holder);
            }
            known.offered |= offered;
            self.put(position, known);
            return true;
        }
        let its = self.only.get(&holder).copied().unwrap_or(0);
        let left = self.most.saturating_sub(self.all.len() - its);
        if self.all.len() >= self.most || its >= left.div_ceil(2) {
            return false;
        }
        let (id, length) = want;
        let state = not_before.map_or(State::Ready, State::Waiting);
        self.put(position, Want { id, length, holders: vec![holder], offered, awaits: None, state });
        true
    }

    pub(crate) fn remove(&mut self, position: &Position) -> Option<Want> {
        self.take(position)
    }

    /// The next that can be pulled.
    pub(crate) fn first(&self) -> Option<(Position, &Want)> {
        let position = self.ready.first()?.1.position();
        self.all.get(&position).map(|want| (position, want))
    }

    pub(crate) fn set_pulling(&mut self, position: &Position, from: Position, until: Time) {
        self.set_state(position, State::Pulling { from, until });
    }

    fn set_waiting(&mut self, position: &Position, until: Time) {
        self.set_state(position, State::Waiting(until));
    }

    /// The deletion orders of `holder` are to be in force before anything is taken from it. It loses the holder if it has waited for `most`;
    /// until then it is seen to again less and less often.
    pub(crate) fn await_orders(&mut self, now: Time, position: &Position, holder: Position, most: Duration) {
        let Some(want) = self.all.get_mut(position) else { return };
        let since = want.awaits.filter(|(awaited, _)| *awaited == holder).map_or(now, |(_, since)| since);
        want.awaits = Some((holder, since));
        let waited = now.since(since);
        if waited >= most {
            self.failed(position, &holder);
        } else {
            self.set_waiting(position, now + waited.max(FIRST_WAIT).min(most - waited));
        }
    }

    /// A pull from `from` failed: it does not have the block. True if `from` was being asked.
    pub(crate) fn failed(&mut self, position: &Position, from: &Position) -> bool {
        let Some(mut want) = self.take(position) else { return false };
        let asked = matches!(want.state, State::Pulling { from: asked, .. } if asked == *from);
        if asked {
            want.state = State::Ready;
        }
        want.holders.retain(|holder| holder != from);
        if !want.holders.is_empty() {
            self.put(*position, want);
        }
        asked
    }

    /// A pull ended without telling anything about the holder: again, but not before the time, if one is given.
    pub(crate) fn again(&mut self, position: &Position, from: &Position, not_before: Option<Time>) {
        if self
            .all
            .get(position)
            .is_some_and(|want| matches!(want.state, State::Pulling { from: asked, .. } if asked == *from))
        {
            self.set_state(position, not_before.map_or(State::Ready, State::Waiting));
        }
    }

    /// Makes ready what has waited long enough.
    pub(crate) fn wake(&mut self, now: Time) {
        while let Some((until, position)) = self.waiting.first().copied()
            && until <= now
        {
            self.set_state(&position, State::Ready);
        }
    }

    pub(crate) fn next_wake(&self) -> Option<Time> {
        self.waiting.first().map(|(until, _)| *until)
    }

    /// Pulls that were never answered: block and holder.
    pub(crate) fn overdue(&self, now: Time) -> Vec<(Position, Position)> {
        let overdue = self.pulling.iter().filter_map(|position| match self.all.get(position)?.state {
            State::Pulling { from, until } if until <= now => Some((*position, from)),
            State::Pulling { .. } | State::Ready | State::Waiting(_) => None,
        });
        overdue.collect()
    }

    /// Pulls under way from `holder`.
    pub(crate) fn load(&self, holder: &Position) -> usize {
        let from = |position: &&Position| matches!(self.all.get(*position).map(|want| want.state), Some(State::Pulling { from, .. }) if from == *holder);
        self.pulling.iter().filter(from).count()
    }

    pub(crate) fn under_way(&self) -> usize {
        self.pulling.len()
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    fn set_state(&mut self, position: &Position, state: State) {
        if let Some(mut want) = self.take(position) {
            want.state = state;
            self.put(*position, want);
        }
    }

    fn take(&mut self, position: &Position) -> Option<Want> {
        let want = self.all.remove(position)?;
        self.bytes -= u64::from(want.length);
        if let [only] = want.holders.as_slice()
            && let Some(count) = self.only.get_mut(only)
        {
            *count -= 1;
            if *count == 0 {
                self.only.remove(only);
            }
        }
        match want.state {
            State::Ready => self.ready.remove(&(want.holders.len(), Shuffled::of(position))),
            State::Waiting(until) => self.waiting.remove(&(until, *position)),
            State::Pulling { .. } => self.pulling.remove(position),
        };
        Some(want)
    }

    fn put(&mut self, position: Position, want: Want) {
        self.bytes += u64::from(want.length);
        if let [only] = want.holders.as_slice() {
            *self.only.entry(*only).or_default() += 1;
        }
        match want.state {
            State::Ready => self.ready.insert((want.holders.len(), Shuffled::of(&position))),
            State::Waiting(until) => self.waiting.insert((until, position)),
            State::Pulling { .. } => self.pulling.insert(position),
        };
        self.all.insert(position, want);
    }
}
