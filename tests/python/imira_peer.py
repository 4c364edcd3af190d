"""A peer of the block plane by docs/protocol.md §4 alone: handshake of both sides, frames, and all
kinds of request as a client."""

from __future__ import annotations

import socket
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cbor2
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from noise.connection import Keypair, NoiseConnection
from noise.exceptions import NoiseInvalidMessage

from imira_keys import Cursor, Network, NodeKey, Refused, counted, ed25519_of, peer_id_of, sha256, verify_ed25519

MAGIC = b"iMBP"
VERSION = 1
PROTOCOL = b"Noise_XXpsk0_25519_ChaChaPoly_SHA256"
PREAMBLE_LENGTH = 29
HANDSHAKE_LIMIT = 4_096
HANDSHAKE_S = 1.0
ATTACHMENT_LIMIT = 4_096
CIPHERTEXT_LIMIT = 65_535
CHUNK = 65_519
FRAME_HEADER = 16
HEAD_LIMIT = 65_536
BODY_LIMIT = 1_048_576
UNDER_WAY = 16
MESSAGE_LIMIT = 256
RESPONSE = 0x80
ANSWER_S = 30.0

HELLO, GET, PUT, REF, HAS, DIGEST, DELETE, AUDIT = range(8)
OFFER, PING, REFS, PULL, ORDERS, REVOCATIONS = range(8, 14)
AUTHORITIES = 0x0F

OK, NOT_FOUND, REFUSED, MISMATCH, FULL, TOO_LARGE, MALFORMED, BUSY, UNSUPPORTED, INTERNAL = range(10)


@dataclass(frozen=True)
class Frame:
    kind: int
    request: int
    head: dict[int, Any]
    body: bytes = b""

    def encoded(self) -> bytes:
        return frame_bytes(self.kind, self.request, cbor2.dumps(self.head, canonical=True), self.body)


@dataclass(frozen=True)
class Response:
    status: int
    message: str
    head: dict[int, Any]
    body: bytes


def frame_bytes(kind: int, request: int, head: bytes, body: bytes = b"", flags: int = 0, reserved: int = 0) -> bytes:
    """A frame as it is written; takes anything, so that tests can make bad ones."""
    lengths = len(head).to_bytes(4) + len(body).to_bytes(4)
    return bytes([kind, flags]) + reserved.to_bytes(2) + request.to_bytes(4) + lengths + head + body


class Handshake:
    """One side of the Noise handshake, without a socket. Keys are given, so that vectors can be made."""

    def __init__(
        self,
        network: Network,
        key: bytes,
        node: NodeKey,
        static: bytes,
        *,
        dialler: bool,
        ephemeral: bytes | None = None,
    ) -> None:
        self.preamble = MAGIC + bytes([VERSION]) + network.id + network.key_id(key)
        self._network, self._node = network, node
        self._own_role, self._other_role = (b"I", b"R") if dialler else (b"R", b"I")
        self.static = X25519PrivateKey.from_private_bytes(static).public_key().public_bytes_raw()
        noise = NoiseConnection.from_name(PROTOCOL)
        noise.set_psks(psk=network.blocks_psk(key))
        noise.set_prologue(b"imira/1/blocks" + self.preamble)
        noise.set_keypair_from_private_bytes(Keypair.STATIC, static)
        if ephemeral is not None:
            noise.set_keypair_from_private_bytes(Keypair.EPHEMERAL, ephemeral)
        if dialler:
            noise.set_as_initiator()
        else:
            noise.set_as_responder()
        with warnings.catch_warnings(action="ignore") if ephemeral is not None else warnings.catch_warnings():
            noise.start_handshake()
        self.noise = noise
        # Kept, since the library lets go of it with the last message.
        self._state = noise.noise_protocol.handshake_state

    def write(self, payload: bytes = b"") -> bytes:
        return bytes(self.noise.write_message(payload))

    def read(self, message: bytes) -> bytes:
        """The payload of the other side's message."""
        try:
            return bytes(self.noise.read_message(message))
        except (InvalidTag, ValueError) as error:
            raise Refused("a handshake message does not open") from error

    def identity(self, attachment: bytes = b"") -> bytes:
        signature = self._node.sign(self._signed(self._own_role, self.static))
        return b"\x01" + counted(self._node.protobuf) + counted(signature) + counted(attachment)

    def read_identity(self, payload: bytes, other_static: bytes) -> tuple[bytes, bytes]:
        """The proven peer id of the other side and its attachment."""
        cursor = Cursor(payload, "the identity")
        cursor.expect(b"\x01", "version")
        public, signature = cursor.counted(HANDSHAKE_LIMIT), cursor.counted(HANDSHAKE_LIMIT)
        attachment = cursor.counted(ATTACHMENT_LIMIT)
        cursor.end()
        verify_ed25519(ed25519_of(public), signature, self._signed(self._other_role, other_static))
        return peer_id_of(public), attachment

    def other_static(self) -> bytes:
        """The X25519 public key of the other side, once its identity has been read."""
        return bytes(self._state.rs.public_bytes)

    def _signed(self, role: bytes, static: bytes) -> bytes:
        return b"imira/1/noise-static" + self._network.id + role + static


class Channel:
    """Noise messages and frames over a connected socket."""

    def __init__(self, stream: socket.socket, noise: NoiseConnection, peer_id: bytes, attachment: bytes) -> None:
        self.stream, self._noise, self.peer_id, self.attachment = stream, noise, peer_id, attachment

    def send_message(self, plaintext: bytes) -> None:
        self.stream.sendall(counted(self.encrypt(plaintext)))

    def encrypt(self, plaintext: bytes) -> bytes:
        return bytes(self._noise.encrypt(plaintext))

    def receive_message(self) -> bytes:
        ciphertext = receive_counted(self.stream, CIPHERTEXT_LIMIT)
        try:
            return bytes(self._noise.decrypt(ciphertext))
        except NoiseInvalidMessage as error:
            raise Refused("a message does not open") from error

    def send_frame(self, frame: bytes) -> None:
        for at in range(0, len(frame), CHUNK):
            self.send_message(frame[at : at + CHUNK])

    def receive_frame(self) -> Frame:
        first = self.receive_message()
        kind, request, head_length, body_length = decode_frame_header(first[:FRAME_HEADER])
        length, data = FRAME_HEADER + head_length + body_length, bytearray(first)
        if len(first) != min(CHUNK, length):
            raise Refused("a frame's first message has another length than it is to have")
        while len(data) < length:
            message = self.receive_message()
            if len(message) != min(CHUNK, length - len(data)):
                raise Refused("a frame is cut where it is not to be cut")
            data += message
        head_end = FRAME_HEADER + head_length
        return Frame(kind, request, decode_head(bytes(data[FRAME_HEADER:head_end])), bytes(data[head_end:]))


class Peer:
    """The dialling side, connected and greeted."""

    def __init__(self, channel: Channel) -> None:
        self.channel, self._next, self._waiting = channel, 1, dict[int, int]()
        hello = channel.receive_frame()
        if (hello.kind, hello.request, hello.body) != (HELLO, 0, b"") or hello.head.get(0) != OK:
            raise Refused(f"the first frame is no hello: {hello}")
        self.version, self.under_way = uint(hello.head, 2), uint(hello.head, 3)
        if self.version != VERSION or not 1 <= self.under_way <= UNDER_WAY:
            raise Refused("the hello is of another version, or allows no requests")

    @classmethod
    def connect(cls, address: tuple[str, int], network: Network, node: NodeKey, wanted: bytes, **options: Any) -> Peer:
        """Connects with the current key of the network. `options` are those of `dial`."""
        channel = dial(address, network, node, wanted, **options)
        try:
            return cls(channel)
        except BaseException:
            channel.stream.close()
            raise

    def close(self) -> None:
        self.channel.stream.close()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, kind: int, head: dict[int, Any], body: bytes = b"") -> int:
        """Sends a request; the id that its response will have."""
        request, self._next = self._next, self._next + 1
        self._waiting[request] = kind
        self.channel.send_frame(Frame(kind, request, head, body).encoded())
        return request

    def receive(self) -> tuple[int, Response]:
        """The next response, with the id of its request."""
        frame = self.channel.receive_frame()
        kind = self._waiting.pop(frame.request, None)
        if kind is None or frame.kind != kind | RESPONSE:
            raise Refused(f"a response to nothing that was asked: {frame}")
        return frame.request, response_of(frame)

    def ask(self, kind: int, head: dict[int, Any], body: bytes = b"") -> Response:
        request = self.send(kind, head, body)
        answered, response = self.receive()
        if answered != request:
            raise Refused("a response to another request")
        return response

    def get(self, block_id: bytes) -> Response:
        return checked_block(block_id, self.ask(GET, {1: block_id}))

    def put(
        self, block: bytes, references: list[list[bytes]], authority: str, block_id: bytes | None = None
    ) -> Response:
        return self.ask(PUT, {1: block_id or sha256(block), 2: references, 3: authority}, block)

    def ref(self, ids: list[bytes], references: list[list[bytes]], authority: str) -> Response:
        return one_for_each(ids, 1, self.ask(REF, {1: ids, 2: references, 3: authority}))

    def has(self, ids: list[bytes]) -> Response:
        return one_for_each(ids, 1, self.ask(HAS, {1: ids}))

    def digest(self, bits: int, prefix: bytes) -> Response:
        return self.ask(DIGEST, {1: bits, 2: prefix})

    def delete(self, order: str) -> Response:
        return self.ask(DELETE, {1: order})

    def audit(self, block_id: bytes, nonce: bytes) -> Response:
        return self.ask(AUDIT, {1: block_id, 2: nonce})

    def offer(self, ids: list[bytes], lengths: list[int]) -> Response:
        return one_for_each(ids, 3, self.ask(OFFER, {1: ids, 2: lengths}))

    def ping(self) -> Response:
        return self.ask(PING, {})

    def refs(self, ids: list[bytes]) -> Response:
        return self.ask(REFS, {1: ids})

    def pull(self, block_id: bytes) -> Response:
        return checked_block(block_id, self.ask(PULL, {1: block_id}))

    def orders(self, epoch: Any, after: int) -> Response:
        return self.ask(ORDERS, {1: epoch, 2: after})

    def authorities(self, references: list[list[bytes]]) -> Response:
        return self.ask(AUTHORITIES, {2: references})

    def revocations(self) -> Response:
        return self.ask(REVOCATIONS, {})


def dial(
    address: tuple[str, int],
    network: Network,
    node: NodeKey,
    wanted: bytes,
    *,
    attachment: bytes = b"",
    key: bytes | None = None,
    admit: Callable[[bytes, bytes], None] = lambda _peer, _attachment: None,
) -> Channel:
    """Connects and shakes hands. `admit` looks at the other side's peer id and attachment, and raises to refuse it."""
    stream = socket.create_connection(address, HANDSHAKE_S)
    try:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        static = X25519PrivateKey.generate().private_bytes_raw()
        handshake = Handshake(network, key or network.keys[0], node, static, dialler=True)
        stream.sendall(handshake.preamble + counted(handshake.write()))
        payload = handshake.read(receive_counted(stream, HANDSHAKE_LIMIT))
        peer_id, shown = handshake.read_identity(payload, handshake.other_static())
        if peer_id != wanted:
            raise Refused("another peer answered")
        admit(peer_id, shown)
        stream.sendall(counted(handshake.write(handshake.identity(attachment))))
        stream.settimeout(ANSWER_S)
        return Channel(stream, handshake.noise, peer_id, shown)
    except BaseException:
        stream.close()
        raise


def answer(stream: socket.socket, network: Network, node: NodeKey) -> Channel:
    """Shakes hands as the listening side, and says hello. The caller closes the stream of one that is refused."""
    stream.settimeout(HANDSHAKE_S)
    cursor = Cursor(receive_exactly(stream, PREAMBLE_LENGTH), "the preamble")
    cursor.expect(MAGIC, "magic")
    cursor.expect(bytes([VERSION]), "version")
    cursor.expect(network.id, "network id")
    key = network.key_named(cursor.take(8))
    if key is None:
        raise Refused("the preamble names a key that is not known")
    static = X25519PrivateKey.generate().private_bytes_raw()
    handshake = Handshake(network, key, node, static, dialler=False)
    if handshake.read(receive_counted(stream, HANDSHAKE_LIMIT)):
        raise Refused("the first handshake message has a payload")
    stream.sendall(counted(handshake.write(handshake.identity())))
    payload = handshake.read(receive_counted(stream, HANDSHAKE_LIMIT))
    peer_id, attachment = handshake.read_identity(payload, handshake.other_static())
    stream.settimeout(None)
    channel = Channel(stream, handshake.noise, peer_id, attachment)
    channel.send_frame(Frame(HELLO, 0, {0: OK, 2: VERSION, 3: UNDER_WAY}).encoded())
    return channel


def decode_frame_header(header: bytes) -> tuple[int, int, int, int]:
    cursor = Cursor(header, "the frame's header")
    kind = cursor.uint(1)
    cursor.expect(bytes(3), "flags")
    request, head_length, body_length = cursor.uint(4), cursor.uint(4), cursor.uint(4)
    if head_length > HEAD_LIMIT or body_length > BODY_LIMIT:
        raise Refused("a frame is too large")
    return kind, request, head_length, body_length


def decode_head(data: bytes) -> dict[int, Any]:
    """Deterministic CBOR: what is decoded has one encoding, and this is it."""
    try:
        head = cbor2.loads(data)
        if not isinstance(head, dict) or cbor2.dumps(head, canonical=True) != data:
            raise Refused("a head is no deterministic CBOR map")
    except (cbor2.CBORError, ValueError) as error:
        raise Refused("a head does not decode") from error
    if not all(type(key) is int and key >= 0 for key in head):
        raise Refused("a head has a key that is no unsigned integer")
    return head


def response_of(frame: Frame) -> Response:
    status, message = uint(frame.head, 0), frame.head.get(1, "")
    if not isinstance(message, str) or len(message.encode()) > MESSAGE_LIMIT:
        raise Refused("a response's text is no text, or too long")
    if (status == OK) != (1 not in frame.head):
        raise Refused("a response has a text where it is to have none, or none where it is to have one")
    return Response(status, message, frame.head, frame.body)


def checked_block(block_id: bytes, response: Response) -> Response:
    if response.status == OK and sha256(response.body) != block_id:
        raise Refused("the block is another than was asked for")
    return response


def one_for_each(ids: list[bytes], highest: int, response: Response) -> Response:
    if response.status == OK:
        answers = response.head.get(2)
        if not isinstance(answers, bytes) or len(answers) != len(ids) or any(answer > highest for answer in answers):
            raise Refused("the answers are not one for each id")
    return response


def uint(head: dict[int, Any], key: int) -> int:
    value = head.get(key)
    if type(value) is not int or value < 0:
        raise Refused(f"key {key} of a head is no unsigned integer")
    return value


def receive_counted(stream: socket.socket, limit: int) -> bytes:
    length = int.from_bytes(receive_exactly(stream, 2))
    if length > limit:
        raise Refused(f"a message of {length} bytes")
    return receive_exactly(stream, length)


def receive_exactly(stream: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        part = stream.recv(length - len(data))
        if not part:
            raise EOFError("the other side closed the connection")
        data += part
    return bytes(data)
