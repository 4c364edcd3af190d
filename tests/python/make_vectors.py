"""Writes vectors/*.json: what docs/protocol.md makes of fixed keys and nonces, for the Rust to agree with.

    scripts/python.sh make_vectors.py

All byte strings are in hex. test_peer_vectors.py makes them again and compares, so the files cannot differ from what is
here."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import cbor2
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

import imira_peer as peer
from imira_gate import Dialler, Listener, Sealer, context, record_nonce, stream_key
from imira_keys import Network, NodeKey, base58, counted, position, sha256
from imira_membership import Certificate, Revocations, authority_id, lists_digest
from imira_replication import Entry, children_of, digest_sum, encode_children, encode_prefix, proof, region_bits, under

VECTORS = Path(__file__).resolve().parent / "vectors"
NOW = 1_800_000_000
DAY_S = 86_400
LOOKUP = 20
NEAREST = 4  # R + 2, with R = 2


def seed(name: str, length: int = 32) -> bytes:
    """Bytes that look random and are the same each time."""
    return sha256(b"imira vectors: ", name.encode())[:length]


CURRENT, PREVIOUS = seed("current key"), seed("previous key")
NETWORK_ID = seed("network id", 16)
NETWORK = Network(NETWORK_ID, (CURRENT, PREVIOUS))
DIALLER, LISTENER, AUTHORITY = (NodeKey(seed(name)) for name in ("dialler", "listener", "authority"))


def node(key: NodeKey, name: str) -> dict[str, str]:
    return {
        "secret": seed(name).hex(),
        "public": key.protobuf.hex(),
        "peer_id": key.peer_id.hex(),
        "peer_id_base58": base58(key.peer_id),
    }


# The gate


def gate() -> dict[str, Any]:
    keys = [
        {
            "key": key.hex(),
            "key_id": NETWORK.key_id(key).hex(),
            "gate_key": NETWORK.gate_key(key).hex(),
            "blocks_psk": NETWORK.blocks_psk(key).hex(),
        }
        for key in NETWORK.keys
    ]
    certificate = certificate_of(LISTENER).signed(AUTHORITY)
    cases = [
        gate_case("one key", [CURRENT], [CURRENT]),
        gate_case("both have both keys", [CURRENT, PREVIOUS], [CURRENT, PREVIOUS]),
        gate_case("the listener has not got the new key yet", [CURRENT, PREVIOUS], [PREVIOUS]),
        gate_case("the dialler has not got the new key yet", [PREVIOUS], [CURRENT, PREVIOUS]),
        gate_case("the listener's order decides", [PREVIOUS, CURRENT], [CURRENT, PREVIOUS]),
        gate_case("certificates", [CURRENT], [CURRENT], certificate_of(DIALLER).signed(AUTHORITY), certificate),
        gate_case("the longest attachments", [CURRENT], [CURRENT], b"\x5a" * 4_096, b"\xa5" * 4_096),
    ]
    return {
        "network_id": NETWORK_ID.hex(),
        "keys": keys,
        "dialler": node(DIALLER, "dialler"),
        "listener": node(LISTENER, "listener"),
        "cases": cases,
        "refused": gate_refusals(cases[1]),
    }


def gate_case(
    name: str, dialler: list[bytes], listener: list[bytes], shown: bytes = b"", answer: bytes = b""
) -> dict[str, Any]:
    nonces = seed(f"{name}: dialler's nonce"), seed(f"{name}: listener's nonce")
    one = Dialler(Network(NETWORK_ID, tuple(dialler)), DIALLER.peer_id, LISTENER.peer_id, nonces[0], shown)
    other = Listener(Network(NETWORK_ID, tuple(listener)), LISTENER.peer_id, DIALLER.peer_id, nonces[1], answer)
    m2 = other.answer(one.m1)
    m3 = one.answer(m2)
    opened = other.finish(m3)
    assert one.opened is not None and one.opened.hash == opened.hash
    return {
        "name": name,
        "dialler_keys": [key.hex() for key in dialler],
        "listener_keys": [key.hex() for key in listener],
        "dialler_nonce": nonces[0].hex(),
        "listener_nonce": nonces[1].hex(),
        "dialler_attachment": shown.hex(),
        "listener_attachment": answer.hex(),
        "context": context(NETWORK, DIALLER.peer_id, LISTENER.peer_id).hex(),
        "m1": one.m1.hex(),
        "m2": m2.hex(),
        "m3": m3.hex(),
        "mac_listener": m2[-32:].hex(),
        "mac_dialler": m3[-32:].hex(),
        "key_id": opened.key_id.hex(),
        "hash": opened.hash.hex(),
        "session_secret": opened.session_secret.hex(),
    }


def gate_refusals(case: dict[str, Any]) -> list[dict[str, str]]:
    """Of a gate as in this case, one message is as here; the other side closes."""
    m1, m2, m3 = (bytes.fromhex(case[name]) for name in ("m1", "m2", "m3"))
    one_key = bytes.fromhex(case["key_id"])
    changed = {
        ("m1", "another magic"): b"iMg" + m1[3:],
        ("m1", "another version"): m1[:3] + b"\x02" + m1[4:],
        ("m1", "another network"): m1[:4] + flipped(m1[4:20], 0) + m1[20:],
        ("m1", "no key"): m1[:52] + b"\x00",
        ("m1", "three keys"): m1[:52] + b"\x03" + one_key * 3,
        ("m1", "an unknown key"): m1[:52] + b"\x01" + seed("unknown key id", 8),
        ("m2", "another version"): b"\x02" + m2[1:],
        ("m2", "a key that was not offered"): m2[:1] + seed("unknown key id", 8) + m2[9:],
        ("m2", "the other key"): m2[:1] + NETWORK.key_id(PREVIOUS) + m2[9:],
        ("m2", "another nonce"): flipped(m2, 9),
        ("m2", "another mac"): flipped(m2, len(m2) - 1),
        ("m2", "an attachment of 4,097 bytes"): m2[:41] + counted(bytes(4_097)) + m2[-32:],
        ("m2", "the dialler's mac"): m2[:-32] + m3[-32:],
        ("m3", "another version"): b"\x02" + m3[1:],
        ("m3", "another mac"): flipped(m3, len(m3) - 1),
        ("m3", "an attachment that the mac does not cover"): m3[:1] + counted(b"a") + m3[-32:],
        ("m3", "the listener's mac"): m3[:-32] + m2[-32:],
    }
    return [{"name": name, "message": which, "bytes": data.hex()} for (which, name), data in changed.items()]


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


# Sealing

SECRET = seed("session secret")


def sealing() -> dict[str, Any]:
    streams = [
        sealed_stream(4, b"I", [b"a request", b"x"], b""),
        sealed_stream(4, b"R", [b"an answer"], b"and its end"),
        sealed_stream(1, b"R", [], b""),
        sealed_stream(5, b"I", [bytes([number]) * number for number in range(1, 6)], b"the sixth"),
        sealed_stream(2**62 - 4, b"I", [], b"the last stream that there can be"),
    ]
    return {"session_secret": SECRET.hex(), "streams": streams, "long": long_records(), "refused": sealing_refusals()}


def sealed_stream(stream: int, role: bytes, plaintexts: list[bytes], last: bytes) -> dict[str, Any]:
    sealer, records = Sealer(SECRET, stream, role), []
    for number, plaintext in enumerate([*plaintexts, last]):
        is_last = number == len(plaintexts)
        record = sealer.seal(plaintext, is_last)
        described = {"number": number, "nonce": record_nonce(number).hex(), "plaintext": plaintext.hex()}
        records.append(described | {"last": is_last, "record": record.hex()})
    key = stream_key(SECRET, stream, role).hex()
    return {"stream": stream, "role": role.decode(), "key": key, "records": records}


def long_records() -> dict[str, Any]:
    """16,384 bytes 0x61 in record 0, then so many bytes 0x62 in record 1, which is the last."""
    sealer = Sealer(SECRET, 8, b"I")
    records = sealer.seal(b"a" * 16_384), sealer.seal(b"b" * 16_384, True)
    hashes = [sha256(record).hex() for record in records]
    return {"stream": 8, "role": "I", "length": 16_384, "bytes": ["61", "62"], "record_sha256": hashes}


def sealing_refusals() -> list[dict[str, Any]]:
    """All bytes of a direction of stream 4 by I; the reader ends with an error."""
    one, two, end = seal_all(4, b"I", [(b"one", False), (b"two", False), (b"", True)])
    empty = seal_unchecked(b"", last=False)
    cases = {
        "cut off between records": one + two,
        "cut off in a record": one + two[:-1],
        "cut off in a header": one + two + end[:1],
        "nothing at all": b"",
        "out of order": two + one + end,
        "a record twice": one + one + two + end,
        "a record left out": two + end,
        "another bit of the header": one + bytes([two[0] | 0x80]) + two[1:],
        "another bit of the ciphertext": one + flipped(two, 3) + end,
        "another bit of the tag": one + flipped(two, len(two) - 1) + end,
        "empty and not the last": empty + end,
        "shorter than a tag": b"\x80\x0f" + bytes(15),
        "another stream's": b"".join(seal_all(8, b"I", [(b"one", True)])),
        "the other role's": b"".join(seal_all(4, b"R", [(b"one", True)])),
    }
    return [{"name": name, "stream": 4, "role": "I", "bytes": data.hex()} for name, data in cases.items()]


def seal_all(stream: int, role: bytes, records: list[tuple[bytes, bool]]) -> list[bytes]:
    sealer = Sealer(SECRET, stream, role)
    return [sealer.seal(plaintext, last) for plaintext, last in records]


def seal_unchecked(plaintext: bytes, last: bool) -> bytes:
    """Record 0 of stream 4 by I, as no writer makes it."""
    header = ((0x8000 if last else 0) | (len(plaintext) + 16)).to_bytes(2)
    return header + ChaCha20Poly1305(stream_key(SECRET, 4, b"I")).encrypt(record_nonce(0), plaintext, header)


# The block plane


def blockplane() -> dict[str, Any]:
    statics = {role: seed(f"static of {role}") for role in "IR"}
    ephemerals = {role: seed(f"ephemeral of {role}") for role in "IR"}
    one, other = (
        handshake_side(key, statics[role], ephemerals[role], role) for key, role in ((DIALLER, "I"), (LISTENER, "R"))
    )
    identities = {"I": one.identity(certificate_of(DIALLER).signed(AUTHORITY)), "R": other.identity()}
    messages = [one.write()]
    other.read(messages[0])
    messages.append(other.write(identities["R"]))
    one.read_identity(one.read(messages[1]), one.other_static())
    messages.append(one.write(identities["I"]))
    other.read(messages[2])
    return {
        "network_id": NETWORK_ID.hex(),
        "key": CURRENT.hex(),
        "key_id": NETWORK.key_id(CURRENT).hex(),
        "psk": NETWORK.blocks_psk(CURRENT).hex(),
        "protocol": peer.PROTOCOL.decode(),
        "preamble": one.preamble.hex(),
        "prologue": (b"imira/1/blocks" + one.preamble).hex(),
        "I": side(DIALLER, "dialler", statics["I"], ephemerals["I"], identities["I"], one.static),
        "R": side(LISTENER, "listener", statics["R"], ephemerals["R"], identities["R"], other.static),
        "n1": counted(messages[0]).hex(),
        "n2": counted(messages[1]).hex(),
        "n3": counted(messages[2]).hex(),
        "handshake_hash": one.noise.get_handshake_hash().hex(),
        "frames": [framed(one, other, *frame) for frame in conversation()],
        "long": long_frame(one),
    }


def handshake_side(key: NodeKey, static: bytes, ephemeral: bytes, role: str) -> peer.Handshake:
    with warnings.catch_warnings(action="ignore"):
        return peer.Handshake(NETWORK, CURRENT, key, static, dialler=role == "I", ephemeral=ephemeral)


def side(key: NodeKey, name: str, static: bytes, ephemeral: bytes, identity: bytes, public: bytes) -> dict[str, str]:
    keys = {"static_secret": static.hex(), "static_public": public.hex(), "ephemeral_secret": ephemeral.hex()}
    return node(key, name) | keys | {"identity": identity.hex()}


def framed(
    one: peer.Handshake, other: peer.Handshake, kind: int, name: str, request: int, head: dict[int, Any], body: bytes
) -> dict[str, Any]:
    dialler = kind < peer.RESPONSE and kind != peer.HELLO
    sender = one if dialler else other
    frame = peer.Frame(kind, request, head, body).encoded()
    assert len(frame) <= peer.CHUNK
    return {
        "name": name,
        "from": "I" if dialler else "R",
        "kind": kind,
        "request": request,
        "head": cbor2.dumps(head, canonical=True).hex(),
        "body": body.hex(),
        "frame": frame.hex(),
        "message": counted(bytes(sender.noise.encrypt(frame))).hex(),
    }


def conversation() -> list[tuple[Any, ...]]:
    """kind, name, request id, head, body: in the order in which each side sends them, since messages depend on it."""
    block = b"a block"
    block_id, absent, nonce = sha256(block), seed("absent"), seed("audit nonce")
    reference = [seed("platform"), seed("publication", 16)]
    joined, entry = b"".join(reference), Entry.of(sha256(block), [b"".join(reference)], len(block))
    listed = revocations_of(3, [seed("serial of one", 16)]).signed(AUTHORITY)
    exchanges: list[tuple[str, int, dict[int, Any], bytes, dict[int, Any], bytes]] = [
        ("get", peer.GET, {1: block_id}, b"", {0: 0}, block),
        ("get of what is not there", peer.GET, {1: absent}, b"", {0: 1, 1: "the block is not here"}, b""),
        ("put", peer.PUT, {1: block_id, 2: [reference], 3: "a.b.c"}, block, {0: 0}, b""),
        ("ref", peer.REF, {1: [block_id, absent], 2: [reference], 3: "a.b.c"}, b"", {0: 0, 2: b"\x01\x00"}, b""),
        ("has", peer.HAS, {1: [block_id, absent]}, b"", {0: 0, 2: b"\x01\x00"}, b""),
        ("digest: entries", peer.DIGEST, {1: 0, 2: b""}, b"", {0: 0, 2: 1}, entry.encoded()),
        (
            "digest: children",
            peer.DIGEST,
            {1: 5, 2: b"\x88"},
            b"",
            {0: 0, 2: 0},
            encode_children(children_of("10001", [entry])),
        ),
        ("delete", peer.DELETE, {1: "a.b.c"}, b"", {0: 2, 1: "the platform is not pinned here"}, b""),
        ("audit", peer.AUDIT, {1: block_id, 2: nonce}, b"", {0: 0, 2: proof(nonce, LISTENER.peer_id, block)}, b""),
        ("offer", peer.OFFER, {1: [block_id, absent], 2: [7, 1_048_576]}, b"", {0: 0, 2: b"\x01\x02"}, b""),
        ("ping", peer.PING, {}, b"", {0: 0, 2: 1, 3: 2**64 - 1, 4: 2, 5: 3, 6: lists_digest(listed)}, b""),
        ("refs", peer.REFS, {1: [block_id, absent]}, b"", {0: 0}, b"\x00\x01" + joined + b"\x00\x00"),
        ("pull", peer.PULL, {1: block_id}, b"", {0: 0, 2: [reference]}, block),
        (
            "orders",
            peer.ORDERS,
            {1: 2**64 - 1, 2: 0},
            b"",
            {0: 0, 2: 2**64 - 1, 3: 2},
            counted(b"a.b.c") + counted(b"d.e.f"),
        ),
        ("revocations", peer.REVOCATIONS, {}, b"", {0: 0}, listed),
        ("a kind that is not known", 0x7F, {}, b"", {0: 8, 1: "kind 0x7f is unknown here"}, b""),
    ]
    frames: list[tuple[Any, ...]] = [(peer.HELLO, "hello", 0, {0: 0, 2: 1, 3: 16}, b"")]
    for number, (name, kind, head, body, answer, answer_body) in enumerate(exchanges, 1):
        frames.append((kind, name, number, head, body))
        frames.append((kind | peer.RESPONSE, f"{name}: response", number, answer, answer_body))
    return frames


def long_frame(one: peer.Handshake) -> dict[str, Any]:
    """A frame of I after those above, of 2 x 65,519 + 1 bytes, cut into messages, each with its length before it."""
    head = cbor2.dumps({1: bytes(32)}, canonical=True)
    body = b"\x5a" * (2 * peer.CHUNK + 1 - peer.FRAME_HEADER - len(head))
    frame = peer.frame_bytes(peer.PUT, 99, head, body)
    cut = [frame[at : at + peer.CHUNK] for at in range(0, len(frame), peer.CHUNK)]
    messages = [counted(bytes(one.noise.encrypt(part))) for part in cut]
    return {
        "kind": peer.PUT,
        "request": 99,
        "head": head.hex(),
        "body_byte": "5a",
        "body_length": len(body),
        "frame_sha256": sha256(frame).hex(),
        "message_lengths": [len(message) for message in messages],
        "message_sha256": [sha256(message).hex() for message in messages],
    }


# Membership


def certificate_of(key: NodeKey, authority: NodeKey = AUTHORITY, **other: Any) -> Certificate:
    fields: dict[str, Any] = {
        "authority_id": authority_id(authority.public),
        "network_id": NETWORK_ID,
        "serial": sha256(b"serial", key.peer_id)[:16],
        "roles": 1,
        "not_before": NOW - DAY_S,
        "not_after": NOW + DAY_S,
        "peer_id": key.peer_id,
    }
    return Certificate(**(fields | other))


def revocations_of(number: int, serials: list[bytes]) -> Revocations:
    return Revocations(authority_id(AUTHORITY.public), NETWORK_ID, number, tuple(sorted(serials)))


def membership() -> dict[str, Any]:
    revoked = [certificate_of(LISTENER).serial, seed("serial of one", 16), seed("serial of two", 16)]
    return {
        "network_id": NETWORK_ID.hex(),
        "authority": {
            "secret": seed("authority").hex(),
            "public": AUTHORITY.public.hex(),
            "authority_id": authority_id(AUTHORITY.public).hex(),
        },
        "peer": node(DIALLER, "dialler"),
        "now": NOW,
        "certificates": certificates(),
        "revocations": [
            described_list(number, serials) for number, serials in [(1, []), (2, revoked[:1]), (2**64 - 1, revoked)]
        ],
        "refused_revocations": refused_lists(revoked),
        "digests": list_digests(),
    }


def list_digests() -> list[dict[str, Any]]:
    """Of the lists of a node that knows these authorities; the order in which they come to it does not matter."""
    other = NodeKey(seed("another authority"))
    one, two = (
        Revocations(authority_id(key.public), NETWORK_ID, 1, ()).signed(key) for key in (AUTHORITY, other)
    )
    newer = revocations_of(2, [seed("serial of one", 16)]).signed(AUTHORITY)
    sets: list[list[bytes]] = [[], [one], [two], [one, two], [two, one], [two, newer]]
    authorities = [AUTHORITY.public.hex(), other.public.hex()]
    return [
        {
            "authorities": authorities,
            "lists": [each.hex() for each in lists],
            "digest": lists_digest(*lists).hex(),
        }
        for lists in sets
    ]


def certificates() -> list[dict[str, Any]]:
    """Shown by `peer` at `now` to one who knows `authority` and, where `revoked` is true, a list with this serial."""
    other = NodeKey(seed("another authority"))
    good = certificate_of(DIALLER)
    rows = [
        certificate_row("good", good),
        certificate_row("begins in 300 s", certificate_of(DIALLER, not_before=NOW + 300)),
        certificate_row("ended 300 s ago", certificate_of(DIALLER, not_after=NOW - 300)),
        certificate_row("for ever", certificate_of(DIALLER, not_before=0, not_after=2**64 - 1)),
        certificate_row("with roles of later besides", certificate_of(DIALLER, roles=0xFF)),
        certificate_row("begins in 301 s", certificate_of(DIALLER, not_before=NOW + 301), accepted=False),
        certificate_row("ended 301 s ago", certificate_of(DIALLER, not_after=NOW - 301), accepted=False),
        certificate_row("another peer's", certificate_of(LISTENER), accepted=False),
        certificate_row("of another network", certificate_of(DIALLER, network_id=bytes(16)), accepted=False),
        certificate_row("of no storage node", certificate_of(DIALLER, roles=0xFE), accepted=False),
        certificate_row("revoked", good, accepted=False, revoked=True),
        certificate_row("by an unknown authority", certificate_of(DIALLER, other), other, accepted=False),
        certificate_row("signed by another than it says", good, other, accepted=False),
    ]
    signed = good.signed(AUTHORITY)
    broken = {
        "another version": b"\x02" + signed[1:],
        "a byte too many": signed + b"\0",
        "a byte too few": signed[:-1],
        "another signature": flipped(signed, len(signed) - 1),
        "another end": flipped(signed, 1 + 8 + 16 + 16 + 1 + 8 + 7),
        "signed for a revocation list": signed[:-64] + AUTHORITY.sign(b"imira/1/revocations" + signed[:-64]),
        "signed without a label": signed[:-64] + AUTHORITY.sign(signed[:-64]),
        "empty": b"",
    }
    rows += [{"name": name, "accepted": False, "revoked": False, "bytes": data.hex()} for name, data in broken.items()]
    return rows


def certificate_row(
    name: str, certificate: Certificate, signer: NodeKey = AUTHORITY, *, accepted: bool = True, revoked: bool = False
) -> dict[str, Any]:
    return {
        "name": name,
        "accepted": accepted,
        "revoked": revoked,
        "authority_id": certificate.authority_id.hex(),
        "network_id": certificate.network_id.hex(),
        "serial": certificate.serial.hex(),
        "roles": certificate.roles,
        "not_before": certificate.not_before,
        "not_after": certificate.not_after,
        "peer_id": certificate.peer_id.hex(),
        "bytes": certificate.signed(signer).hex(),
    }


def described_list(number: int, serials: list[bytes]) -> dict[str, Any]:
    made = revocations_of(number, serials)
    return {
        "number": number,
        "serials": [serial.hex() for serial in made.serials],
        "bytes": made.signed(AUTHORITY).hex(),
    }


def refused_lists(serials: list[bytes]) -> list[dict[str, str]]:
    ascending = sorted(serials)
    good, head = revocations_of(5, serials).signed(AUTHORITY), 1 + 8 + 16 + 8
    other_network = Revocations(authority_id(AUTHORITY.public), bytes(16), 5, tuple(ascending))
    descending = Revocations(authority_id(AUTHORITY.public), NETWORK_ID, 5, tuple(ascending[::-1]))
    twice = Revocations(authority_id(AUTHORITY.public), NETWORK_ID, 5, (ascending[0], ascending[0]))
    lists = {
        "another version": b"\x02" + good[1:],
        "another signature": flipped(good, len(good) - 1),
        "another number": flipped(good, head - 1),
        "a serial less": good[: head + 3] + b"\x02" + good[head + 4 :],
        "a byte too many": good + b"\0",
        "not ascending": descending.signed(AUTHORITY),
        "a serial twice": twice.signed(AUTHORITY),
        "of another network": other_network.signed(AUTHORITY),
        "by another authority": revocations_of(5, serials).signed(NodeKey(seed("another authority"))),
        "16,385 serials announced": good[:head] + (16_385).to_bytes(4) + good[head + 4 :],
    }
    return [{"name": name, "bytes": data.hex()} for name, data in lists.items()]


# Placement and replication


def replication() -> dict[str, Any]:
    nodes = [NodeKey(seed(f"node {number}")) for number in range(12)]
    ids = [seed(f"block {number}") for number in range(40)]
    return {
        "nodes": [
            {"peer_id": key.peer_id.hex(), "position": position(key.peer_id).to_bytes(32).hex()} for key in nodes
        ],
        "blocks": [placed(block_id, nodes) for block_id in ids[:8]],
        "entries": entries(ids),
        "digests": digests(ids),
        "proofs": [proved(key, length) for key, length in [(DIALLER, 1), (LISTENER, 1_000), (LISTENER, 65_536)]],
        "regions": regions(),
    }


def placed(block_id: bytes, nodes: list[NodeKey]) -> dict[str, Any]:
    """All nodes with their distances, the closest first."""
    at = position(block_id)
    ranking = sorted((position(key.peer_id) ^ at, key.peer_id) for key in nodes)
    ranked = [{"peer_id": peer_id.hex(), "distance": distance.to_bytes(32).hex()} for distance, peer_id in ranking]
    return {"block_id": block_id.hex(), "position": at.to_bytes(32).hex(), "ranking": ranked}


def references(count: int) -> list[bytes]:
    """In an order that is not theirs."""
    return [seed(f"platform {number % 2}") + seed(f"publication {number}", 16) for number in range(count)]


def entries(ids: list[bytes]) -> list[dict[str, Any]]:
    rows = []
    for number, block_id in enumerate(ids):
        held = references(1 + number % 4)
        made = Entry.of(block_id, held, 1_000 * number + 1)
        shown = {"block_id": block_id.hex(), "references": [reference.hex() for reference in held]}
        rows.append(shown | {"length": made.length, "digest": made.digest.hex(), "entry": made.encoded().hex()})
    return rows


def digests(ids: list[bytes]) -> list[dict[str, Any]]:
    """Over the entries above: both answers for each prefix, whichever a node would give."""
    all_entries = [Entry.of(block_id, references(1 + n % 4), 1_000 * n + 1) for n, block_id in enumerate(ids)]
    rows = []
    for prefix in ["", "0", "1011", "01011", "111111111"]:
        below = under(prefix, all_entries)
        rows.append(
            {
                "bits": len(prefix),
                "prefix": encode_prefix(prefix).hex(),
                "count": len(below),
                "sum": digest_sum(below).to_bytes(16).hex(),
                "entries": b"".join(entry.encoded() for entry in below).hex(),
                "children": encode_children(children_of(prefix, all_entries)).hex(),
            }
        )
    return rows


def proved(prover: NodeKey, length: int) -> dict[str, Any]:
    """The block is so many bytes 0x5a."""
    nonce = seed(f"audit of {length}")
    made = proof(nonce, prover.peer_id, b"\x5a" * length)
    return {
        "nonce": nonce.hex(),
        "prover": prover.peer_id.hex(),
        "block_byte": "5a",
        "block_length": length,
        "proof": made.hex(),
    }


def regions() -> list[dict[str, Any]]:
    """What a lookup named, this node included, as positions, and for how many leading bits the answer is good."""
    rows = []
    sizes = [("a", 1_000, 20), ("b", 1_000, 21), ("c", 50, 20), ("d", 20, 20), ("e", 19, 19), ("f", 3, 3)]
    for name, population, named in sizes:
        target = position(seed(f"region {name}"))
        everybody = [position(seed(f"region {name}: node {number}")) for number in range(population)]
        closest = sorted(everybody, key=lambda at: at ^ target)[:named]
        rows.append(
            {
                "target": target.to_bytes(32).hex(),
                "nodes": [at.to_bytes(32).hex() for at in closest],
                "nearest": NEAREST,
                "bits": region_bits(target, closest, NEAREST),
            }
        )
    return rows


MAKERS = {maker.__name__: maker for maker in (gate, sealing, blockplane, membership, replication)}


def text_of(name: str) -> str:
    return json.dumps(MAKERS[name](), indent=1) + "\n"


if __name__ == "__main__":
    VECTORS.mkdir(exist_ok=True)
    for each in MAKERS:
        (VECTORS / f"{each}.json").write_text(text_of(each))
