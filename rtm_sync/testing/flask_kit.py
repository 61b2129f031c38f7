"""A hub, scripted users and a movable clock around a Flask app under test."""

from __future__ import annotations

import contextlib
import time
from types import TracebackType

from flask import Flask
from flask.testing import FlaskClient

from ..flask.sessions import running
from .clock import VirtualClock
from .gateway import local_gateway
from .peer import ScriptedPeer


class FlaskKit:
    """Runs an app that has an `Rtm` against a gateway of its own; a context manager::

        with FlaskKit(create_app()) as kit, kit.peer("alice") as alice:
            kit.http.post("/say", data={"to": "alice", "text": "hello"})
            message, sender, _ = alice.expect("MessageFromPeer")

    The gateway checks no tokens and leaves no files. An app that sets no `RTM_APP_ID` gets one.

    Args:
        app: a new application, the result of `create_app`.

    Attributes:
        app: the app; inside the block its `RTM_URL` is the kit's gateway.
        http: `app.test_client()`.
        clock: the gateway's wall clock; after `kit.clock.advance(7 * 24 * 3600)` media expire.
        url: the gateway's.
    """

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.http: FlaskClient = app.test_client()
        self.clock = VirtualClock(time.time())
        self.url = ""
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> FlaskKit:
        self.url = self._stack.enter_context(local_gateway(now=self.clock))
        self.app.config["RTM_URL"] = self.url
        self.app.config["RTM_APP_ID"] = self.app.config["RTM_APP_ID"] or "app-under-test"
        self._stack.enter_context(running(self.app))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def peer(self, uid: str) -> ScriptedPeer:
        """Another user of the app, logged in by `with`."""
        return ScriptedPeer(str(self.app.config["RTM_APP_ID"]), uid, url=self.url)
