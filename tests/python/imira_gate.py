"""The gate of a discovery connection and the sealing of its streams by docs/protocol.md §3 alone. No input, no
output: messages go in and come out, and nonces are given, so that the same inputs make the same vectors."""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from imira_keys import Cursor, Network, Refused, counted, hkdf_expand, sha256

MAGIC = b"iMG"
VERSION = b"\x01"
ATTACHMENT_LIMIT = 4_096
PLAINTEXT_LIMIT = 16_384
TAG = 16
LAST = 0x8000


@dataclass(frozen=True)
class Opened:
    """What a gate leaves behind."""

    key_id: bytes
    hash: bytes
    session_secret: bytes
    attachment: bytes


class Dialler:
    """I. `m1` goes out, `answer` takes M2 and gives M3; then `opened` is there."""

    def __init__(self, network: Network, me: bytes, peer: bytes, nonce: bytes, attachment: bytes = b"") -> None:
        self._network, self._context, self._attachment = network, context(network, me, peer), attachment
        key_ids = [network.key_id(key) for key in network.keys]
        self.m1 = MAGIC + VERSION + network.id + nonce + bytes([len(key_ids)]) + b"".join(key_ids)
        self.opened: Opened | None = None

    def answer(self, m2: bytes) -> bytes:
        cursor = Cursor(m2, "M2")
        cursor.expect(VERSION, "version")
        key_id = cursor.take(8)
        cursor.take(32)
        attachment, mac = attachment_and_mac(cursor)
        key = self._network.key_named(key_id)
        if key is None:
            raise Refused("M2 chooses a key that was not offered")
        gate_key = self._network.gate_key(key)
        check_mac(mac, gate_key, b"R" + self._context + self.m1 + m2[:-32])
        head = VERSION + counted(self._attachment)
        m3 = head + mac_of(gate_key, b"I" + self._context + self.m1 + m2 + head)
        self.opened = opened(self._network, key, self._context, self.m1, m2, m3, attachment)
        return m3


class Listener:
    """R. `answer` takes M1 and gives M2, `finish` takes M3."""

    def __init__(self, network: Network, me: bytes, peer: bytes, nonce: bytes, attachment: bytes = b"") -> None:
        self._network, self._context = network, context(network, peer, me)
        self._nonce, self._attachment = nonce, attachment
        self._key = self._m1 = self._m2 = b""

    def answer(self, m1: bytes) -> bytes:
        cursor = Cursor(m1, "M1")
        cursor.expect(MAGIC, "magic")
        cursor.expect(VERSION, "version")
        cursor.expect(self._network.id, "network id")
        cursor.take(32)
        count = cursor.uint(1)
        if not 1 <= count <= 2:
            raise Refused(f"M1 has {count} keys")
        offered = [cursor.take(8) for _ in range(count)]
        cursor.end()
        key = next((key for key in self._network.keys if self._network.key_id(key) in offered), None)
        if key is None:
            raise Refused("no key in common")
        head = VERSION + self._network.key_id(key) + self._nonce + counted(self._attachment)
        mac = mac_of(self._network.gate_key(key), b"R" + self._context + m1 + head)
        self._key, self._m1, self._m2 = key, m1, head + mac
        return self._m2

    def finish(self, m3: bytes) -> Opened:
        cursor = Cursor(m3, "M3")
        cursor.expect(VERSION, "version")
        attachment, mac = attachment_and_mac(cursor)
        gate_key = self._network.gate_key(self._key)
        check_mac(mac, gate_key, b"I" + self._context + self._m1 + self._m2 + m3[:-32])
        return opened(self._network, self._key, self._context, self._m1, self._m2, m3, attachment)


class Sealer:
    """The sending half of a stream of one connection."""

    def __init__(self, session_secret: bytes, stream: int, role: bytes) -> None:
        self._cipher, self._number = ChaCha20Poly1305(stream_key(session_secret, stream, role)), 0

    def seal(self, plaintext: bytes, last: bool = False) -> bytes:
        assert len(plaintext) <= PLAINTEXT_LIMIT and (plaintext or last)
        header = ((LAST if last else 0) | (len(plaintext) + TAG)).to_bytes(2)
        sealed = self._cipher.encrypt(record_nonce(self._number), plaintext, header)
        self._number += 1
        return header + sealed


class Unsealer:
    """The receiving half: all records of a direction, from the first byte to the last."""

    def __init__(self, session_secret: bytes, stream: int, role: bytes) -> None:
        self._cipher, self._number = ChaCha20Poly1305(stream_key(session_secret, stream, role)), 0

    def open_all(self, data: bytes) -> list[bytes]:
        """The plaintexts of a whole direction. What comes after the last record is not read."""
        cursor, plaintexts, last = Cursor(data, "the stream"), [], False
        while not last:
            header = cursor.take(2)
            last, length = bool(header[0] & 0x80), int.from_bytes(header) & 0x7FFF
            plaintexts.append(self._open(header, cursor.take(length), last))
        return plaintexts

    def _open(self, header: bytes, ciphertext: bytes, last: bool) -> bytes:
        if not TAG <= len(ciphertext) <= PLAINTEXT_LIMIT + TAG:
            raise Refused("a record has a length that is not allowed")
        try:
            plaintext = self._cipher.decrypt(record_nonce(self._number), ciphertext, header)
        except InvalidTag as error:
            raise Refused("a record does not open") from error
        if not plaintext and not last:
            raise Refused("an empty record is not the last")
        self._number += 1
        return plaintext


def stream_key(session_secret: bytes, stream: int, role: bytes) -> bytes:
    return hkdf_expand(session_secret, b"imira/1/stream" + stream.to_bytes(8) + role)


def record_nonce(number: int) -> bytes:
    return bytes(4) + number.to_bytes(8)


def context(network: Network, dialler: bytes, listener: bytes) -> bytes:
    return b"imira/1/gate" + network.id + counted(dialler) + counted(listener)


def mac_of(gate_key: bytes, message: bytes) -> bytes:
    return hmac.digest(gate_key, message, "sha256")


def check_mac(mac: bytes, gate_key: bytes, message: bytes) -> None:
    if not hmac.compare_digest(mac, mac_of(gate_key, message)):
        raise Refused("the MAC does not fit")


def attachment_and_mac(cursor: Cursor) -> tuple[bytes, bytes]:
    attachment, mac = cursor.counted(ATTACHMENT_LIMIT), cursor.take(32)
    cursor.end()
    return attachment, mac


def opened(network: Network, key: bytes, ctx: bytes, m1: bytes, m2: bytes, m3: bytes, attachment: bytes) -> Opened:
    gate_hash = sha256(ctx, m1, m2, m3)
    return Opened(network.key_id(key), gate_hash, network.session_secret(key, gate_hash), attachment)
