"""A real node and the peer beside this file shake hands, and what is not as in docs/protocol.md §4.1 is refused within
a second."""

from __future__ import annotations

import secrets
import socket
import time
import unittest

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from imira_keys import Network, NodeKey, Refused, counted
from imira_peer import HANDSHAKE_LIMIT, OK, PING, Handshake, Peer, receive_counted
from live_node import LiveNode, seconds_until_closed

# A second by the document, and another one for a machine that does much else.
CLOSED_S = 2.0
PREAMBLE_LENGTH = 29
N1_LENGTH = 32 + 16
# What is left of a handshake message's 4,096 bytes beside the static key, two tags and the rest of the identity.
LONGEST_ATTACHMENT = HANDSHAKE_LIMIT - (32 + 16) - 16 - (1 + 2 + 36 + 2 + 64 + 2)


class LiveHandshake(unittest.TestCase):
    node: LiveNode
    me: NodeKey

    @classmethod
    def setUpClass(cls) -> None:
        cls.node = LiveNode()
        cls.addClassCleanup(cls.node.stop)
        cls.node.start()
        cls.me = NodeKey.new()

    def begin(self, network: Network | None = None, key: bytes | None = None) -> tuple[socket.socket, Handshake]:
        stream = socket.create_connection(self.node.address)
        self.addCleanup(stream.close)
        network, static = network or self.node.network, X25519PrivateKey.generate().private_bytes_raw()
        return stream, Handshake(network, key or network.keys[0], self.me, static, dialler=True)

    def to_n2(self) -> tuple[socket.socket, Handshake]:
        """A handshake of which N3 is missing."""
        stream, handshake = self.begin()
        stream.sendall(handshake.preamble + counted(handshake.write()))
        handshake.read(receive_counted(stream, HANDSHAKE_LIMIT))
        return stream, handshake

    def assert_closed_without_a_word(self, stream: socket.socket) -> None:
        seconds, said = seconds_until_closed(stream)
        self.assertEqual(said, b"")
        self.assertLess(seconds, CLOSED_S)

    def assert_good_peer_is_served(self) -> None:
        with self.node.connect(self.me) as peer:
            self.assertEqual(peer.ping().status, OK)

    def test_both_prove_who_they_are(self) -> None:
        with self.node.connect(self.me) as peer:
            self.assertEqual(peer.channel.peer_id, self.node.peer_id)
            self.assertEqual((peer.version, peer.under_way), (1, 16))
            self.assertEqual(peer.channel.attachment, b"")
            self.assertEqual(peer.ping().status, OK)

    def test_a_dialler_that_wanted_another_peer_closes(self) -> None:
        with self.assertRaisesRegex(Refused, "another peer"):
            Peer.connect(self.node.address, self.node.network, self.me, NodeKey.new().peer_id)

    def test_without_authorities_an_attachment_is_ignored(self) -> None:
        for length in [1, LONGEST_ATTACHMENT]:
            with self.subTest(length), self.node.connect(self.me, attachment=bytes(length)) as peer:
                self.assertEqual(peer.ping().status, OK)

    def test_a_handshake_message_of_more_than_4096_bytes(self) -> None:
        stream, handshake = self.to_n2()
        message = handshake.write(handshake.identity(bytes(LONGEST_ATTACHMENT + 1)))
        self.assertEqual(len(message), HANDSHAKE_LIMIT + 1)
        stream.sendall(counted(message))
        self.assert_closed_without_a_word(stream)

    def test_strangers(self) -> None:
        real = self.node.network
        other_key = Network(real.id, (secrets.token_bytes(32),))
        other_id = Network(secrets.token_bytes(16), real.keys)
        for name, network in {"another key": other_key, "another network": other_id}.items():
            with self.subTest(name):
                stream, handshake = self.begin(network)
                stream.sendall(handshake.preamble + counted(handshake.write()))
                self.assert_closed_without_a_word(stream)
        self.assert_good_peer_is_served()

    def test_a_stranger_who_knows_the_key_id(self) -> None:
        """The preamble is right, and N1 is made with another key: closed at the first message that does not open."""
        stream, _ = self.begin()
        fake = Network(self.node.network.id, (secrets.token_bytes(32),))
        handshake = Handshake(fake, fake.keys[0], self.me, secrets.token_bytes(32), dialler=True)
        real = Handshake(self.node.network, self.node.network.keys[0], self.me, secrets.token_bytes(32), dialler=True)
        stream.sendall(real.preamble + counted(handshake.write()))
        self.assert_closed_without_a_word(stream)

    def test_a_bit_of_the_preamble_or_n1(self) -> None:
        for at in range(PREAMBLE_LENGTH + 2 + N1_LENGTH):
            with self.subTest(at):
                stream, handshake = self.begin()
                message = bytearray(handshake.preamble + counted(handshake.write()))
                message[at] ^= 1 << at % 8
                stream.sendall(message)
                self.assert_closed_without_a_word(stream)
        self.assert_good_peer_is_served()

    def test_a_bit_of_n3(self) -> None:
        for at in range(2 + N1_LENGTH + 1 + 2 + 36 + 2 + 64 + 2 + 16):
            with self.subTest(at):
                stream, handshake = self.to_n2()
                message = bytearray(counted(handshake.write(handshake.identity())))
                message[at] ^= 1 << at % 8
                stream.sendall(message)
                self.assert_closed_without_a_word(stream)
        self.assert_good_peer_is_served()

    def test_a_recorded_handshake_is_of_no_use(self) -> None:
        stream, handshake = self.to_n2()
        n3 = counted(handshake.write(handshake.identity()))
        stream.sendall(n3)
        self.assertGreater(len(receive_counted(stream, 65_535)), 16)
        again, handshake = self.begin()
        recorded = handshake.preamble + counted(handshake.write())
        again.sendall(recorded)
        receive_counted(again, HANDSHAKE_LIMIT)
        again.sendall(n3)
        self.assert_closed_without_a_word(again)

    def test_identities_that_prove_nothing(self) -> None:
        other = NodeKey.new()
        for name in [
            "another key's signature",
            "the other's role",
            "another network",
            "another version",
            "too long",
            "empty",
        ]:
            with self.subTest(name):
                stream, handshake = self.to_n2()
                stream.sendall(counted(handshake.write(self.bad_identity(name, handshake, other))))
                self.assert_closed_without_a_word(stream)
        self.assert_good_peer_is_served()

    def bad_identity(self, name: str, handshake: Handshake, other: NodeKey) -> bytes:
        static, network = handshake.static, self.node.network.id
        signed = b"imira/1/noise-static" + network + b"I" + static
        signature = {
            "another key's signature": other.sign(signed),
            "the other's role": self.me.sign(signed.replace(network + b"I", network + b"R")),
            "another network": self.me.sign(signed.replace(network, bytes(16))),
        }.get(name, self.me.sign(signed))
        identity = b"\x01" + counted(self.me.protobuf) + counted(signature) + counted(b"")
        return {"another version": b"\x02" + identity[1:], "too long": identity + b"\0", "empty": b""}.get(
            name, identity
        )

    def test_silence(self) -> None:
        """Before the preamble, in the middle of it, and before N3."""
        for name in ["nothing", "half a preamble", "no N3"]:
            with self.subTest(name):
                begun = time.monotonic()
                stream, handshake = self.to_n2() if name == "no N3" else self.begin()
                if name == "half a preamble":
                    stream.sendall(handshake.preamble[:10])
                self.assert_closed_without_a_word(stream)
                self.assertGreater(time.monotonic() - begun, 0.5)

    def test_the_log_tells_no_key(self) -> None:
        self.test_strangers()
        log = "".join(self.node.log)
        for key in self.node.network.keys:
            self.assertNotIn(key.hex(), log)


class LiveRotation(unittest.TestCase):
    """During a rotation a node has two keys, and takes peers with either."""

    def test_either_key(self) -> None:
        node = LiveNode()
        self.addCleanup(node.stop)
        file, previous = node.data / "network.toml", node.network.keys[0]
        current = secrets.token_bytes(32)
        file.write_text(f'id = "{node.network.id.hex()}"\nkeys = ["{current.hex()}", "{previous.hex()}"]\n')
        node.start()
        both = Network(node.network.id, (current, previous))
        for key in both.keys:
            with self.subTest(both.key_id(key).hex()):
                with Peer.connect(node.address, both, NodeKey.new(), node.peer_id, key=key) as peer:
                    self.assertEqual(peer.ask(PING, {}).status, OK)


if __name__ == "__main__":
    unittest.main()
