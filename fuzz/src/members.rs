//! A network with an authority and two members, the same in every run of a target but for its keys.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use chunkstore_block::NetworkId;
use dht::{Authority, Certificate, Keypair, Membership, Network, NetworkKey, RevocationList};

/// The members' clock, seconds since 1970.
pub const NOW: u64 = 1_700_000_000;

const NETWORK: NetworkId = NetworkId::from_bytes([3; 16]);
const KEY: &str = "0707070707070707070707070707070707070707070707070707070707070707";

/// Two members of a network whose authority says who is one.
pub struct Members {
    pub authority: Authority,
    pub network: Network,
    pub ours: Keypair,
    pub theirs: Keypair,
    /// Theirs.
    pub certificate: Certificate,
    /// Newer than the one that is known, with two serial numbers.
    pub list: RevocationList,
}

/// Keys are made once: that takes longer than most of what is fuzzed.
pub static MEMBERS: LazyLock<Members> = LazyLock::new(|| {
    let secret = "09".repeat(32);
    let authority = Authority::from_secret_hex(&secret).expect("64 digits");
    let key = |seed: u8| Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes");
    let (ours, theirs) = (key(1), key(2));
    let certificate = authority.issue(NETWORK, theirs.public().to_peer_id(), NOW - 10, NOW + 10_000).expect("it signs");
    let revoked =
        [1, 2].map(|_| authority.issue(NETWORK, ours.public().to_peer_id(), 0, 1).expect("it signs").serial());
    let list = RevocationList::sign(&authority, NETWORK, 2, BTreeSet::from(revoked)).expect("two serial numbers");
    let mut members = Members { authority, network: open_network(), ours, theirs, certificate, list };
    members.network = open_network().with_membership(Arc::new(members.membership()));
    members
});

/// The same network, in which the key alone makes a member.
pub fn open_network() -> Network {
    Network::new(NETWORK, vec![NetworkKey::from_hex(KEY).expect("64 digits")]).expect("one key")
}

impl Members {
    /// Without what an earlier run has changed.
    pub fn membership(&self) -> Membership {
        let (authorities, own) = (
            vec![self.authority.public()],
            self.authority.issue(NETWORK, self.ours.public().to_peer_id(), 0, u64::MAX),
        );
        let membership = Membership::new(NETWORK, authorities, own.ok(), Arc::new(|| NOW)).expect("one authority");
        let list = RevocationList::sign(&self.authority, NETWORK, 1, BTreeSet::new()).expect("an empty list");
        membership.offer_revocations(list.as_bytes()).expect("it is signed");
        membership
    }

    /// `docs/protocol.md` §4.1: magic, version, network, key id.
    pub fn preamble(&self) -> &[u8] {
        static PREAMBLE: LazyLock<Vec<u8>> =
            LazyLock::new(|| [b"iMBP\x01", &NETWORK.as_bytes()[..], &key_id()].concat());
        &PREAMBLE
    }

    /// `docs/protocol.md` §3.1: the first message, with one key.
    pub fn gate_opening(&self) -> Vec<u8> {
        [b"iMG\x01", &NETWORK.as_bytes()[..], &[5; 32], &[1], &key_id()].concat()
    }
}

fn key_id() -> [u8; 8] {
    open_network().keys()[0].id(&NETWORK).0
}
