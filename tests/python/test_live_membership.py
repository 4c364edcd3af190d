"""A real node of a network with an authority talks to members only, by docs/protocol.md §8."""

from __future__ import annotations

import secrets
import time
import unittest
from dataclasses import replace
from pathlib import Path
from typing import Any

from imira_keys import NodeKey, Refused, base58
from imira_membership import Certificate, Revocations, authority_id, lists_digest
from imira_peer import OK, Peer
from live_node import LiveNode, run, seconds_until_closed

SKEW_S = 300
# A second by the document, and another one for a machine that does much else.
CLOSED_S = 2.0
# By the document, and as much again for the same reason.
CUT_OFF_S = 10.0 + 10.0


class LiveMembership(unittest.TestCase):
    """Each test has a node of its own, since a revocation list stays."""

    def setUp(self) -> None:
        self.secret = secrets.token_bytes(32)
        self.authority = NodeKey(self.secret)
        self.node = LiveNode(authorities=(self.authority.public,))
        self.addCleanup(self.node.stop)
        self.network_id = self.node.network.id
        self.own = self.certificate(self.node.peer_id).signed(self.authority)
        self.keep(self.own)
        self.me = NodeKey.new()
        self.good = self.certificate(self.me.peer_id)
        self.node.start()

    def keep(self, certificate: bytes) -> None:
        file = self.node.folder / "certificate"
        file.write_bytes(certificate)
        run("init", "--data", self.node.data, "--certificate", file)

    def certificate(self, peer_id: bytes) -> Certificate:
        now, authority = int(time.time()), authority_id(self.authority.public)
        return Certificate(authority, self.network_id, secrets.token_bytes(16), 1, now - 60, now + 3_600, peer_id)

    def connect(self, certificate: Certificate, node: NodeKey | None = None) -> Peer:
        peer = self.node.connect(node or self.me, attachment=certificate.signed(self.authority), admit=self.admit)
        self.addCleanup(peer.close)
        return peer

    def admit(self, peer_id: bytes, attachment: bytes) -> None:
        """What this peer checks of the node."""
        shown = Certificate.verified(attachment, [self.authority.public])
        shown.check(self.network_id, peer_id, int(time.time()), set())

    def assert_refused(self, attachment: bytes) -> None:
        channel = self.node.dial(self.me, attachment=attachment)
        self.addCleanup(channel.stream.close)
        seconds, said = seconds_until_closed(channel.stream)
        self.assertEqual(said, b"")
        self.assertLess(seconds, CLOSED_S)

    def assert_served(self, peer: Peer) -> dict[int, Any]:
        response = peer.ping()
        self.assertEqual(response.status, OK)
        return response.head

    def revoke(self, number: int, *certificates: Certificate) -> bytes:
        """Puts a list into the node's data folder, whole at once."""
        serials = tuple(sorted(certificate.serial for certificate in certificates))
        made = Revocations(authority_id(self.authority.public), self.network_id, number, serials).signed(self.authority)
        fresh = self.node.data / "revocations.new"
        fresh.write_bytes(made)
        fresh.rename(self.node.data / "revocations")
        return made

    def test_both_show_certificates(self) -> None:
        peer = self.connect(self.good)
        self.assertEqual(peer.channel.attachment, self.own)
        told = self.assert_served(peer)
        self.assertEqual((told[5], told[6]), (0, lists_digest()))

    def test_just_within(self) -> None:
        now, good = int(time.time()), self.good
        certificates = {
            "begins soon": replace(good, not_before=now + SKEW_S - 10),
            "has ended": replace(good, not_after=now - SKEW_S + 30),
            "for ever": replace(good, not_before=0, not_after=2**64 - 1),
            "with roles of later besides": replace(good, roles=0xFF),
        }
        for name, certificate in certificates.items():
            with self.subTest(name), self.connect(certificate) as peer:
                self.assert_served(peer)

    def test_no_members(self) -> None:
        now, good, stranger = int(time.time()), self.good, NodeKey.new()
        signed = good.signed(self.authority)
        attachments = {
            "nothing": b"",
            "not good yet": replace(good, not_before=now + SKEW_S + 30).signed(self.authority),
            "expired": replace(good, not_after=now - SKEW_S - 10).signed(self.authority),
            "another peer's": self.certificate(NodeKey.new().peer_id).signed(self.authority),
            "the node's own": self.own,
            "of another network": replace(good, network_id=bytes(16)).signed(self.authority),
            "of no storage node": replace(good, roles=0xFE).signed(self.authority),
            "by a stranger": replace(good, authority_id=authority_id(stranger.public)).signed(stranger),
            "by a stranger who names the authority": good.signed(stranger),
            "a byte too many": signed + b"\0",
            "twice": signed * 2,
        }
        for name, attachment in attachments.items():
            with self.subTest(name):
                self.assert_refused(attachment)
        self.assert_served(self.connect(good))

    def test_every_byte(self) -> None:
        signed = self.good.signed(self.authority)
        for at in range(len(signed)):
            with self.subTest(at):
                self.assert_refused(signed[:at] + bytes([signed[at] ^ 1 << at % 8]) + signed[at + 1 :])
        self.assert_served(self.connect(self.good))

    def test_the_peer_refuses_a_node_that_it_does_not_take_for_a_member(self) -> None:
        with self.assertRaisesRegex(Refused, "authority"):
            self.node.connect(
                self.me,
                attachment=self.good.signed(self.authority),
                admit=lambda _, shown: self.check_against(NodeKey.new(), shown),
            )

    def check_against(self, authority: NodeKey, shown: bytes) -> None:
        Certificate.verified(shown, [authority.public])

    def test_who_is_revoked_is_cut_off(self) -> None:
        other = NodeKey.new()
        peer, witness = self.connect(self.good), self.connect(self.certificate(other.peer_id), other)
        self.assert_served(peer)
        made = self.revoke(7, self.good)
        seconds, said = seconds_until_closed(peer.channel.stream, CUT_OFF_S)
        self.assertLess(seconds, CUT_OFF_S)
        self.assertEqual(said, b"")
        self.assert_refused(self.good.signed(self.authority))
        told = self.assert_served(witness)
        self.assertEqual((told[5], told[6]), (7, lists_digest(made)))
        self.assertEqual(witness.revocations().body, made)
        # Another certificate of the same peer is another matter.
        self.assert_served(self.connect(self.certificate(self.me.peer_id)))

    def test_who_is_no_member_any_more_is_cut_off(self) -> None:
        ends = int(time.time()) + 2
        peer = self.connect(replace(self.good, not_after=ends - SKEW_S))
        self.assert_served(peer)
        seconds, said = seconds_until_closed(peer.channel.stream, 2 + CUT_OFF_S)
        self.assertLess(seconds, 2 + CUT_OFF_S)
        self.assertEqual(said, b"")
        self.assertGreaterEqual(time.time(), ends)


class Commands(unittest.TestCase):
    """What `imira-node network` makes, the document describes."""

    def test_certificates_and_lists(self) -> None:
        node = LiveNode()
        self.addCleanup(node.stop)
        secret, file = secrets.token_bytes(32), node.folder / "authority"
        file.write_text(f'secret = "{secret.hex()}"\n')
        public = NodeKey(secret).public
        self.assertEqual(run("network", "authority", "show", file), public.hex())
        network = node.folder / "with-authority.network"
        replace(node.network, authorities=(public,)).write(network)
        member = NodeKey.new()
        common: list[str | Path] = ["--authority", file, "--network", network]
        certificate, listed = node.folder / "certificate", node.folder / "revocations"
        serial = run("network", "issue", *common, "--peer", base58(member.peer_id), "--days", "7", "--out", certificate)
        self.check_certificate(certificate, public, node.network.id, member.peer_id, serial)
        run("network", "revoke", *common, "--list", listed, certificate)
        run("network", "revoke", *common, "--list", listed, "00" * 16)
        made = Revocations.verified(listed.read_bytes(), [public], node.network.id)
        self.assertEqual((made.number, made.serials), (2, (bytes(16), bytes.fromhex(serial))))

    def check_certificate(self, file: Path, public: bytes, network: bytes, peer_id: bytes, serial: str) -> None:
        made, now = Certificate.verified(file.read_bytes(), [public]), int(time.time())
        made.check(network, peer_id, now, set())
        self.assertEqual((made.serial.hex(), made.not_after - made.not_before), (serial, 7 * 86_400))
        with self.assertRaises(Refused):
            made.check(network, peer_id, now, {made.serial})


if __name__ == "__main__":
    unittest.main()
