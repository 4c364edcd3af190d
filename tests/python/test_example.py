"""The example of docs/examples, as its reader runs it: against real nodes, which it knows by docs/openapi.json alone."""

from __future__ import annotations

import re
import subprocess
import sys
import unittest
from pathlib import Path

from imira_tokens import Platform
from live_network import make_clip, two_nodes
from live_node import LiveNode

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "upload_and_play.py"
LINES = 60
LIMIT_S = 300


class Example(unittest.TestCase):
    node: LiveNode

    @classmethod
    def setUpClass(cls) -> None:
        cls.node = two_nodes(cls)

    def run_example(self, video: Path, key: Path | None = None) -> subprocess.CompletedProcess[str]:
        key = key or self.node.folder / "platform.key.pem"
        command = [sys.executable, "-B", EXAMPLE, self.node.control, key, video]
        return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)

    def test_it_uploads_waits_and_plays(self) -> None:
        result = self.run_example(make_clip(self.node.folder / "clip.mp4"))
        self.assertEqual(result.returncode, 0, result.stderr)
        played = re.fullmatch(r"([0-9a-f]{64}): (\d+) files of (\d+) fragments\n", result.stdout)
        self.assertIsNotNone(played, result.stdout)
        # A master playlist, two tracks with a playlist and a header each, and at least one segment of each.
        self.assertGreaterEqual(int(played[2]), 7)

    def test_it_says_why_a_node_refused(self) -> None:
        text = self.node.folder / "text.mp4"
        text.write_text("This is no video.\n" * 1_000)
        result = self.run_example(text)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("not-a-video", result.stderr)

    def test_a_platform_that_is_not_pinned_is_refused(self) -> None:
        stranger = self.node.folder / "stranger.key.pem"
        stranger.write_bytes(Platform().secret_pem())
        result = self.run_example(stranger, stranger)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("platform-not-pinned", result.stderr)

    def test_it_is_short(self) -> None:
        self.assertLessEqual(len(EXAMPLE.read_text().splitlines()), LINES)


if __name__ == "__main__":
    unittest.main()
