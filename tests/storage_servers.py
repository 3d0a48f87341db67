"""Local servers of the two protocols of object stores, each with a bucket called `bucket`, kept in memory."""

import contextlib
import os
import socket
from collections.abc import Iterator

import pytest

# gcsfs would ask Google itself, by another protocol, what kind of bucket it is.
_KNOWN_KIND = {"GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
os.environ.update(_KNOWN_KIND)  # it looks when it is imported


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def google_storage() -> Iterator[dict[str, str]]:
    """Yields the environment variables by which gcsfs finds the server; skips the test without it."""
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    pytest.importorskip("gcsfs")
    port = _free_port()
    server = emulator.create_server("localhost", port, in_memory=True, default_bucket="bucket")
    server.start()
    try:
        yield {"STORAGE_EMULATOR_HOST": f"http://localhost:{port}", "FSSPEC_GCS_TOKEN": "anon"} | _KNOWN_KIND
    finally:
        server.stop()


@contextlib.contextmanager
def amazon_s3() -> Iterator[dict[str, str]]:
    """Yields the environment variables by which s3fs finds the server; skips the test without it."""
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    import botocore.session

    server = moto.ThreadedMotoServer("localhost", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    keys = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    try:
        client = botocore.session.get_session().create_client(
            "s3",
            endpoint_url=address,
            region_name="us-east-1",
            aws_access_key_id="id",
            aws_secret_access_key="secret",
        )
        client.create_bucket(Bucket="bucket")
        yield {"AWS_ENDPOINT_URL": address, **keys}
    finally:
        server.stop()
