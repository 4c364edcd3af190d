//! What is read of FFmpeg's answers and files, which are made of an uploader's file.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, rest)) = bytes.split_first() else { return };
    match kind % 4 {
        0 => transcode::fuzzing::init(rest),
        1 => transcode::fuzzing::moof(rest),
        2 => transcode::fuzzing::boxes(rest),
        _ => {
            let (json, stderr) = rest.split_at(rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len()));
            transcode::fuzzing::answer(json, &String::from_utf8_lossy(stderr));
        }
    }
});
