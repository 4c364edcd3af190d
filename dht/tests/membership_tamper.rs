//! Every byte of the block plane's handshake matters, certificates among them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod holders;
mod members;

use dht::{BlockClient, Keypair, PeerAddress, RefusalReason, TransferError};
use futures::StreamExt;
use members::{ANY_BLOCK, Node, Setup, wait_until};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

const CERTIFICATE: u64 = 162;
/// Version, and three fields with their lengths: public key, signature, certificate.
const IDENTITY: u64 = 1 + (2 + 36) + (2 + 64) + (2 + CERTIFICATE);
const KEY: u64 = 32;
const TAG: u64 = 16;
/// Preamble, N1 and N3.
const BY_DIALLER: u64 = 29 + (2 + KEY + TAG) + (2 + KEY + TAG + IDENTITY + TAG);
/// N2.
const BY_LISTENER: u64 = 2 + KEY + (KEY + TAG) + IDENTITY + TAG;

#[tokio::test]
async fn a_changed_byte_anywhere_in_a_handshake_with_certificates_is_refused() {
    let setup = Setup::new();
    let network = setup.member();
    let good = Node::serve(&network, setup.good.clone()).await;
    let keypair = Keypair::generate_ed25519();
    let shown = setup.authority.issue(network.id(), keypair.public().to_peer_id(), 0, u64::MAX).unwrap();
    let dialler = setup.by_fixed_clock(shown);
    let ask = |change: Option<(bool, u64)>| {
        let client = BlockClient::new(keypair.clone(), Arc::clone(&dialler)).unwrap();
        async move {
            let through = PeerAddress { address: proxy(good.peer.address, change).await, ..good.peer };
            matches!(client.get(through, *ANY_BLOCK).await, Err(TransferError::Refused(_)))
        }
    };
    assert!(ask(None).await, "nothing was changed");
    let by_dialler = (0..BY_DIALLER).map(|at| (true, at));
    let all = by_dialler.chain((0..BY_LISTENER).map(|at| (false, at)));
    let attempts = all.map(|change| async move { (change, ask(Some(change)).await) });
    // A changed length makes a side wait for its deadline, so they run side by side; not so many that all are too slow.
    let answered: Vec<_> = futures::stream::iter(attempts).buffer_unordered(32).collect().await;
    let accepted: Vec<_> = answered.into_iter().filter(|(_, answered)| *answered).map(|(change, _)| change).collect();
    assert!(accepted.is_empty(), "accepted with (by the dialler, byte) {accepted:?} changed");
    // Each was refused by the listener, or by the dialler, which the listener sees as a close.
    wait_until(|| good.refused.count() == BY_DIALLER + BY_LISTENER).await;
    assert!(good.refused.count_of(RefusalReason::TooSlow) < 10, "{:?}", good.refused);
}

/// A relay for one connection, which changes one byte of what the dialler (`true`) or the listener sends.
async fn proxy(target: SocketAddr, change: Option<(bool, u64)>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (from_dialler, to_dialler) = listener.accept().await.unwrap().0.into_split();
        let (from_target, to_target) = TcpStream::connect(target).await.unwrap().into_split();
        let at = |of_dialler| change.filter(|(by_dialler, _)| *by_dialler == of_dialler).map(|(_, at)| at);
        tokio::join!(pass(from_dialler, to_target, at(true)), pass(from_target, to_dialler, at(false)));
    });
    address
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, change: Option<u64>) {
    let (mut buffer, mut position) = (vec![0; 4096], 0);
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if let Some(at) = change.filter(|at| (position..position + count as u64).contains(at)) {
            buffer[(at - position) as usize] ^= 0x04;
        }
        position += count as u64;
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
    // The end is passed on, too; that the other side has gone already does not matter.
    drop(to.shutdown().await);
}
