"""Cancelling in every state a transfer can be in, in every way there is: at once, and cleanly."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtm_sync import RtmClient
from rtm_sync.errors import DownloadCancelled, TransferCancelled, UploadCancelled
from rtm_sync.rules.limits import MAX_TRANSFERS
from rtm_sync.transfers.control import TransferKind
from rtm_sync.transfers.transfer import Transfer
from tests.support import PATIENCE, Stopwatch, wait_until
from tests.transports.support import GatewayCase, deaf_address, http_server, media_through, pattern

CANCEL_BOUND = 0.5  # seconds; the promise is 0.1, a loaded machine may need more
LARGE = pattern(30_000_000)
SMALL = pattern(400_000)  # fits into the sockets' buffers: it is sent although nobody reads it
RATE = 8_000_000

if TYPE_CHECKING:
    _Base = GatewayCase
else:
    _Base = object


class Matrix(_Base):
    """The ways of cancelling; a subclass brings a transfer into its state."""

    def setUp(self) -> None:
        super().setUp()
        self.alice = self.client("alice")
        self.event = threading.Event()
        self.destination = self.folder()
        self.detour = self.entered(contextlib.ExitStack())
        self.kept: list[str] = []  # what the gateway should have afterwards

    def start(self) -> Transfer[Any]:
        """Start a transfer and return once it is in the state."""
        raise NotImplementedError

    def upload(self, data: bytes) -> Transfer[Any]:
        return self.alice.create_media_message_by_uploading(data, cancel_signal=self.event)

    def medium(self, data: bytes) -> str:
        """Have somebody else upload it, not through the proxy."""
        with RtmClient("app", url=self.gateway) as bob:
            bob.login("bob")
            message = bob.create_media_message_by_uploading(data).result(PATIENCE)
        self.kept = self.stored()
        return message.media_id

    def download(self, media_id: str) -> Transfer[Any]:
        return self.alice.download_media(
            media_id, to=self.destination / "file", cancel_signal=self.event
        )

    def through(self, address: str) -> None:
        """Until all is checked, Alice's media go through that web proxy."""
        self.detour.enter_context(media_through(self.alice, address))

    def test_setting_the_event_ends_it(self) -> None:
        self.check(self.start(), self.event.set)

    def test_calling_cancel_ends_it(self) -> None:
        transfer = self.start()
        self.check(transfer, lambda: self.assertTrue(transfer.cancel()))

    def test_closing_the_client_ends_it(self) -> None:
        self.check(self.start(), self.alice.close)

    def check(self, transfer: Transfer[Any], cancel: Any) -> None:
        self.assertFalse(transfer.done())
        ended: list[float] = []
        watch = Stopwatch()
        transfer.add_done_callback(lambda _: ended.append(watch.seconds()))
        cancel()
        error = transfer.exception(PATIENCE)
        wait_until(lambda: ended)  # callbacks come after the result
        self.assertLess(ended[0], CANCEL_BOUND)
        self.assertIsInstance(error, TransferCancelled)
        self.assertIsInstance(error, concurrent.futures.CancelledError)
        uploading = transfer.kind is TransferKind.UPLOAD
        self.assertIsInstance(error, UploadCancelled if uploading else DownloadCancelled)
        self.assertTrue(transfer.cancelled())
        self.check_nothing_is_left()
        self.check_all_slots_are_free()

    def check_nothing_is_left(self) -> None:
        wait_until(lambda: not self.files(), message=f"a part stays: {self.files()}")
        wait_until(lambda: self.stored() == self.kept, message=f"a fragment: {self.stored()}")
        self.proxy.restore()
        # What the network still held has arrived, too, once later requests are answered.
        wait_until(lambda: self.stored() == self.kept, message=f"a late one: {self.stored()}")

    def files(self) -> list[Path]:
        return list(self.destination.iterdir())

    def check_all_slots_are_free(self) -> None:
        self.detour.close()
        client = self.alice if self.alice.uid else self.client("alice")
        uploads = [client.create_media_message_by_uploading(b"next") for _ in range(MAX_TRANSFERS)]
        ids = {upload.result(PATIENCE).media_id for upload in uploads}
        self.assertEqual(len(ids), MAX_TRANSFERS)
        wait_until(
            lambda: self.stored() == sorted([*self.kept, *ids]),
            message=f"a fragment came late: {self.stored()}",
        )


class QueuedTest(Matrix, GatewayCase):
    def start(self) -> Transfer[Any]:
        self.proxy.stall(sent=1_000_000, only_new=True)
        for _ in range(MAX_TRANSFERS):
            running = self.alice.create_media_message_by_uploading(LARGE)
            self.addCleanup(running.cancel)
            self.running.append(running)
        wait_until(lambda: self.proxy.held == MAX_TRANSFERS)
        return self.upload(b"waits")

    def setUp(self) -> None:
        super().setUp()
        self.running: list[Transfer[Any]] = []

    def check_nothing_is_left(self) -> None:
        for transfer in self.running:
            transfer.cancel()
        super().check_nothing_is_left()


class ConnectingUploadTest(Matrix, GatewayCase):
    def start(self) -> Transfer[Any]:
        self.through(self.entered(deaf_address()))
        return self.upload(SMALL)


class ConnectingDownloadTest(Matrix, GatewayCase):
    def start(self) -> Transfer[Any]:
        media_id = self.medium(SMALL)
        self.through(self.entered(deaf_address()))
        return self.download(media_id)


class ConnectedOnlyUploadTest(Matrix, GatewayCase):
    """The request is written, and still on its way when the cancellation has arrived."""

    def start(self) -> Transfer[Any]:
        before = self.proxy.accepted
        self.proxy.stall(only_new=True)
        transfer = self.upload(SMALL)
        wait_until(lambda: transfer.progress.current_size == len(SMALL))
        wait_until(lambda: self.proxy.accepted > before)
        return transfer


class MovingUploadTest(Matrix, GatewayCase):
    def start(self) -> Transfer[Any]:
        self.proxy.slow_down(RATE)
        transfer = self.upload(LARGE)
        wait_until(lambda: self.proxy.bytes_sent > 1_000_000)
        return transfer


class MovingDownloadTest(Matrix, GatewayCase):
    def start(self) -> Transfer[Any]:
        self.proxy.slow_down(RATE)
        transfer = self.download(self.medium(LARGE))
        wait_until(lambda: transfer.progress.current_size > 1_000_000)
        return transfer


class StalledUploadTest(Matrix, GatewayCase):
    def start(self) -> Transfer[Any]:
        self.proxy.stall(sent=1_000_000, only_new=True)
        transfer = self.upload(LARGE)
        wait_until(lambda: self.proxy.held)
        return transfer


class StalledDownloadTest(Matrix, GatewayCase):
    def start(self) -> Transfer[Any]:
        self.proxy.stall(received=1_000_000, only_new=True)
        transfer = self.download(self.medium(LARGE))
        wait_until(lambda: self.proxy.held)
        return transfer


class UnansweredUploadTest(Matrix, GatewayCase):
    """The gateway has stored it all, and its answer does not come."""

    def start(self) -> Transfer[Any]:
        self.proxy.stall(received=0, only_new=True)
        transfer = self.upload(SMALL)
        wait_until(lambda: self.stored() and not self.stored()[0].endswith(".part"))
        return transfer


class UnansweredDownloadTest(Matrix, GatewayCase):
    def start(self) -> Transfer[Any]:
        before = self.proxy.bytes_sent
        self.proxy.stall(received=0, only_new=True)
        transfer = self.download(self.medium(SMALL))
        wait_until(lambda: self.proxy.bytes_sent > before + 100)
        return transfer


class BetweenRetriesTest(Matrix, GatewayCase):
    def start(self) -> Transfer[Any]:
        address, asked = self.entered(http_server(503, {"Retry-After": "20"}, b"busy"))
        self.through(address)
        transfer = self.upload(SMALL)
        wait_until(lambda: asked)
        return transfer
