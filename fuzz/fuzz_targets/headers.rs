//! Headers of requests: ranges and their conditions select a part inside the body, and only a token is taken for one.
#![no_main]

use libfuzzer_sys::arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;

const ETAG: &str = "\"abc\"";

fuzz_target!(|bytes: &[u8]| {
    let _ = check(Unstructured::new(bytes));
});

fn check(mut input: Unstructured<'_>) -> Result<()> {
    let size = if input.arbitrary()? { input.int_in_range(0..=1_000)? } else { u64::arbitrary(&mut input)? };
    let conditions = [condition(&mut input)?, condition(&mut input)?, condition(&mut input)?];
    let rest = input.take_rest();
    // As browsers begin it, and as nobody does.
    let begun = [b"bytes=", rest].concat();
    for range in [None, Some(rest), Some(begun.as_slice())] {
        control_api::fuzzing::range(range, conditions.each_ref().map(Option::as_deref), ETAG, size);
    }
    control_api::fuzzing::upload_headers(rest);
    control_api::fuzzing::bearer(rest);
    control_api::fuzzing::bearer(&[b"Bearer ", rest].concat());
    Ok(())
}

fn condition(input: &mut Unstructured<'_>) -> Result<Option<Vec<u8>>> {
    Ok(match input.int_in_range(0..=3)? {
        0 => None,
        1 => Some(ETAG.into()),
        2 => Some([b"W/", ETAG.as_bytes()].concat()),
        _ => {
            let length = input.int_in_range(0..=20)?;
            Some(input.bytes(length)?.to_vec())
        }
    })
}
