"""Starts real `imira-node` processes on 127.0.0.1 for the tests, and ends them by their own handles."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from imira_keys import Network, NodeKey, base58, from_base58
from imira_peer import Peer, dial
from imira_tokens import Platform

QUOTA_BYTES = 1 << 30
START_S = 60
STOP_S = 20


def program() -> Path:
    """Where scripts/lib.sh says that programs are."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    target = os.environ.get("CARGO_TARGET_DIR") or Path(cache) / "imira" / "target"
    path = Path(os.environ.get("BIN") or Path(target) / "debug") / "imira-node"
    if not path.exists():
        raise FileNotFoundError(f"{path} is not built: make build")
    return path


def run(*arguments: str | Path) -> str:
    """Runs `imira-node` to its end; what it printed."""
    result = subprocess.run([program(), *arguments], capture_output=True, text=True, timeout=START_S, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"imira-node {arguments[0]}: {result.stderr}")
    return result.stdout.strip()


class LiveNode:
    """A node with a network and a platform of its own, or with those of the node that it `joins`, in a folder of its own."""

    def __init__(self, *, authorities: tuple[bytes, ...] = (), joins: LiveNode | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="imira-python-"))
        self.data, self.log = self.folder / "node", list[str]()
        self._process: subprocess.Popen[str] | None = None
        try:
            network = self.folder / "our.network"
            if joins:
                self.network, self.platform = joins.network, joins.platform
                shutil.copy(joins.folder / "our.network", network)
            else:
                run("network", "new", "--out", network)
                self.network, self.platform = replace(Network.read(network), authorities=authorities), Platform()
            if authorities:
                self.network.write(network)
            (self.folder / "platform.pub.pem").write_bytes(self.platform.pem())
            self.listen, delivery, control = free_ports()
            self.control, self.delivery = f"http://127.0.0.1:{control}", f"http://127.0.0.1:{delivery}"
            printed = run(
                *("init", "--data", self.data, "--network", network),
                *("--platform-key", self.folder / "platform.pub.pem", "--quota-bytes", str(QUOTA_BYTES)),
                *("--listen", f"127.0.0.1:{self.listen}", "--delivery", f"127.0.0.1:{delivery}"),
                *("--control", f"127.0.0.1:{control}"),
                *(("--bootstrap", joins.bootstrap) if joins else ()),
            )
        except BaseException:
            self.stop()
            raise
        self.bootstrap = printed.split()[-1]
        self.peer_id = from_base58(printed.rsplit("/", 1)[1])
        self.address = ("127.0.0.1", self.listen)

    def start(self) -> LiveNode:
        self._process = subprocess.Popen(
            [program(), "run", "--data", self.data], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        up = threading.Event()
        self._reader = threading.Thread(target=self._read_log, args=(up,), daemon=True)
        self._reader.start()
        if not up.wait(START_S) or self._process.poll() is not None:
            self.stop()
            raise RuntimeError("the node did not start:\n" + "".join(self.log))
        return self

    def _read_log(self, up: threading.Event) -> None:
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            self.log.append(line)
            if "node is up" in line:
                up.set()
        up.set()

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._reader.join()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def connect(self, node: NodeKey, **options: Any) -> Peer:
        return Peer.connect(self.address, self.network, node, self.peer_id, **options)

    def dial(self, node: NodeKey, **options: Any) -> Any:
        """A channel on which the hello has not been read."""
        return dial(self.address, self.network, node, self.peer_id, **options)

    def authority(self, node: NodeKey, publication: bytes, size: int = 1 << 24, **claims: Any) -> str:
        now = int(time.time())
        return self.platform.authority(self.network.id, base58(node.peer_id), publication, size, now, **claims)


def free_ports() -> tuple[int, int, int]:
    """The first is free for UDP, too. All are held until all are found, so that they differ."""
    held = []
    try:
        while True:
            tcp, udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
            held += [tcp, udp]
            tcp.bind(("127.0.0.1", 0))
            try:
                udp.bind(tcp.getsockname())
                break
            except OSError:
                continue
        others = [socket.socket() for _ in range(2)]
        held += others
        for other in others:
            other.bind(("127.0.0.1", 0))
        return tcp.getsockname()[1], others[0].getsockname()[1], others[1].getsockname()[1]
    finally:
        for each in held:
            each.close()


def seconds_until_closed(stream: socket.socket, limit_s: float = 10.0) -> tuple[float, bytes]:
    """How long it took until the other side closed, and what it said before."""
    begun, said = time.monotonic(), bytearray()
    stream.settimeout(limit_s)
    try:
        while part := stream.recv(65_536):
            said += part
    except ConnectionResetError:
        pass  # closed with bytes of ours unread
    return time.monotonic() - begun, bytes(said)
