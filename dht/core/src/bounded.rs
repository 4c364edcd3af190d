//! A map of bounded size.

use std::{collections::BTreeMap, ops::RangeBounds};

/// A map that, above its bound, forgets what came first.
#[derive(Debug)]
pub(crate) struct Bounded<K, V> {
    most: usize,
    values: BTreeMap<K, (u64, V)>,
    /// By the number of the insertion.
    order: BTreeMap<u64, K>,
    inserted: u64,
}

impl<K: Ord + Copy, V> Bounded<K, V> {
    pub(crate) fn new(most: usize) -> Self {
        Self { most: most.max(1), values: BTreeMap::new(), order: BTreeMap::new(), inserted: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// Puts it in, as the youngest even if the key was there.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.remove(&key);
        self.inserted += 1;
        self.order.insert(self.inserted, key);
        self.values.insert(key, (self.inserted, value));
        if self.values.len() > self.most
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.values.remove(&oldest);
        }
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let (number, value) = self.values.remove(key)?;
        self.order.remove(&number);
        Some(value)
    }

    pub(crate) fn remove_range(&mut self, range: impl RangeBounds<K>) {
        let keys: Vec<_> = self.values.range(range).map(|(key, _)| *key).collect();
        keys.iter().for_each(|key| _ = self.remove(key));
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.values.get(key).map(|(_, value)| value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.values.iter().map(|(key, (_, value))| (key, value))
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.values.get_mut(key).map(|(_, value)| value)
    }
}

impl<K: Ord + Copy, V: Default> Bounded<K, V> {
    /// What is there, or is put in now.
    pub(crate) fn get_or_insert(&mut self, key: K) -> Option<&mut V> {
        if !self.values.contains_key(&key) {
            self.insert(key, V::default());
        }
        self.get_mut(&key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_and_never_the_newest() {
        let mut map = Bounded::new(2);
        [5, 3, 1].iter().for_each(|key| map.insert(*key, ()));
        assert_eq!((map.get(&5), map.get(&3), map.get(&1)), (None, Some(&()), Some(&())));
        map.insert(3, ());
        map.insert(9, ());
        assert_eq!((map.get(&1), map.get(&3), map.get(&9)), (None, Some(&()), Some(&())));
        map.remove_range(3..9);
        assert_eq!((map.get(&3), map.get(&9)), (None, Some(&())));
    }
}
