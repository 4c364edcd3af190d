"""Asks a node's control listener for tokens by docs/api.md §1 and §2, for tests that need valid ones."""

from __future__ import annotations

import base64
import secrets
import time
from typing import Any

import requests
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from imira_tokens import Platform, base64url

REQUEST = "imira-request"
JOSE = {"Content-Type": "application/jose"}
OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
TIMEOUT_S = 30


class Client:
    """A platform with one user, at one node."""

    def __init__(self, control: str, platform: Platform) -> None:
        self.control, self.platform = control, platform
        self.node = requests.get(f"{control}/v1/node", timeout=TIMEOUT_S).json()
        self._user = rsa.generate_private_key(65_537, 2_048)

    def claims(self, **members: Any) -> dict[str, Any]:
        """Of a token request; `members` go beside and before the usual ones."""
        now, numbers = int(time.time()), self._user.public_key().public_numbers()
        usual = {
            "iss": self.platform.fingerprint.hex(),
            "aud": self.node["peer_id"],
            "net": self.node["network_id"],
            "iat": now,
            "exp": now + 30,
            "jti": secrets.token_hex(16),
            "jwk": {"kty": "RSA", "n": base64url(numbers.n.to_bytes(256)), "e": base64url(numbers.e.to_bytes(3))},
        }
        return usual | members

    def upload_claims(self, publication: bytes, size: int) -> dict[str, Any]:
        network, now = bytes.fromhex(self.node["network_id"]), int(time.time())
        authority = self.platform.authority(network, self.node["peer_id"], publication, 1 << 30, now)
        return self.claims(act="upload", pub=publication.hex(), size=size, auth=authority)

    def playback_claims(self, content: str) -> dict[str, Any]:
        return self.claims(act="playback", content=content)

    def sign(self, claims: dict[str, Any]) -> str:
        return self.platform.sign(REQUEST, claims)

    def token(self, claims: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The decrypted token, and the answer."""
        response = requests.post(
            f"{self.control}/v1/tokens", self.sign(claims), headers=JOSE, timeout=TIMEOUT_S
        )
        if not response.ok:
            raise RuntimeError(response.text)
        answer = response.json()
        return self._user.decrypt(base64.urlsafe_b64decode(answer["encrypted_token"] + "=="), OAEP).decode(), answer
