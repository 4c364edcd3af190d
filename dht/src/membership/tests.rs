use super::*;
use std::collections::BTreeSet;

const NOW: u64 = 1_800_000_000;

fn peer() -> PeerId {
    libp2p::identity::Keypair::generate_ed25519().public().to_peer_id()
}

fn network() -> NetworkId {
    NetworkId::from_bytes([7; 16])
}

fn membership(authorities: &[&Authority]) -> Membership {
    let keys = authorities.iter().map(|authority| authority.public()).collect();
    Membership::new(network(), keys, None, Arc::new(|| NOW)).unwrap()
}

fn issue(authority: &Authority, peer: PeerId) -> Certificate {
    authority.issue(network(), peer, NOW - 1_000, NOW + 1_000).unwrap()
}

fn list(authority: &Authority, number: u64, serials: &[Serial]) -> RevocationList {
    RevocationList::sign(authority, network(), number, serials.iter().copied().collect()).unwrap()
}

#[test]
fn certificates_are_laid_out_as_the_protocol_says() {
    let authority = Authority::from_secret_hex(&"9d".repeat(32)).unwrap();
    let (who, begin, end) = (peer(), 0x0102_0304_u64, 0x0506_0708_u64);
    let certificate = authority.issue(network(), who, begin, end).unwrap();
    let public = HEX.decode(authority.public().to_string().as_bytes()).unwrap();
    let id = &sha2_of(&[b"imira/1/authority", &public[..]].concat())[..8];
    let signed = [
        &[1][..],
        id,
        &[7; 16],
        &certificate.serial().0,
        &[1],
        &begin.to_be_bytes(),
        &end.to_be_bytes(),
        &[0, 38],
        &who.to_bytes(),
    ]
    .concat();
    assert_eq!(certificate.as_bytes()[..signed.len()], signed);
    assert_eq!(certificate.as_bytes().len(), signed.len() + 64);
    let signature = &certificate.as_bytes()[signed.len()..];
    let key = libp2p::identity::ed25519::PublicKey::try_from_bytes(&public).unwrap();
    assert!(key.verify(&[b"imira/1/certificate", &signed[..]].concat(), signature));
    assert_eq!(Certificate::parse(certificate.as_bytes()).unwrap(), certificate);
}

#[test]
fn lists_are_laid_out_as_the_protocol_says() {
    let authority = Authority::generate().unwrap();
    let made = list(&authority, 3, &[Serial([9; 16]), Serial([2; 16])]);
    let signed = [
        &[1][..],
        &authority.public().id().0,
        &[7; 16],
        &3_u64.to_be_bytes(),
        &2_u32.to_be_bytes(),
        &[2; 16],
        &[9; 16],
    ]
    .concat();
    assert_eq!(made.as_bytes()[..signed.len()], signed);
    let public = HEX.decode(authority.public().to_string().as_bytes()).unwrap();
    let key = libp2p::identity::ed25519::PublicKey::try_from_bytes(&public).unwrap();
    assert!(key.verify(&[b"imira/1/revocations", &signed[..]].concat(), &made.as_bytes()[signed.len()..]));
    assert_eq!(RevocationList::parse(made.as_bytes()).unwrap(), made);
}

const HEX: data_encoding::Encoding = data_encoding::HEXLOWER;

fn sha2_of(bytes: &[u8]) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).into()
}

#[test]
fn a_changed_byte_anywhere_or_another_length_is_refused() {
    let authority = Authority::generate().unwrap();
    let members = membership(&[&authority]);
    let who = peer();
    let certificate = issue(&authority, who);
    let bytes = certificate.as_bytes();
    assert_eq!(members.admit(who, bytes, NOW).unwrap().peer(), who);
    let lists = list(&authority, 1, &[Serial([1; 16]), Serial([2; 16])]);
    for position in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.to_vec();
            changed[position] ^= 1 << bit;
            assert!(members.admit(who, &changed, NOW).is_err(), "byte {position}, bit {bit}");
        }
        assert!(Certificate::parse(&bytes[..position]).is_err(), "cut at {position}");
    }
    for position in 0..lists.as_bytes().len() {
        for bit in 0..8 {
            let mut changed = lists.as_bytes().to_vec();
            changed[position] ^= 1 << bit;
            assert!(members.offer_revocations(&changed).is_err(), "byte {position}, bit {bit} of the list");
        }
        assert!(RevocationList::parse(&lists.as_bytes()[..position]).is_err(), "cut at {position}");
    }
    let trailing = |bytes: &[u8]| [bytes, &[0]].concat();
    assert!(matches!(Certificate::parse(&trailing(bytes)), Err(MembershipError::Malformed(_))));
    assert!(matches!(RevocationList::parse(&trailing(lists.as_bytes())), Err(MembershipError::Malformed(_))));
    assert_eq!(members.revocations_number(), 0);
}

#[test]
fn who_is_not_a_member_is_told_apart() {
    let (authority, stranger) = (Authority::generate().unwrap(), Authority::generate().unwrap());
    let members = membership(&[&authority]);
    let who = peer();
    let good = issue(&authority, who);
    assert_eq!(members.admit(who, &[], NOW), Err(MembershipError::NoCertificate));
    assert_eq!(members.admit(peer(), good.as_bytes(), NOW), Err(MembershipError::OtherPeer));
    let foreign = issue(&stranger, who);
    assert_eq!(members.admit(who, foreign.as_bytes(), NOW), Err(MembershipError::UnknownAuthority));
    let elsewhere = authority.issue(NetworkId::from_bytes([8; 16]), who, 0, u64::MAX).unwrap();
    assert_eq!(members.admit(who, elsewhere.as_bytes(), NOW), Err(MembershipError::OtherNetwork));
    // It names our authority's id, and is signed by another.
    let mut forged = foreign.as_bytes().to_vec();
    forged[1..9].copy_from_slice(&authority.public().id().0);
    assert_eq!(members.admit(who, &forged, NOW), Err(MembershipError::BadSignature));
    // Signed by our authority for no role at all.
    let mut roleless = good.as_bytes()[..good.as_bytes().len() - 64].to_vec();
    roleless[1 + 8 + 16 + 16] = 0;
    let signature = authority.sign(b"imira/1/certificate", &roleless);
    roleless.extend_from_slice(&signature);
    assert_eq!(members.admit(who, &roleless, NOW), Err(MembershipError::NotAStorageNode));
    // Where nobody is named as an authority, all of them are let in.
    let open = Membership::open(network());
    for shown in [&[][..], b"rubbish", good.as_bytes()] {
        assert!(open.admit(who, shown, NOW).is_ok());
    }
}

#[test]
fn clock_skew_of_299_seconds_is_accepted_and_of_301_refused() {
    let authority = Authority::generate().unwrap();
    let members = membership(&[&authority]);
    let who = peer();
    let (begin, end) = (NOW, NOW + 86_400);
    let certificate = authority.issue(network(), who, begin, end).unwrap();
    let admitted = |now| members.admit(who, certificate.as_bytes(), now);
    assert!(admitted(begin - 299).is_ok() && admitted(begin - 300).is_ok());
    assert_eq!(admitted(begin - 301), Err(MembershipError::NotYetValid(begin)));
    assert!(admitted(end + 299).is_ok() && admitted(end + 300).is_ok());
    assert_eq!(admitted(end + 301), Err(MembershipError::Expired(end)));
    // The same for one that was let in while it was good.
    let admission = admitted(begin).unwrap();
    assert!(members.still_admitted(&admission, end + 299).is_ok());
    assert_eq!(members.still_admitted(&admission, end + 301), Err(MembershipError::Expired(end)));
    // Times at the edge of what fits do not wrap.
    let forever = authority.issue(network(), who, 0, u64::MAX).unwrap();
    assert!(members.admit(who, forever.as_bytes(), u64::MAX).is_ok());
}

#[test]
fn a_list_takes_the_place_of_an_older_one_by_the_same_authority_only() {
    let (first, second) = (Authority::generate().unwrap(), Authority::generate().unwrap());
    let members = membership(&[&first, &second]);
    let who = peer();
    let certificate = issue(&first, who);
    let admission = members.admit(who, certificate.as_bytes(), NOW).unwrap();
    // A list by the other authority does not touch it, though it names the serial.
    assert!(members.offer_revocations(list(&second, 9, &[certificate.serial()]).as_bytes()).unwrap());
    assert!(members.still_admitted(&admission, NOW).is_ok());
    assert!(members.offer_revocations(list(&first, 1, &[certificate.serial()]).as_bytes()).unwrap());
    let revoked = Err(MembershipError::Revoked(certificate.serial()));
    assert_eq!(members.still_admitted(&admission, NOW), revoked);
    assert_eq!(members.admit(who, certificate.as_bytes(), NOW).map(|_| ()), revoked);
    assert_eq!(members.revocations_number(), 10);
    // Neither an older list nor one of the same number brings it back; a newer one does.
    assert!(!members.offer_revocations(list(&first, 1, &[]).as_bytes()).unwrap());
    assert_eq!(members.still_admitted(&admission, NOW), revoked);
    assert!(members.offer_revocations(list(&first, 2, &[]).as_bytes()).unwrap());
    assert!(members.still_admitted(&admission, NOW).is_ok());
    // What one node has, another takes as it is.
    let other = membership(&[&second, &first]);
    assert!(other.offer_revocations(&members.revocations_bytes()).unwrap());
    assert_eq!(other.revocations_number(), members.revocations_number());
    assert!(!other.offer_revocations(&members.revocations_bytes()).unwrap());
    // Nothing of a batch is taken if one of it is bad.
    let stranger = Authority::generate().unwrap();
    let batch = [list(&first, 7, &[]).as_bytes(), list(&stranger, 1, &[]).as_bytes()].concat();
    assert_eq!(other.offer_revocations(&batch), Err(MembershipError::UnknownAuthority));
    assert_eq!(other.revocations_number(), members.revocations_number());
}

/// Two authorities each issued list number 1, put on different nodes: the sums of the numbers were equal, and nobody asked.
#[test]
fn lists_of_two_authorities_with_the_same_number_reach_both_nodes() {
    let (first, second) = (Authority::generate().unwrap(), Authority::generate().unwrap());
    let (one, other) = (membership(&[&first, &second]), membership(&[&second, &first]));
    assert_eq!(one.revocations_digest(), other.revocations_digest());
    one.offer_revocations(list(&first, 1, &[Serial([1; 16])]).as_bytes()).unwrap();
    other.offer_revocations(list(&second, 1, &[Serial([2; 16])]).as_bytes()).unwrap();
    assert_eq!(one.revocations_number(), other.revocations_number());
    assert_ne!(one.revocations_digest(), other.revocations_digest());
    let (who, now) = (peer(), Instant::now());
    let wants = |members: &Membership, of: &Membership, at| {
        members.wants_revocations_of(who, of.revocations_number(), Some(of.revocations_digest()), at)
    };
    assert!(wants(&one, &other, now));
    assert!(!wants(&one, &other, now + Duration::from_secs(59)), "asked again within a minute");
    assert!(wants(&one, &other, now + Duration::from_secs(60)));
    assert!(one.take_revocations_of(who, &other.revocations_bytes()).unwrap());
    // It was not in vain, so it may be asked again at once.
    assert!(wants(&one, &other, now + Duration::from_secs(60)));
    assert!(!one.take_revocations_of(who, &other.revocations_bytes()).unwrap());
    assert!(!wants(&one, &other, now + Duration::from_secs(61)));
    assert!(other.take_revocations_of(who, &one.revocations_bytes()).unwrap());
    assert_eq!(one.revocations_digest(), other.revocations_digest());
    assert!(!wants(&other, &one, now));
    // A peer of before tells the number only; and where nobody is an authority, nobody is asked.
    assert!(other.wants_revocations_of(peer(), 3, None, now) && !other.wants_revocations_of(peer(), 2, None, now));
    assert!(!wants(&Membership::open(network()), &one, now));
}

#[test]
fn lists_are_bounded_and_ascend() {
    let authority = Authority::generate().unwrap();
    let serials: BTreeSet<_> = (0..=MAX_REVOKED as u128).map(|number| Serial(number.to_be_bytes())).collect();
    let mut fitting = serials.clone();
    fitting.pop_last();
    assert!(RevocationList::sign(&authority, network(), 1, serials).is_err());
    let longest = RevocationList::sign(&authority, network(), 1, fitting).unwrap();
    assert_eq!(RevocationList::parse(longest.as_bytes()).unwrap(), longest);
    assert!(longest.as_bytes().len() * MAX_AUTHORITIES <= chunkstore_block::MAX_BLOCK_BYTES, "they fit one body");
    // The same serial twice, and a count without its serials.
    let header = |count: u32| [&longest.as_bytes()[..1 + 8 + 16 + 8], &count.to_be_bytes()].concat();
    let twice = [&header(2)[..], &[5; 16], &[5; 16], &[0; 64]].concat();
    assert!(matches!(RevocationList::parse(&twice), Err(MembershipError::Malformed(_))));
    assert!(matches!(RevocationList::parse(&header(u32::MAX)), Err(MembershipError::Malformed(_))));
}

#[test]
fn secrets_and_keys_round_trip_and_debug_shows_no_secret() {
    let authority = Authority::generate().unwrap();
    let secret = authority.to_secret_hex();
    let again = Authority::from_secret_hex(&secret).unwrap();
    assert_eq!(again.public(), authority.public());
    assert_eq!(authority.public().to_string().parse::<AuthorityKey>().unwrap(), authority.public());
    assert!(!format!("{authority:?}").contains(secret.as_str()));
    for bad in ["", "ab", &"AB".repeat(32), &"zz".repeat(32), &"ab".repeat(33)] {
        assert!(matches!(Authority::from_secret_hex(bad), Err(NetworkError::BadAuthority)));
        assert!(bad.parse::<AuthorityKey>().is_err());
    }
}
