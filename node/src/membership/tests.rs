use super::*;
use crate::config::Config;
use crate::network::{read_network, write_network};
use dht::{Authority, Network, RevocationList};
use std::path::PathBuf;

struct Member {
    root: tempfile::TempDir,
    data: DataDir,
    authority: Authority,
    own: PeerId,
}

/// A node's folder in a network with an authority, without a certificate.
fn stranger() -> Member {
    let root = tempfile::tempdir().unwrap();
    let (network, authority) = (root.path().join("net.toml"), Authority::generate().unwrap());
    let made = Network::generate().unwrap();
    let members = Membership::new(made.id(), vec![authority.public()], None, Arc::new(|| 0)).unwrap();
    write_network(&network, &made.with_membership(Arc::new(members))).unwrap();
    let data = DataDir::create(&root.path().join("node"), &Config::default(), &network, &[]).unwrap();
    let own = data.keypair().unwrap().public().to_peer_id();
    Member { root, data, authority, own }
}

impl Member {
    fn now() -> u64 {
        (crate::network::system_clock())()
    }

    fn certify(&self, seconds: u64) -> dht::Certificate {
        let network = self.data.network_file().unwrap().id();
        self.authority.issue(network, self.own, 0, Self::now() + seconds).unwrap()
    }

    fn list(&self, number: u64, serials: &[dht::Serial]) -> RevocationList {
        let network = read_network(&self.root.path().join("net.toml")).unwrap().id();
        RevocationList::sign(&self.authority, network, number, serials.iter().copied().collect()).unwrap()
    }

    fn watcher(&self) -> Watcher {
        let membership = Arc::clone(self.data.network().unwrap().membership());
        Watcher { data: self.data.clone(), membership, own: self.own, certificate: None, revocations: None, kept: 0 }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.root.path().join("node").join(name)
    }
}

#[test]
fn a_node_without_a_good_certificate_does_not_start_and_is_told_what_to_do() {
    let member = stranger();
    let start = || check_own(member.data.network().unwrap().membership(), member.own);
    let refused = format!("{:#}", start().unwrap_err());
    assert!(refused.contains("network issue") && refused.contains(&member.own.to_string()), "{refused}");
    assert!(refused.contains("no certificate was shown"), "{refused}");
    // 29 days are few, but enough to start; none are not.
    member.data.keep_certificate(&member.certify(29 * DAY_S)).unwrap();
    start().unwrap();
    let membership = Arc::clone(member.data.network().unwrap().membership());
    assert!(matches!(standing(&membership, member.own), Standing::Until { days: 28 | 29, soon: true }));
    member.data.keep_certificate(&member.certify(400 * DAY_S)).unwrap();
    let membership = Arc::clone(member.data.network().unwrap().membership());
    assert!(matches!(standing(&membership, member.own), Standing::Until { days: 399 | 400, soon: false }));
    let old = member.authority.issue(member.data.network_file().unwrap().id(), member.own, 0, 1_000).unwrap();
    member.data.keep_certificate(&old).unwrap();
    assert!(format!("{:#}", start().unwrap_err()).contains("ended"));
    // Somebody else's is not even kept.
    let other = dht::Keypair::generate_ed25519().public().to_peer_id();
    let others = member.authority.issue(member.data.network_file().unwrap().id(), other, 0, u64::MAX).unwrap();
    assert!(member.data.keep_certificate(&others).is_err());
}

#[test]
fn files_are_heeded_as_they_change_and_what_others_say_is_kept() {
    let member = stranger();
    let first = member.certify(100 * DAY_S);
    member.data.keep_certificate(&first).unwrap();
    let mut watcher = member.watcher();
    watcher.look();
    assert_eq!(watcher.membership.certificate().as_ref(), Some(&first));

    // A new certificate is taken while the node runs; rubbish is not.
    let second = member.certify(200 * DAY_S);
    member.data.keep_certificate(&second).unwrap();
    watcher.look();
    assert_eq!(watcher.membership.certificate().as_ref(), Some(&second));
    std::fs::write(member.file("certificate"), b"rubbish").unwrap();
    watcher.look();
    assert_eq!(watcher.membership.certificate().as_ref(), Some(&second));
    member.data.keep_certificate(&second).unwrap();

    // A list that the operator puts there.
    let serial = dht::Serial([3; 16]);
    std::fs::write(member.file("revocations"), member.list(1, &[serial]).as_bytes()).unwrap();
    watcher.look();
    assert_eq!(watcher.membership.revocations_number(), 1);
    // One that another node passes on.
    let passed_on = member.list(3, &[serial]);
    assert!(watcher.membership.offer_revocations(passed_on.as_bytes()).unwrap());
    watcher.look();
    assert_eq!(std::fs::read(member.file("revocations")).unwrap(), passed_on.as_bytes());
    // An older one that is put there by mistake does not stay; nor does rubbish.
    for mistake in [member.list(2, &[]).as_bytes(), b"rubbish"] {
        std::fs::write(member.file("revocations"), mistake).unwrap();
        watcher.look();
        assert_eq!(watcher.membership.revocations_number(), 3);
        assert_eq!(std::fs::read(member.file("revocations")).unwrap(), passed_on.as_bytes());
    }
    // A restart knows them.
    assert_eq!(member.data.network().unwrap().membership().revocations_number(), 3);
    // A node whose list cannot be read would let in who is revoked, and does not start.
    std::fs::write(member.file("revocations"), b"rubbish").unwrap();
    assert!(format!("{:#}", member.data.network().unwrap_err()).contains("revocations"));
}
