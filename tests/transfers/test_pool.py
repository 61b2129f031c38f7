"""Transfers: nine at a time, cancelled from wherever they are, told truthfully how far they got."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import io
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tqdm import tqdm

from rtm_sync.errors import (
    DownloadCancelled,
    DownloadMediaError,
    PeerMessageError,
    RtmError,
    TransferCancelled,
    UploadCancelled,
    UploadMediaError,
)
from rtm_sync.rules.limits import MAX_TRANSFERS
from rtm_sync.transfers.control import MediaOperationProgress, TransferControl, TransferKind
from rtm_sync.transfers.pool import TransferPool
from rtm_sync.transfers.progress import tqdm_progress
from rtm_sync.transfers.transfer import Transfer
from tests.support import PATIENCE, RtmTestCase, Stopwatch, wait_until

UPLOAD, DOWNLOAD = TransferKind.UPLOAD, TransferKind.DOWNLOAD
CANCEL_BOUND = 0.5  # seconds; the promise is 0.1, a loaded machine may need more


def transfer_threads() -> list[str]:
    return [
        thread.name
        for thread in threading.enumerate()
        if thread.name.startswith(("rtm-sync-transfer", "rtm-sync-watcher"))
    ]


class FakeTime:
    """The one fake: a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class TransferTestCase(RtmTestCase):
    def pool(self, **options: Any) -> TransferPool:
        pool = TransferPool(**options)
        self.addCleanup(pool.close)
        return pool

    def gate(self) -> threading.Event:
        """An event that the test opens, at the latest when it ends."""
        gate = threading.Event()
        self.addCleanup(gate.set)
        return gate

    def waiting_for(self, gate: threading.Event) -> Callable[[TransferControl], str]:
        """Work that is stuck where nothing wakes it until the gate opens."""

        def work(control: TransferControl) -> str:
            self.assertTrue(gate.wait(PATIENCE))
            return "done"

        return work

    def started(
        self, pool: TransferPool, work: Callable[[TransferControl], Any], **options: Any
    ) -> Transfer[Any]:
        """A transfer whose work has begun."""
        begun = threading.Event()

        def announced(control: TransferControl) -> Any:
            begun.set()
            return work(control)

        transfer = pool.submit(options.pop("kind", UPLOAD), announced, **options)
        self.assertTrue(begun.wait(PATIENCE), "the work never began")
        return transfer

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        watch = Stopwatch()
        yield
        self.assertLess(watch.seconds(), seconds)

    def assert_cancelled_soon(self, transfer: Transfer[Any], cancel: Callable[[], object]) -> None:
        kind = UploadCancelled if transfer.kind is UPLOAD else DownloadCancelled
        with self.within(CANCEL_BOUND):
            cancel()
            with self.assertRaises(kind) as caught:
                transfer.result(PATIENCE)
        self.assertEqual(caught.exception.reason, "INTERRUPTED")
        self.assertTrue(transfer.cancelled())
        self.assertTrue(transfer.done())


class ConcurrencyTest(TransferTestCase):
    def test_nine_run_at_once_and_the_tenth_waits_for_one_of_them(self) -> None:
        pool = self.pool()
        all_nine = threading.Barrier(MAX_TRANSFERS + 1)
        gates = [self.gate() for _ in range(MAX_TRANSFERS)]
        tenth_began = threading.Event()

        def work(gate: threading.Event) -> Callable[[TransferControl], str]:
            def run(control: TransferControl) -> str:
                all_nine.wait(PATIENCE)
                self.assertTrue(gate.wait(PATIENCE))
                return "done"

            return run

        nine = [pool.submit(UPLOAD, work(gate)) for gate in gates]
        all_nine.wait(PATIENCE)  # passes only when nine run at the same time
        tenth = pool.submit(DOWNLOAD, lambda control: tenth_began.set())
        self.assertFalse(tenth_began.wait(0.1))
        self.assertFalse(tenth.running() or tenth.done())
        self.assertTrue(all(transfer.running() for transfer in nine))
        gates[4].set()
        tenth.result(PATIENCE)
        self.assertEqual(nine[4].result(PATIENCE), "done")
        self.assertEqual([transfer.done() for transfer in nine].count(True), 1)

    def test_never_more_than_nine_run_however_many_wait(self) -> None:
        pool = self.pool()
        lock = threading.Lock()
        now, most = 0, 0

        def work(control: TransferControl) -> None:
            nonlocal now, most
            with lock:
                now += 1
                most = max(most, now)
            control.pause(0.002)
            with lock:
                now -= 1

        transfers = [pool.submit(UPLOAD, work) for _ in range(200)]
        done, waiting = concurrent.futures.wait(transfers, PATIENCE)
        self.assertFalse(waiting)
        self.assertEqual([transfer.exception() for transfer in done], [None] * 200)
        self.assertEqual(most, MAX_TRANSFERS)

    def test_those_that_wait_are_served_in_order(self) -> None:
        pool = self.pool(workers=1)
        gate = self.gate()
        self.started(pool, self.waiting_for(gate))
        order: list[int] = []
        waiting = [pool.submit(UPLOAD, lambda c, n=n: order.append(n)) for n in range(20)]
        gate.set()
        concurrent.futures.wait(waiting, PATIENCE)
        self.assertEqual(order, list(range(20)))

    def test_without_a_backlog_the_tenth_is_refused_as_in_the_reference(self) -> None:
        pool = self.pool(backlog=0)
        gate = self.gate()
        nine = [pool.submit(UPLOAD, self.waiting_for(gate)) for _ in range(MAX_TRANSFERS)]
        for kind, family in ((UPLOAD, UploadMediaError), (DOWNLOAD, DownloadMediaError)):
            with self.assertRaises(family) as caught:
                pool.submit(kind, lambda control: None)
            self.assertEqual(caught.exception.reason, "CONCURRENCY_LIMIT_EXCEEDED")
            self.assertEqual(caught.exception.code, 5)
            self.assertIn("9", caught.exception.message)
        gate.set()
        self.assertEqual([one.result(PATIENCE) for one in nine], ["done"] * MAX_TRANSFERS)

    def test_a_full_backlog_refuses_and_says_how_full_it_is(self) -> None:
        pool = self.pool(workers=1, backlog=2)
        gate = self.gate()
        accepted = [pool.submit(UPLOAD, self.waiting_for(gate)) for _ in range(3)]
        with self.assertRaisesRegex(UploadMediaError, "1 transfers run and 2 wait"):
            pool.submit(UPLOAD, lambda control: None)
        gate.set()
        self.assertEqual([one.result(PATIENCE) for one in accepted], ["done"] * 3)

    def test_the_slot_is_free_as_soon_as_the_result_is_there(self) -> None:
        pool = self.pool(workers=1, backlog=0)
        for number in range(500):
            self.assertEqual(pool.submit(UPLOAD, lambda c, n=number: n).result(PATIENCE), number)

    def test_the_slot_is_free_as_soon_as_the_failure_is_there(self) -> None:
        def fail(control: TransferControl) -> None:
            raise OSError("no route")

        pool = self.pool(workers=1, backlog=0)
        for _ in range(200):
            self.assertIsInstance(pool.submit(UPLOAD, fail).exception(PATIENCE), UploadMediaError)

    def test_cancelling_frees_the_slot_of_a_queue_of_none(self) -> None:
        pool = self.pool(workers=1, backlog=0)
        for _ in range(5):
            transfer = self.started(pool, lambda control: control.pause(PATIENCE))
            self.assert_cancelled_soon(transfer, transfer.cancel)

    def test_a_done_callback_may_start_the_next_transfer_and_wait_for_it(self) -> None:
        pool = self.pool(workers=1, backlog=0)
        followed: concurrent.futures.Future[str] = concurrent.futures.Future()

        def follow(transfer: Transfer[str]) -> None:
            try:
                followed.set_result(
                    transfer.result() + pool.submit(UPLOAD, lambda c: "second").result(2)
                )
            except BaseException as error:
                followed.set_exception(error)

        gate = self.gate()
        first = pool.submit(UPLOAD, lambda control: str(gate.wait(PATIENCE)))
        first.add_done_callback(follow)
        gate.set()
        self.assertEqual(followed.result(PATIENCE), "Truesecond")


class ResultTest(TransferTestCase):
    def test_errors_of_ours_come_out_as_they_are(self) -> None:
        error = DownloadMediaError.named("NOT_EXIST", "No such media.")

        def fail(control: TransferControl) -> None:
            raise error

        transfer = self.pool().submit(DOWNLOAD, fail)
        self.assertIs(transfer.exception(PATIENCE), error)
        self.assertFalse(transfer.cancelled())

    def test_any_other_error_is_the_familys_failure_with_its_cause(self) -> None:
        cause = ZeroDivisionError("by zero")

        def fail(control: TransferControl) -> None:
            raise cause

        for kind, family in ((UPLOAD, UploadMediaError), (DOWNLOAD, DownloadMediaError)):
            error = self.pool().submit(kind, fail).exception(PATIENCE)
            assert isinstance(error, family)
            self.assertEqual((error.reason, error.code), ("FAILURE", 1))
            self.assertIs(error.__cause__, cause)
            self.assertIn("by zero", error.message)

    def test_even_an_exit_of_the_work_reaches_the_future_and_the_thread_lives_on(self) -> None:
        def leave(control: TransferControl) -> None:
            raise SystemExit(3)

        pool = self.pool(workers=1, backlog=0)
        self.assertIsInstance(pool.submit(UPLOAD, leave).exception(PATIENCE), SystemExit)
        self.assertEqual(pool.submit(UPLOAD, lambda control: 1).result(PATIENCE), 1)

    def test_result_with_a_timeout_does_not_end_the_transfer(self) -> None:
        gate = self.gate()
        transfer = self.started(self.pool(), self.waiting_for(gate))
        with self.assertRaises(concurrent.futures.TimeoutError):
            transfer.result(0.01)
        gate.set()
        self.assertEqual(transfer.result(PATIENCE), "done")

    def test_as_completed_yields_transfers_as_they_end(self) -> None:
        pool = self.pool()
        gates = [self.gate() for _ in range(3)]
        transfers = [self.started(pool, self.waiting_for(gate)) for gate in gates]
        ended = concurrent.futures.as_completed(transfers, PATIENCE)
        for index in (2, 0, 1):
            gates[index].set()
            self.assertIs(next(ended), transfers[index])
        self.assertEqual(list(ended), [])

    def test_wait_for_the_first_failure_sees_a_cancelled_one_as_done(self) -> None:
        pool = self.pool()
        stuck = [self.started(pool, self.waiting_for(self.gate())) for _ in range(2)]
        stuck[0].cancel()
        done, rest = concurrent.futures.wait(
            stuck, PATIENCE, return_when=concurrent.futures.FIRST_COMPLETED
        )
        self.assertEqual((done, rest), ({stuck[0]}, {stuck[1]}))

    def test_a_done_callback_is_called_once_with_the_transfer(self) -> None:
        called: list[object] = []
        gate = self.gate()
        transfer = self.started(self.pool(), self.waiting_for(gate))
        transfer.add_done_callback(called.append)
        gate.set()
        wait_until(lambda: called)
        transfer.add_done_callback(called.append)  # done already: at once
        self.assertEqual(called, [transfer, transfer])

    def test_a_with_block_that_ends_early_cancels(self) -> None:
        pool = self.pool()
        gate = self.gate()
        with (
            self.assertRaises(KeyError),
            self.started(pool, self.waiting_for(gate)) as transfer,
        ):
            raise KeyError("the application's own trouble")
        with self.assertRaises(UploadCancelled):
            transfer.result(PATIENCE)

    def test_a_with_block_that_waited_keeps_the_result(self) -> None:
        with self.pool().submit(UPLOAD, lambda control: "kept") as transfer:
            transfer.result(PATIENCE)
        self.assertEqual(transfer.result(), "kept")
        self.assertFalse(transfer.cancelled())

    def test_as_completed_gives_each_transfer_once_it_is_done(self) -> None:
        pool = self.pool(workers=2)
        gate = self.gate()
        late = self.started(pool, self.waiting_for(gate))
        early = [pool.submit(UPLOAD, lambda control: "early") for _ in range(5)]
        in_order = concurrent.futures.as_completed([late, *early], PATIENCE)
        self.assertEqual({next(in_order) for _ in early}, set(early))
        gate.set()
        self.assertEqual([transfer.result() for transfer in in_order], ["done"])

    def test_asyncio_awaits_a_transfer(self) -> None:
        pool = self.pool()

        async def story() -> str:
            return await asyncio.wrap_future(pool.submit(DOWNLOAD, lambda control: "bytes"))

        self.assertEqual(asyncio.run(story()), "bytes")

    def test_asyncio_sees_our_errors(self) -> None:
        def fail(control: TransferControl) -> None:
            raise OSError("reset")

        pool = self.pool()

        async def story() -> None:
            await asyncio.wrap_future(pool.submit(DOWNLOAD, fail))

        with self.assertRaises(DownloadMediaError):
            asyncio.run(story())

    def test_a_cancelled_asyncio_task_cancels_its_transfer(self) -> None:
        pool = self.pool()
        gate = self.gate()
        transfer = self.started(pool, self.waiting_for(gate), kind=DOWNLOAD)

        async def story() -> None:
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.wrap_future(transfer), 0.01)

        asyncio.run(story())
        with self.assertRaises(DownloadCancelled):
            transfer.result(PATIENCE)

    def test_a_cancelled_transfer_is_a_cancelled_asyncio_future(self) -> None:
        pool = self.pool()
        gate = self.gate()
        transfer = self.started(pool, self.waiting_for(gate), kind=DOWNLOAD)

        async def story() -> None:
            future = asyncio.wrap_future(transfer)
            transfer.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await future

        asyncio.run(story())


class CancelTest(TransferTestCase):
    """Each way to cancel, at each place where a transfer can be."""

    def assert_cancels(self, begin: Callable[..., Transfer[Any]], **options: Any) -> None:
        for way in ("transfer.cancel()", "the application's event"):
            for kind in TransferKind:
                with self.subTest(way=way, kind=kind.value):
                    signal = threading.Event()
                    transfer = begin(kind=kind, cancel_signal=signal, **options)
                    cancel = transfer.cancel if way == "transfer.cancel()" else signal.set
                    self.assert_cancelled_soon(transfer, cancel)

    def test_cancel_while_queued_ends_it_and_the_work_never_runs(self) -> None:
        pool = self.pool(workers=1)
        gate = self.gate()
        self.started(pool, self.waiting_for(gate))
        ran = threading.Event()

        def begin(kind: TransferKind, cancel_signal: threading.Event) -> Transfer[Any]:
            return pool.submit(kind, lambda c: ran.set(), cancel_signal=cancel_signal)

        self.assert_cancels(begin)
        gate.set()
        pool.submit(UPLOAD, lambda control: None).result(PATIENCE)
        self.assertFalse(ran.is_set())

    def test_cancel_while_pausing_between_attempts(self) -> None:
        pool = self.pool()
        self.assert_cancels(
            lambda **options: self.started(pool, lambda c: c.pause(PATIENCE), **options)
        )

    def test_cancel_while_a_receive_blocks_wakes_it_by_shutting_the_socket_down(self) -> None:
        pool = self.pool()
        near, far = socket.socketpair()
        self.addCleanup(far.close)
        self.addCleanup(near.close)
        woken = threading.Event()
        transfers = []

        def begin(kind: TransferKind, cancel_signal: threading.Event) -> Transfer[Any]:
            ours, theirs = socket.socketpair()
            self.addCleanup(theirs.close)
            self.addCleanup(ours.close)
            woken.clear()

            def work(control: TransferControl) -> None:
                with control.interruptible(lambda: ours.shutdown(socket.SHUT_RDWR)):
                    if not ours.recv(1):
                        woken.set()
                        raise ConnectionResetError("closed in the middle")

            transfers.append(self.started(pool, work, kind=kind, cancel_signal=cancel_signal))
            return transfers[-1]

        self.assert_cancels(begin)
        for transfer in transfers:
            cause = transfer.exception()
            assert cause is not None
            self.assertIsInstance(cause.__cause__, ConnectionResetError)
        self.assertTrue(woken.wait(CANCEL_BOUND), "the receive was not woken")

    def test_cancel_while_stuck_where_nothing_wakes_it_still_ends_the_future(self) -> None:
        pool = self.pool()
        gate = self.gate()
        self.assert_cancels(lambda **options: self.started(pool, self.waiting_for(gate), **options))

    def test_transfers_go_on_while_as_many_cancelled_ones_are_stuck_as_may_run(self) -> None:
        pool = self.pool(backlog=0)
        gate = self.gate()
        stuck = [self.started(pool, self.waiting_for(gate)) for _ in range(MAX_TRANSFERS)]
        for transfer in stuck:
            transfer.cancel()
        concurrent.futures.wait(stuck, PATIENCE)
        self.assertEqual(pool.submit(UPLOAD, lambda control: "next").result(2), "next")

    def test_cancel_while_the_progress_callback_is_stuck(self) -> None:
        pool = self.pool()
        gate = self.gate()
        begun = threading.Event()

        def on_progress(progress: MediaOperationProgress) -> None:
            begun.set()
            gate.wait(PATIENCE)

        transfer = pool.submit(UPLOAD, lambda c: c.advance(1, 10), on_progress=on_progress)
        self.assertTrue(begun.wait(PATIENCE))
        self.assert_cancelled_soon(transfer, transfer.cancel)

    def test_a_signal_that_is_already_set_keeps_the_work_from_running(self) -> None:
        signal = threading.Event()
        signal.set()
        ran = threading.Event()
        transfer = self.pool().submit(UPLOAD, lambda c: ran.set(), cancel_signal=signal)
        with self.assertRaises(TransferCancelled):
            transfer.result(PATIENCE)
        self.assertFalse(ran.is_set())

    def test_one_signal_cancels_every_transfer_it_was_given_to(self) -> None:
        pool = self.pool()
        signal = threading.Event()
        gate = self.gate()
        those = [
            pool.submit(UPLOAD, self.waiting_for(gate), cancel_signal=signal) for _ in range(20)
        ]
        other = pool.submit(UPLOAD, lambda control: "other")
        signal.set()
        done, _ = concurrent.futures.wait(those, PATIENCE)
        self.assertEqual(len(done), 20)
        self.assertTrue(all(transfer.cancelled() for transfer in those))
        gate.set()
        self.assertEqual(other.result(PATIENCE), "other")

    def test_the_progress_callback_may_cancel_its_own_transfer(self) -> None:
        transfers: list[Transfer[Any]] = []
        known = threading.Event()

        def work(control: TransferControl) -> None:
            known.wait(PATIENCE)
            for size in range(1, 100):
                control.advance(size, 100)
            control.complete(100)

        pool = self.pool()
        transfers.append(
            pool.submit(UPLOAD, work, on_progress=lambda progress: transfers[0].cancel())
        )
        known.set()
        with self.assertRaises(UploadCancelled):
            transfers[0].result(PATIENCE)
        self.assertEqual(transfers[0].progress, MediaOperationProgress(1, 100))

    def test_cancelling_again_says_true_until_it_is_done_and_then_false(self) -> None:
        pool = self.pool()
        gate = self.gate()
        transfer = self.started(pool, self.waiting_for(gate))
        self.assertTrue(transfer.cancel())
        while not transfer.done():
            self.assertTrue(transfer.cancel() or transfer.done())
        self.assertFalse(transfer.cancel())

    def test_it_is_too_late_to_cancel_once_everything_is_confirmed(self) -> None:
        gate = self.gate()
        complete = threading.Event()
        signal = threading.Event()

        def work(control: TransferControl) -> str:
            control.complete(10)
            complete.set()
            gate.wait(PATIENCE)
            control.check()
            return "kept"

        transfer = self.pool().submit(UPLOAD, work, cancel_signal=signal)
        self.assertTrue(complete.wait(PATIENCE))
        self.assertFalse(transfer.cancel())
        signal.set()
        gate.set()
        self.assertEqual(transfer.result(PATIENCE), "kept")
        self.assertFalse(transfer.cancelled())

    def test_a_finished_transfer_cannot_be_cancelled(self) -> None:
        signal = threading.Event()
        transfer = self.pool().submit(UPLOAD, lambda control: 5, cancel_signal=signal)
        self.assertEqual(transfer.result(PATIENCE), 5)
        signal.set()
        self.assertFalse(transfer.cancel())
        self.assertEqual((transfer.result(), transfer.cancelled()), (5, False))

    def test_work_that_swallows_its_end_is_cancelled_all_the_same(self) -> None:
        def stubborn(control: TransferControl) -> str:
            try:
                control.pause(PATIENCE)
            except RtmError:
                return "I went on"
            return "never"

        transfer = self.started(self.pool(), stubborn)
        transfer.cancel()
        wait_until(transfer.done)
        with self.assertRaises(UploadCancelled):
            transfer.result()

    def test_an_abort_that_fails_disturbs_nobody(self) -> None:
        def work(control: TransferControl) -> None:
            def abort() -> None:
                raise OSError("already closed")

            with control.interruptible(abort):
                control.pause(PATIENCE)

        transfer = self.started(self.pool(), work)
        self.assert_cancelled_soon(transfer, transfer.cancel)

    def test_many_cancelled_while_starting_all_end_and_free_their_slots(self) -> None:
        pool = self.pool(workers=3)
        for _ in range(20):
            transfers = [
                pool.submit(UPLOAD, lambda control: control.pause(PATIENCE)) for _ in range(10)
            ]
            with self.assertNoLogs("concurrent.futures"):
                for transfer in transfers:
                    transfer.cancel()
                done, rest = concurrent.futures.wait(transfers, PATIENCE)
            self.assertFalse(rest)
            self.assertTrue(all(transfer.cancelled() for transfer in done))
        self.assertEqual(pool.submit(UPLOAD, lambda control: 1).result(PATIENCE), 1)


class InterruptibleTest(RtmTestCase):
    def control(self) -> TransferControl:
        return TransferControl(UPLOAD)

    def test_an_ended_transfer_does_not_enter_the_block(self) -> None:
        control = self.control()
        control.cancel()
        with self.assertRaises(UploadCancelled), control.interruptible(lambda: None):
            self.fail("entered")

    def test_the_blocks_own_error_passes_when_the_transfer_goes_on(self) -> None:
        control = self.control()
        with self.assertRaises(KeyError), control.interruptible(lambda: None):
            raise KeyError("own")

    def test_all_nested_aborts_are_called_once(self) -> None:
        control = self.control()
        called: list[str] = []
        with (
            self.assertRaises(UploadCancelled),
            control.interruptible(lambda: called.append("outer")),
            control.interruptible(lambda: called.append("inner")),
        ):
            self.assertTrue(control.cancel())
            self.assertFalse(control.cancel())
            raise OSError("woken")
        self.assertEqual(sorted(called), ["inner", "outer"])

    def test_after_the_block_its_abort_is_forgotten(self) -> None:
        control = self.control()
        called: list[str] = []
        with control.interruptible(lambda: called.append("abort")):
            pass
        control.cancel()
        self.assertEqual(called, [])

    def test_the_first_end_counts(self) -> None:
        control = self.control()
        timeout = UPLOAD.error("TIMEOUT", "No byte.")
        self.assertTrue(control.end(timeout))
        self.assertFalse(control.cancel())
        with self.assertRaises(UploadMediaError) as caught:
            control.check()
        self.assertIs(caught.exception, timeout)


class StallTest(TransferTestCase):
    def test_a_transfer_without_a_byte_times_out_and_its_receive_is_woken(self) -> None:
        pool = self.pool(stall_timeout=0.2)
        for kind, family in ((UPLOAD, UploadMediaError), (DOWNLOAD, DownloadMediaError)):
            near, far = socket.socketpair()
            self.addCleanup(far.close)
            self.addCleanup(near.close)

            def work(control: TransferControl, near: socket.socket = near) -> None:
                with control.interruptible(lambda: near.shutdown(socket.SHUT_RDWR)):
                    if not near.recv(1):
                        raise ConnectionResetError("closed in the middle")

            began, watch = time.monotonic(), Stopwatch()
            with self.assertRaises(family) as caught:
                pool.submit(kind, work).result(PATIENCE)
            took = time.monotonic() - began
            self.assertEqual((caught.exception.reason, caught.exception.code), ("TIMEOUT", 3))
            self.assertIn("0.2", caught.exception.message)
            self.assertGreater(took, 0.19)
            self.assertLess(watch.seconds(), 0.2 + CANCEL_BOUND)

    def test_a_stalled_transfer_is_no_cancelled_one(self) -> None:
        pool = self.pool(stall_timeout=0.1)
        gate = self.gate()
        transfer = pool.submit(UPLOAD, self.waiting_for(gate))
        self.assertIsInstance(transfer.exception(PATIENCE), UploadMediaError)
        self.assertFalse(transfer.cancelled())

    def test_a_slow_transfer_that_moves_does_not_time_out(self) -> None:
        def crawl(control: TransferControl) -> str:
            for size in range(1, 9):
                control.pause(0.1)
                control.advance(size, 10)
            return "arrived"

        transfer = self.pool(stall_timeout=0.4).submit(UPLOAD, crawl)
        self.assertEqual(transfer.result(PATIENCE), "arrived")

    def test_waiting_in_the_queue_is_not_stalling(self) -> None:
        pool = self.pool(workers=1, stall_timeout=0.4)

        def busy(control: TransferControl) -> None:
            for size in range(1, 9):
                control.pause(0.1)
                control.advance(size, 10)

        first = pool.submit(UPLOAD, busy)
        second = pool.submit(UPLOAD, lambda control: "in time")
        self.assertEqual(second.result(PATIENCE), "in time")
        self.assertIsNone(first.exception())

    def test_a_slow_progress_callback_is_not_a_stalled_network(self) -> None:
        never = self.gate()
        never.clear()

        def work(control: TransferControl) -> str:
            control.advance(1, 10)
            control.complete(10)
            return "arrived"

        transfer = self.pool(stall_timeout=0.1).submit(
            UPLOAD, work, on_progress=lambda progress: never.wait(0.4)
        )
        self.assertEqual(transfer.result(PATIENCE), "arrived")


class ProgressTest(RtmTestCase):
    """By a clock of the test's own, so that throttling is exact."""

    def setUp(self) -> None:
        self.told: list[tuple[int, int]] = []
        self.time = FakeTime()
        self.control = TransferControl(
            UPLOAD,
            lambda progress: self.told.append((progress.current_size, progress.total_size)),
            clock=self.time,
        )

    def test_the_first_step_and_the_end_are_told(self) -> None:
        self.control.advance(10, 100)
        self.control.advance(20, 100)
        self.control.complete(100)
        self.assertEqual(self.told, [(10, 100), (100, 100)])

    def test_ten_calls_a_second_at_most(self) -> None:
        for step in range(1, 1001):  # one second in steps of a millisecond
            self.time.now = 1000.0 + step / 1000
            self.control.advance(step, 10_000)
        self.assertLessEqual(len(self.told), 11)
        self.assertGreaterEqual(len(self.told), 9)

    def test_the_last_byte_is_not_100_percent_until_it_is_confirmed(self) -> None:
        self.control.advance(100, 100)
        self.assertEqual(self.told, [])
        self.assertEqual(self.control.progress, MediaOperationProgress(100, 100))
        self.control.complete(100)
        self.assertEqual(self.told, [(100, 100)])

    def test_a_retry_from_the_beginning_is_silent_until_it_is_further(self) -> None:
        for size in (10, 50, 0, 10, 49, 50, 51):
            self.time.now += 1
            self.control.advance(size, 100)
        self.assertEqual(self.told, [(10, 100), (50, 100), (51, 100)])

    def test_a_retry_that_moves_bytes_is_not_idle(self) -> None:
        self.control.advance(50, 100)
        self.time.now += 100
        self.control.advance(10, 100)
        self.assertEqual(self.control.idle_for(self.time.now), 0)

    def test_no_progress_is_told_after_the_end(self) -> None:
        self.control.cancel()
        with self.assertRaises(UploadCancelled):
            self.control.advance(50, 100)
        with self.assertRaises(UploadCancelled):
            self.control.complete(100)
        self.assertEqual(self.told, [])

    @settings(deadline=None)
    @given(
        st.lists(st.tuples(st.integers(0, 1000), st.floats(0, 0.3)), max_size=50),
        st.integers(1, 1000),
    )
    def test_whatever_happens_progress_only_grows_and_100_percent_comes_once(
        self, steps: list[tuple[int, float]], total: int
    ) -> None:
        told: list[tuple[float, MediaOperationProgress]] = []
        clock = FakeTime()
        control = TransferControl(
            DOWNLOAD, lambda progress: told.append((clock.now, progress)), clock=clock
        )
        for size, passed in steps:
            clock.now += passed
            control.advance(min(size, total), total)
        control.complete(total)
        sizes = [progress.current_size for _, progress in told]
        self.assertEqual(sizes, sorted(sizes))
        self.assertEqual(sizes.count(total), 1)
        self.assertEqual(sizes[-1], total)
        self.assertEqual({progress.total_size for _, progress in told}, {total})
        throttled = [at for at, _ in told[:-1]]
        for earlier, later in itertools.pairwise(throttled):
            self.assertGreaterEqual(later - earlier, 0.0999)


class ProgressCallbackTest(TransferTestCase):
    def test_a_real_transfer_ends_with_exactly_one_call_at_100_percent(self) -> None:
        told: list[MediaOperationProgress] = []

        def work(control: TransferControl) -> str:
            for size in range(0, 1001, 10):
                control.advance(size, 1000)
                control.pause(0.002)
            control.complete(1000)
            return "id"

        transfer = self.pool().submit(UPLOAD, work, on_progress=told.append)
        self.assertEqual(transfer.result(PATIENCE), "id")
        self.assertEqual(told[-1], MediaOperationProgress(1000, 1000))
        self.assertEqual(told.count(told[-1]), 1)
        self.assertEqual(transfer.progress, told[-1])

    def test_what_the_callback_raises_is_reported_and_the_transfer_goes_on(self) -> None:
        reported: list[BaseException] = []
        trouble = ValueError("in the application")

        def on_progress(progress: MediaOperationProgress) -> None:
            raise trouble

        def work(control: TransferControl) -> str:
            control.advance(1, 2)
            control.complete(2)
            return "id"

        pool = self.pool(on_error=reported.append)
        transfer = pool.submit(UPLOAD, work, on_progress=on_progress)
        self.assertEqual(transfer.result(PATIENCE), "id")
        self.assertEqual(reported, [trouble, trouble])

    def test_without_anybody_to_report_to_the_transfer_goes_on_too(self) -> None:
        def on_progress(progress: MediaOperationProgress) -> None:
            raise ValueError("in the application")

        transfer = self.pool().submit(UPLOAD, lambda c: c.complete(1), on_progress=on_progress)
        self.assertIsNone(transfer.result(PATIENCE))

    def test_progress_is_nought_before_the_start(self) -> None:
        pool = self.pool(workers=1)
        self.started(pool, self.waiting_for(self.gate()))
        queued = pool.submit(UPLOAD, lambda control: None)
        self.assertEqual(queued.progress, MediaOperationProgress(0, 0))


class CloseTest(TransferTestCase):
    def test_close_cancels_what_runs_and_what_waits_and_the_threads_are_gone(self) -> None:
        pool = self.pool(workers=2)
        begun = [self.started(pool, lambda c: c.pause(PATIENCE)) for _ in range(2)]
        queued = [pool.submit(DOWNLOAD, lambda c: c.pause(PATIENCE)) for _ in range(5)]
        self.assertTrue(transfer_threads())
        pool.close()
        self.assertEqual(transfer_threads(), [])
        for transfer in [*begun, *queued]:
            with self.assertRaises(TransferCancelled) as caught:
                transfer.result(0)
            self.assertIn("closed", caught.exception.message)

    def test_close_is_idempotent_and_an_unused_pool_has_no_threads(self) -> None:
        pool = TransferPool()
        self.assertEqual(transfer_threads(), [])
        pool.close()
        pool.close()
        used = TransferPool()
        used.submit(UPLOAD, lambda control: None).result(PATIENCE)
        used.close()
        used.close()
        self.assertEqual(transfer_threads(), [])

    def test_a_closed_pool_refuses_with_not_logged_in(self) -> None:
        pool = self.pool()
        pool.close()
        for kind, family in ((UPLOAD, UploadMediaError), (DOWNLOAD, DownloadMediaError)):
            with self.assertRaises(family) as caught:
                pool.submit(kind, lambda control: None)
            self.assertEqual(caught.exception.code, 102)

    def test_close_from_a_done_callback_neither_hangs_nor_leaks(self) -> None:
        for how in ("the work's thread", "the watcher"):
            with self.subTest(how):
                pool = self.pool(workers=1)
                closed = threading.Event()
                gate = self.gate()

                def close(
                    _: object, pool: TransferPool = pool, closed: threading.Event = closed
                ) -> None:
                    pool.close()
                    closed.set()

                first = self.started(pool, self.waiting_for(gate))
                queued = pool.submit(UPLOAD, lambda control: None)
                if how == "the watcher":
                    queued.add_done_callback(close)
                    queued.cancel()
                else:
                    first.add_done_callback(close)
                    gate.set()
                self.assertTrue(closed.wait(CANCEL_BOUND))
                gate.set()
                wait_until(lambda: not transfer_threads())

    def test_two_threads_may_close_at_once(self) -> None:
        pool = self.pool()
        self.started(pool, lambda c: c.pause(PATIENCE))
        closers = [threading.Thread(target=pool.close) for _ in range(4)]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join(PATIENCE)
        self.assertEqual(transfer_threads(), [])

    def test_interrupt_ends_all_but_the_pool_stays_open(self) -> None:
        pool = self.pool(workers=1)
        transfers = [
            self.started(pool, lambda c: c.pause(PATIENCE)),
            pool.submit(DOWNLOAD, lambda c: None),
        ]
        with self.within(CANCEL_BOUND):
            pool.interrupt("You logged out.")
            for transfer in transfers:
                with self.assertRaisesRegex(TransferCancelled, "You logged out"):
                    transfer.result(PATIENCE)
        self.assertEqual(pool.submit(UPLOAD, lambda c: "again").result(PATIENCE), "again")

    def test_idle_threads_linger_a_moment_and_go_and_come_back(self) -> None:
        pool = self.pool()
        pool.submit(UPLOAD, lambda control: None).result(PATIENCE)
        self.assertTrue(transfer_threads())
        wait_until(lambda: not transfer_threads(), 3.0, "idle threads stay")
        self.assertEqual(pool.submit(UPLOAD, lambda control: "again").result(PATIENCE), "again")


class TransferKindTest(RtmTestCase):
    def test_each_kind_makes_the_errors_of_its_family(self) -> None:
        for kind, family, cancelled in (
            (UPLOAD, UploadMediaError, UploadCancelled),
            (DOWNLOAD, DownloadMediaError, DownloadCancelled),
        ):
            self.assertIs(type(kind.error("TIMEOUT", "Late.")), family)
            self.assertIs(type(kind.error("INTERRUPTED", "Cancelled.")), cancelled)
            self.assertEqual(kind.error("NOT_LOGGED_IN", "Log in.").code, 102)

    def test_no_kind_makes_an_error_of_another_family(self) -> None:
        self.assertNotIsInstance(UPLOAD.error("TIMEOUT", "Late."), PeerMessageError)


class Meter:
    """A progress bar as `tqdm_progress` sees it."""

    def __init__(self, total: float | None = None) -> None:
        self.total = total
        self.moves: list[float] = []

    def update(self, n: float) -> None:
        self.moves.append(n)


class TqdmProgressTest(TransferTestCase):
    def test_a_bar_without_a_total_gets_the_transfers_and_ends_at_it(self) -> None:
        meter = Meter()

        def work(control: TransferControl) -> None:
            control.advance(300, 1000)
            control.complete(1000)

        self.pool().submit(UPLOAD, work, on_progress=tqdm_progress(meter)).result(PATIENCE)
        self.assertEqual((meter.total, meter.moves), (1000, [300, 700]))

    def test_a_shared_bar_keeps_its_total_and_counts_every_byte_once(self) -> None:
        meter = Meter(total=9000)
        pool = self.pool()

        def work(control: TransferControl) -> None:
            for size in range(0, 1000, 10):
                control.advance(size, 1000)
            control.complete(1000)

        transfers = [pool.submit(UPLOAD, work, on_progress=tqdm_progress(meter)) for _ in range(9)]
        concurrent.futures.wait(transfers, PATIENCE)
        self.assertEqual((meter.total, sum(meter.moves)), (9000, 9000))

    def test_a_real_tqdm_ends_full(self) -> None:
        with tqdm(file=io.StringIO()) as bar:
            show = tqdm_progress(bar)
            for size in (10, 20, 64):
                show(MediaOperationProgress(size, 64))
            self.assertEqual((bar.n, bar.total), (64, 64))
