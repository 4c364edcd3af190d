//! What is logged of those who are refused, and what is not.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod holders;
mod members;

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use dht::{Authority, Keypair, Network, NetworkKey, RefusalReason};
use members::{ANY_BLOCK, Node, Setup, gate_refuses, wait_until};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Everything that is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    /// Half a key is as bad as a whole one.
    fn assert_hides(&self, what: &str, secret_hex: &str) {
        let secret = HEXLOWER.decode(secret_hex.as_bytes()).unwrap();
        let raw = self.0.lock().unwrap().clone();
        let text = self.text();
        for half in [&secret[..16], &secret[16..]] {
            // 15 bytes are 20 whole digits of base64.
            let (base64, base64url) = (BASE64.encode(&half[..15]), BASE64URL_NOPAD.encode(&half[..15]));
            let decimal = format!("{half:?}");
            let decimal = decimal.trim_matches(['[', ']']);
            for shown in [&*HEXLOWER.encode(half), &HEXUPPER.encode(half), &base64, &base64url, decimal] {
                assert!(!text.contains(shown), "{what} is in the log");
            }
            assert!(!raw.windows(half.len()).any(|window| window == half), "{what} is in the log as it is");
        }
    }
}

// On one thread, so that everything is heard.
#[tokio::test]
async fn refusals_are_logged_and_counted_without_any_key() {
    let log = Log::default();
    let everything = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(log.clone()).finish();
    let _heard = tracing::subscriber::set_default(everything);

    let setup = Setup::new();
    let ours = setup.member();
    let theirs = Network::new(ours.id(), vec![NetworkKey::generate().unwrap()]).unwrap();
    let theirs = Arc::new(theirs);
    let good = Node::start(&ours, setup.good.clone(), &[]).await;
    let keypair = Keypair::generate_ed25519();

    // Another key over TCP, and over UDP.
    let begun = Instant::now();
    let stranger = Node::start(&theirs, keypair.clone(), &[&good]).await;
    assert!(stranger.client.get(good.peer, *ANY_BLOCK).await.is_err());
    wait_until(|| good.refused.count_of(RefusalReason::WrongKey) == 1).await;
    wait_until(|| good.discovery().refusals().count_of(RefusalReason::WrongKey) >= 1).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());

    // The key without a certificate, and with a bad one.
    let foreign = Authority::generate().unwrap();
    let shown = foreign.issue(ours.id(), setup.peer(), 0, u64::MAX).unwrap();
    gate_refuses(&setup, None, true, RefusalReason::NoCertificate).await;
    gate_refuses(&setup, Some(shown), false, RefusalReason::ForeignCertificate).await;
    // And one that is let in.
    let shown = setup.authority.issue(ours.id(), setup.peer(), 0, u64::MAX).unwrap();
    members::gate_accepts(&setup, Some(shown)).await;

    let text = log.text();
    assert!(text.contains("refused at the gate"), "{text}");
    assert!(text.contains("refused on the block plane"), "{text}");
    assert!(text.contains("libp2p"), "the log of the libraries is not heard");
    for (what, network) in [("our key", &*ours), ("the stranger's key", &*theirs)] {
        log.assert_hides(what, &network.keys()[0].to_secret_hex());
    }
    for (what, authority) in [("the authority's secret", &setup.authority), ("the foreign authority's", &foreign)] {
        log.assert_hides(what, &authority.to_secret_hex());
    }
    let seed = keypair.try_into_ed25519().unwrap().secret();
    log.assert_hides("the node key", &HEXLOWER.encode(seed.as_ref()));
}

#[test]
fn the_search_for_keys_finds_one() {
    let network = Network::generate().unwrap();
    let hex = network.keys()[0].to_secret_hex();
    let raw = HEXLOWER.decode(hex.as_bytes()).unwrap();
    for leak in [hex.to_string(), hex.to_uppercase(), BASE64.encode(&raw), format!("{raw:?}"), hex[32..].to_owned()] {
        let mut log = Log::default();
        write!(log, "a line with {leak} in it").unwrap();
        let found = std::panic::catch_unwind(|| log.assert_hides("it", &hex)).is_err();
        assert!(found, "{leak} was not found");
    }
}
