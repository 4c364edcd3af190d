"""A holder that real nodes can dial: the answering side of docs/protocol.md §4.2 for what replication (§9, §10) asks of
a member.

It serves what it was given and takes nothing: `put` and `ref` answer unsupported, and an offer "not mine"."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
from collections.abc import Callable
from typing import Any

from imira_keys import Network, NodeKey, Refused, sha256
from imira_membership import lists_digest
from imira_peer import (
    AUDIT,
    AUTHORITIES,
    DIGEST,
    GET,
    HAS,
    MALFORMED,
    NOT_FOUND,
    OFFER,
    OK,
    ORDERS,
    PING,
    PULL,
    REFS,
    RESPONSE,
    REVOCATIONS,
    UNSUPPORTED,
    Channel,
    Frame,
    answer,
)
from imira_replication import ENTRIES_LIMIT, Entry, children_of, encode_children, prefix_of, proof, under

Answer = tuple[int, dict[int, Any], bytes]


class Server:
    """Listens on a port of 127.0.0.1 from the start. `asked` has the kinds of all requests so far."""

    def __init__(self, network: Network, node: NodeKey) -> None:
        self._network, self._node, self._epoch = network, node, secrets.randbits(64)
        self._blocks: dict[bytes, tuple[bytes, list[list[bytes]]]] = {}
        self._words: dict[bytes, str] = {}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._streams: list[socket.socket] = []
        # Whoever asked asks again for the others.
        self.refs_at_a_time = 256
        self.port = self._listener.getsockname()[1]
        self.asked, self.refused, self._changed = list[int](), list[str](), threading.Condition()
        self._kinds: dict[int, Callable[[dict[int, Any]], Answer]] = {
            GET: self._get,
            HAS: lambda head: (OK, {2: self._held(head[1])}, b""),
            DIGEST: self._digest,
            AUDIT: self._audit,
            OFFER: lambda head: (OK, {2: self._held(head[1])}, b""),  # 1 have, 0 not mine
            PING: lambda _: (OK, {2: 1, 3: self._epoch, 4: 0, 5: 0, 6: lists_digest()}, b""),
            REFS: self._refs,
            PULL: self._pull,
            ORDERS: lambda _: (OK, {2: self._epoch, 3: 0}, b""),
            AUTHORITIES: self._authorities,
            REVOCATIONS: lambda _: (OK, {}, b""),
        }
        threading.Thread(target=self._accept, daemon=True).start()

    def hold(self, block: bytes, references: list[list[bytes]]) -> bytes:
        self._blocks[sha256(block)] = (block, references)
        return sha256(block)

    def admit(self, reference: list[bytes], authority: str) -> None:
        """The platform's word for a publication, for whoever copies its blocks from here."""
        self._words[b"".join(reference)] = authority

    def wait_for(self, kind: int, seconds: float, times: int = 1) -> bool:
        """Whether so many such requests have come, or come in so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self.asked.count(kind) >= times, seconds)

    def close(self) -> None:
        for stream in [self._listener, *self._streams]:
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
            stream.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                stream, _ = self._listener.accept()
                self._streams.append(stream)
                threading.Thread(target=self._converse, args=(stream,), daemon=True).start()

    def _converse(self, stream: socket.socket) -> None:
        try:
            channel = answer(stream, self._network, self._node)
            while True:
                self._respond(channel, channel.receive_frame())
        except Refused as refused:
            self.refused.append(str(refused))
        except (EOFError, OSError):
            pass  # the other side closed, or this one does
        finally:
            stream.close()

    def _respond(self, channel: Channel, frame: Frame) -> None:
        with self._changed:
            self.asked.append(frame.kind)
            self._changed.notify_all()
        handler = self._kinds.get(frame.kind)
        try:
            status, head, body = handler(frame.head) if handler else (UNSUPPORTED, {}, b"")
        except (KeyError, TypeError, Refused):
            status, head, body = MALFORMED, {}, b""
        text = {} if status == OK else {1: "see docs/protocol.md, section 4.2"}
        channel.send_frame(Frame(frame.kind | RESPONSE, frame.request, {0: status} | text | head, body).encoded())

    def _held(self, ids: list[bytes]) -> bytes:
        return bytes(block_id in self._blocks for block_id in ids)

    def _get(self, head: dict[int, Any]) -> Answer:
        block, _ = self._blocks.get(head[1], (b"", []))
        return (OK, {}, block) if block else (NOT_FOUND, {}, b"")

    def _pull(self, head: dict[int, Any]) -> Answer:
        block, references = self._blocks.get(head[1], (b"", []))
        return (OK, {2: references}, block) if block else (NOT_FOUND, {}, b"")

    def _audit(self, head: dict[int, Any]) -> Answer:
        block, _ = self._blocks.get(head[1], (b"", []))
        return (OK, {2: proof(head[2], self._node.peer_id, block)}, b"") if block else (NOT_FOUND, {}, b"")

    def _refs(self, head: dict[int, Any]) -> Answer:
        lists = [self._blocks.get(block_id, (b"", []))[1] for block_id in head[1][: self.refs_at_a_time]]
        joined = [len(some).to_bytes(2) + b"".join(b"".join(reference) for reference in some) for some in lists]
        return OK, {}, b"".join(joined)

    def _authorities(self, head: dict[int, Any]) -> Answer:
        words = [self._words.get(b"".join(reference), "").encode() for reference in head[2]]
        return OK, {}, b"".join(len(word).to_bytes(2) + word for word in words)

    def _digest(self, head: dict[int, Any]) -> Answer:
        """All that is held is shared: there is one other node, and R is 2."""
        prefix = prefix_of(head[1], head[2])
        held = [
            Entry.of(block_id, [b"".join(reference) for reference in references], len(block))
            for block_id, (block, references) in self._blocks.items()
        ]
        below = under(prefix, held)
        if len(below) <= ENTRIES_LIMIT:
            return OK, {2: 1}, b"".join(entry.encoded() for entry in below)
        return OK, {2: 0}, encode_children(children_of(prefix, held))
