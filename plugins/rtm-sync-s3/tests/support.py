"""A real S3 server in a separate process, and its buckets."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from unittest import mock
from urllib.parse import quote, urlsplit

import boto3.session
from rtm_sync_s3.address import S3Address
from rtm_sync_s3.service import connected

from rtm_sync.testing import RtmTestCase, free_port, wait_until

_START_PATIENCE = 30.0
_numbers = itertools.count()

# boto3 searches for these settings in many places; the tests must not use a developer's settings.
_SETTINGS = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "of rtm-sync",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


class S3Server:
    """Moto's server on a free loopback port, in a `with` block.

    Attributes:
        url: of the service.
    """

    def __init__(self) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def kill(self) -> None:
        """Kill the server."""
        self._process.kill()
        self._process.wait()

    @contextlib.contextmanager
    def user(self, *actions: str) -> Iterator[None]:
        """Make the server check permissions; in the block, the user of requests has only these."""
        iam = boto3.session.Session().client("iam", region_name="us-east-1", endpoint_url=self.url)
        with contextlib.closing(iam):
            policy = {"Effect": "Allow", "Action": actions, "Resource": "*"}
            iam.create_user(UserName="gateway")
            iam.put_user_policy(
                UserName="gateway",
                PolicyName="rights",
                PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [policy]}),
            )
            key = iam.create_access_key(UserName="gateway")["AccessKey"]
        begin_checks = urllib.request.Request(
            f"{self.url}/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"}
        )
        urllib.request.urlopen(begin_checks, timeout=5).close()
        settings = {
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        }
        with mock.patch.dict(os.environ, settings):
            yield

    def __enter__(self) -> S3Server:
        try:
            wait_until(self._answers, _START_PATIENCE, "the S3 server does not answer")
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise AssertionError(f"the S3 server ended with status {self._process.returncode}")
        try:
            with urllib.request.urlopen(f"{self.url}/moto-api/data.json", timeout=5):
                return True
        except urllib.error.URLError:
            return False


class S3Case(RtmTestCase):
    """A test case with a bucket for each test in a shared server; `own_server` starts another."""

    server: S3Server
    s3: Any  # boto3's client

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        settings = mock.patch.dict(os.environ, _SETTINGS)
        settings.start()
        cls.addClassCleanup(settings.stop)
        cls.server = S3Server().__enter__()
        cls.addClassCleanup(cls.server.kill)
        cls.s3 = connected(S3Address("any", endpoint=cls.server.url))
        cls.addClassCleanup(cls.s3.close)

    def setUp(self) -> None:
        super().setUp()
        self.bucket = f"bucket-{next(_numbers)}"
        self.s3.create_bucket(Bucket=self.bucket)

    def own_server(self) -> S3Server:
        """A server of this test only, with the test's bucket."""
        self.server = self.entered(S3Server())
        self.s3 = connected(S3Address("any", endpoint=self.server.url))
        self.addCleanup(self.s3.close)
        self.s3.create_bucket(Bucket=self.bucket)
        return self.server

    def url(self, options: str = "", endpoint: str | None = None) -> str:
        """The store's URL of this test."""
        return f"s3://{self.bucket}?endpoint={quote(endpoint or self.server.url)}{options}"

    def keys(self) -> list[str]:
        """The keys of the objects in the bucket."""
        found = self.s3.list_objects_v2(Bucket=self.bucket)
        return [item["Key"] for item in found.get("Contents", ())]

    def unfinished(self) -> list[str]:
        """The keys of multipart uploads that are neither complete nor aborted."""
        found = self.s3.list_multipart_uploads(Bucket=self.bucket)
        return [item["Key"] for item in found.get("Uploads", ())]

    def remove_bucket(self) -> None:
        """Delete the bucket and its objects."""
        for key in self.keys():
            self.s3.delete_object(Bucket=self.bucket, Key=key)
        self.s3.delete_bucket(Bucket=self.bucket)


class ForgetfulService(ThreadingHTTPServer):
    """A server in front of the S3 server that does not support checksums.

    Attributes:
        url: of the service.
        damages: it changes the bytes that are read from it.
        was_read: an object was.
    """

    def __init__(self, url: str) -> None:
        super().__init__(("127.0.0.1", 0), _ForgetfulHandler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.target = urlsplit(url)
        self.damages = False
        self.was_read = False


@contextlib.contextmanager
def forgetful_service(url: str) -> Iterator[ForgetfulService]:
    """The S3 server at `url` as a service without checksums, in a `with` block."""
    with ForgetfulService(url) as service:
        thread = threading.Thread(target=service.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield service
        finally:
            service.shutdown()
            thread.join()


class _ForgetfulHandler(BaseHTTPRequestHandler):
    server: ForgetfulService
    protocol_version = "HTTP/1.1"  # boto3 expects "100 Continue", or waits a second for it

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        connection = HTTPConnection(self.server.target.netloc, timeout=10)
        try:
            headers = {name: self.headers[name] for name in self.headers if name != "Expect"}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if self.command == "GET" and len(data) > 1000:
            self.server.was_read = True
            if self.server.damages:
                data = data[:-1] + bytes([data[-1] ^ 1])
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if not name.lower().startswith(("x-amz-checksum", "connection", "transfer-encoding")):
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815  http.server's names

    def log_message(self, *_: object) -> None:
        """Log nothing."""
