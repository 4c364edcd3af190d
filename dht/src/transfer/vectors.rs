//! Frames of the second implementation (see `crate::vectors`): requests, responses, and the messages that carry them.

use super::channel::Channel;
use super::frame::Frame;
use super::handshake::vectors::ends;
use super::message::{Request, Response, Status, hello};
use crate::vectors::{bytes, load, network_id, node, number, rows, text};
use crate::{Admission, Membership};
use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SOON: std::time::Duration = std::time::Duration::from_secs(5);

fn frame(row: &Value) -> Frame {
    let (head, body) = (bytes(&row["head"]).into(), bytes(&row["body"]).into());
    Frame { kind: number(&row["kind"]) as u8, request_id: number(&row["request"]) as u32, head, body }
}

fn encoded(frame: &Frame) -> Vec<u8> {
    [&frame.envelope()[..], &frame.head, &frame.body].concat()
}

#[test]
fn requests_and_responses_are_the_same() {
    let vector = load("blockplane");
    let (first, exchanges) = rows(&vector["frames"]).split_first().unwrap();
    let greeting = hello(16);
    assert_eq!(encoded(&greeting), bytes(&first["frame"]));
    for pair in exchanges.chunks(2) {
        let [asked, answered] = [frame(&pair[0]), frame(&pair[1])];
        assert_eq!([encoded(&asked), encoded(&answered)], [bytes(&pair[0]["frame"]), bytes(&pair[1]["frame"])]);
        let (name, kind, id) = (text(&pair[0]["name"]), asked.kind, asked.request_id);
        match Request::from_frame(asked.clone()) {
            Ok(request) => {
                let response = Response::from_frame(answered.clone(), request.kind(), id, request.id_count());
                assert_eq!(response.unwrap().into_frame(kind, id), answered, "{name}");
                assert_eq!(request.into_frame(id), asked, "{name}");
            }
            Err(refusal) => {
                assert_eq!(refusal.status, Status::Unsupported, "{name}");
                assert_eq!(Response::Refused(refusal).into_frame(kind, id), answered, "{name}");
            }
        }
    }
}

/// A channel, and what it has over the wire.
async fn channel(keys: (super::cipher::Sealing, super::cipher::Opening), admission: Admission) -> (Channel, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let wire = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    (Channel::new(stream, keys, admission).unwrap(), wire)
}

/// Noise messages with their lengths, as they come.
async fn messages(wire: &mut TcpStream, count: usize) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    for _ in 0..count {
        let mut message = wire.read_u16().await.unwrap().to_be_bytes().to_vec();
        message.resize(2 + usize::from(u16::from_be_bytes([message[0], message[1]])), 0);
        wire.read_exact(&mut message[2..]).await.unwrap();
        messages.push(message);
    }
    messages
}

#[tokio::test]
async fn messages_are_the_same_and_read_as_what_they_are() {
    let vector = load("blockplane");
    let admission =
        |side: &Value| Membership::open(network_id(&vector["network_id"])).admit(node(side).1, &[], 0).unwrap();
    let [i, r] = ends(&vector);
    let (mut i, mut wire_of_i) = channel(i, admission(&vector["R"])).await;
    let (mut r, mut wire_of_r) = channel(r, admission(&vector["I"])).await;
    for row in rows(&vector["frames"]) {
        let is_from_i = text(&row["from"]) == "I";
        let (from, from_wire, to, to_wire) = if is_from_i {
            (&mut i, &mut wire_of_i, &mut r, &mut wire_of_r)
        } else {
            (&mut r, &mut wire_of_r, &mut i, &mut wire_of_i)
        };
        from.sender.send(&frame(row)).await.unwrap();
        let sent = messages(from_wire, 1).await;
        assert_eq!(sent, [bytes(&row["message"])], "{}", row["name"]);
        to_wire.write_all(&sent[0]).await.unwrap();
        assert_eq!(to.receiver.receive(SOON).await.unwrap().unwrap(), frame(row), "{}", row["name"]);
    }

    let long = &vector["long"];
    let body: Bytes = vec![bytes(&long["body_byte"])[0]; number(&long["body_length"]) as usize].into();
    let (kind, request_id) = (number(&long["kind"]) as u8, number(&long["request"]) as u32);
    let frame = Frame { kind, request_id, head: bytes(&long["head"]).into(), body };
    assert_eq!(Sha256::digest(encoded(&frame)).as_slice(), bytes(&long["frame_sha256"]));
    i.sender.send(&frame).await.unwrap();
    let sent = messages(&mut wire_of_i, rows(&long["message_lengths"]).len()).await;
    for (at, message) in sent.iter().enumerate() {
        assert_eq!(message.len() as u64, number(&long["message_lengths"][at]));
        assert_eq!(Sha256::digest(message).as_slice(), bytes(&long["message_sha256"][at]));
    }
    wire_of_r.write_all(&sent.concat()).await.unwrap();
    assert_eq!(r.receiver.receive(SOON).await.unwrap().unwrap(), frame);
}
