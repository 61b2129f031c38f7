"""Ctrl-C, SystemExit or any other exception, at every moment of a login, a logout and a close."""

from __future__ import annotations

import inspect
import itertools
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import rtm_sync
from rtm_sync import ConnectionState, RtmClient
from rtm_sync.testing import wait_until
from tests.support import PATIENCE, RtmTestCase, local_gateway

_PACKAGE = str(Path(rtm_sync.__file__).parent)
_numbers = itertools.count()


class Unforeseen(Exception):
    """An error that nobody expects."""


KINDS: tuple[type[BaseException], ...] = (KeyboardInterrupt, SystemExit, Unforeseen)


class Injection:
    """Raises an exception in a call, at the n-th of the points where CPython itself may do so.

    An asynchronous exception is raised when a function of ours begins and when a call that it made
    into C has returned; that includes all that blocks. A generator is not interrupted as it begins
    or goes on: a profile function that raises there makes CPython 3.10 leave the generator without
    its `finally` blocks, which no signal does. The destructor of a generator expression swallows
    exceptions, so that there is no point in one either.
    """

    def __init__(self, place: int, kind: type[BaseException]) -> None:
        self._left = place
        self._kind = kind
        self.where = ""

    def run(self, call: Callable[[], object]) -> BaseException | None:
        """Make the call, and return what it raised."""
        sys.setprofile(self._look)
        try:
            call()
        except BaseException as error:
            return error
        finally:
            sys.setprofile(None)
        return None

    def _look(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        ours = code.co_filename.startswith(_PACKAGE) and code.co_name != "<genexpr>"
        is_generator = bool(code.co_flags & inspect.CO_GENERATOR)
        blocking = getattr(argument, "__name__", "") == "acquire"
        if (event == "call" and ours and not is_generator) or (
            event == "c_return" and (ours or blocking)
        ):
            self._left -= 1
            if self._left == 0:
                self.where = f"{code.co_filename}:{frame.f_lineno} {event} {argument}"
                raise self._kind("injected")


class InterruptionTest(RtmTestCase):
    def urls(self) -> dict[str, str]:
        gateway = self.entered(local_gateway(self.folder()))
        return {"memory": f"memory://interruption-{next(_numbers)}", "ws": gateway}

    def interrupted(
        self,
        url: str,
        prepare: Callable[[RtmClient, str], object],
        call: Callable[[RtmClient, str], object],
        check: Callable[[RtmClient, RtmClient, str, Injection], object],
    ) -> None:
        """Interrupt `call` everywhere, each time with another client, and check what is left."""
        with RtmClient("app", url=url) as watcher:
            watcher.login("watcher")
            before = set(threading.enumerate())
            for place in itertools.count(1):
                kind = KINDS[place % len(KINDS)]
                injection = Injection(place, kind)
                client, uid = RtmClient("app", url=url), f"user{place}"
                try:
                    prepare(client, uid)
                    error = injection.run(lambda: call(client, uid))  # noqa: B023  it is run here
                    if not injection.where:
                        self.assertIsNone(error)
                        self.assertGreater(place, 50, "too few places for a whole call")
                        return
                    with self.subTest(url=url, kind=kind.__name__, at=injection.where):
                        if kind is not Unforeseen:  # that one may be handled like any error
                            self.assertIsInstance(error, kind)
                        check(client, watcher, uid, injection)
                finally:
                    client.close()
                wait_until(
                    lambda: before.issuperset(threading.enumerate()), PATIENCE, injection.where
                )

    def reaches(self, watcher: RtmClient, uid: str) -> bool:
        return watcher.send_message_to_peer("hello", uid, timeout=PATIENCE).has_peer_received

    def check_is_out(self, client: RtmClient, watcher: RtmClient, uid: str) -> None:
        self.assertIsNone(client.uid)
        self.assertIs(client.connection_state, ConnectionState.DISCONNECTED)
        self.assertFalse(self.reaches(watcher, uid), "the hub has a ghost")

    def test_an_interrupted_login_ends_like_a_refused_one(self) -> None:
        reasons: list[str] = []

        def prepare(client: RtmClient, uid: str) -> None:
            reasons.clear()
            client.on("ConnectionStateChanged", lambda state, reason: reasons.append(reason.name))

        def check(client: RtmClient, watcher: RtmClient, uid: str, injection: Injection) -> None:
            if client.uid is not None:  # an unforeseen error that was handled
                self.assertTrue(self.reaches(watcher, uid))
                return
            self.check_is_out(client, watcher, uid)
            client.login(uid)
            wait_until(lambda: reasons[-2:] == ["LOGIN", "LOGIN_SUCCESS"], PATIENCE)
            self.assertNotIn("LOGOUT", reasons)
            if len(reasons) > 2:  # CONNECTING had been told
                self.assertEqual(reasons[-3], "LOGIN_FAILURE")
            self.assertTrue(self.reaches(watcher, uid))
            self.assertIs(client.connection_state, ConnectionState.CONNECTED)

        for url in self.urls().values():
            self.interrupted(url, prepare, lambda client, uid: client.login(uid), check)

    def test_after_an_interrupted_logout_a_client_is_in_or_out(self) -> None:
        def check(client: RtmClient, watcher: RtmClient, uid: str, injection: Injection) -> None:
            if client.uid is None:
                self.check_is_out(client, watcher, uid)
            else:
                self.assertIs(client.connection_state, ConnectionState.CONNECTED)
                self.assertTrue(self.reaches(watcher, uid))
                client.logout()
            client.login(uid)
            self.assertTrue(self.reaches(watcher, uid))

        for url in self.urls().values():
            self.interrupted(
                url,
                lambda client, uid: client.login(uid),
                lambda client, uid: client.logout(),
                check,
            )

    def test_an_interrupted_close_closes(self) -> None:
        def check(client: RtmClient, watcher: RtmClient, uid: str, injection: Injection) -> None:
            client.close()
            self.check_is_out(client, watcher, uid)

        for url in self.urls().values():
            self.interrupted(
                url,
                lambda client, uid: client.login(uid),
                lambda client, uid: client.close(),
                check,
            )
