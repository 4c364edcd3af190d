//! Frames as a fuzzer cuts them into messages.
#![allow(clippy::expect_used, missing_docs, reason = "a broken promise is to end the run")]

use super::super::cipher::{self, TAG_BYTES};
use super::super::frame::MAX_HEAD_BYTES;
use super::Receiver;
use chunkstore_block::MAX_BLOCK_BYTES;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

/// Sends each of `messages` sealed and with its length before it, then `rest` as it is, over a real connection, and reads frames
/// until there are no more.
pub async fn frames(messages: &[&[u8]], rest: &[u8]) {
    let (mut writing, reading) = connection().await;
    let (mut sealing, opening) = keys();
    let mut bytes = Vec::new();
    for message in messages {
        let mut sealed = [message, &[0; TAG_BYTES][..]].concat();
        sealing.seal(&mut sealed).expect("it has room for its tag");
        bytes.extend_from_slice(&(sealed.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&sealed);
    }
    bytes.extend_from_slice(rest);
    let send = async move {
        // It may have hung up on us.
        drop(writing.write_all(&bytes).await);
        drop(writing.shutdown().await);
    };
    let receive = async move {
        let mut receiver = Receiver { stream: reading, cipher: opening, buffer: None, unread: 0..0 };
        while let Ok(Some(frame)) = receiver.receive(Duration::from_secs(60)).await {
            assert!(frame.head.len() <= MAX_HEAD_BYTES && frame.body.len() <= MAX_BLOCK_BYTES);
        }
    };
    futures::join!(send, receive);
}

async fn connection() -> (TcpStream, tokio::net::tcp::OwnedReadHalf) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback is there");
    let address = listener.local_addr().expect("it is bound");
    let (writing, accepted) = futures::join!(TcpStream::connect(address), listener.accept());
    let (reading, _) = accepted.expect("it is dialled").0.into_split();
    (writing.expect("it listens"), reading)
}

/// Those of one side, which the other side would have.
fn keys() -> (cipher::Sealing, cipher::Opening) {
    let pattern = || "Noise_NN_25519_ChaChaPoly_SHA256".parse().expect("a pattern of Noise");
    let mut initiator = snow::Builder::new(pattern()).build_initiator().expect("it needs nothing");
    let mut responder = snow::Builder::new(pattern()).build_responder().expect("it needs nothing");
    let (mut message, mut payload) = ([0; 128], [0; 128]);
    let length = initiator.write_message(&[], &mut message).expect("it fits");
    responder.read_message(&message[..length], &mut payload).expect("it opens");
    let length = responder.write_message(&[], &mut message).expect("it fits");
    initiator.read_message(&message[..length], &mut payload).expect("it opens");
    let (sealing, _) = cipher::split(&mut initiator).expect("it is done");
    let (_, opening) = cipher::split(&mut responder).expect("it is done");
    (sealing, opening)
}
