"""A real node takes the holder beside this file for a member like any other: it dials it, compares with it, fetches
from it and audits it (docs/protocol.md §4.1, §10)."""

from __future__ import annotations

import re
import secrets
import time
import unittest

from imira_keys import NodeKey, base58, sha256
from imira_peer import AUDIT, BUSY, DIGEST, OK, PING, PULL, REFS
from imira_replication import decode_references
from imira_server import Server
from imira_tokens import Platform, new_publication
from live_node import LiveNode

REACH = 0x0E
# The node looks around in the network first, where this holder does not answer over UDP.
SOON_S = 60.0


class LiveHolder(unittest.TestCase):
    def setUp(self) -> None:
        self.node, self.me = LiveNode(), NodeKey.new()
        self.addCleanup(self.node.stop)
        self.holder = Server(self.node.network, self.me)
        self.addCleanup(self.holder.close)
        self.publication = new_publication()
        self.reference = self.node.platform.reference(self.publication)
        self.holder.admit(self.reference, self.node.authority(self.me, self.publication))

    def start(self) -> None:
        """The node finds the holder where it finds those that it knew before a restart."""
        address = f"/ip4/127.0.0.1/udp/{self.holder.port}/quic-v1/p2p/{base58(self.me.peer_id)}\n"
        (self.node.data / "peers").write_text(address)
        config = (self.node.data / "config.toml").read_text()
        config = re.sub(r"(?m)^sync_seconds = .*", "sync_seconds = 1", config)
        (self.node.data / "config.toml").write_text(config)
        self.node.start()

    def test_a_node_fetches_what_it_lacks_and_audits(self) -> None:
        """More blocks than fit into a list of entries, so that it must go down the prefixes."""
        blocks = [b"block %d" % number + self.publication for number in range(300)] + [secrets.token_bytes(1 << 20)]
        ids = [self.holder.hold(block, [self.reference]) for block in blocks]
        self.start()
        # It audits after a comparison that found no difference.
        self.assertTrue(self.holder.wait_for(AUDIT, SOON_S), self.holder.asked)
        self.assertEqual(self.holder.refused, [])
        with self.node.connect(self.me) as peer:
            self.assertEqual(peer.has(ids).head[2], b"\x01" * len(ids))
            self.assertEqual(peer.get(ids[-1]).body, blocks[-1])
            self.assertEqual(decode_references(peer.refs(ids[:1]).body, 1), [[b"".join(self.reference)]])
        self.assertEqual(self.holder.asked.count(PULL), len(ids))
        self.assertIn(PING, self.holder.asked)

    def test_references_come_together(self) -> None:
        block, other = secrets.token_bytes(1_000), new_publication()
        self.holder.hold(block, [self.reference])
        self.start()
        reference, authority = self.node.platform.reference(other), self.node.authority(self.me, other)
        with self.node.connect(self.me) as peer:
            self.assertEqual(peer.put(block, [reference], authority).status, OK)
            self.assertTrue(self.holder.wait_for(REFS, SOON_S), self.holder.asked)
            both, end = {b"".join(self.reference), b"".join(reference)}, time.monotonic() + SOON_S
            while set(decode_references(peer.refs([sha256(block)]).body, 1)[0]) != both:
                self.assertLess(time.monotonic(), end, self.holder.asked)
                time.sleep(0.05)

    def test_references_that_do_not_fit_an_answer_are_asked_for_again(self) -> None:
        """This holder answers for one block at a time."""
        self.holder.refs_at_a_time = 1
        blocks = [secrets.token_bytes(1_000) for _ in range(5)]
        ids = [self.holder.hold(block, [self.reference]) for block in blocks]
        self.start()
        other = new_publication()
        reference, authority = self.node.platform.reference(other), self.node.authority(self.me, other)
        both = {b"".join(self.reference), b"".join(reference)}
        with self.node.connect(self.me) as peer:
            for block in blocks:
                self.assertEqual(peer.put(block, [reference], authority).status, OK)
            end = time.monotonic() + SOON_S
            while any(set(held) != both for held in decode_references(peer.refs(ids).body, len(ids))):
                self.assertLess(time.monotonic(), end, self.holder.asked)
                time.sleep(0.05)

    def test_references_of_a_platform_that_is_not_pinned_are_no_reason(self) -> None:
        foreign = [bytes(32), self.publication]
        unwanted = self.holder.hold(b"unwanted" + self.publication, [foreign])
        wanted = self.holder.hold(b"wanted" + self.publication, [foreign, self.reference])
        self.start()
        self.assertTrue(self.holder.wait_for(PULL, SOON_S), self.holder.asked)
        with self.node.connect(self.me) as peer:
            end = time.monotonic() + SOON_S
            while peer.has([wanted]).head[2] != b"\x01":
                self.assertLess(time.monotonic(), end)
                time.sleep(0.05)
            self.assertEqual(decode_references(peer.refs([wanted]).body, 1), [[b"".join(self.reference)]])
            # After two more comparisons it has had every opportunity.
            self.assertTrue(self.holder.wait_for(DIGEST, SOON_S, self.holder.asked.count(DIGEST) + 2))
            self.assertEqual(peer.has([unwanted]).head[2], b"\x00")

    def test_a_publication_that_no_platform_has_signed_for_is_no_reason(self) -> None:
        """Nothing is shown for one, the authority of another publication for the second, one of a strange platform for the third."""
        forged = [self.node.platform.reference(new_publication()) for _ in range(3)]
        self.holder.admit(forged[1], self.node.authority(self.me, self.publication))
        stranger = Platform()
        word = stranger.authority(self.node.network.id, base58(self.me.peer_id), forged[2][1], 1 << 24, int(time.time()))
        self.holder.admit(forged[2], word)
        unwanted = [self.holder.hold(b"forged %d" % number, [one]) for number, one in enumerate(forged)]
        wanted = self.holder.hold(b"wanted" + self.publication, [*forged, self.reference])
        self.start()
        with self.node.connect(self.me) as peer:
            end = time.monotonic() + SOON_S
            while peer.has([wanted]).head[2] != b"\x01":
                self.assertLess(time.monotonic(), end, self.holder.asked)
                time.sleep(0.05)
            self.assertEqual(decode_references(peer.refs([wanted]).body, 1), [[b"".join(self.reference)]])
            self.assertTrue(self.holder.wait_for(DIGEST, SOON_S, self.holder.asked.count(DIGEST) + 2))
            self.assertEqual(peer.has(unwanted).head[2], bytes(3))
            kept = self.node.authority(self.me, self.publication)
            self.assertEqual(peer.authorities([self.reference, forged[0]]).body[-2:], bytes(2))
            self.assertEqual(len(peer.authorities([self.reference]).body), 2 + len(kept))

    def test_a_node_tells_whether_it_can_reach_a_peer(self) -> None:
        """Over TCP it can, and over UDP nobody answers. For a peer that is not the one who answers there, it cannot."""
        self.node.start()
        other = NodeKey.new()
        with self.node.connect(self.me) as peer, self.node.connect(other) as another:
            first = peer.ask(REACH, {1: self.holder.port})
            self.assertEqual((first.status, first.head.get(2), first.head.get(3)), (OK, 1, 0))
            self.assertEqual(peer.ask(REACH, {1: self.holder.port}).status, BUSY)
            second = another.ask(REACH, {1: self.holder.port})
            self.assertEqual((second.status, second.head.get(2), second.head.get(3)), (OK, 0, 0))


if __name__ == "__main__":
    unittest.main()
