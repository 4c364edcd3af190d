//! Events in order of time, and of their making where the time is the same.

use dht_core::Time;
use std::collections::{BTreeMap, VecDeque};

/// Milliseconds ahead for which each has a place of its own: most events are answers and pings, which come within seconds. A power of two.
const AHEAD: usize = 1 << 16;

/// A wheel of the next 65 s, and a tree for what is later. Taking the next event and adding one cost the same however many there are, where a heap of a
/// million would be the costliest part of a run.
pub(crate) struct Queue<T> {
    /// Of each millisecond from `now` on, by its last bits.
    wheel: Vec<VecDeque<T>>,
    now: u64,
    in_wheel: usize,
    later: BTreeMap<u64, VecDeque<T>>,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self { wheel: (0..AHEAD).map(|_| VecDeque::new()).collect(), now: 0, in_wheel: 0, later: BTreeMap::new() }
    }

    /// What is due before the event that was taken last, or before the time until which there was none, comes at once.
    pub(crate) fn push(&mut self, time: Time, event: T) {
        let time = time.as_millis().max(self.now);
        if time - self.now < AHEAD as u64 {
            self.slot(time).push_back(event);
            self.in_wheel += 1;
        } else {
            self.later.entry(time).or_default().push_back(event);
        }
    }

    /// The next event, if it is due by `end`.
    pub(crate) fn pop_by(&mut self, end: Time) -> Option<(Time, T)> {
        loop {
            if let Some(event) = self.slot(self.now).pop_front() {
                self.in_wheel -= 1;
                return Some((Time::from_millis(self.now), event));
            }
            let next = if self.in_wheel > 0 { self.now + 1 } else { *self.later.first_key_value()?.0 };
            if next > end.as_millis() {
                return None;
            }
            self.advance(next);
        }
    }

    /// What was too late for the wheel and no longer is comes before what is added from now on.
    fn advance(&mut self, now: u64) {
        // An empty place keeps no memory.
        *self.slot(self.now) = VecDeque::new();
        self.now = now;
        while let Some(first) = self.later.first_entry().filter(|first| *first.key() - now < AHEAD as u64) {
            let (time, events) = first.remove_entry();
            self.in_wheel += events.len();
            // Empty: while it was out of reach nothing could be added.
            *self.slot(time) = events;
        }
    }

    fn slot(&mut self, time: u64) -> &mut VecDeque<T> {
        &mut self.wheel[time as usize % AHEAD]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use std::{cmp::Reverse, collections::BinaryHeap};

    #[test]
    fn events_come_as_from_a_heap() {
        let mut random = Random::new(1);
        let (mut queue, mut heap) = (Queue::new(), BinaryHeap::new());
        let mut now = 0;
        for number in 0..200_000_u64 {
            if random.below(2) == 0 {
                // Now, soon, and beyond the wheel.
                let span = [1, 50, 5_000, 400_000][random.below(4)];
                let time = now + random.next() % span;
                queue.push(Time::from_millis(time), number);
                heap.push(Reverse((time, number)));
            } else {
                let end = now + random.next() % 100_000;
                let expected = heap.peek().filter(|Reverse((time, _))| *time <= end).map(|Reverse(event)| *event);
                let found = queue.pop_by(Time::from_millis(end)).map(|(time, event)| (time.as_millis(), event));
                assert_eq!(found, expected);
                now = found.map_or(now.max(end), |(time, _)| time);
                if found.is_some() {
                    heap.pop();
                }
            }
        }
        assert!(now > 2 * AHEAD as u64, "{now}");
    }
}
