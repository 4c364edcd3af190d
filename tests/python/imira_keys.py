"""Identities, derived keys and positions by docs/protocol.md §1 and §2 alone: a second opinion on the Rust."""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

PEER_ID_LENGTH = 38
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
# libp2p's protobuf of a public key: field 1 (type) is 1 (Ed25519), field 2 has 32 bytes.
PROTOBUF_HEAD = bytes([0x08, 0x01, 0x12, 0x20])
# The multihash "identity" of 36 bytes.
MULTIHASH_HEAD = bytes([0x00, 0x24])


class Refused(Exception):
    """What came from the other side is not as the document says."""


@dataclass(frozen=True)
class Network:
    """What all members share: the current key first, then the previous one, if there is one."""

    id: bytes
    keys: tuple[bytes, ...]
    # Public keys of those who say who is a member, if there are any.
    authorities: tuple[bytes, ...] = ()

    @classmethod
    def read(cls, file: Path) -> Network:
        """The file that `imira-node network new` writes."""
        content = tomllib.loads(file.read_text())
        lists = [tuple(bytes.fromhex(key) for key in content.get(name, [])) for name in ("keys", "authorities")]
        return cls(bytes.fromhex(content["id"]), *lists)

    def write(self, file: Path) -> None:
        lists = [json.dumps([key.hex() for key in keys]) for keys in (self.keys, self.authorities)]
        file.write_text(f'id = "{self.id.hex()}"\nkeys = {lists[0]}\nauthorities = {lists[1]}\n')

    def key_id(self, key: bytes) -> bytes:
        return sha256(b"imira/1/key-id", self.id, key)[:8]

    def key_named(self, key_id: bytes) -> bytes | None:
        return next((key for key in self.keys if self.key_id(key) == key_id), None)

    def gate_key(self, key: bytes) -> bytes:
        return hkdf(self.id, key, b"imira/1/gate")

    def blocks_psk(self, key: bytes) -> bytes:
        return hkdf(self.id, key, b"imira/1/blocks")

    def session_secret(self, key: bytes, gate_hash: bytes) -> bytes:
        return hkdf(gate_hash, key, b"imira/1/session")


class NodeKey:
    """An Ed25519 key pair with its libp2p identity."""

    def __init__(self, secret: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(secret)
        self.public = self._key.public_key().public_bytes_raw()
        self.protobuf = PROTOBUF_HEAD + self.public
        self.peer_id = peer_id_of(self.protobuf)

    @classmethod
    def new(cls) -> NodeKey:
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


def peer_id_of(protobuf: bytes) -> bytes:
    """The peer id that belongs to a public key in its protobuf form."""
    ed25519_of(protobuf)
    return MULTIHASH_HEAD + protobuf


def ed25519_of(protobuf: bytes) -> bytes:
    if len(protobuf) != len(PROTOBUF_HEAD) + 32 or not protobuf.startswith(PROTOBUF_HEAD):
        raise Refused("the public key is not Ed25519 in libp2p's protobuf form")
    return protobuf[len(PROTOBUF_HEAD) :]


def verify_ed25519(public: bytes, signature: bytes, message: bytes) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise Refused("an Ed25519 signature does not fit") from error


def fingerprint_of(key: RSAPublicKey) -> bytes:
    """SHA-256 of the key as DER SubjectPublicKeyInfo."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return sha256(key.public_bytes(serialization.Encoding.DER, form))


def position(identifier: bytes) -> int:
    """Of a block id (32 bytes) or a peer id (38 bytes)."""
    return int.from_bytes(sha256(identifier))


def distance(one: int, other: int) -> int:
    return one ^ other


def hkdf(salt: bytes, ikm: bytes, info: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt, info).derive(ikm)


def hkdf_expand(prk: bytes, info: bytes) -> bytes:
    return HKDFExpand(hashes.SHA256(), 32, info).derive(prk)


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def base58(data: bytes) -> str:
    number, digits = int.from_bytes(data), ""
    while number:
        number, digit = divmod(number, 58)
        digits = BASE58[digit] + digits
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + digits


def from_base58(text: str) -> bytes:
    number = 0
    for character in text:
        number = number * 58 + BASE58.index(character)
    zeros = len(text) - len(text.lstrip("1"))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8)


class Cursor:
    """Takes fields from the front of a message, and refuses one that is too short or too long."""

    def __init__(self, data: bytes, what: str) -> None:
        self._data, self._what, self.at = data, what, 0

    def take(self, length: int) -> bytes:
        if self.at + length > len(self._data):
            raise Refused(f"{self._what} is cut off")
        self.at += length
        return self._data[self.at - length : self.at]

    def uint(self, length: int) -> int:
        return int.from_bytes(self.take(length))

    def counted(self, limit: int) -> bytes:
        """length (2) and so many bytes."""
        length = self.uint(2)
        if length > limit:
            raise Refused(f"{self._what} has a field of {length} bytes, {limit} are allowed")
        return self.take(length)

    def expect(self, value: bytes, name: str) -> None:
        if self.take(len(value)) != value:
            raise Refused(f"{self._what} has another {name}")

    def left(self) -> int:
        return len(self._data) - self.at

    def end(self) -> None:
        if self.left():
            raise Refused(f"{self._what} has {self.left()} bytes too many")


def counted(data: bytes) -> bytes:
    """length (2) and the bytes."""
    return len(data).to_bytes(2) + data
