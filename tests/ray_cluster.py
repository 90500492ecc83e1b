"""A Ray cluster of this machine that commands join by its address, as one of other machines."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import vidlet

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "of-these-tests-" + "0" * 32, "RAY_USAGE_STATS_ENABLED": "0"}
TOKEN |= {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}


@contextmanager
def started(folder: Path, settings: Mapping[str, str]) -> Iterator[str]:
    """Its address; who joins needs TOKEN.

    Args:
        folder: for its log.
        settings: of the environment of its workers.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "PYTHONPATH": str(Path(vidlet.__file__).parents[1]), **TOKEN, **settings}
    words = ["--head", "--port", str(port), "--num-cpus", "2", "--include-dashboard", "0", "--block"]
    log = folder / "head.log"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as short:  # sockets have short names
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *words, "--temp-dir", short]
        with log.open("w") as told:
            head = subprocess.Popen(command, env=env, stdout=told, stderr=told)
        try:
            until = time.monotonic() + 120
            while "will now block" not in log.read_text():
                assert head.poll() is None and time.monotonic() < until, log.read_text()
                time.sleep(0.2)
            yield f"127.0.0.1:{port}"
        finally:
            head.terminate()
            head.wait(timeout=120)
