//! Random blocks in memory.

use bytes::Bytes;
use chunkstore_block::{BlockId, MAX_BLOCK_BYTES};
use rand::prelude::{Rng as _, RngExt as _, SeedableRng as _, SliceRandom as _, SmallRng};

/// The smallest block of the mix: 4 s of audio.
const MIN_BLOCK_BYTES: usize = 32 << 10;

/// How long the blocks of a pool are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sizes {
    /// 1 MiB each.
    Full,
    /// As films give them: evenly from 32 KiB to 1 MiB, so 0.52 MiB on average, and hardly ever whole pages.
    Mixed,
}

pub(super) struct Pool {
    blocks: Vec<Block>,
    bytes: u64,
}

pub(super) struct Block {
    pub(super) id: BlockId,
    pub(super) body: Bytes,
}

impl Pool {
    /// Of at least `bytes`; the same at each call.
    pub(super) fn new(sizes: Sizes, bytes: usize) -> Self {
        let mut random = SmallRng::seed_from_u64(3);
        let mut pool = Self { blocks: Vec::new(), bytes: 0 };
        while pool.bytes < bytes as u64 {
            let length = match sizes {
                Sizes::Full => MAX_BLOCK_BYTES,
                Sizes::Mixed => random.random_range(MIN_BLOCK_BYTES..=MAX_BLOCK_BYTES),
            };
            let block = Block::random(&mut random, length);
            pool.bytes += block.body.len() as u64;
            pool.blocks.push(block);
        }
        pool
    }

    pub(super) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Each place of a block once, in an order that no disk would guess; the same at each call.
    pub(super) fn shuffled(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.blocks.len()).collect();
        order.shuffle(&mut SmallRng::seed_from_u64(4));
        order
    }
}

impl Block {
    pub(super) fn random(random: &mut SmallRng, length: usize) -> Self {
        let mut body = vec![0; length];
        random.fill_bytes(&mut body);
        Self { id: BlockId::of(&body), body: body.into() }
    }
}

impl Sizes {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Full => "1 MiB",
            Self::Mixed => "the mix",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mix_is_that_of_the_goal() {
        let pool = Pool::new(Sizes::Mixed, 64 << 20);
        let mean = pool.bytes() as f64 / pool.blocks().len() as f64 / f64::from(1 << 20);
        assert!((0.45..0.6).contains(&mean), "mean of {mean} MiB");
        let lengths = || pool.blocks().iter().map(|block| block.body.len());
        assert!(lengths().min().unwrap() < 128 << 10 && lengths().max().unwrap() > 896 << 10);
    }
}
