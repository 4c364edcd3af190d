"""What platforms sign: upload authorities and deletion orders by docs/protocol.md §6 and §7 alone."""

from __future__ import annotations

import base64
import json
import secrets
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from imira_keys import fingerprint_of

AUTHORITY = "imira-authority"
DELETION = "imira-deletion"
# PS256 (RFC 7518 §3.5): RSASSA-PSS with SHA-256, MGF1 with SHA-256, and a salt as long as the hash.
PS256 = padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size)


class Platform:
    """A platform's RSA key with what it signs."""

    def __init__(self, key: rsa.RSAPrivateKey | None = None) -> None:
        self._key = key or rsa.generate_private_key(65_537, 2_048)
        self.fingerprint = fingerprint_of(self._key.public_key())

    def pem(self) -> bytes:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self._key.public_key().public_bytes(serialization.Encoding.PEM, form)

    def secret_pem(self) -> bytes:
        form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return self._key.private_bytes(serialization.Encoding.PEM, form, plain)

    def reference(self, publication: bytes) -> list[bytes]:
        return [self.fingerprint, publication]

    def authority(self, network: bytes, audience: str, publication: bytes, size: int, now: int, **other: Any) -> str:
        """`other` takes the place of claims, so that tests can make bad ones; None leaves one out."""
        claims = self._claims(network, publication) | {"aud": audience, "bytes": size, "iat": now, "exp": now + 3_600}
        return self.sign(AUTHORITY, claims | other)

    def deletion(self, network: bytes, publication: bytes, sequence: int, now: int, **other: Any) -> str:
        return self.sign(DELETION, self._claims(network, publication) | {"seq": sequence, "iat": now} | other)

    def _claims(self, network: bytes, publication: bytes) -> dict[str, Any]:
        return {"iss": self.fingerprint.hex(), "net": network.hex(), "pub": publication.hex()}

    def sign(self, kind: str, claims: dict[str, Any], **other: Any) -> str:
        header = {"alg": "PS256", "kid": self.fingerprint.hex(), "typ": kind} | other
        signed = ".".join(base64url(compact(part)) for part in (header, claims))
        signature = self._key.sign(signed.encode(), PS256, hashes.SHA256())
        return f"{signed}.{base64url(signature)}"


def new_publication() -> bytes:
    return secrets.token_bytes(16)


def compact(value: Any) -> bytes:
    """JSON without spaces, and without members that are None."""
    members = {name: member for name, member in value.items() if member is not None}
    return json.dumps(members, separators=(",", ":")).encode()


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
