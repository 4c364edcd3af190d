"""A real node answers the peer beside this file as docs/protocol.md §4.2, §6, §7 and §10 say."""

from __future__ import annotations

import secrets
import time
import unittest
from collections.abc import Callable
from typing import Any

import cbor2

from imira_keys import NodeKey, base58, sha256
from imira_peer import (
    BODY_LIMIT,
    CHUNK,
    GET,
    HAS,
    HEAD_LIMIT,
    MALFORMED,
    MISMATCH,
    NOT_FOUND,
    OFFER,
    OK,
    PING,
    PUT,
    REF,
    REFS,
    REFUSED,
    TOO_LARGE,
    UNDER_WAY,
    UNSUPPORTED,
    Frame,
    Peer,
    Response,
    frame_bytes,
)
from imira_membership import lists_digest
from imira_replication import Entry, children_of, decode_children, decode_entries, decode_orders, decode_references
from imira_replication import digest_sum, encode_prefix, proof, under
from imira_tokens import AUTHORITY, Platform, new_publication
from live_node import LiveNode, seconds_until_closed

# What a node's replication knows follows its store at once, but not in the same moment; deleted blocks go from the disk
# within seconds (docs/api.md §3). Nothing tells a peer when, so it asks again.
SOON_S = 20.0
AGAIN_S = 0.02


class Live(unittest.TestCase):
    """One node for all tests of a class; each has a publication and a connection of its own."""

    node: LiveNode

    @classmethod
    def setUpClass(cls) -> None:
        cls.node = LiveNode()
        cls.addClassCleanup(cls.node.stop)
        cls.node.start()

    def setUp(self) -> None:
        self.me, self.publication = NodeKey.new(), new_publication()
        self.reference = self.node.platform.reference(self.publication)
        self.authority = self.node.authority(self.me, self.publication)
        self.peer = self.connect()

    def connect(self) -> Peer:
        peer = self.node.connect(self.me)
        self.addCleanup(peer.close)
        return peer

    def store(self, *blocks: bytes) -> list[bytes]:
        for block in blocks:
            self.assert_ok(self.peer.put(block, [self.reference], self.authority))
        return [sha256(block) for block in blocks]

    def assert_ok(self, response: Response) -> None:
        self.assertEqual((response.status, response.message), (OK, ""))

    def soon(self, check: Callable[[], None]) -> None:
        """Checks again until it holds, or for so long that it never will."""
        end = time.monotonic() + SOON_S
        while time.monotonic() < end:
            try:
                return check()
            except AssertionError:
                time.sleep(AGAIN_S)
        check()

    def assert_status(self, status: int, response: Response) -> None:
        self.assertEqual(response.status, status, response.message)
        self.assertNotEqual(response.message, "")


class LiveBlocks(Live):
    def test_put_get_has(self) -> None:
        block = secrets.token_bytes(70_000)
        (block_id,) = self.store(block)
        self.assertEqual(self.peer.get(block_id).body, block)
        self.assertEqual(self.peer.has([bytes(32), block_id]).head[2], b"\x00\x01")

    def test_a_block_of_1_mib_and_one_of_a_byte(self) -> None:
        for length in [1, BODY_LIMIT]:
            with self.subTest(length):
                block = secrets.token_bytes(length)
                (block_id,) = self.store(block)
                self.assertEqual(self.peer.get(block_id).body, block)

    def test_frames_that_end_with_a_full_message(self) -> None:
        """No empty message comes after them, and none is waited for."""
        head = cbor2.dumps({1: bytes(32), 2: [self.reference], 3: self.authority}, canonical=True)
        for messages in [1, 2]:
            with self.subTest(messages):
                block = secrets.token_bytes(messages * CHUNK - 16 - len(head))
                (block_id,) = self.store(block)
                self.assertEqual(self.peer.get(block_id).body, block)

    def test_responses_that_end_with_a_full_message(self) -> None:
        head = cbor2.dumps({0: 0}, canonical=True)
        for messages in [1, 2]:
            with self.subTest(messages):
                block = secrets.token_bytes(messages * CHUNK - 16 - len(head))
                (block_id,) = self.store(block)
                self.assertEqual(self.peer.get(block_id).body, block)
                self.assert_ok(self.peer.ping())

    def test_what_is_not_there(self) -> None:
        self.assert_status(NOT_FOUND, self.peer.get(bytes(32)))
        self.assert_status(NOT_FOUND, self.peer.pull(bytes(32)))
        self.assert_status(NOT_FOUND, self.peer.audit(bytes(32), bytes(32)))

    def test_ref(self) -> None:
        (block_id,) = self.store(b"a block of two publications" + self.publication)
        second = new_publication()
        reference, authority = self.node.platform.reference(second), self.node.authority(self.me, second)
        response = self.peer.ref([block_id, bytes(32)], [reference], authority)
        self.assertEqual(response.head[2], b"\x01\x00")
        held = decode_references(self.peer.refs([block_id]).body, 1)[0]
        self.assertEqual(set(held), {b"".join(self.reference), b"".join(reference)})

    def test_other_bytes_than_the_id_says(self) -> None:
        self.assert_status(MISMATCH, self.peer.put(b"a", [self.reference], self.authority, sha256(b"b")))
        self.assert_status(NOT_FOUND, self.peer.get(sha256(b"b")))

    def test_a_block_has_a_byte_at_least(self) -> None:
        self.assert_status(MALFORMED, self.peer.put(b"", [self.reference], self.authority))
        self.assert_status(MALFORMED, self.peer.offer([bytes(32)], [0]))

    def test_16_requests_under_way(self) -> None:
        blocks = [secrets.token_bytes(length) for length in [1, 1_000, 100_000, BODY_LIMIT]]
        ids = self.store(*blocks)
        asked = {self.peer.send(GET, {1: ids[at % 4]}): blocks[at % 4] for at in range(UNDER_WAY)}
        answered = dict(self.peer.receive() for _ in asked)
        self.assertEqual({request: response.body for request, response in answered.items()}, asked)

    def test_16_puts_under_way(self) -> None:
        blocks = [secrets.token_bytes(10_000) for _ in range(UNDER_WAY)]
        for block in blocks:
            self.peer.send(PUT, {1: sha256(block), 2: [self.reference], 3: self.authority}, block)
        for _ in blocks:
            self.assert_ok(self.peer.receive()[1])
        self.assertEqual(self.peer.has([sha256(block) for block in blocks]).head[2], b"\x01" * len(blocks))


class LiveAuthorities(Live):
    def test_refused(self) -> None:
        now, other = int(time.time()), Platform()
        other_token = self.node.authority(self.me, new_publication())
        tokens = {
            "for another peer": self.node.authority(NodeKey.new(), self.publication),
            "for another network": self.node.authority(self.me, self.publication, net="00" * 16),
            "for another publication": self.node.authority(self.me, new_publication()),
            "ended": self.node.authority(self.me, self.publication, iat=now - 60, exp=now - 1),
            "of the future": self.node.authority(self.me, self.publication, iat=now + 60),
            "for more than 7 days": self.node.authority(self.me, self.publication, iat=now, exp=now + 7 * 86_400 + 1),
            "without bytes": self.node.authority(self.me, self.publication, bytes=None),
            "platform not pinned": other.authority(
                self.node.network.id, base58(self.me.peer_id), self.publication, 1 << 20, now
            ),
            "another type": self.node.platform.deletion(self.node.network.id, self.publication, 1, now),
            "no token": "a.b.c",
            "signature of another": ".".join(self.authority.split(".")[:2] + other_token.split(".")[2:]),
        }
        for name, token in tokens.items():
            with self.subTest(name):
                block = name.encode() + self.publication
                self.assert_status(REFUSED, self.peer.put(block, [self.reference], token))
                self.assert_status(REFUSED, self.peer.ref([sha256(block)], [self.reference], token))
                self.assert_status(NOT_FOUND, self.peer.get(sha256(block)))

    def test_accepted_at_the_limits(self) -> None:
        now = int(time.time())
        for name, claims in {"of 9 s ahead": {"iat": now + 9}, "for 7 days": {"exp": now + 7 * 86_400}}.items():
            with self.subTest(name):
                token = self.node.authority(self.me, self.publication, **({"iat": now} | claims))
                self.assert_ok(self.peer.put(name.encode(), [self.reference], token))

    def test_a_header_that_names_another_key_or_algorithm(self) -> None:
        fingerprint = self.node.platform.fingerprint.hex()
        self.assert_ok(self.peer.put(b"x", [self.reference], self.signed(fingerprint)))
        self.assert_status(REFUSED, self.peer.put(b"x", [self.reference], self.signed("00" * 32)))
        for algorithm in ["RS256", "none", "HS256"]:
            with self.subTest(algorithm):
                token = self.signed(fingerprint, alg=algorithm)
                self.assert_status(REFUSED, self.peer.put(b"x", [self.reference], token))

    def signed(self, issuer: str, **header: str) -> str:
        """An authority that is good but for its issuer or its header."""
        now = int(time.time())
        claims = {"iss": issuer, "net": self.node.network.id.hex(), "aud": base58(self.me.peer_id)}
        numbers = {"bytes": 100, "iat": now, "exp": now + 60}
        return self.node.platform.sign(AUTHORITY, claims | {"pub": self.publication.hex()} | numbers, **header)

    def test_the_bytes_are_used_up(self) -> None:
        token = self.node.authority(self.me, self.publication, 1_500)
        first, second, third = (secrets.token_bytes(600) for _ in range(3))
        self.assert_ok(self.peer.put(first, [self.reference], token))
        self.assert_ok(self.peer.put(first, [self.reference], token))  # is there already, and is not counted again
        self.assert_ok(self.peer.put(second, [self.reference], token))
        self.assert_status(REFUSED, self.peer.put(third, [self.reference], token))
        self.assert_status(NOT_FOUND, self.peer.get(sha256(third)))
        self.assert_ok(self.peer.put(third[:300], [self.reference], token))

    def test_what_is_there_already_counts_for_another_publication(self) -> None:
        (block_id,) = self.store(secrets.token_bytes(600))
        second = new_publication()
        reference, token = self.node.platform.reference(second), self.node.authority(self.me, second, 1_000)
        self.assertEqual(self.peer.ref([block_id], [reference], token).head[2], b"\x01")
        self.assert_status(REFUSED, self.peer.put(secrets.token_bytes(600), [reference], token))

    def test_a_reference_that_is_not_the_authoritys(self) -> None:
        for other in [self.node.platform.reference(new_publication()), [bytes(32), self.publication]]:
            self.assert_status(REFUSED, self.peer.put(b"x", [self.reference, other], self.authority))


class LiveFrames(Live):
    """Each test breaks one rule of §4.2. What breaks a frame ends the connection, and the node serves others on."""

    def assert_ends(self, *messages: bytes) -> None:
        peer = self.connect()
        try:
            for message in messages:
                peer.channel.send_message(message)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has ended before all was said
        self.assert_closed(peer)

    def assert_closed(self, peer: Peer) -> None:
        seconds, said = seconds_until_closed(peer.channel.stream)
        peer.close()
        self.assertEqual(said, b"")
        self.assertLess(seconds, 5.0)
        self.assert_ok(self.peer.ping())

    def ask_raw(self, kind: int, head: bytes, body: bytes = b"") -> int:
        with self.connect() as peer:
            peer.channel.send_frame(frame_bytes(kind, 9, head, body))
            frame = peer.channel.receive_frame()
            self.assertEqual((frame.kind, frame.request), (kind | 0x80, 9))
            self.assert_ok(peer.ping())
            return int(frame.head[0])

    def ask(self, kind: int, head: Any, body: bytes = b"") -> int:
        return self.ask_raw(kind, cbor2.dumps(head, canonical=True), body)

    def test_cuts_at_other_places(self) -> None:
        small = Frame(HAS, 1, {1: [bytes(32)]}).encoded()
        large = frame_bytes(PUT, 1, cbor2.dumps({}), bytes(200_000))
        self.assert_ends(small[:-1], small[-1:])
        self.assert_ends(small[:16], small[16:])
        self.assert_ends(small[:15], small[15:])
        self.assert_ends(large[: CHUNK - 1], large[CHUNK - 1 :][:CHUNK])
        self.assert_ends(large[:CHUNK], large[CHUNK : 2 * CHUNK - 1], large[2 * CHUNK - 1 :][:CHUNK])
        self.assert_ends(large[:CHUNK], b"")

    def test_bytes_after_a_frame(self) -> None:
        small = Frame(HAS, 1, {1: [bytes(32)]}).encoded()
        self.assert_ends(small + b"\0")
        self.assert_ends(small + small)

    def test_an_empty_message(self) -> None:
        self.assert_ends(b"")

    def test_a_message_of_more_than_65519_bytes(self) -> None:
        """It does not fit into a Noise message: the length says 65,535 at most, and that is another cut."""
        block = frame_bytes(PUT, 1, cbor2.dumps({}), bytes(200_000))
        peer = self.connect()
        ciphertext = peer.channel.encrypt(block[:CHUNK])
        peer.channel.stream.sendall((len(ciphertext) - 1).to_bytes(2) + ciphertext)
        self.assert_closed(peer)

    def test_limits(self) -> None:
        head = cbor2.dumps({1: [bytes(32)]})
        self.assert_ends(frame_bytes(HAS, 1, head, flags=1))
        self.assert_ends(frame_bytes(HAS, 1, head, reserved=1))
        self.assert_ends(bytes([HAS]) + bytes(7) + (HEAD_LIMIT + 1).to_bytes(4) + bytes(4) + bytes(CHUNK - 16))
        self.assert_ends(bytes([HAS]) + bytes(7) + bytes(4) + (BODY_LIMIT + 1).to_bytes(4) + bytes(CHUNK - 16))

    def test_the_largest_head(self) -> None:
        head = {1: [bytes(32)], 99: b""}
        head[99] = bytes(HEAD_LIMIT - len(cbor2.dumps(head, canonical=True)) - 2)
        self.assertEqual(len(cbor2.dumps(head, canonical=True)), HEAD_LIMIT)
        self.assertEqual(self.ask(HAS, head), OK)

    def test_a_changed_bit(self) -> None:
        frame = Frame(HAS, 1, {1: [bytes(32)]}).encoded()
        length = 2 + len(frame) + 16
        for at in range(1, length):
            with self.subTest(at):
                peer = self.connect()
                ciphertext = peer.channel.encrypt(frame)
                message = bytearray(len(ciphertext).to_bytes(2) + ciphertext)
                message[at] ^= 1 << at % 8
                # Where the length is changed, so that there is enough.
                peer.channel.stream.sendall(message + bytes(256))
                self.assert_closed(peer)

    def test_a_message_sent_twice(self) -> None:
        peer = self.connect()
        ciphertext = peer.channel.encrypt(Frame(PING, 1, {}).encoded())
        peer.channel.stream.sendall((len(ciphertext).to_bytes(2) + ciphertext) * 2)
        self.assertEqual(peer.channel.receive_frame().kind, PING | 0x80)
        self.assert_closed(peer)

    def test_unknown_keys_are_ignored(self) -> None:
        self.assertEqual(self.ask(HAS, {1: [bytes(32)], 99: {"a": [None, 1.5, b"x"]}}), OK)

    def test_kinds_that_are_not_known(self) -> None:
        for kind in [0x00, 0x40, 0x7F]:
            with self.subTest(kind):
                self.assertEqual(self.ask(kind, {}), UNSUPPORTED)

    def test_malformed_heads(self) -> None:
        block_id, reference = bytes(32), [bytes(32), bytes(16)]
        heads: dict[str, tuple[int, Any]] = {
            "no key": (GET, {}),
            "a text": (GET, {1: "a" * 32}),
            "31 bytes": (GET, {1: bytes(31)}),
            "33 bytes": (GET, {1: bytes(33)}),
            "no list": (HAS, {1: block_id}),
            "an empty list": (HAS, {1: []}),
            "no references": (PUT, {1: block_id, 2: [], 3: "a"}),
            "a short reference": (PUT, {1: block_id, 2: [[bytes(32), bytes(15)]], 3: "a"}),
            "half a reference": (PUT, {1: block_id, 2: [[bytes(32)]], 3: "a"}),
            "no authority": (PUT, {1: block_id, 2: [reference]}),
            "an authority of bytes": (PUT, {1: block_id, 2: [reference], 3: b"a"}),
            "lengths for other ids": (OFFER, {1: [block_id], 2: []}),
            "no map": (HAS, []),
            "a text for a key": (HAS, {"a": 1}),
        }
        for name, (kind, head) in heads.items():
            with self.subTest(name):
                self.assertEqual(self.ask(kind, head, b"x" if kind == PUT else b""), MALFORMED)

    def test_heads_that_are_not_deterministic(self) -> None:
        ids = bytes([0x81, 0x58, 0x20]) + bytes(32)
        heads = {
            "not in order": b"\xa2\x02\x00\x01" + ids,
            "a key twice": b"\xa2\x01" + ids + b"\x01" + ids,
            "an indefinite map": b"\xbf\x01" + ids + b"\xff",
            "an indefinite list": b"\xa1\x01\x9f" + ids[1:] + b"\xff",
            "a byte too many": b"\xa1\x01" + ids + b"\0",
            "cut off": b"\xa1\x01" + ids[:-1],
            "empty": b"",
        }
        for name, head in heads.items():
            with self.subTest(name):
                self.assertEqual(self.ask_raw(HAS, head), MALFORMED)

    def test_lists_that_are_too_long(self) -> None:
        many = [bytes(32)] * 1_025
        self.assertEqual(self.ask(HAS, {1: many[:1_024]}), OK)
        self.assertEqual(self.ask(HAS, {1: many}), TOO_LARGE)
        self.assertEqual(self.ask(OFFER, {1: many, 2: [1] * 1_025}), TOO_LARGE)
        self.assertEqual(self.ask(REFS, {1: many[:257]}), TOO_LARGE)
        reference = [[bytes(32), bytes(16)]]
        self.assertEqual(self.ask(PUT, {1: bytes(32), 2: reference * 17, 3: "a"}, b"x"), TOO_LARGE)
        self.assertEqual(self.ask(REF, {1: many, 2: reference, 3: "a"}), TOO_LARGE)


class LiveReplication(Live):
    """The kinds of §10. The node cannot reach the peer of these tests, which is a member by its connections alone."""

    def test_audit(self) -> None:
        block, nonce = secrets.token_bytes(100_000), secrets.token_bytes(32)
        (block_id,) = self.store(block)
        response = self.peer.audit(block_id, nonce)
        self.assertEqual(response.head[2], proof(nonce, self.node.peer_id, block))

    def test_pull_and_refs(self) -> None:
        (block_id,) = self.store(b"pulled" + self.publication)
        response = self.peer.pull(block_id)
        self.assertEqual(response.head[2], [self.reference])
        self.assertEqual(response.body, b"pulled" + self.publication)
        lists = decode_references(self.peer.refs([bytes(32), block_id]).body, 2)
        self.assertEqual(lists, [[], [b"".join(self.reference)]])

    def test_offer(self) -> None:
        (block_id,) = self.store(b"offered" + self.publication)
        self.soon(lambda: self.assertEqual(self.peer.offer([block_id], [23]).head[2], b"\x01"))

    def test_ping(self) -> None:
        first, second = self.peer.ping(), self.connect().ping()
        self.assert_ok(first)
        self.assertEqual(first.head[2], 1)
        self.assertEqual(first.head[3], second.head[3])
        self.assertEqual((first.head[5], first.head[6]), (0, lists_digest()))

    def test_revocations_where_there_are_none(self) -> None:
        response = self.peer.revocations()
        self.assertEqual((response.status, response.body), (OK, b""))

    def test_malformed_prefixes(self) -> None:
        for bits, prefix in [(4, b""), (4, bytes(2)), (4, b"\x01"), (257, bytes(33)), (0, b"\0")]:
            with self.subTest(bits=bits, prefix=prefix):
                self.assert_status(MALFORMED, self.peer.digest(bits, prefix))


class LiveDeletion(Live):
    def test_an_order_is_kept_and_passed_on(self) -> None:
        (block_id,) = self.store(b"to be deleted" + self.publication)
        before = self.peer.ping().head
        order = self.node.platform.deletion(self.node.network.id, self.publication, 1, int(time.time()))
        self.assert_ok(self.peer.delete(order))
        self.assert_ok(self.peer.delete(order))
        after = self.peer.ping().head
        self.assertEqual((after[3], after[4]), (before[3], before[4] + 1))
        self.assert_status(REFUSED, self.peer.put(b"x", [self.reference], self.authority))
        self.assert_status(REFUSED, self.peer.ref([block_id], [self.reference], self.authority))
        self.assert_orders(before[3], before[4], [order], after[4])
        self.assert_orders(before[3], after[4], [], after[4])
        self.soon(lambda: self.assert_status(NOT_FOUND, self.peer.get(block_id)))

    def assert_orders(self, epoch: int, after: int, orders: list[str], following: int) -> None:
        response = self.peer.orders(epoch, after)
        self.assertEqual((response.head[2], response.head[3]), (epoch, following))
        self.assertEqual(decode_orders(response.body), orders)

    def test_another_epoch_begins_at_the_first(self) -> None:
        order = self.node.platform.deletion(self.node.network.id, self.publication, 7, int(time.time()))
        self.assert_ok(self.peer.delete(order))
        epoch, count = (self.peer.ping().head[key] for key in (3, 4))
        response = self.peer.orders(epoch ^ 1, count)
        self.assertEqual((response.head[2], response.head[3]), (epoch, count))
        self.assertEqual(len(decode_orders(response.body)), count)
        self.assertEqual(decode_orders(response.body)[-1], order)

    def test_orders_that_are_refused(self) -> None:
        network, now, other = self.node.network.id, int(time.time()), Platform()
        orders = {
            "platform not pinned": other.deletion(network, self.publication, 1, now),
            "another network": self.node.platform.deletion(bytes(16), self.publication, 1, now),
            "sequence 0": self.node.platform.deletion(network, self.publication, 0, now),
            "sequence 2^53": self.node.platform.deletion(network, self.publication, 2**53, now),
            "another type": self.authority,
            "no token": "x",
        }
        for name, order in orders.items():
            with self.subTest(name):
                self.assert_status(REFUSED, self.peer.delete(order))
        self.store(b"not deleted" + self.publication)


class LiveDigests(Live):
    """Apart from the others, so that the node has nothing but what is put here."""

    def entries(self, blocks: list[bytes]) -> list[Entry]:
        return [Entry.of(sha256(block), [b"".join(self.reference)], len(block)) for block in blocks]

    def put_all(self, blocks: list[bytes]) -> None:
        """As many under way as are allowed."""
        waiting = 0
        for block in blocks:
            if waiting == UNDER_WAY:
                self.assert_ok(self.peer.receive()[1])
                waiting -= 1
            self.peer.send(PUT, {1: sha256(block), 2: [self.reference], 3: self.authority}, block)
            waiting += 1
        for _ in range(waiting):
            self.assert_ok(self.peer.receive()[1])

    def test_entries_children_and_what_is_below_them(self) -> None:
        self.assertEqual(self.peer.digest(0, b"").head[2], 1)
        self.assertEqual(self.peer.digest(0, b"").body, b"")
        blocks = [b"block %d" % number for number in range(300)]
        self.put_all(blocks[:256])
        self.soon(lambda: self.check_entries("", self.entries(blocks[:256])))
        self.put_all(blocks[256:])
        self.soon(lambda: self.check_children(self.entries(blocks)))
        for prefix in ["0", "0110", "11111", "101010101"]:
            with self.subTest(prefix):
                self.check_entries(prefix, self.entries(blocks))

    def check_entries(self, prefix: str, entries: list[Entry]) -> None:
        response = self.peer.digest(len(prefix), encode_prefix(prefix))
        self.assertEqual(response.head[2], 1)
        self.assertEqual(decode_entries(response.body, prefix), under(prefix, entries))

    def check_children(self, entries: list[Entry]) -> None:
        response = self.peer.digest(0, b"")
        self.assertEqual(response.head[2], 0)
        children = decode_children(response.body)
        self.assertEqual(children, children_of("", entries))
        self.assertEqual(sum(child.count for child in children), len(entries))
        self.assertEqual(sum(child.sum for child in children) % 2**128, digest_sum(entries))


del Live  # has no tests of its own

if __name__ == "__main__":
    unittest.main()
