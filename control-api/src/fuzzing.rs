//! The decoders of what strangers send, for the fuzz targets (`fuzz/`). Feature `fuzzing` only; not an interface.
//!
//! Each function takes a fuzzer's bytes and panics where the decoder breaks what it promises.
#![allow(missing_docs, reason = "a broken promise is to end the run")]

pub use crate::routes::fuzzing::{bearer, range};

use crate::PlatformKey;
use crate::jws;

/// A JWS of the platform with these bytes for claims, however wrong they are.
#[allow(clippy::expect_used, reason = "a key that cannot sign is to end the run")]
pub fn signed(key: &PlatformKey, media_type: &str, claims: &[u8]) -> String {
    let input = jws::signing_input(media_type, &key.fingerprint().to_string(), claims);
    jws::compact(&input, &key.sign(input.as_bytes()).expect("the key signs"))
}
