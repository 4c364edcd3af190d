"""A real node lets the dialler beside this file through its gate over UDP, answers it in sealed streams, and refuses all
that is not as in docs/protocol.md §3."""

from __future__ import annotations

import secrets
import time
import unittest
from dataclasses import replace

from imira_discovery import MULTISTREAM, Discovery, read_identify, text_message
from imira_gate import Dialler, Opened, Sealer, Unsealer
from imira_keys import Network, NodeKey, Refused
from imira_membership import Certificate, authority_id
from live_node import LiveNode, run

# A second by the document, and another one for a machine that does much else.
CLOSED_S = 2.0
IDENTIFY = "/ipfs/id/1.0.0"


class Live(unittest.TestCase):
    node: LiveNode

    def setUp(self) -> None:
        self.me = NodeKey.new()

    def dial(self) -> Discovery:
        connection = Discovery(self.node.address, self.me)
        self.addCleanup(connection.close)
        return connection

    def gate(self, network: Network | None = None, attachment: bytes = b"") -> Dialler:
        network = network or self.node.network
        return Dialler(network, self.me.peer_id, self.node.peer_id, secrets.token_bytes(32), attachment)

    def pass_gate(self, connection: Discovery, gate: Dialler) -> Opened:
        connection.send(0, gate.m1)
        connection.send(0, gate.answer(connection.read_m2()), end=True)
        self.assertEqual(connection.peer_id(), self.node.peer_id)
        assert gate.opened is not None
        return gate.opened

    def identify(self, connection: Discovery, opened: Opened, stream: int = 4) -> dict[int, list[bytes]]:
        """Asks in a sealed stream who the node is."""
        sealer = Sealer(opened.session_secret, stream, b"I")
        asked = text_message(MULTISTREAM) + text_message(IDENTIFY)
        connection.send(stream, sealer.seal(asked) + sealer.seal(b"", last=True), end=True)
        sealed = connection.read(stream, lambda _, ended: ended)
        answered = b"".join(Unsealer(opened.session_secret, stream, b"R").open_all(sealed))
        self.assertTrue(answered.startswith(asked), answered)
        return read_identify(answered[len(asked) :])

    def assert_closed(self, connection: Discovery, answered: int = 0) -> None:
        """Without a word but the M2 that there was."""
        begun = time.monotonic()
        connection.wait_closed()
        self.assertLess(time.monotonic() - begun, CLOSED_S)
        self.assertEqual(len(connection.data(0)), answered)


class LiveGate(Live):
    @classmethod
    def setUpClass(cls) -> None:
        cls.node = LiveNode()
        cls.addClassCleanup(cls.node.stop)
        cls.node.start()

    def test_through_the_gate_and_sealed(self) -> None:
        connection = self.dial()
        opened = self.pass_gate(connection, self.gate())
        self.assertEqual(opened.attachment, b"")
        for stream in [4, 8]:
            told = self.identify(connection, opened, stream)
            name = f"/imira/{self.node.network.id.hex()}"
            self.assertEqual(told[5], [f"{name}/1".encode()])
            self.assertIn(f"{name}/kad/1".encode(), told[3])
            self.assertEqual(told[1], [self.node.peer_id[2:]])

    def test_strangers(self) -> None:
        real = self.node.network
        for network in [replace(real, keys=(secrets.token_bytes(32),)), replace(real, id=secrets.token_bytes(16))]:
            connection = self.dial()
            connection.send(0, self.gate(network).m1)
            self.assert_closed(connection)

    def test_a_stranger_who_knows_the_key_id(self) -> None:
        """The node cannot tell until M3."""
        connection, gate = self.dial(), self.gate()
        connection.send(0, gate.m1)
        m2 = connection.read_m2()
        m3 = gate.answer(m2)
        connection.send(0, m3[:-32] + secrets.token_bytes(32), end=True)
        self.assert_closed(connection, len(m2))

    def test_a_bit_of_m1_or_m3(self) -> None:
        for at in range(len(self.gate().m1)):
            # Any nonce is as good as another.
            if 20 <= at < 52:
                continue
            with self.subTest("M1", at=at):
                connection, m1 = self.dial(), self.gate().m1
                connection.send(0, flipped(m1, at))
                self.assert_closed(connection)
        for at in range(1 + 2 + 32):
            with self.subTest("M3", at=at):
                connection, gate = self.dial(), self.gate()
                connection.send(0, gate.m1)
                m2 = connection.read_m2()
                connection.send(0, flipped(gate.answer(m2), at), end=True)
                self.assert_closed(connection, len(m2))

    def test_a_changed_nonce_is_found_out_at_m3(self) -> None:
        """Somebody between the two has changed it: the MACs are over what each of them has seen."""
        connection, gate = self.dial(), self.gate()
        connection.send(0, flipped(gate.m1, 30))
        with self.assertRaises(Refused):
            gate.answer(connection.read_m2())

    def test_a_recorded_gate_is_of_no_use(self) -> None:
        connection, gate = self.dial(), self.gate()
        connection.send(0, gate.m1)
        m3 = gate.answer(connection.read_m2())
        connection.send(0, m3, end=True)
        again = self.dial()
        again.send(0, gate.m1)
        m2 = again.read_m2()
        again.send(0, m3, end=True)
        self.assert_closed(again, len(m2))

    def test_silence(self) -> None:
        for name in ["after a byte", "after M2"]:
            with self.subTest(name):
                connection, gate = self.dial(), self.gate()
                connection.send(0, gate.m1 if name == "after M2" else gate.m1[:1])
                answered = len(connection.read_m2()) if name == "after M2" else 0
                self.assert_closed(connection, answered)

    def test_nothing_is_answered_before_the_gate(self) -> None:
        connection = self.dial()
        asked = text_message(MULTISTREAM) + text_message(IDENTIFY)
        for stream in [0, 4]:
            connection.send(stream, asked, end=True)
        self.assert_closed(connection)
        self.assertEqual(connection.data(4), b"")

    def test_what_is_not_sealed_is_not_answered(self) -> None:
        asked = text_message(MULTISTREAM) + text_message(IDENTIFY)
        other = secrets.token_bytes(32)
        connection = self.dial()
        opened = self.pass_gate(connection, self.gate())
        secret = opened.session_secret
        streams = [
            ("bare", 4, asked),
            ("with another secret", 8, Sealer(other, 8, b"I").seal(asked, last=True)),
            ("for another stream", 12, Sealer(secret, 4, b"I").seal(asked, last=True)),
            ("with the node's role", 16, Sealer(secret, 16, b"R").seal(asked, last=True)),
            ("with another bit", 20, flipped(Sealer(secret, 20, b"I").seal(asked, last=True), 5)),
        ]
        for name, stream, data in streams:
            with self.subTest(name):
                connection.send(stream, data, end=True)
                connection.read(stream, lambda _, ended: ended)
                self.assert_nothing_told(opened, stream, connection.data(stream))
        self.identify(connection, opened, 24)

    def assert_nothing_told(self, opened: Opened, stream: int, data: bytes) -> None:
        """At the most the listener's own greeting, which does not wait for the dialler's."""
        try:
            told = b"".join(Unsealer(opened.session_secret, stream, b"R").open_all(data))
        except Refused:
            return
        self.assertIn(told, [b"", text_message(MULTISTREAM)])


class LiveGateMembership(Live):
    """Where there is an authority, the attachments of M2 and M3 are certificates (§8)."""

    def setUp(self) -> None:
        super().setUp()
        self.authority = NodeKey.new()
        self.node = LiveNode(authorities=(self.authority.public,))
        self.addCleanup(self.node.stop)
        file = self.node.folder / "certificate"
        self.own = self.certificate(self.node.peer_id)
        file.write_bytes(self.own)
        run("init", "--data", self.node.data, "--certificate", file)
        self.node.start()

    def certificate(self, peer_id: bytes, **other: int) -> bytes:
        now, authority = int(time.time()), authority_id(self.authority.public)
        serial, network = secrets.token_bytes(16), self.node.network.id
        made = Certificate(authority, network, serial, 1, now - 60, other.get("not_after", now + 3_600), peer_id)
        return made.signed(self.authority)

    def test_a_member(self) -> None:
        connection = self.dial()
        opened = self.pass_gate(connection, self.gate(attachment=self.certificate(self.me.peer_id)))
        self.assertEqual(opened.attachment, self.own)
        self.identify(connection, opened)

    def test_no_members(self) -> None:
        attachments = {
            "nothing": b"",
            "another peer's": self.certificate(NodeKey.new().peer_id),
            "expired": self.certificate(self.me.peer_id, not_after=int(time.time()) - 310),
            "with another bit": flipped(self.certificate(self.me.peer_id), 20),
        }
        for name, attachment in attachments.items():
            with self.subTest(name):
                connection = self.dial()
                self.pass_gate(connection, self.gate(attachment=attachment))
                self.assert_closed(connection, len(connection.data(0)))


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]


del Live  # has no tests of its own

if __name__ == "__main__":
    unittest.main()
