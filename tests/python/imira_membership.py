"""Membership certificates and revocation lists by docs/protocol.md §8 alone."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from imira_keys import Cursor, NodeKey, Refused, counted, sha256, verify_ed25519

VERSION = b"\x01"
STORAGE_NODE = 1
SKEW_S = 300
CERTIFICATE_LIMIT = 4_096
SERIALS_LIMIT = 16_384
CERTIFICATE_LABEL = b"imira/1/certificate"
REVOCATIONS_LABEL = b"imira/1/revocations"


@dataclass(frozen=True)
class Certificate:
    authority_id: bytes
    network_id: bytes
    serial: bytes
    roles: int
    not_before: int
    not_after: int
    peer_id: bytes

    def signed(self, authority: NodeKey) -> bytes:
        times = self.not_before.to_bytes(8) + self.not_after.to_bytes(8)
        head = VERSION + self.authority_id + self.network_id + self.serial + bytes([self.roles]) + times
        body = head + counted(self.peer_id)
        return body + authority.sign(CERTIFICATE_LABEL + body)

    @classmethod
    def verified(cls, data: bytes, authorities: list[bytes]) -> Certificate:
        """Form, authority and signature; `check` does the rest."""
        if len(data) > CERTIFICATE_LIMIT:
            raise Refused("the certificate is too long")
        cursor = Cursor(data, "the certificate")
        cursor.expect(VERSION, "version")
        authority_id, network_id, serial = cursor.take(8), cursor.take(16), cursor.take(16)
        roles, not_before, not_after = cursor.uint(1), cursor.uint(8), cursor.uint(8)
        peer_id = cursor.counted(CERTIFICATE_LIMIT)
        check_signature(cursor, data, authority_id, authorities, CERTIFICATE_LABEL)
        return cls(authority_id, network_id, serial, roles, not_before, not_after, peer_id)

    def check(self, network_id: bytes, peer_id: bytes, now: int, revoked: set[bytes]) -> None:
        if self.network_id != network_id:
            raise Refused("the certificate is of another network")
        # The other bits are of later versions.
        if not self.roles & STORAGE_NODE:
            raise Refused("the certificate is not of a storage node")
        if self.peer_id != peer_id:
            raise Refused("the certificate is another peer's")
        if self.not_before > now + SKEW_S:
            raise Refused("the certificate is not good yet")
        if self.not_after < now - SKEW_S:
            raise Refused("the certificate has expired")
        if self.serial in revoked:
            raise Refused("the certificate is revoked")


@dataclass(frozen=True)
class Revocations:
    authority_id: bytes
    network_id: bytes
    number: int
    serials: tuple[bytes, ...]

    def signed(self, authority: NodeKey) -> bytes:
        head = VERSION + self.authority_id + self.network_id + self.number.to_bytes(8)
        body = head + len(self.serials).to_bytes(4) + b"".join(self.serials)
        return body + authority.sign(REVOCATIONS_LABEL + body)

    @classmethod
    def verified(cls, data: bytes, authorities: list[bytes], network_id: bytes) -> Revocations:
        cursor = Cursor(data, "the revocation list")
        cursor.expect(VERSION, "version")
        authority_id, listed_network, number, count = cursor.take(8), cursor.take(16), cursor.uint(8), cursor.uint(4)
        if count > SERIALS_LIMIT:
            raise Refused(f"the revocation list has {count} serials")
        serials = tuple(cursor.take(16) for _ in range(count))
        if any(one >= other for one, other in pairwise(serials)):
            raise Refused("the serials do not ascend")
        check_signature(cursor, data, authority_id, authorities, REVOCATIONS_LABEL)
        if listed_network != network_id:
            raise Refused("the revocation list is of another network")
        return cls(authority_id, listed_network, number, serials)

    def replaces(self, other: Revocations | None) -> bool:
        """A list takes the place of one with a smaller number by the same authority, and of nothing else."""
        return other is None or (self.authority_id == other.authority_id and self.number > other.number)


def lists_digest(*lists: bytes) -> bytes:
    """Tells whether two nodes have the same lists. In each, the authority's id follows the version."""
    return sha256(b"imira/1/lists", *sorted(lists, key=lambda each: each[1:9]))[:8]


def authority_id(public: bytes) -> bytes:
    return sha256(b"imira/1/authority", public)[:8]


def check_signature(cursor: Cursor, data: bytes, named: bytes, authorities: list[bytes], label: bytes) -> None:
    signed = data[: cursor.at]
    signature = cursor.take(64)
    cursor.end()
    public = next((public for public in authorities if authority_id(public) == named), None)
    if public is None:
        raise Refused("the authority is not known")
    verify_ed25519(public, signature, label + signed)
