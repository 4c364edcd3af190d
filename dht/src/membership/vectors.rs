//! Certificates and revocation lists of the second implementation (see `crate::vectors`).

use super::*;
use crate::vectors::{array, bytes, load, network_id, node, number, rows, text};
use serde_json::Value;

fn authority(vector: &Value) -> Authority {
    let authority = Authority::from_secret_hex(text(&vector["authority"]["secret"])).unwrap();
    assert_eq!(authority.public().to_string(), text(&vector["authority"]["public"]));
    assert_eq!(authority.public().id().0, array(&vector["authority"]["authority_id"]));
    authority
}

fn membership(vector: &Value) -> Membership {
    let now = number(&vector["now"]);
    let network = network_id(&vector["network_id"]);
    Membership::new(network, vec![authority(vector).public()], None, Arc::new(move || now)).unwrap()
}

fn serials(list: &Value) -> std::collections::BTreeSet<Serial> {
    list.as_array().unwrap().iter().map(|serial| Serial(array(serial))).collect()
}

#[test]
fn certificates_are_the_same_and_taken_or_refused_alike() {
    let vector = load("membership");
    let (authority, peer) = (authority(&vector), node(&vector["peer"]).1);
    for row in rows(&vector["certificates"]) {
        let (shown, name) = (bytes(&row["bytes"]), text(&row["name"]));
        let members = membership(&vector);
        if row["revoked"].as_bool().unwrap() {
            let revoked = [Serial(array(&row["serial"]))].into();
            let list = RevocationList::sign(&authority, members.network, 1, revoked).unwrap();
            assert!(members.offer_revocations(list.as_bytes()).unwrap());
        }
        let accepted = row["accepted"].as_bool().unwrap();
        assert_eq!(members.admit(peer, &shown, members.now()).is_ok(), accepted, "{name}");
        if !accepted {
            continue;
        }
        let read = Certificate::parse(&shown).unwrap();
        let (times, roles) = ((number(&row["not_before"]), number(&row["not_after"])), number(&row["roles"]));
        assert_eq!(
            (read.validity(), read.peer.to_bytes(), u64::from(read.roles)),
            (times, bytes(&row["peer_id"]), roles)
        );
        assert_eq!((read.authority.0, read.serial.0), (array(&row["authority_id"]), array(&row["serial"])), "{name}");
        if roles == 1 {
            let made = authority.certify(read.serial, network_id(&row["network_id"]), peer, times);
            assert_eq!(made, read, "{name}");
        }
    }
}

#[test]
fn revocation_lists_are_the_same_and_taken_or_refused_alike() {
    let vector = load("membership");
    let (members, authority) = (membership(&vector), authority(&vector));
    for row in rows(&vector["revocations"]) {
        let (listed, list) = (number(&row["number"]), bytes(&row["bytes"]));
        let made = RevocationList::sign(&authority, members.network, listed, serials(&row["serials"])).unwrap();
        assert_eq!(made.as_bytes(), list);
        assert_eq!((members.offer_revocations(&list), members.offer_revocations(&list)), (Ok(true), Ok(false)));
        assert_eq!(members.revocations_bytes(), list);
    }
    for row in rows(&vector["digests"]) {
        let authorities = rows(&row["authorities"]).iter().map(|key| text(key).parse().unwrap()).collect();
        let members = Membership::new(members.network, authorities, None, Arc::new(|| 0)).unwrap();
        for list in row["lists"].as_array().unwrap() {
            assert!(members.offer_revocations(&bytes(list)).unwrap());
        }
        assert_eq!(members.revocations_digest(), array(&row["digest"]));
    }
    let members = membership(&vector);
    for row in rows(&vector["refused_revocations"]) {
        assert!(members.offer_revocations(&bytes(&row["bytes"])).is_err(), "{}", row["name"]);
    }
    assert!(members.revocations_bytes().is_empty());
}
