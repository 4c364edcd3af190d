"""vectors/*.json are what make_vectors.py makes, and the peer's own readers agree with them."""

from __future__ import annotations

import json
import random
import unittest
from typing import Any

import cbor2

from imira_gate import Dialler, Listener, Sealer, Unsealer
from imira_keys import Network, NodeKey, Refused, base58, from_base58
from imira_membership import Certificate, Revocations
from imira_peer import BODY_LIMIT, CHUNK, GET, HEAD_LIMIT, Channel, Frame, decode_frame_header, decode_head, frame_bytes
from imira_replication import bits_of, decode_children, decode_entries, encode_children, region_bits
from make_vectors import DIALLER, LISTENER, MAKERS, NETWORK, SECRET, VECTORS, handshake_side, seal_unchecked, text_of

NEAREST = 4


def load(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text())


class Files(unittest.TestCase):
    def test_all_are_as_they_are_made(self) -> None:
        self.assertEqual({path.stem for path in VECTORS.glob("*.json")}, set(MAKERS))
        for name in MAKERS:
            with self.subTest(name):
                same = (VECTORS / f"{name}.json").read_text() == text_of(name)
                self.assertTrue(same, f"vectors/{name}.json is not what make_vectors.py makes")

    def test_base58(self) -> None:
        for each in ["dialler", "listener"]:
            shown = load("gate")[each]
            self.assertTrue(shown["peer_id_base58"].startswith("12D3KooW"))
            self.assertEqual(from_base58(shown["peer_id_base58"]).hex(), shown["peer_id"])
            self.assertEqual(base58(bytes.fromhex(shown["peer_id"])), shown["peer_id_base58"])


class Gate(unittest.TestCase):
    def both(self) -> tuple[Dialler, Listener]:
        case = next(case for case in load("gate")["cases"] if case["name"] == "both have both keys")
        nonces = [bytes.fromhex(case[f"{side}_nonce"]) for side in ("dialler", "listener")]
        dialler = Dialler(NETWORK, DIALLER.peer_id, LISTENER.peer_id, nonces[0])
        return dialler, Listener(NETWORK, LISTENER.peer_id, DIALLER.peer_id, nonces[1])

    def pass_on(self, dialler: Dialler, listener: Listener, changed: dict[str, bytes]) -> None:
        m2 = listener.answer(changed.get("m1", dialler.m1))
        m3 = dialler.answer(changed.get("m2", m2))
        listener.finish(changed.get("m3", m3))

    def test_refusals(self) -> None:
        for row in load("gate")["refused"]:
            with self.subTest(row["name"], message=row["message"]), self.assertRaises(Refused):
                self.pass_on(*self.both(), {row["message"]: bytes.fromhex(row["bytes"])})

    def test_every_byte(self) -> None:
        case = next(case for case in load("gate")["cases"] if case["name"] == "both have both keys")
        self.pass_on(*self.both(), {})
        for name in ["m1", "m2", "m3"]:
            message = bytes.fromhex(case[name])
            for at in range(len(message)):
                changed = message[:at] + bytes([message[at] ^ 1 << at % 8]) + message[at + 1 :]
                with self.subTest(name, at=at), self.assertRaises(Refused):
                    self.pass_on(*self.both(), {name: changed})

    def test_a_relay_is_of_no_use(self) -> None:
        """It has a peer id of its own on each side."""
        relay, (dialler, _) = NodeKey.new().peer_id, self.both()
        listener = Listener(NETWORK, LISTENER.peer_id, relay, bytes(32))
        with self.assertRaises(Refused):
            dialler.answer(listener.answer(dialler.m1))

    def test_the_listener_takes_the_first_key_of_its_own_list(self) -> None:
        for case in load("gate")["cases"]:
            first = next(key for key in case["listener_keys"] if key in case["dialler_keys"])
            self.assertEqual(case["key_id"], NETWORK.key_id(bytes.fromhex(first)).hex())
        with self.assertRaises(Refused):
            strangers = Network(NETWORK.id, (bytes(32),))
            Listener(strangers, LISTENER.peer_id, DIALLER.peer_id, bytes(32)).answer(self.both()[0].m1)


class Sealing(unittest.TestCase):
    def test_streams(self) -> None:
        for stream in load("sealing")["streams"]:
            records = b"".join(bytes.fromhex(record["record"]) for record in stream["records"])
            for after in [b"", b"what is not read"]:
                unsealer = Unsealer(SECRET, stream["stream"], stream["role"].encode())
                opened = unsealer.open_all(records + after)
                wanted = [bytes.fromhex(record["plaintext"]) for record in stream["records"]]
                self.assertEqual(opened, wanted)

    def test_refusals(self) -> None:
        rows = [(row["name"], bytes.fromhex(row["bytes"])) for row in load("sealing")["refused"]]
        for name, data in [*rows, ("too long", seal_unchecked(bytes(16_385), last=True))]:
            with self.subTest(name), self.assertRaises(Refused):
                Unsealer(SECRET, 4, b"I").open_all(data)

    def test_every_byte(self) -> None:
        sealer = Sealer(SECRET, 4, b"I")
        data = sealer.seal(b"one") + sealer.seal(b"two", True)
        for at in range(len(data)):
            changed = data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]
            with self.subTest(at), self.assertRaises(Refused):
                Unsealer(SECRET, 4, b"I").open_all(changed)


class Pipe:
    """Of a socket, what a channel needs: what was written can be read."""

    def __init__(self) -> None:
        self._data = bytearray()

    def sendall(self, data: bytes) -> None:
        self._data += data

    def recv(self, length: int) -> bytes:
        taken = bytes(self._data[:length])
        del self._data[:length]
        return taken


class Frames(unittest.TestCase):
    """The peer's own reader: what a node must not send, it refuses."""

    def setUp(self) -> None:
        """A real handshake; `sender` is R's end and `reader` I's."""
        sides = [(DIALLER, "I"), (LISTENER, "R")]
        one, other = (handshake_side(key, key.public, key.public[::-1], role) for key, role in sides)
        other.read(one.write())
        one.read(other.write())
        other.read(one.write())
        pipe: Any = Pipe()
        self.sender = Channel(pipe, other.noise, DIALLER.peer_id, b"")
        self.reader = Channel(pipe, one.noise, LISTENER.peer_id, b"")

    def refuses(self, *messages: bytes) -> None:
        self.setUp()
        for message in messages:
            self.sender.send_message(message)
        with self.assertRaises(Refused):
            self.reader.receive_frame()

    def test_vectors(self) -> None:
        for row in load("blockplane")["frames"]:
            with self.subTest(row["name"]):
                frame, head = bytes.fromhex(row["frame"]), bytes.fromhex(row["head"])
                self.assertEqual(decode_frame_header(frame[:16])[:2], (row["kind"], row["request"]))
                decode_head(head)
                self.sender.send_frame(frame)
                read = self.reader.receive_frame()
                self.assertEqual((read.kind, read.request, read.body.hex()), (row["kind"], row["request"], row["body"]))
                self.assertEqual(read.encoded(), frame)

    def test_cuts(self) -> None:
        small, large = (
            Frame(GET | 0x80, 1, {0: 0}, b"x").encoded(),
            Frame(GET | 0x80, 1, {0: 0}, bytes(CHUNK)).encoded(),
        )
        self.sender.send_frame(small)
        self.assertEqual(self.reader.receive_frame().body, b"x")
        self.refuses(small[:-1], small[-1:])
        self.refuses(small + b"\0")
        self.refuses(small[:10])
        self.refuses(large[: CHUNK - 1], large[CHUNK - 1 :])
        self.refuses(large[:CHUNK], large[CHUNK:] + b"\0")

    def test_limits(self) -> None:
        self.refuses(frame_bytes(GET, 1, b"\xa0", flags=1))
        self.refuses(frame_bytes(GET, 1, b"\xa0", reserved=1))
        self.refuses(bytes(8) + (HEAD_LIMIT + 1).to_bytes(4) + bytes(4))
        self.refuses(bytes(8) + bytes(4) + (BODY_LIMIT + 1).to_bytes(4))

    def test_heads(self) -> None:
        heads = [
            b"",
            b"\x80",
            b"\xa1\x00",
            b"\xa0\x00",
            b"\xa1\x18\x00\x00",
            b"\xa2\x01\x00\x00\x00",
            b"\xbf\xff",
            b"\xa1\x20\x00",
        ]
        for head in [*heads, cbor2.dumps({"a": 1}), cbor2.dumps({True: 1}), b"\xa2\x00\x00\x00\x00"]:
            with self.subTest(head.hex()), self.assertRaises(Refused):
                decode_head(head)


class Membership(unittest.TestCase):
    def test_certificates(self) -> None:
        vector = load("membership")
        for row in vector["certificates"]:
            with self.subTest(row["name"]):
                self.assertEqual(self.accepts(vector, row), row["accepted"])

    def accepts(self, vector: Any, row: Any) -> bool:
        revoked = {bytes.fromhex(row["serial"])} if row["revoked"] else set()
        known = [bytes.fromhex(vector["authority"]["public"])]
        network, peer_id = bytes.fromhex(vector["network_id"]), bytes.fromhex(vector["peer"]["peer_id"])
        try:
            Certificate.verified(bytes.fromhex(row["bytes"]), known).check(network, peer_id, vector["now"], revoked)
        except Refused:
            return False
        return True

    def test_revocations(self) -> None:
        vector = load("membership")
        known, network = [bytes.fromhex(vector["authority"]["public"])], bytes.fromhex(vector["network_id"])
        lists = [Revocations.verified(bytes.fromhex(row["bytes"]), known, network) for row in vector["revocations"]]
        for one in lists:
            self.assertTrue(one.replaces(None))
            self.assertEqual([one.replaces(other) for other in lists], [one.number > other.number for other in lists])
        for row in vector["refused_revocations"]:
            with self.subTest(row["name"]), self.assertRaises(Refused):
                Revocations.verified(bytes.fromhex(row["bytes"]), known, network)


class Replication(unittest.TestCase):
    def test_digests_decode(self) -> None:
        for row in load("replication")["digests"]:
            prefix = bits_of(int.from_bytes(bytes.fromhex(row["prefix"]).ljust(32, b"\0")))[: row["bits"]]
            entries, children = bytes.fromhex(row["entries"]), bytes.fromhex(row["children"])
            self.assertEqual(len(decode_entries(entries, prefix)), row["count"])
            self.assertEqual(sum(child.count for child in decode_children(children)), row["count"])
            self.assertEqual(encode_children(decode_children(children)), children)
            for bad in [entries[:-1], entries + entries[:52]] if entries else []:
                with self.assertRaises(Refused):
                    decode_entries(bad, prefix)

    def test_a_region_is_as_large_as_it_may_be(self) -> None:
        """In it, the closest nodes of every position are among those named; just outside, they need not be."""
        chance = random.Random(4)
        beyond = 0
        for _ in range(20):
            everybody = [chance.getrandbits(256) for _ in range(500)]
            target = chance.getrandbits(256)
            named = sorted(everybody, key=lambda node: node ^ target)[:20]
            bits = region_bits(target, named, NEAREST)
            for _ in range(10):
                inside = target ^ chance.getrandbits(256 - bits)
                self.assertLessEqual(closest(everybody, inside), set(named))
                outside = target ^ 1 << (256 - bits) ^ chance.getrandbits(256 - bits)
                beyond += not closest(everybody, outside) <= set(named)
        self.assertGreater(beyond, 0)

    def test_a_lookup_that_named_fewer_than_20_named_all(self) -> None:
        self.assertEqual({row["bits"] for row in load("replication")["regions"] if len(row["nodes"]) < 20}, {0})


def closest(nodes: list[int], position: int) -> set[int]:
    return set(sorted(nodes, key=lambda node: node ^ position)[:NEAREST])


if __name__ == "__main__":
    unittest.main()
