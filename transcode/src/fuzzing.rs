//! What is read of FFmpeg's answers and files, for the fuzz targets (`fuzz/`). Feature `fuzzing` only; not an interface.
//!
//! FFmpeg's output is made of an uploader's file, so it is foreign. Each function panics where a decoder breaks what it promises.
#![allow(clippy::expect_used, missing_docs, reason = "a broken promise is to end the run")]

use crate::cmaf::{Init, Moof};
use crate::mp4;

/// An init segment, and the segment that is made of it, which is read as the same.
pub fn init(bytes: &[u8]) {
    let Ok(init) = Init::parse(bytes) else { return };
    let segment = init.segment().expect("what was read is written");
    let again = Init::parse(&segment).expect("what was written is read");
    assert_eq!(again.segment().expect("what was read is written"), segment);
}

/// A fragment's head: the places of its numbers lie inside it, and with other numbers it says the same.
pub fn moof(bytes: &[u8]) {
    let Ok(moof) = Moof::parse(bytes) else { return };
    let mut changed = bytes.to_vec();
    for (place, number) in moof.numbers(1, 2) {
        changed[place..place + 4].copy_from_slice(&number);
    }
    assert_eq!(Moof::parse(&changed).expect("only numbers were changed"), moof);
}

pub fn boxes(bytes: &[u8]) {
    let Ok(boxes) = mp4::boxes(bytes) else { return };
    assert_eq!(boxes.iter().map(|each| each.whole.len()).sum::<usize>(), bytes.len());
}

pub use crate::probe::fuzzing::answer;
