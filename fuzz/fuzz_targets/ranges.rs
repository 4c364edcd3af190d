//! The range mapper: any index, made by the builder, written as a tree of small pages and read again, and any ranges of
//! its files, against a reader that looks at every byte's block.
#![no_main]

use std::ops::Range;

use chunkstore_block::{BlockId, Index, IndexBuilder, IndexError, Limits, Part, encode};
use fuzz::{Blocks, check_parts};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;

/// Enough for trees of three levels and more with the smallest pages.
const MAX_FRAGMENTS: u32 = 400;
const MAX_FILES: u32 = 12;
const MAX_RUNS: u32 = 12;

/// Fragments as their lengths, files as orders.
struct Content {
    lengths: Vec<u32>,
    files: Vec<Vec<u32>>,
}

fuzz_target!(|bytes: &[u8]| {
    // The bytes never run out: then they are zeros.
    let _ = check(&mut Unstructured::new(bytes));
});

fn check(input: &mut Unstructured<'_>) -> Result<()> {
    let page_bytes = input.int_in_range(280..=2_000)?;
    let content = Content::arbitrary(input)?;
    let built = content.build().expect("orders that were pushed");
    let encoded = match encode(&built, &Limits { page_bytes }) {
        Ok(encoded) => encoded,
        // A file of many runs is longer than a small page.
        Err(IndexError::TooLong { .. }) => return Ok(()),
        Err(error) => panic!("{error}"),
    };
    let index = Blocks::of(encoded).load().expect("what was written is read").index;
    assert_eq!(index, built);
    for _ in 0..4 {
        let number = input.choose_index(content.files.len())?;
        let range = content.range(number, input)?;
        let file = index.file(&path(number)).expect("every file is there");
        assert_eq!(check_parts(&index, file, range.clone()), content.naive_parts(&index, number, range));
    }
    Ok(())
}

impl Content {
    fn arbitrary(input: &mut Unstructured<'_>) -> Result<Self> {
        // Few bytes make many lengths, so that the fuzzer's short inputs reach the files.
        let fragments = input.int_in_range(1..=MAX_FRAGMENTS)?;
        let most = *input.choose(&[1, 3, 1_000, 1 << 20])?;
        let (first, step) = (input.arbitrary::<u32>()?, input.arbitrary::<u32>()?);
        let length = |number: u32| 1 + first.wrapping_add(number.wrapping_mul(step)) % most;
        let lengths = (0..fragments).map(length).collect();
        let mut files = Vec::new();
        for _ in 0..input.int_in_range(1..=MAX_FILES)? {
            files.push(arbitrary_orders(fragments, input)?);
        }
        Ok(Self { lengths, files })
    }

    fn build(&self) -> std::result::Result<Index, IndexError> {
        let mut builder = IndexBuilder::new();
        for (number, length) in self.lengths.iter().enumerate() {
            builder.push_fragment(BlockId::of(&number.to_be_bytes()), *length)?;
        }
        for (number, orders) in self.files.iter().enumerate() {
            builder.add_file(&path(number), "video/mp4", orders.iter().copied())?;
        }
        builder.finish([0; 32], 0, Vec::new())
    }

    /// Inside the file, near the seams of its blocks, or anywhere.
    fn range(&self, number: usize, input: &mut Unstructured<'_>) -> Result<Range<u64>> {
        let ends = self.ends(number);
        let mut place = || -> Result<u64> {
            let (end, near) = (*input.choose(&ends)?, input.int_in_range(0..=3)?);
            let anywhere = input.arbitrary::<u64>()?;
            Ok(match near {
                0 => end,
                1 => end.saturating_sub(1),
                2 => anywhere % (ends[ends.len() - 1] + 2),
                _ => anywhere,
            })
        };
        Ok(place()?..place()?)
    }

    /// Where the blocks of a file end, from 0 on.
    fn ends(&self, number: usize) -> Vec<u64> {
        let lengths = self.files[number].iter().map(|order| u64::from(self.lengths[*order as usize - 1]));
        let sums = lengths.scan(0, |sum, length| {
            *sum += length;
            Some(*sum)
        });
        [0].into_iter().chain(sums).collect()
    }

    fn naive_parts(&self, index: &Index, number: usize, range: Range<u64>) -> Vec<Part> {
        let ends = self.ends(number);
        let blocks = self.files[number].iter().zip(ends.windows(2));
        let overlaps = blocks.filter(|(_, seam)| range.start.max(seam[0]) < range.end.min(seam[1]));
        let part = |(&order, seam): (&u32, &[u64])| Part {
            order,
            id: index.fragments.by_order(order).expect("a fragment").id,
            block_length: self.lengths[order as usize - 1],
            skip: range.start.saturating_sub(seam[0]) as u32,
            take: (range.end.min(seam[1]) - range.start.max(seam[0])) as u32,
        };
        overlaps.map(part).collect()
    }
}

/// Runs up and single blocks, with repetitions, as the playlists, segments and MP4s of a content may have them.
fn arbitrary_orders(fragments: u32, input: &mut Unstructured<'_>) -> Result<Vec<u32>> {
    let mut orders = Vec::new();
    for _ in 0..input.int_in_range(0..=MAX_RUNS)? {
        let first = input.int_in_range(1..=fragments)?;
        let last = if input.arbitrary()? { input.int_in_range(first..=fragments)? } else { first };
        orders.extend(first..=last);
    }
    Ok(orders)
}

fn path(number: usize) -> String {
    format!("v/{number:02}.m4s")
}
