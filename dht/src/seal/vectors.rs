//! The sealed records of the second implementation (see `crate::vectors`).

use super::*;
use crate::vectors::{array, bytes, load, number, rows, text};
use futures::AsyncReadExt;
use futures::io::Cursor;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The key of the direction in which a row's records go.
fn of(row: &Value) -> (Session, u64, Role) {
    let role = if text(&row["role"]) == "I" { Role::Initiator } else { Role::Responder };
    (Session::from_secret(array(&load("sealing")["session_secret"])), number(&row["stream"]), role)
}

fn sealer(row: &Value) -> Sealer {
    let (session, stream, role) = of(row);
    SealedStream::new((), &session, stream, role).sealer
}

/// What the other side reads.
async fn opened(row: &Value, wire: Vec<u8>) -> io::Result<Vec<u8>> {
    let (session, stream, role) = of(row);
    let mut plain = Vec::new();
    SealedStream::new(Cursor::new(wire), &session, stream, role.other()).read_to_end(&mut plain).await?;
    Ok(plain)
}

#[tokio::test]
async fn records_are_the_same_and_open() {
    for row in rows(&load("sealing")["streams"]) {
        let (session, stream, role) = of(row);
        assert_eq!(*session.stream_key(stream, role), array(&row["key"]));
        let (mut sealer, mut wire, mut plain) = (sealer(row), Vec::new(), Vec::new());
        for record in rows(&row["records"]) {
            assert_eq!(nonce(number(&record["number"])).as_slice(), bytes(&record["nonce"]));
            let mut made = Vec::new();
            sealer.seal(&bytes(&record["plaintext"]), record["last"].as_bool().unwrap(), &mut made).unwrap();
            assert_eq!(made, bytes(&record["record"]), "record {} of stream {stream}", record["number"]);
            wire.extend(made);
            plain.extend(bytes(&record["plaintext"]));
        }
        // Nothing after the last record is read.
        wire.extend(b"what is not read");
        assert_eq!(opened(row, wire).await.unwrap(), plain);
    }
}

#[tokio::test]
async fn records_of_full_length_are_the_same() {
    let row = &load("sealing")["long"];
    let (mut sealer, mut wire, hashes) = (sealer(row), Vec::new(), rows(&row["record_sha256"]));
    for (at, byte) in rows(&row["bytes"]).iter().enumerate() {
        let plaintext = vec![bytes(byte)[0]; number(&row["length"]) as usize];
        let mut made = Vec::new();
        sealer.seal(&plaintext, at + 1 == hashes.len(), &mut made).unwrap();
        assert_eq!(Sha256::digest(&made).as_slice(), bytes(&hashes[at]));
        wire.extend(made);
    }
    assert_eq!(opened(row, wire).await.unwrap().len(), 2 * MAX_PLAINTEXT);
}

#[tokio::test]
async fn what_the_second_implementation_refuses_this_one_does() {
    for row in rows(&load("sealing")["refused"]) {
        assert!(opened(row, bytes(&row["bytes"])).await.is_err(), "{}", row["name"]);
    }
}
