//! Prefixes of positions: the ranges in which sets of blocks are compared, and in which rankings are the same.

use crate::Position;

/// Bits of a position.
pub(crate) const POSITION_BITS: u16 = 256;

/// Continuations of a prefix by [`CHILD_BITS`].
pub(crate) const CHILDREN: usize = 16;

/// Bits by which a comparison goes deeper (`docs/protocol.md` §10.3).
pub(crate) const CHILD_BITS: u16 = 4;

/// Bytes that are not a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// More bits than a position has.
    #[error("a prefix has at most 256 bits, not {0}")]
    TooLong(u64),
    /// Not the number of bytes that the bits need.
    #[error("a prefix of {bits} bits is {expected} bytes, not {found}")]
    Length {
        /// Bits of the prefix.
        bits: u16,
        /// Bytes that they need.
        expected: usize,
        /// Bytes that came.
        found: usize,
    },
    /// A bit after the last is set.
    #[error("the bits behind a prefix of {0} bits are zero")]
    UnusedBits(u16),
}

/// The positions that begin with the same bits. Bits behind the prefix are zero, so equal prefixes are equal values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    start: Position,
    bits: u16,
}

impl Prefix {
    /// The whole keyspace.
    pub const ALL: Self = Self { start: Position::from_bytes([0; 32]), bits: 0 };

    /// From the wire (`docs/protocol.md` §4.2, `digest`): `ceil(bits / 8)` bytes, unused bits zero.
    ///
    /// # Errors
    /// [`PrefixError`] for more than 256 bits, another number of bytes, and unused bits that are set.
    pub fn from_wire(bits: u64, bytes: &[u8]) -> Result<Self, PrefixError> {
        let bits = u16::try_from(bits).ok().filter(|bits| *bits <= POSITION_BITS).ok_or(PrefixError::TooLong(bits))?;
        let expected = usize::from(bits.div_ceil(8));
        if bytes.len() != expected {
            return Err(PrefixError::Length { bits, expected, found: bytes.len() });
        }
        let mut start = [0; 32];
        start[..expected].copy_from_slice(bytes);
        let start = Position::from_bytes(start);
        let prefix = Self::of(&start, bits);
        if prefix.start == start { Ok(prefix) } else { Err(PrefixError::UnusedBits(bits)) }
    }

    /// The first `bits` bits of `position`; all 256 if there are not so many.
    #[must_use]
    pub fn of(position: &Position, bits: u16) -> Self {
        let bits = bits.min(POSITION_BITS);
        let mut start = *position.as_bytes();
        let (whole, rest) = (usize::from(bits / 8), bits % 8);
        for (i, byte) in start.iter_mut().enumerate().skip(whole) {
            *byte = if i == whole && rest > 0 { *byte & (0xff << (8 - rest)) } else { 0 };
        }
        Self { start: Position::from_bytes(start), bits }
    }

    /// Number of bits, 0 to 256.
    #[must_use]
    pub const fn bits(&self) -> u16 {
        self.bits
    }

    /// The bytes for the wire: `ceil(bits / 8)` of them.
    #[must_use]
    pub fn to_wire(&self) -> &[u8] {
        &self.start.as_bytes()[..usize::from(self.bits.div_ceil(8))]
    }

    /// The first position in it.
    #[must_use]
    pub const fn start(&self) -> &Position {
        &self.start
    }

    /// The last position in it.
    #[must_use]
    pub fn end(&self) -> Position {
        let mut end = *self.start.as_bytes();
        let (whole, rest) = (usize::from(self.bits / 8), self.bits % 8);
        for (i, byte) in end.iter_mut().enumerate().skip(whole) {
            *byte |= if i == whole { 0xff >> rest } else { 0xff };
        }
        Position::from_bytes(end)
    }

    /// The first and the last position in it.
    pub(crate) fn range(&self) -> (Position, Position) {
        (self.start, self.end())
    }

    /// Whether `position` begins with it.
    #[must_use]
    pub fn contains(&self, position: &Position) -> bool {
        self.start.common_bits(position) >= self.bits
    }

    /// Whether every position in `other` is in this one.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.bits <= other.bits && self.contains(&other.start)
    }

    /// The sixteen continuations by four bits, ascending; `None` where fewer than four bits are left.
    #[must_use]
    pub fn children(&self) -> Option<[Self; CHILDREN]> {
        let bits = self.bits + CHILD_BITS;
        (bits <= POSITION_BITS).then(|| std::array::from_fn(|child| self.child(child, bits)))
    }

    /// Which of the sixteen continuations `position` is in; it must be in the prefix.
    pub(crate) fn child_of(&self, position: &Position) -> usize {
        (0..CHILD_BITS).fold(0, |child, i| child << 1 | usize::from(position.bit(self.bits + i)))
    }

    /// The two continuations by one bit, ascending; `None` for a whole position.
    pub(crate) fn halves(&self) -> Option<[Self; 2]> {
        let bits = self.bits + 1;
        (bits <= POSITION_BITS).then(|| [Self { start: self.start, bits }, Self { start: self.end_of_bit(), bits }])
    }

    /// The position that begins with the prefix and goes on as `position` does.
    pub(crate) fn continued_as(&self, position: &Position) -> Position {
        let mut bytes = *position.as_bytes();
        let (whole, rest) = (usize::from(self.bits / 8), self.bits % 8);
        bytes[..whole].copy_from_slice(&self.start.as_bytes()[..whole]);
        if rest > 0 {
            let mask = 0xff << (8 - rest);
            bytes[whole] = self.start.as_bytes()[whole] & mask | bytes[whole] & !mask;
        }
        Position::from_bytes(bytes)
    }

    fn end_of_bit(&self) -> Position {
        let mut bytes = *self.start.as_bytes();
        bytes[usize::from(self.bits / 8)] |= 0x80 >> (self.bits % 8);
        Position::from_bytes(bytes)
    }

    fn child(&self, child: usize, bits: u16) -> Self {
        let mut bytes = *self.start.as_bytes();
        for i in (0..CHILD_BITS).filter(|i| child >> (CHILD_BITS - 1 - i) & 1 == 1) {
            let bit = self.bits + i;
            bytes[usize::from(bit / 8)] |= 0x80 >> (bit % 8);
        }
        Self { start: Position::from_bytes(bytes), bits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bad_bytes_are_refused() {
        assert_eq!(Prefix::from_wire(257, &[0; 33]), Err(PrefixError::TooLong(257)));
        assert_eq!(Prefix::from_wire(9, &[0]), Err(PrefixError::Length { bits: 9, expected: 2, found: 1 }));
        assert_eq!(Prefix::from_wire(3, &[0b0001_0000]), Err(PrefixError::UnusedBits(3)));
        assert_eq!(Prefix::from_wire(0, &[]), Ok(Prefix::ALL));
        assert_eq!(Prefix::of(&Position::from_bytes([1; 32]), 253).children(), None);
    }

    proptest! {
        #[test]
        fn the_wire_round_trips_and_children_divide(position: [u8; 32], bits in 0_u16..=256) {
            let position = Position::from_bytes(position);
            let prefix = Prefix::of(&position, bits);
            prop_assert_eq!(Prefix::from_wire(bits.into(), prefix.to_wire()), Ok(prefix));
            prop_assert!(prefix.contains(&position) && prefix.contains(&prefix.end()) && prefix.contains(prefix.start()));
            if let Some(children) = prefix.children() {
                let owners: Vec<_> = (0..CHILDREN).filter(|i| children[*i].contains(&position)).collect();
                prop_assert_eq!(owners, vec![prefix.child_of(&position)]);
                prop_assert!(children.iter().all(|child| prefix.covers(child)));
                prop_assert_eq!((children[0].start(), children[15].end()), (prefix.start(), prefix.end()));
            }
            if let Some([low, high]) = prefix.halves() {
                prop_assert!(low.contains(&position) != high.contains(&position));
            }
        }
    }
}
