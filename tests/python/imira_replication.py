"""Entries, digests, proofs, regions and what nodes ask one another, by docs/protocol.md §9 and §10 alone."""

from __future__ import annotations

from dataclasses import dataclass

from imira_keys import Cursor, Refused, position, sha256

REFERENCE_LENGTH = 48
REFERENCES_LIMIT = 1_024
ENTRY_LENGTH = 52
ENTRIES_LIMIT = 256
CHILDREN = 16
CHILD_LENGTH = 20
LOOKUP_SIZE = 20
BITS = 256


@dataclass(frozen=True)
class Entry:
    """A block as its holders compare it. References have 48 bytes: fingerprint and publication id."""

    block_id: bytes
    digest: bytes
    length: int

    @classmethod
    def of(cls, block_id: bytes, references: list[bytes], length: int) -> Entry:
        return cls(block_id, entry_digest(block_id, references), length)

    def encoded(self) -> bytes:
        return self.block_id + self.digest + self.length.to_bytes(4)


@dataclass(frozen=True)
class Child:
    """One of the 16 continuations of a prefix."""

    count: int
    sum: int


def entry_digest(block_id: bytes, references: list[bytes]) -> bytes:
    assert all(len(reference) == REFERENCE_LENGTH for reference in references)
    return sha256(b"imira/1/entry", block_id, *sorted(references))[:16]


def digest_sum(entries: list[Entry]) -> int:
    return sum(int.from_bytes(entry.digest) for entry in entries) % 2**128


def under(prefix: str, entries: list[Entry]) -> list[Entry]:
    """The entries whose positions begin with these bits, in ascending order of position."""
    chosen = [entry for entry in entries if bits_of(position(entry.block_id)).startswith(prefix)]
    return sorted(chosen, key=lambda entry: position(entry.block_id))


def children_of(prefix: str, entries: list[Entry]) -> list[Child]:
    below = [under(prefix + f"{nibble:04b}", entries) for nibble in range(CHILDREN)]
    return [Child(len(some), digest_sum(some)) for some in below]


def encode_children(children: list[Child]) -> bytes:
    return b"".join(child.count.to_bytes(4) + child.sum.to_bytes(16) for child in children)


def encode_prefix(prefix: str) -> bytes:
    """Bits from the front, unused bits 0."""
    return bytes(int(prefix[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(prefix), 8))


def prefix_of(bits: int, data: bytes) -> str:
    prefix = bits_of(int.from_bytes(data.ljust(BITS // 8, b"\0")))[:bits]
    if not 0 <= bits <= BITS or encode_prefix(prefix) != data:
        raise Refused("a prefix has another length, or unused bits")
    return prefix


def decode_entries(body: bytes, prefix: str) -> list[Entry]:
    if len(body) % ENTRY_LENGTH or len(body) > ENTRY_LENGTH * ENTRIES_LIMIT:
        raise Refused("the entries are cut off or too many")
    cursor, entries = Cursor(body, "the entries"), []
    while cursor.left():
        entries.append(Entry(cursor.take(32), cursor.take(16), cursor.uint(4)))
    if entries != under(prefix, entries) or len({entry.block_id for entry in entries}) != len(entries):
        raise Refused("the entries are not in order, not under the prefix, or there twice")
    return entries


def decode_children(body: bytes) -> list[Child]:
    cursor = Cursor(body, "the children")
    children = [Child(cursor.uint(4), cursor.uint(16)) for _ in range(CHILDREN)]
    cursor.end()
    return children


def decode_references(body: bytes, ids: int) -> list[list[bytes]]:
    """Of the first of so many ids, in their order. Those that are left are to be asked for again."""
    cursor, lists = Cursor(body, "the references"), list[list[bytes]]()
    while cursor.left():
        count = cursor.uint(2)
        if count > REFERENCES_LIMIT or len(lists) == ids:
            raise Refused("there are more references, or lists of them, than there may be")
        lists.append([cursor.take(REFERENCE_LENGTH) for _ in range(count)])
    if ids and not lists:
        raise Refused("there is no list of references for the first id")
    return lists


def decode_orders(body: bytes) -> list[str]:
    cursor, orders = Cursor(body, "the orders"), []
    while cursor.left():
        orders.append(cursor.counted(4_096).decode("ascii"))
    return orders


def proof(nonce: bytes, prover: bytes, block: bytes) -> bytes:
    return sha256(nonce, prover, block)


def region_bits(target: int, nodes: list[int], nearest: int) -> int:
    """With so many leading bits in common with the target, a position has its `nearest` closest nodes among `nodes`."""
    distances = sorted(node ^ target for node in nodes)
    if len(distances) < LOOKUP_SIZE:
        return 0
    return BITS - (distances[nearest - 1] ^ distances[-1]).bit_length() + 1


def bits_of(number: int) -> str:
    return f"{number:0{BITS}b}"
