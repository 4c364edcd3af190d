//! Sealed streams as a fuzzer cuts and changes them.
#![allow(clippy::expect_used, missing_docs, reason = "a broken promise is to end the run")]

use super::SealedStream;
use crate::fuzzing::Said;
use crate::gate::{Role, Session};
use futures::io::Cursor;
use futures::{AsyncReadExt, AsyncWriteExt};

/// What one end sealed of these `writes` is what the other reads, in whatever pieces; `change` (place, bit) in the ciphertext
/// makes it an error after a true beginning.
pub fn stream(writes: &[&[u8]], read_bytes: usize, change: Option<(usize, u8)>) {
    let sent = writes.concat();
    let mut ciphertext = futures::executor::block_on(sealed(writes));
    let changed = change.filter(|(_, bits)| *bits != 0).map(|(place, bits)| {
        let place = place % ciphertext.len();
        ciphertext[place] ^= bits;
    });
    let (come, ended) = futures::executor::block_on(opened(&ciphertext, read_bytes.max(1)));
    assert!(sent.starts_with(&come), "bytes that were not sent");
    assert_eq!(ended, changed.is_none(), "a change was not seen, or seen where there was none");
    assert!(!ended || come == sent, "the end came too early");
}

/// Bytes of somebody without the key: nothing comes of them.
pub fn foreign(bytes: &[u8]) {
    let (come, ended) = futures::executor::block_on(opened(bytes, 1_000));
    assert!(come.is_empty() && !ended, "opened without the key");
}

async fn sealed(writes: &[&[u8]]) -> Vec<u8> {
    let mut stream = SealedStream::new(Cursor::new(Vec::new()), &session(), 4, Role::Initiator);
    for write in writes {
        stream.write_all(write).await.expect("memory takes all");
    }
    stream.close().await.expect("memory takes all");
    stream.inner.into_inner()
}

/// The plaintext, and whether it came to its end.
async fn opened(ciphertext: &[u8], read_bytes: usize) -> (Vec<u8>, bool) {
    let mut stream = SealedStream::new(Said(ciphertext), &session(), 4, Role::Responder);
    let (mut come, mut buffer) = (Vec::new(), vec![0; read_bytes]);
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => return (come, true),
            Ok(count) => come.extend_from_slice(&buffer[..count]),
            Err(_) => return (come, false),
        }
    }
}

fn session() -> Session {
    Session::from_secret([5; 32])
}
