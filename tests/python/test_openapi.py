"""schemathesis asks real nodes what docs/openapi.json lets one ask, and checks the answers against it.

IMIRA_SCHEMA_EXAMPLES: examples for each group of endpoints; few by default, `make schema` asks for 2,000."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import unittest
from collections import Counter
from pathlib import Path
from typing import Any

import requests

from imira_client import Client
from imira_tokens import new_publication
from live_network import make_clip, two_nodes
from live_node import LiveNode

HERE = Path(__file__).parent
EXAMPLES = int(os.environ.get("IMIRA_SCHEMA_EXAMPLES", "100"))
# What one of the groups below may take at most.
LIMIT_S = 120 + EXAMPLES
READY_S = 300
# What few examples meet by luck: ids and tokens are others each time, whatever the seed.
RARE = {201, 202, 204, 206, 304, 410, 413, 416}

# What belongs together, by patterns of the beginnings of the paths; and how many different statuses have to have come, or else the examples
# did not get past the first check.
GROUPS = {
    "tokens": (["/v1/tokens"], {201, 400, 401, 403}),
    "receipts": (["/v1/receipts", "/v1/revocations"], {200, 400, 401}),
    "deletions": (["/v1/deletions"], {200, 400, 401, 403}),
    "state": (
        ["/$", "/v1/node", "/v1/peers", "/v1/reachability", "/v1/blocks", "/healthz", "/readyz", "/metrics", "/openapi.json"],
        {200, 400},
    ),
    "work": (["/v1/verify", "/v1/backup"], {200, 400}),
    "uploads": (["/v1/uploads"], {200, 201, 202, 204, 400, 401, 404, 412}),
    "content": (["/v1/t/"], {200, 206, 304, 401, 403, 404, 416}),
}


def belongs(path: str, beginnings: list[str]) -> bool:
    """Whether a path of the document is one of a group's."""
    return re.match("|".join(beginnings), path) is not None


def operations_that_vary(document: dict[str, Any], beginnings: list[str]) -> int:
    """What takes nothing has one example."""
    paths = [item for path, item in document["paths"].items() if belongs(path, beginnings)]
    operations = [operation for item in paths for operation in item.values() if isinstance(operation, dict)]
    return sum(bool(operation.get("parameters") or operation.get("requestBody")) for operation in operations)


class OpenApi(unittest.TestCase):
    """Two nodes, with a video that is ready."""

    node: LiveNode

    @classmethod
    def setUpClass(cls) -> None:
        cls.node = two_nodes(cls)
        cls.content, cls.upload = cls.upload_video()

    @classmethod
    def upload_video(cls) -> tuple[str, str]:
        client, publication = Client(cls.node.control, cls.node.platform), new_publication()
        clip = make_clip(cls.node.folder / "clip.mp4").read_bytes()
        token, answer = client.token(client.upload_claims(publication, len(clip)))
        url = answer["upload_url"]
        requests.put(url, clip, headers={"Authorization": f"Bearer {token}"}, timeout=60).raise_for_status()
        with requests.get(f"{url}/events", stream=True, timeout=READY_S) as events:
            data = [line[5:] for line in events.iter_lines() if line.startswith(b"data:")]
        status = json.loads(data[-1])
        if status["phase"] != "ready":
            raise RuntimeError(status)
        return status["content_key"], publication.hex()

    def ask(self, group: str) -> None:
        paths, statuses = GROUPS[group]
        url = self.node.delivery if group in ("uploads", "content") else self.node.control
        counts = self.node.folder / "counts.json"
        counts.unlink(missing_ok=True)
        examples = -(-EXAMPLES // operations_that_vary(requests.get(f"{url}/openapi.json", timeout=60).json(), paths))
        command = [
            # Not the script `st`: it names the folder that the environment was made in before it was moved.
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", "schemathesis.toml", "run"),
            *(f"{url}/openapi.json", "--url", url, "--max-examples", str(examples)),
            *("--phases", "examples,coverage,fuzzing", "--no-color"),
            *("--include-path-regex", "^(" + "|".join(paths) + ")"),
        ]
        environment = os.environ | {
            "IMIRA_CONTROL": self.node.control,
            "IMIRA_FOLDER": str(self.node.folder),
            "IMIRA_CONTENT": self.content,
            "IMIRA_UPLOAD": self.upload,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(HERE),
        }
        result = subprocess.run(
            command, cwd=HERE, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        answered: Counter[int] = Counter()
        for name, count in json.loads(counts.read_text()).items():
            answered[int(name.rsplit(" ", 1)[1])] += count
        print(f"{group}: {answered.total()} requests, answered {dict(sorted(answered.items()))}")
        expected = statuses if EXAMPLES >= 2_000 else statuses - RARE
        self.assertEqual(set(), expected - set(answered), "the examples did not come that far")
        self.assertEqual([], [status for status in answered if status >= 500])
        self.assertGreaterEqual(answered.total(), EXAMPLES)

    def test_tokens(self) -> None:
        self.ask("tokens")

    def test_receipts(self) -> None:
        self.ask("receipts")

    def test_deletions(self) -> None:
        self.ask("deletions")

    def test_state(self) -> None:
        self.ask("state")

    def test_work(self) -> None:
        self.ask("work")

    def test_uploads(self) -> None:
        self.ask("uploads")

    def test_content(self) -> None:
        self.ask("content")

    def test_every_operation_is_in_a_group(self) -> None:
        document = json.loads((HERE.parents[1] / "docs" / "openapi.json").read_text())
        beginnings = [path for paths, _ in GROUPS.values() for path in paths]
        self.assertEqual([], [path for path in document["paths"] if not belongs(path, beginnings)])


if __name__ == "__main__":
    unittest.main()
