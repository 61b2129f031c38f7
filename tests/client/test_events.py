"""Handlers: in order, one at a time, never fatal; waiting for events; the dispatcher's end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from rtm_sync.client.events import Dispatcher, EventEmitter
from tests.support import PATIENCE, RtmTestCase, wait_until


class Radio(EventEmitter):
    EVENTS = frozenset({"MessageFromPeer", "Silence"})

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[BaseException] = []

    def say(self, *args: Any, event: str = "MessageFromPeer") -> None:
        self.emit(event, *args, on_error=self.errors.append)


class EmitterTest(RtmTestCase):
    def setUp(self) -> None:
        self.radio = Radio()
        self.heard: list[Any] = []

    def test_handlers_run_in_the_order_they_were_added(self) -> None:
        for number in range(5):
            self.radio.on("MessageFromPeer", lambda text, n=number: self.heard.append((n, text)))
        self.radio.say("hi")
        self.assertEqual(self.heard, [(number, "hi") for number in range(5)])

    def test_on_is_a_decorator_too_and_gives_the_function_back(self) -> None:
        @self.radio.on("message_from_peer")
        def hear(text: str) -> None:
            self.heard.append(text)

        self.radio.say("hi")
        self.assertEqual(self.heard, ["hi"])
        self.assertEqual(self.radio.listeners("MessageFromPeer"), [hear])

    def test_once_is_once(self) -> None:
        self.radio.once("MessageFromPeer", self.heard.append)
        self.radio.say("one")
        self.radio.say("two")
        self.assertEqual(self.heard, ["one"])
        self.assertEqual(self.radio.listener_count("MessageFromPeer"), 0)

    def test_once_is_once_even_from_many_threads(self) -> None:
        for _ in range(50):
            self.radio.once("MessageFromPeer", self.heard.append)
        start = threading.Barrier(4)

        def say() -> None:
            start.wait(PATIENCE)
            self.radio.say("x")

        threads = [threading.Thread(target=say) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual(len(self.heard), 50)

    def test_off_removes_the_latest_registration_only(self) -> None:
        hear = self.heard.append
        self.radio.on("MessageFromPeer", hear)
        self.radio.on("MessageFromPeer", hear)
        self.radio.off("message_from_peer", hear)
        self.radio.say("x")
        self.assertEqual(self.heard, ["x"])
        self.radio.off("MessageFromPeer", hear)
        self.radio.off("MessageFromPeer", hear)  # an unknown one is ignored
        self.radio.say("y")
        self.assertEqual(self.heard, ["x"])

    def test_all_handlers_of_one_or_of_every_event_are_removed(self) -> None:
        for event in ("MessageFromPeer", "Silence"):
            self.radio.on(event, self.heard.append)
        self.radio.remove_all_listeners("Silence")
        self.assertEqual(self.radio.listener_count("Silence"), 0)
        self.assertEqual(self.radio.listener_count("MessageFromPeer"), 1)
        self.radio.remove_all_listeners()
        self.assertEqual(self.radio.listener_count("MessageFromPeer"), 0)

    def test_an_unknown_event_is_refused_with_those_there_are(self) -> None:
        for call in (
            lambda: self.radio.on("MessageFromPer", print),
            lambda: self.radio.wait_for("nonsense", 0),
            lambda: self.radio.events("nonsense"),
        ):
            with self.assertRaisesRegex(ValueError, "it has MessageFromPeer, Silence"):
                call()  # type: ignore[no-untyped-call]

    def test_what_cannot_be_called_is_refused_at_once(self) -> None:
        with self.assertRaisesRegex(TypeError, "must be callable"):
            self.radio.on("Silence", 7)  # type: ignore[type-var]

    def test_a_handler_that_raises_is_reported_and_disturbs_nobody(self) -> None:
        def broken(text: str) -> None:
            raise KeyError(text)

        self.radio.on("MessageFromPeer", broken)
        self.radio.on("MessageFromPeer", self.heard.append)
        self.radio.say("a")
        self.radio.say("b")
        self.assertEqual(self.heard, ["a", "b"])
        self.assertEqual([type(error) for error in self.radio.errors], [KeyError, KeyError])

    def test_handlers_may_change_the_handlers(self) -> None:
        def first(text: str) -> None:
            self.radio.remove_all_listeners()
            self.radio.on("MessageFromPeer", self.heard.append)

        self.radio.on("MessageFromPeer", first)
        self.radio.say("x")
        self.radio.say("y")
        self.assertEqual(self.heard, ["y"])


class WaitingTest(RtmTestCase):
    def setUp(self) -> None:
        self.radio = Radio()

    def later(self, *calls: Callable[[], object]) -> None:
        """Make the calls on another thread once a thread waits."""

        def run() -> None:
            wait_until(self.radio._listeners.queues)
            for call in calls:
                call()

        thread = threading.Thread(target=run)
        self.addCleanup(thread.join, PATIENCE)
        thread.start()

    def test_wait_for_gives_the_arguments(self) -> None:
        self.later(lambda: self.radio.say("hi", "bob"))
        self.assertEqual(self.radio.wait_for("MessageFromPeer", PATIENCE), ("hi", "bob"))

    def test_wait_for_takes_only_what_the_predicate_wants(self) -> None:
        self.later(*(lambda n=number: self.radio.say(n) for number in range(5)))
        got = self.radio.wait_for("MessageFromPeer", PATIENCE, lambda number: number == 3)
        self.assertEqual(got, (3,))

    def test_wait_for_ends_in_time_and_leaves_nothing(self) -> None:
        with self.assertRaisesRegex(TimeoutError, "No Silence within"):
            self.radio.wait_for("Silence", 0.02)
        self.assertEqual(self.radio._listeners.queues(), [])

    def test_a_stream_collects_from_its_making(self) -> None:
        with self.radio.events() as stream:
            self.radio.say("a")
            self.radio.say(event="Silence")
            self.assertEqual(
                [tuple(event) for event in stream.until(0.05)],
                [("MessageFromPeer", ("a",)), ("Silence", ())],
            )
        self.radio.say("late")
        self.assertEqual(list(stream.until(0.0)), [])

    def test_a_stream_keeps_the_newest_when_nobody_takes_them(self) -> None:
        with self.radio.events("MessageFromPeer", max_waiting=3) as stream:
            for number in range(10):
                self.radio.say(number)
            self.assertEqual([event.args for event in stream.until(0.05)], [(7,), (8,), (9,)])


class DispatcherTest(RtmTestCase):
    def dispatcher(self, **options: Any) -> Dispatcher:
        dispatcher = Dispatcher(**options)
        self.addCleanup(dispatcher.close)
        return dispatcher

    def test_calls_run_in_order_on_one_thread(self) -> None:
        dispatcher, ran = self.dispatcher(), []
        for number in range(1000):
            dispatcher.submit(lambda n=number: ran.append((n, threading.current_thread().name)))
        wait_until(lambda: len(ran) == 1000)
        self.assertEqual(ran, [(number, "rtm-sync-dispatcher") for number in range(1000)])

    def test_a_call_that_raises_does_not_end_it(self) -> None:
        dispatcher, done = self.dispatcher(), threading.Event()
        with self.assertLogs("rtm_sync.client.events", "ERROR"):
            dispatcher.submit(lambda: 1 / 0)
            dispatcher.submit(done.set)
            self.assertTrue(done.wait(PATIENCE))

    def test_a_full_queue_refuses_and_never_blocks(self) -> None:
        dispatcher, gate, begun = (
            self.dispatcher(max_waiting=3),
            threading.Event(),
            threading.Event(),
        )
        self.addCleanup(gate.set)

        def hold() -> None:
            begun.set()
            gate.wait(PATIENCE)

        dispatcher.submit(hold)
        self.assertTrue(begun.wait(PATIENCE))
        self.assertEqual([dispatcher.submit(list) for _ in range(3)], [True] * 3)
        self.assertFalse(dispatcher.submit(list))
        self.assertEqual(dispatcher.backlog, 3)
        gate.set()
        wait_until(lambda: dispatcher.backlog == 0)
        self.assertTrue(dispatcher.submit(lambda: None))

    def test_closing_lets_what_waits_run_and_takes_no_more(self) -> None:
        dispatcher, ran = self.dispatcher(), []
        for number in range(100):
            dispatcher.submit(lambda n=number: ran.append(n))
        dispatcher.close()
        self.assertEqual(ran, list(range(100)))
        self.assertFalse(dispatcher.submit(list))
        dispatcher.close()

    def test_closing_from_a_handler_does_not_hang(self) -> None:
        dispatcher, closed = self.dispatcher(), threading.Event()

        def close() -> None:
            dispatcher.close()
            closed.set()

        dispatcher.submit(close)
        self.assertTrue(closed.wait(PATIENCE))

    def test_closing_does_not_wait_for_ever_for_a_handler(self) -> None:
        dispatcher, gate = self.dispatcher(), threading.Event()
        dispatcher.submit(lambda: gate.wait(PATIENCE))
        dropped: list[int] = []
        for number in range(10):
            dispatcher.submit(lambda n=number: dropped.append(n))
        dispatcher.close(drain=0.05, timeout=0.1)
        gate.set()
        wait_until(lambda: not any(t.name == "rtm-sync-dispatcher" for t in threading.enumerate()))
        self.assertEqual(dropped, [])

    def test_a_dispatcher_that_was_never_used_has_no_thread(self) -> None:
        before = threading.active_count()
        self.dispatcher().close()
        self.assertEqual(threading.active_count(), before)
