"""A blob's bytes by HTTP, within a time limit for all of it: names, redirects, headers and body."""

from __future__ import annotations

import concurrent.futures
import contextlib
import socket
import threading
import urllib.parse
from collections.abc import Iterator
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from ..rules.timing import Deadline
from ..supervision import start_thread
from .data_url import content_type_in
from .file_names import file_name_in, plain_name
from .sources import CHUNK, Source, spooled

_CONNECT_TIMEOUT = 10.0


class Fetched:
    """The answer to a fetch: its source, its file name, and its content type or ""."""

    def __init__(self, source: Source, name: str, content_type: str) -> None:
        self.source = source
        self.name = name
        self.content_type = content_type


def fetch(url: str, max_bytes: int, timeout: float) -> Fetched:
    """Get a URL. See `Blob.from_url`.

    The fetch runs on a thread, which is left behind when the time is over: nothing can wake a
    thread in name resolution. Its sockets are shut down, which ends it everywhere else.
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"url must be http:// or https://, not {url[:80]!r}.")
    running = _Fetch(url, max_bytes, timeout)
    try:
        return running.result()
    finally:
        running.cut()


class _Fetch:
    """One fetch, and the thread that runs it."""

    def __init__(self, url: str, max_bytes: int, timeout: float) -> None:
        self._url = url
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._deadline = Deadline(timeout)
        self._lock = threading.Lock()  # guards both below
        self._connections: list[HTTPConnection] = []
        self._is_cut = False
        self._done: concurrent.futures.Future[Fetched] = concurrent.futures.Future()
        try:
            start_thread("rtm-sync-fetch", self._run)
        except RuntimeError as error:  # the system allows no more threads
            raise OSError(f"Fetching {url[:200]} needs a thread: {error}.") from error

    def result(self) -> Fetched:
        """Wait for the answer until the deadline."""
        try:
            concurrent.futures.wait([self._done], self._deadline.timeout)
            if not self._done.done():
                raise self._late()
            return self._done.result()
        except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
            raise self._late() from error
        except urllib3.exceptions.HTTPError as error:  # not an OSError, unlike requests errors
            raise requests.ConnectionError(error) from error

    def cut(self) -> None:
        """Shut the connections down, those that are still made as well."""
        with self._lock:
            self._is_cut = True
            connections = tuple(self._connections)
        for connection in connections:
            _shut_down(connection)

    def opened(self, connection: HTTPConnection) -> None:
        """Record a connection that is about to connect, and end one that is too late."""
        with self._lock:
            if self._is_cut:
                raise ConnectionAbortedError("the fetch has ended")
            self._connections.append(connection)

    def connected(self, connection: HTTPConnection) -> None:
        """Shut down a connection for which `cut` came before it had a socket."""
        if self._is_cut:
            _shut_down(connection)

    def _late(self) -> TimeoutError:
        return TimeoutError(f"{self._url[:200]} did not arrive within {self._timeout:g} seconds.")

    def _run(self) -> None:
        try:
            fetched = self._fetch()
        except BaseException as error:  # a library may raise anything; the caller gets it
            self._done.set_exception(error)
        else:
            self._done.set_result(fetched)
        finally:  # an error between two redirects leaves its connection to the collector
            with self._lock:
                connections, self._connections = self._connections, []
            for connection in connections:
                connection.close()

    def _fetch(self) -> Fetched:
        with requests.Session() as session:
            adapter = _Adapter(self)
            session.mount("http://", adapter)
            session.mount("https://", adapter)
            waits = (min(_CONNECT_TIMEOUT, self._timeout), self._timeout)
            with session.get(self._url, stream=True, timeout=waits) as response:
                response.raise_for_status()
                content_type = content_type_in(response.headers.get("Content-Type", ""))
                name = file_name_in(response.headers.get("Content-Disposition", ""))
                if not name:
                    path = urllib.parse.urlsplit(response.url).path
                    name = plain_name(urllib.parse.unquote(path.rpartition("/")[2]))
                source = spooled(self._pieces(response), self._max_bytes)
                return Fetched(source, name, content_type)

    def _pieces(self, response: requests.Response) -> Iterator[bytes]:
        # read1 returns after one receive. A read of CHUNK bytes could outlast the deadline.
        read = getattr(response.raw, "read1", response.raw.read)
        while piece := read(CHUNK, decode_content=True):
            if self._deadline.has_passed:
                raise self._late()
            yield piece


def _shut_down(connection: HTTPConnection) -> None:
    sock = connection.sock  # set before the TLS handshake begins
    if sock is not None:
        with contextlib.suppress(OSError):
            # The plain socket's method also for TLS: no closing handshake, no waiting.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)


class _Adapter(HTTPAdapter):
    """An adapter of `requests` whose connections a fetch can end, through proxies as well."""

    def __init__(self, fetch: _Fetch) -> None:
        self._fetch = fetch
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self._watch(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):  # those need connections of their own
            self._watch(manager)
        return manager

    def _watch(self, manager: urllib3.PoolManager) -> None:
        fetch = self._fetch

        class Connection(HTTPConnection):
            def connect(self) -> None:
                fetch.opened(self)
                super().connect()
                fetch.connected(self)

        class TlsConnection(HTTPSConnection):
            def connect(self) -> None:
                fetch.opened(self)
                super().connect()
                fetch.connected(self)

        class Pool(HTTPConnectionPool):
            ConnectionCls = Connection

        class TlsPool(HTTPSConnectionPool):
            ConnectionCls = TlsConnection

        manager.pool_classes_by_scheme = {"http": Pool, "https": TlsPool}
