"""The transport contract: several threads at once, and interrupted calls."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType

from ...client.client import RtmClient
from ...errors import (
    JoinChannelError,
    PeerMessageError,
    RtmError,
)
from ...protocol.values import ConnectionChangeReason, ConnectionState
from ...supervision import start_thread
from .kit import SECONDS, TransportKit

_RACES = 5  # each of them ends one way or the other


class RaceTests(TransportKit):
    """Calls made at the same moment, and calls that an exception interrupts."""

    def race(self, *calls: Callable[[], object]) -> list[BaseException]:
        """Make the calls at the same moment, each on a thread; returns their exceptions.

        Only an RtmError may be raised, and each call must return in time.
        """
        together = threading.Barrier(len(calls))
        raised: list[BaseException] = []

        def make(call: Callable[[], object]) -> None:
            together.wait(SECONDS)
            try:
                call()
            except BaseException as error:
                raised.append(error)

        threads = [start_thread("rtm-sync-race", partial(make, call)) for call in calls]
        for thread in threads:
            thread.join(2 * SECONDS)
            self.assertFalse(thread.is_alive(), "a call did not return")
        for error in raised:
            if not isinstance(error, RtmError):
                raise error
        return raised

    def check_in_or_out(self, client: RtmClient, uid_after: str = "afterwards") -> None:
        """Assert that a client is logged in, or not, and that both it and the hub say so."""
        uid, state = client.uid, client.connection_state
        if uid is None:
            self.assertEqual(state, ConnectionState.DISCONNECTED)
        else:
            self.assertEqual(state, ConnectionState.CONNECTED)
            client.send_message_to_peer("hi", "nobody")  # the hub answers
            client.logout()
        client.login(uid_after)
        self.assertEqual(client.connection_state, ConnectionState.CONNECTED)

    def test_a_logout_ends_a_login_that_is_under_way(self) -> None:
        for number in range(_RACES):
            client, uid = self.client(), f"user{number}"
            names = {
                error.code.name
                for error in self.race(lambda c=client, u=uid: c.login(u), client.logout)  # type: ignore[misc]
                if isinstance(error, RtmError)
            }
            self.assertLessEqual(
                names, {"LOGIN_ERR_ABORTED_BY_LOGOUT", "LOGOUT_ERR_USER_NOT_LOGGED_IN"}
            )
            self.check_in_or_out(client, f"{uid} again")
            client.close()

    def test_a_close_ends_a_login_that_is_under_way(self) -> None:
        for number in range(_RACES):
            client, uid = self.client(), f"user{number}"
            names = {
                error.code.name
                for error in self.race(lambda c=client, u=uid: c.login(u), client.close)  # type: ignore[misc]
                if isinstance(error, RtmError)
            }
            self.assertLessEqual(names, {"LOGIN_ERR_ABORTED_BY_LOGOUT", "LOGIN_ERR_REJECTED"})
            self.assertIsNone(client.uid)
            self.assertEqual(client.connection_state, ConnectionState.DISCONNECTED)

    def test_one_of_two_logins_at_once_is_refused(self) -> None:
        client = self.client()
        raised = self.race(lambda: client.login("alice"), lambda: client.login("bob"))
        names = [error.code.name for error in raised if isinstance(error, RtmError)]
        self.assertEqual(names, ["LOGIN_ERR_ALREADY_LOGIN"])
        self.check_in_or_out(client)

    def test_logging_out_and_closing_twice_at_once(self) -> None:
        client = self.client("alice")
        self.race(client.logout, client.logout)
        self.assertIsNone(client.uid)
        self.check_in_or_out(client)
        self.race(client.close, client.close)
        self.assertIsNone(client.uid)
        self.assertEqual(client.connection_state, ConnectionState.DISCONNECTED)

    def test_calls_that_a_logout_or_a_close_overtakes_end_with_an_error_of_theirs(self) -> None:
        for end in (RtmClient.logout, RtmClient.close):
            client = self.client("alice")
            room = client.create_channel("room")
            raised = self.race(
                lambda c=client: c.send_message_to_peer("hi", "bob"),  # type: ignore[misc]
                room.join,
                partial(end, client),
            )
            for error in raised:
                self.assertIsInstance(error, (PeerMessageError, JoinChannelError))
            self.assertIsNone(client.uid)
            self.assertEqual(client.connection_state, ConnectionState.DISCONNECTED)
            client.close()

    def test_an_interrupted_login_ends_like_a_refused_one(self) -> None:
        watcher = self.client("watcher")
        # So many function calls of the login are let pass before the exception (Ctrl-C).
        for passed in (1, 3, 6, 10, 15, 21, 28, 36, 45, 55, 66, 78, 91):
            client, uid = self.client(), f"user{passed}"
            states = self.listen(client, "ConnectionStateChanged")
            left = passed

            def interrupt(frame: FrameType, event: str, argument: object) -> None:
                nonlocal left
                if event == "call" and "rtm_sync" in frame.f_code.co_filename:
                    left -= 1
                    if left < 0:
                        sys.setprofile(None)
                        raise KeyboardInterrupt

            sys.setprofile(interrupt)
            try:
                client.login(uid)
            except KeyboardInterrupt:
                self.assertIsNone(client.uid)
                self.assertEqual(client.connection_state, ConnectionState.DISCONNECTED)
                result = watcher.send_message_to_peer("hi", uid)
                self.assertFalse(result.has_peer_received, "the hub keeps a session")
                client.login(uid)
                told = [self.next_of(states)]
                while told[-1][0] is not ConnectionState.CONNECTED or len(told) < 2:
                    told.append(self.next_of(states))
                reasons = [reason for _, reason in told]
                if len(reasons) > 2:  # it was interrupted after the first of them
                    self.assertIn(ConnectionChangeReason.LOGIN_FAILURE, reasons)
            finally:
                sys.setprofile(None)
            result = watcher.send_message_to_peer("hi", uid)
            self.assertTrue(result.has_peer_received)
            client.close()
