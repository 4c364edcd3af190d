"""Two real nodes of one network, and a video to give them."""

from __future__ import annotations

import subprocess
import unittest
from pathlib import Path

from live_node import LiveNode


def make_clip(path: Path, seconds: int = 5) -> Path:
    picture = f"testsrc2=size=320x240:rate=24:duration={seconds}"
    tone = f"sine=frequency=440:sample_rate=48000:duration={seconds}"
    subprocess.run(
        ["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", tone]
        + ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac", path],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return path


def two_nodes(case: type[unittest.TestCase]) -> LiveNode:
    """As many as an upload needs, for R is 2, until the end of the class; the first, with the platform's secret key beside it."""
    node = LiveNode()
    case.addClassCleanup(node.stop)
    node.start()
    other = LiveNode(joins=node)
    case.addClassCleanup(other.stop)
    other.start()
    (node.folder / "platform.key.pem").write_bytes(node.platform.secret_pem())
    return node
