"""A dialler of discovery over UDP: QUIC with libp2p's TLS, the gate, and sealed streams, by docs/protocol.md §3 and the
specifications of libp2p (tls/tls.md, identify, multistream-select) that it builds on."""

from __future__ import annotations

import datetime
import socket
import ssl
import time
from collections.abc import Callable

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, QuicEvent, StreamDataReceived, StreamReset
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from imira_keys import NodeKey, Refused, peer_id_of, verify_ed25519

GATE_STREAM = 0
LIBP2P_EXTENSION = x509.ObjectIdentifier("1.3.6.1.4.1.53594.1.1")
SIGNED_PREFIX = b"libp2p-tls-handshake:"
LIMIT_S = 10.0
MULTISTREAM = "/multistream/1.0.0"


class Discovery:
    """A QUIC connection to a node, from which what came is read by stream."""

    def __init__(self, address: tuple[str, int], node: NodeKey) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        configuration = QuicConfiguration(is_client=True, alpn_protocols=["libp2p"], verify_mode=ssl.CERT_NONE)
        configuration.certificate, configuration.private_key = certificate_of(key, node), key
        self._quic, self._address = QuicConnection(configuration=configuration), address
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._data: dict[int, bytearray] = {}
        self._ended: set[int] = set()
        self.closed: ConnectionTerminated | None = None
        self._quic.connect(address, time.time())
        self.flush()

    def close(self) -> None:
        self._quic.close()
        self.flush()
        self._socket.close()

    def peer_id(self) -> bytes:
        """Whom TLS proved; known once a stream has brought something."""
        certificate = self._quic.tls._peer_certificate
        assert certificate is not None
        return proven_peer(certificate)

    def send(self, stream: int, data: bytes, end: bool = False) -> None:
        self._quic.send_stream_data(stream, data, end)
        self.flush()

    def read(self, stream: int, enough: Callable[[bytes, bool], bool]) -> bytes:
        """Waits until what came on a stream is enough, given whether it has ended."""
        self.wait(lambda: enough(self.data(stream), stream in self._ended))
        return self.data(stream)

    def read_m2(self) -> bytes:
        """Version, key id, nonce, length, attachment and MAC (§3.1)."""
        head = 1 + 8 + 32 + 2
        return self.read(GATE_STREAM, lambda data, _: len(data) >= head + int.from_bytes(data[head - 2 : head]) + 32)

    def data(self, stream: int) -> bytes:
        return bytes(self._data.get(stream, b""))

    def wait_closed(self) -> None:
        self.wait(lambda: self.closed is not None)

    def wait(self, until: Callable[[], bool]) -> None:
        end = time.monotonic() + LIMIT_S
        while not until():
            if self.closed is not None:
                raise EOFError(f"the node closed the connection: {self.closed.reason_phrase}")
            if time.monotonic() > end:
                raise TimeoutError(f"nothing more came; streams: { {s: len(d) for s, d in self._data.items()} }")
            self._turn()

    def _turn(self) -> None:
        timer = self._quic.get_timer()
        self._socket.settimeout(max(0.001, min(0.05, (timer or time.time() + 1) - time.time())))
        try:
            data, address = self._socket.recvfrom(65_536)
            self._quic.receive_datagram(data, address, time.time())
        except TimeoutError:
            pass
        if timer is not None and time.time() >= timer:
            self._quic.handle_timer(time.time())
        while (event := self._quic.next_event()) is not None:
            self._take(event)
        self.flush()

    def _take(self, event: QuicEvent) -> None:
        if isinstance(event, StreamDataReceived):
            self._data.setdefault(event.stream_id, bytearray()).extend(event.data)
            if event.end_stream:
                self._ended.add(event.stream_id)
        elif isinstance(event, StreamReset):
            self._ended.add(event.stream_id)
        elif isinstance(event, ConnectionTerminated):
            self.closed = event

    def flush(self) -> None:
        for data, address in self._quic.datagrams_to_send(time.time()):
            self._socket.sendto(data, address)


def certificate_of(key: ec.EllipticCurvePrivateKey, node: NodeKey) -> x509.Certificate:
    """Self-signed, with libp2p's extension: SEQUENCE { public key (OCTET STRING), signature (OCTET STRING) }."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    info = key.public_key().public_bytes(serialization.Encoding.DER, form)
    parts = [node.protobuf, node.sign(SIGNED_PREFIX + info)]
    content = b"".join(bytes([0x04, len(part)]) + part for part in parts)
    extension = x509.UnrecognizedExtension(LIBP2P_EXTENSION, bytes([0x30, len(content)]) + content)
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    builder = x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(x509.Name([]))
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - day).not_valid_after(now + day).add_extension(extension, critical=True)
    return builder.sign(key, hashes.SHA256())


def proven_peer(certificate: x509.Certificate) -> bytes:
    data = certificate.extensions.get_extension_for_oid(LIBP2P_EXTENSION).value
    assert isinstance(data, x509.UnrecognizedExtension)
    # Lengths are below 128 for Ed25519.
    content = data.value
    if content[0] != 0x30 or content[1] != len(content) - 2 or content[2] != 0x04:
        raise Refused("libp2p's extension is not as specified")
    protobuf, rest = content[4 : 4 + content[3]], content[4 + content[3] :]
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    info = certificate.public_key().public_bytes(serialization.Encoding.DER, form)
    verify_ed25519(protobuf[4:], rest[2:], SIGNED_PREFIX + info)
    return peer_id_of(protobuf)


def text_message(text: str) -> bytes:
    """Of multistream-select: length (a varint, here of one byte), text and a line feed."""
    return bytes([len(text) + 1]) + text.encode() + b"\n"


def read_identify(data: bytes) -> dict[int, list[bytes]]:
    """The fields of identify's message: 1 public key, 2 addresses, 3 protocols, 5 protocol version."""
    length, at = varint(data, 0)
    fields: dict[int, list[bytes]] = {}
    end = at + length
    while at < end:
        tag, at = varint(data, at)
        size, at = varint(data, at)
        if tag & 7 != 2 or at + size > end:
            raise Refused("identify is not as specified")
        fields.setdefault(tag >> 3, []).append(data[at : at + size])
        at += size
    return fields


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return value, at
