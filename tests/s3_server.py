"""A real S3 server (moto's) on the loopback, in a process of its own, which can be told to fail."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("s3_program.py")
BUCKET = "s3://bucket"


class S3Server:
    """The server; `failing` lets a share of the requests fail as an overloaded store does."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, str(PROGRAM)], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url, "moto's server did not start"

    def tell(self, path: str) -> str:
        """Send an order to the server's middleware. Return its answer."""
        with urllib.request.urlopen(f"{self.url}/tests/{path}") as answer:
            return str(answer.read().decode())

    @contextlib.contextmanager
    def failing(self, every: int) -> Iterator[None]:
        """Answer one request in so many with 503."""
        self.tell(f"fail/{every}")
        try:
            yield
        finally:
            self.tell("fail/0")

    def requests(self) -> list[str]:
        """Return the requests since the last call, as `METHOD PATH?QUERY RANGE`."""
        return self.tell("requests").splitlines()

    @property
    def environment(self) -> dict[str, str]:
        """What the libraries read."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "key-of-tests",
            "AWS_SECRET_ACCESS_KEY": "secret-of-tests",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def s3_server() -> Iterator[S3Server]:
    """Start a server, with its variables in the environment and an empty bucket."""
    pytest.importorskip("moto")
    s3fs = pytest.importorskip("s3fs")
    s3fs.S3FileSystem.clear_instance_cache()  # of the server of another test file
    server = S3Server()
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("AWS_")]:
                patch.delenv(name)
            for name, value in server.environment.items():
                patch.setenv(name, value)
            import boto3

            boto3.client("s3").create_bucket(Bucket="bucket")
            yield server
    finally:
        server.close()
