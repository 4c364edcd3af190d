//! Sealed streams: what was written comes out in order and to its end, or an error does; never anything else.
#![no_main]

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    dht::fuzzing::seal::foreign(bytes);
    let _ = check(Unstructured::new(bytes));
});

fn check(mut input: Unstructured<'_>) -> Result<()> {
    let read_bytes = input.int_in_range(1..=20_000)?;
    let change = if input.arbitrary()? { Some((input.arbitrary::<u32>()? as usize, input.arbitrary()?)) } else { None };
    let (repeated, mut writes) = (vec![7; 40_000], Vec::new());
    for _ in 0..input.int_in_range(0..=6)? {
        let length = input.int_in_range(0..=40_000)?;
        writes.push(&repeated[..length]);
    }
    writes.push(input.take_rest());
    dht::fuzzing::seal::stream(&writes, read_bytes, change);
    Ok(())
}
