"""What schemathesis is told of a node, so that its examples come further than the first check.

Loaded by `st` (test_openapi.py). Where an example has a token, an id or a signed text of the right form, the node would know
none of them: some of these are exchanged for true ones, just before they are sent, for tokens live 30 s. Which ones is
drawn with a seed of its own."""

from __future__ import annotations

import atexit
import json
import os
import random
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import requests
import schemathesis
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from imira_client import REQUEST, Client
from imira_tokens import DELETION, Platform, new_publication

FOLDER = Path(os.environ["IMIRA_FOLDER"])
CONTENT, READY_UPLOAD = os.environ["IMIRA_CONTENT"], os.environ["IMIRA_UPLOAD"]
# A token lives for 30 s; a request may wait for its turn.
RENEW_S = 20.0
# Small, so that an example's body can be made to fit.
UPLOAD_BYTES = 64
FOLDERS = 4

TOKEN, HEX64, HEX32 = (re.compile(form) for form in (r"[\w-]{43}", r"[0-9a-f]{64}", r"[0-9a-f]{32}"))
JWS = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+")


class Node:
    """The node under test, and what it has for us."""

    def __init__(self) -> None:
        key = load_pem_private_key((FOLDER / "platform.key.pem").read_bytes(), None)
        self.client = Client(os.environ["IMIRA_CONTROL"], Platform(key))
        self._playback, self._begun = "", -RENEW_S
        self.upload, self.upload_token = self._register()
        base = self._base()
        fragments = requests.get(f"{base}/fragments", timeout=30).json()["fragments"]
        self.blocks = [fragment["sha256"] for fragment in fragments]
        master = requests.get(f"{base}/files/master.m3u8", timeout=30).text
        playlists = re.findall(r"^[^#\s]+", master, re.M)
        self.files = ["master.m3u8", *playlists]

    def _base(self) -> str:
        token, answer = self.client.token(self.client.playback_claims(CONTENT))
        self._playback, self._begun = token, time.monotonic()
        return f"{answer['temporary_url']}{token}"

    def playback(self) -> str:
        if time.monotonic() - self._begun > RENEW_S:
            self._base()
        return self._playback

    def _register(self) -> tuple[str, str]:
        publication = new_publication()
        token, _ = self.client.token(self.client.upload_claims(publication, UPLOAD_BYTES))
        return publication.hex(), token

    def next_upload(self) -> None:
        self.upload, self.upload_token = self._register()


NODE = Node()
COUNTS: Counter[str] = Counter()
CHANCE = random.Random(6)


# Not kept: each upload has a token of its own.
@schemathesis.auth(refresh_interval=None)
class UploadToken:
    """For `uploadToken` of the document."""

    def get(self, case: Any, context: Any) -> str:
        return NODE.upload_token

    def set(self, case: Any, data: str, context: Any) -> None:
        case.headers = case.headers or {}
        case.headers["Authorization"] = f"Bearer {data}"


@schemathesis.serializer("application/jose")
def as_text(context: Any, value: Any) -> bytes | None:
    """A JWS goes as it is; what is no text, as the JSON that somebody may send by mistake."""
    return value.encode(errors="replace") if isinstance(value, str) else json.dumps(value).encode()


@schemathesis.serializer("application/offset+octet-stream")
def as_bytes(context: Any, value: Any) -> bytes | None:
    """Bytes of a film go as they are, and anything else as its text."""
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")


@schemathesis.hook
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    """A part of a JSON document is no JSON document."""
    part = response.status_code == 206 and case.path == "/v1/t/{token}/fragments"
    return not (part and "JSON" in type(failure).__name__ + failure.title)


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    chance = CHANCE
    exchange_path(case, chance)
    if case.path == "/v1/tokens":
        case.body = exchange_request(case.body, chance)
    elif case.path in ("/v1/revocations", "/v1/receipts/acknowledged"):
        case.body = exchange_word(case.path, case.body, chance)
    elif case.path == "/v1/deletions" and case.method.upper() == "POST":
        case.body = exchange_order(case.body, chance)
    elif case.path == "/v1/backup":
        case.body = exchange_folder(case.body, chance)
    elif case.path == "/v1/uploads/{upload}" and case.method.upper() == "PUT":
        case.body = exchange_file(case.body, chance)
    elif case.path.startswith("/v1/uploads"):
        exchange_progress(case, chance)


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    COUNTS[f"{case.method.upper()} {case.path} {response.status_code}"] += 1
    sends = case.path.startswith("/v1/uploads") and case.method.upper() in ("PUT", "POST", "PATCH", "DELETE")
    ended = response.status_code in (202, 409, 410) or (case.method.upper() == "DELETE" and response.status_code == 204)
    if sends and ended:
        NODE.next_upload()


def exchange_path(case: Any, chance: random.Random) -> None:
    values = case.path_parameters or {}
    of_right_form = lambda name, form: form.fullmatch(str(values.get(name, ""))) is not None  # noqa: E731
    if of_right_form("token", TOKEN) and chance.random() < 0.9:
        values["token"] = NODE.playback()
    if of_right_form("id", HEX64) and chance.random() < 0.7:
        values["id"] = chance.choice(NODE.blocks)
    if of_right_form("upload", HEX32) and chance.random() < 0.9:
        # The events of an upload that waits would go on for ever.
        values["upload"] = READY_UPLOAD if case.method.upper() == "GET" else NODE.upload
    if "path" in values and chance.random() < 0.5:
        values["path"] = chance.choice(NODE.files)


def exchange_request(body: Any, chance: random.Random) -> Any:
    """A signed request, and as often one with a claim that is missing, of another type, or at an edge."""
    if not isinstance(body, str) or not JWS.fullmatch(body) or chance.random() < 0.2:
        return body
    client = NODE.client
    if chance.random() < 0.5:
        claims = client.upload_claims(new_publication(), chance.choice([1, UPLOAD_BYTES, 1 << 40, 0]))
    else:
        claims = client.playback_claims(chance.choice([CONTENT, "0" * 64]))
    if chance.random() < 0.6:
        bend(claims, chance)
    return sign(REQUEST, claims, chance)


def exchange_word(path: str, body: Any, chance: random.Random) -> Any:
    """What a platform says without asking for a token: that a content's tokens end, or that it has receipts."""
    if not isinstance(body, str) or not JWS.fullmatch(body) or chance.random() < 0.2:
        return body
    claims = NODE.client.playback_claims(CONTENT)
    del claims["jwk"]
    if path == "/v1/revocations":
        claims["act"] = "revoke"
    else:
        del claims["content"]
        claims |= {"act": "acknowledge", "log": "0" * 32, "through": chance.choice([0, 1, 1 << 40])}
    if chance.random() < 0.6:
        bend(claims, chance)
    return sign(REQUEST, claims, chance)


def exchange_order(body: Any, chance: random.Random) -> Any:
    if not isinstance(body, str) or not JWS.fullmatch(body) or chance.random() < 0.2:
        return body
    platform, network = NODE.client.platform, bytes.fromhex(NODE.client.node["network_id"])
    order = {"iss": platform.fingerprint.hex(), "net": network.hex(), "pub": new_publication().hex()}
    order |= {"seq": chance.choice([1, chance.randrange(1, 1 << 53), 0, chance.randrange(1, 1 << 53)]), "iat": int(time.time())}
    if chance.random() < 0.5:
        bend(order, chance)
    return sign(DELETION, order, chance)


def bend(claims: dict[str, Any], chance: random.Random) -> None:
    """Makes one claim wrong: of its own form, or of another."""
    name = chance.choice(sorted(claims))
    value = claims[name]
    if isinstance(value, str) and chance.random() < 0.7:
        digits = "0123456789abcdef" if set(value) <= set("0123456789abcdef") else value
        claims[name] = "".join(chance.choice(digits) for _ in value)
    elif isinstance(value, int) and chance.random() < 0.7:
        claims[name] = value + chance.choice([-3_600, -1, 1, 31, 3_600])
    else:
        claims[name] = chance.choice([None, "", "x", 0, -1, 1.5, 1 << 63, True, [], {}, "\u0000"])


def sign(kind: str, claims: dict[str, Any], chance: random.Random) -> str:
    jws = NODE.client.platform.sign(kind, claims)
    if chance.random() < 0.8:
        return jws
    signed, signature = jws.rsplit(".", 1)
    return f"{signed}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"


def exchange_folder(body: Any, chance: random.Random) -> Any:
    """The node writes where it is told: into folders of the test's own only."""
    folder = body.get("folder") if isinstance(body, dict) else None
    if isinstance(folder, str) and folder.startswith("/"):
        places = [FOLDER / "backups" / str(number) for number in range(FOLDERS)]
        places += [FOLDER / "there-is-none" / "below", FOLDER / "platform.key.pem", FOLDER / "nul\u0000"]
        return body | {"folder": str(chance.choice(places))}
    return body


def exchange_file(body: Any, chance: random.Random) -> Any:
    """Few examples have the announced length by themselves."""
    return b"x" * UPLOAD_BYTES if chance.random() < 0.3 else body


def exchange_progress(case: Any, chance: random.Random) -> None:
    """No example says by itself how far an upload is. What is not there stays away: that is an example, too."""
    headers = case.headers or {}
    true = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Upload-Length": str(UPLOAD_BYTES), "Upload-Metadata": "name YQ=="}
    for name, value in true.items():
        if name in headers and chance.random() < 0.9:
            headers[name] = value


@atexit.register
def tell() -> None:
    path = FOLDER / "counts.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(Counter(before) + COUNTS))
