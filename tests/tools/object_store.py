"""An S3 server for tests: moto's, in an environment of its own, because what it needs does not fit beside the rest."""

import socket
import subprocess
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

PLACE = Path(__file__).parents[2] / "build" / "object-store"
WANTED = "moto[server,s3]==5.2.5"


def server_program() -> Path:
    """Return the server's program, installed first where it is not; skip the test where it cannot be had."""
    program = PLACE / "bin" / "moto_server"
    if not program.exists():
        venv.create(PLACE, with_pip=True)
        install = [str(PLACE / "bin" / "python"), "-m", "pip", "install", "-qq", WANTED]
        if subprocess.run(install, check=False).returncode:
            pytest.skip(f"{WANTED} cannot be installed here")
    return program


@contextmanager
def running_object_store(bucket: str) -> Iterator[dict[str, str]]:
    """Yield what the environment must say so that `s3://BUCKET/…` is found at a server of one's own."""
    program = server_program()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([program, "-H", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 60
        while True:
            try:
                httpx.put(f"{address}/{bucket}").raise_for_status()
                break
            except httpx.HTTPError:
                assert time.monotonic() < until and server.poll() is None, "the server does not start"
                time.sleep(0.2)
        keys = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_REGION": "us-east-1"}
        yield keys | {"AWS_ENDPOINT_URL": address, "AWS_ALLOW_HTTP": "true"}
    finally:
        server.terminate()
        server.wait()
