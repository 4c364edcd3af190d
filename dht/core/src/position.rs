//! Positions in the 256-bit keyspace and the XOR metric between them.

use chunkstore_block::BlockId;
use sha2::{Digest, Sha256};
use std::{cmp::Ordering, fmt};

/// Where a block or a node stands in the keyspace: SHA-256 of its raw id bytes.
///
/// Equal to libp2p's `kbucket::Key` of the same bytes (a test in `dht` holds the two together).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position([u8; 32]);

impl Position {
    /// The position of a block: SHA-256 of its 32 raw id bytes. The content is thus hashed twice.
    #[must_use]
    pub fn of_block(id: &BlockId) -> Self {
        Self(Sha256::digest(id.as_bytes()).into())
    }

    /// The position of a node: SHA-256 of its `PeerId` bytes (the multihash, not the base58 text).
    #[must_use]
    pub fn of_peer(peer_id_bytes: &[u8]) -> Self {
        Self(Sha256::digest(peer_id_bytes).into())
    }

    /// A position given directly, for simulations that draw positions instead of ids.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes, most significant first.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The XOR distance between two positions (Maymounkov and Mazières, Kademlia, 2002, §2.1).
    #[must_use]
    pub fn distance(&self, other: &Self) -> Distance {
        Distance(std::array::from_fn(|i| self.0[i] ^ other.0[i]))
    }

    /// The position at a distance.
    pub(crate) fn at(&self, distance: &Distance) -> Self {
        Self(std::array::from_fn(|i| self.0[i] ^ distance.0[i]))
    }

    /// Leading bits that the two have in common, 256 if they are equal.
    #[must_use]
    pub fn common_bits(&self, other: &Self) -> u16 {
        let differ = words(&self.0).into_iter().zip(words(&other.0)).map(|(a, b)| a ^ b);
        let mut bits = 0;
        for word in differ {
            if word != 0 {
                return bits + word.leading_zeros() as u16;
            }
            bits += 64;
        }
        bits
    }

    /// The position after this one; `None` after the last.
    pub(crate) fn next(&self) -> Option<Self> {
        let mut bytes = self.0;
        for byte in bytes.iter_mut().rev() {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                return Some(Self(bytes));
            }
        }
        None
    }

    /// The bit number `index` from the most significant, below 256.
    pub(crate) fn bit(&self, index: u16) -> bool {
        self.0[usize::from(index / 8)] >> (7 - index % 8) & 1 == 1
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Position(")?;
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, "..)")
    }
}

/// An XOR distance, ordered as a 256-bit big-endian integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Distance([u8; 32]);

impl Ord for Position {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Distance {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

impl PartialOrd for Distance {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// As 256-bit big-endian integers. Comparing numbers spares the call that comparing arrays of bytes is: a tenth of a simulation's time.
fn compare(a: &[u8; 32], b: &[u8; 32]) -> Ordering {
    words(a).cmp(&words(b))
}

/// The integer's digits to base 2^64, the most significant first.
fn words(bytes: &[u8; 32]) -> [u64; 4] {
    std::array::from_fn(|word| u64::from_be_bytes(std::array::from_fn(|i| bytes[8 * word + i])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn xor_is_a_metric(a: [u8; 32], b: [u8; 32], c: [u8; 32]) {
            let (a, b, c) = (Position(a), Position(b), Position(c));
            prop_assert_eq!(a.distance(&b), b.distance(&a));
            prop_assert_eq!(a.distance(&a), Distance([0; 32]));
            // Unidirectional: only one point is at a given distance from a.
            prop_assert_eq!(a.distance(&b) == a.distance(&c), b == c);
        }

        #[test]
        fn positions_are_ordered_as_their_bytes(a: [u8; 32], b: [u8; 32], common in 0_usize..32) {
            let mut near = b;
            near[..common].copy_from_slice(&a[..common]);
            for b in [a, b, near] {
                prop_assert_eq!(Position(a).cmp(&Position(b)), a.cmp(&b));
                prop_assert_eq!(Distance(a).cmp(&Distance(b)), a.cmp(&b));
            }
        }
    }
}
