"""Media over a network that fails: resumed where it stopped, typed errors, nothing damaged."""

from __future__ import annotations

import base64
import email.utils
import hashlib
import io
import os
import sqlite3
import threading
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import requests

from rtm_sync import RtmClient
from rtm_sync.errors import RtmError
from rtm_sync.testing import GatewayProcess
from rtm_sync.transfers.transfer import Transfer
from rtm_sync.transports.gateway.media_http import retry_after
from tests.support import PATIENCE, wait_until
from tests.transports.support import (
    GatewayCase,
    Timing,
    deaf_address,
    http_server,
    media_through,
    pattern,
    scripted_server,
)

DATA = pattern(4_000_000)
PIECE = 1_500_000  # after so many bytes the network fails
SLACK = 300_000  # heads, and what was on the way when it failed
STALL = 0.4
STALL_BOUND = 2.0


class MediaCase(GatewayCase):
    retry_timeout = 30.0

    def setUp(self) -> None:
        super().setUp()
        self.alice = self.patient_client("alice")

    def patient_client(self, uid: str) -> RtmClient:
        return self.client(uid, plugins=(Timing(retry_timeout=self.retry_timeout),))

    def upload(self, data: bytes = DATA, **options: Any) -> Transfer[Any]:
        return self.alice.create_media_message_by_uploading(data, **options)

    def medium(self, data: bytes = DATA) -> str:
        """Upload without any trouble."""
        return self.upload(data).result(PATIENCE).media_id

    def hang_up(self) -> None:
        """Log out and in again: the next transfers use new connections."""
        self.alice.logout()
        self.alice.login("alice")

    def stored_bytes(self, media_id: str) -> bytes:
        return self.path_of(media_id).read_bytes()

    def bytes_stored(self) -> int:
        """Of all media, unfinished ones included."""
        return sum(path.stat().st_size for path in (self.data / "media").glob("*/*"))

    def path_of(self, media_id: str) -> Path:
        return self.data / "media" / media_id[:2] / media_id


class ResumeTest(MediaCase):
    def test_a_dropped_upload_goes_on_where_it_stopped(self) -> None:
        self.proxy.stall(sent=PIECE, only_new=True)
        upload = self.upload()
        wait_until(lambda: self.proxy.held and self.bytes_stored() > PIECE - SLACK)
        self.proxy.restore()
        self.proxy.drop()
        message = upload.result(PATIENCE)
        self.assertEqual(self.stored_bytes(message.media_id), DATA)
        self.assertEqual(self.stored(), [message.media_id])
        self.assertLess(self.proxy.bytes_sent, len(DATA) + SLACK)

    def test_a_dropped_download_goes_on_where_it_stopped(self) -> None:
        media_id = self.medium()
        before = self.proxy.bytes_received
        self.proxy.stall(received=PIECE)
        target = self.folder() / "file"
        download = self.alice.download_media(media_id, to=target)
        wait_until(lambda: self.proxy.held and download.progress.current_size > PIECE - SLACK)
        self.proxy.restore()
        self.proxy.drop()  # only now: a reset destroys what was not read yet
        self.assertEqual(download.result(PATIENCE).read_bytes(), DATA)
        self.assertEqual(list(target.parent.iterdir()), [target])
        self.assertLess(self.proxy.bytes_received - before, len(DATA) + SLACK)

    def test_a_lost_answer_does_not_upload_twice(self) -> None:
        self.proxy.stall(received=0, only_new=True)
        upload = self.upload()
        wait_until(lambda: self.stored() and self.path_of(self.stored()[0]).exists())
        self.proxy.restore()
        self.proxy.drop()
        message = upload.result(PATIENCE)
        self.assertEqual(self.stored(), [message.media_id])
        self.assertLess(self.proxy.bytes_sent, len(DATA) + SLACK)

    def test_progress_never_goes_back_over_a_drop(self) -> None:
        sizes: list[int] = []
        self.proxy.stall(sent=PIECE, only_new=True)
        upload = self.upload(on_operation_progress=lambda p: sizes.append(p.current_size))
        wait_until(lambda: self.proxy.held)
        self.proxy.restore()
        self.proxy.drop()
        upload.result(PATIENCE)
        self.assertEqual(sizes, sorted(set(sizes)))
        self.assertEqual(sizes[-1], len(DATA))

    def test_nine_transfers_survive_one_drop(self) -> None:
        media_id = self.medium()
        self.hang_up()
        self.proxy.stall(sent=PIECE, received=PIECE, only_new=True)
        uploads = [self.upload() for _ in range(4)]
        downloads = [self.alice.download_media(media_id) for _ in range(5)]
        wait_until(lambda: self.proxy.held == 9)
        self.proxy.restore()
        self.proxy.drop()
        for upload in uploads:
            self.assertEqual(self.stored_bytes(upload.result(PATIENCE).media_id), DATA)
        for download in downloads:
            self.assertEqual(download.result(PATIENCE).to_bytes(), DATA)


class LongSilenceTest(MediaCase):
    """An attempt hangs in a silent network for longer than retries are patient."""

    retry_timeout = 0.6

    def wait_for_longer_than_that(self) -> None:
        wait_until(lambda: self.proxy.held)
        silent_since = time.monotonic()
        wait_until(lambda: time.monotonic() - silent_since > 2 * self.retry_timeout)
        self.proxy.restore()
        self.proxy.drop()

    def test_an_upload_goes_on_after_it(self) -> None:
        self.proxy.stall(sent=PIECE, only_new=True)
        upload = self.upload()
        self.wait_for_longer_than_that()
        self.assertEqual(self.stored_bytes(upload.result(PATIENCE).media_id), DATA)

    def test_a_download_goes_on_after_it(self) -> None:
        media_id = self.medium()
        self.hang_up()
        self.proxy.stall(received=100, only_new=True)  # a part of the answer's head
        download = self.alice.download_media(media_id)
        self.wait_for_longer_than_that()
        self.assertEqual(download.result(PATIENCE).to_bytes(), DATA)


class LostUploadTest(MediaCase):
    """The gateway no longer has the upload, or another request has taken it over."""

    retry_timeout = 30.0
    PART = b"x" * 1000
    BEGUN = 201, {"Location": "media/" + "A" * 32, "Upload-Offset": "400", "Content-Length": "0"}
    TOO_LONG = 201, BEGUN[1] | {"Upload-Offset": "1500"}
    WHOLE = (
        201,
        BEGUN[1]
        | {
            "Upload-Offset": "1000",
            "Repr-Digest": "sha-256=:"
            + base64.b64encode(hashlib.sha256(PART).digest()).decode()
            + ":",
        },
    )

    def assert_begun_anew(self, *answers: tuple[int, dict[str, str]]) -> None:
        """The last of these answers to an upload's requests is the first one under a new key."""
        address, asked = self.entered(scripted_server([*answers, self.WHOLE]))
        with media_through(self.alice, address):
            self.upload(self.PART).result(PATIENCE)
        methods = [method for method, _, _ in asked]
        self.assertEqual(len(asked), len(answers) + 1, asked)
        self.assertEqual(methods[-1], "POST")
        *earlier, last = [key for method, key, _ in asked if method == "POST"]
        self.assertEqual(len(set(earlier)), 1)
        self.assertNotIn(last, earlier)
        self.assertEqual(asked[-1][2], self.PART)  # all of it

    def test_a_superseded_request_begins_anew_under_another_key(self) -> None:
        for status in (409, 410, 423):
            with self.subTest(status=status):
                self.assert_begun_anew((status, {"Content-Length": "0"}))

    def test_a_superseded_continuation_does_as_well(self) -> None:
        for status in (404, 409, 410, 423):
            with self.subTest(status=status):
                self.assert_begun_anew(self.BEGUN, self.BEGUN, (status, {"Content-Length": "0"}))

    def test_more_bytes_than_the_upload_has_are_not_gone_on_with(self) -> None:
        self.assert_begun_anew(self.TOO_LONG)
        self.assert_begun_anew(self.BEGUN, self.TOO_LONG)

    def test_what_never_works_fails_after_three_attempts(self) -> None:
        conflict = (409, {"Content-Length": "0"})
        address, asked = self.entered(scripted_server([conflict] * 3))
        with media_through(self.alice, address):
            error = self.fails("UPLOAD_MEDIA_ERR_FAILURE", self.upload(self.PART).result, PATIENCE)
        self.assertIn("3 attempts", error.message)
        self.assertEqual(len(asked), 3)


class DamageTest(MediaCase):
    def test_a_download_damaged_on_its_way_is_fetched_again(self) -> None:
        media_id = self.medium()
        self.hang_up()
        self.proxy.damage(received=len(DATA) // 2)
        download = self.alice.download_media(media_id)
        self.assertEqual(download.result(PATIENCE).to_bytes(), DATA)

    def test_an_upload_damaged_on_its_way_is_sent_again_and_leaves_nothing(self) -> None:
        self.proxy.damage(sent=len(DATA) // 2)
        message = self.upload().result(PATIENCE)
        self.assertEqual(self.stored_bytes(message.media_id), DATA)
        wait_until(
            lambda: self.stored() == [message.media_id],
            message="the damaged copy stays on the gateway",
        )

    def test_a_medium_that_is_damaged_in_the_store_is_not_handed_out(self) -> None:
        media_id = self.medium(b"what was meant")
        self.path_of(media_id).write_bytes(b"something else")
        target = self.folder() / "file"
        target.write_bytes(b"old")
        download = self.alice.download_media(media_id, to=target)
        error = self.fails("DOWNLOAD_MEDIA_ERR_FAILURE", download.result, PATIENCE)
        self.assertIn("digest", error.message)
        self.assertEqual(target.read_bytes(), b"old")
        self.assertEqual(list(target.parent.iterdir()), [target])

    def test_a_damaged_medium_is_fetched_three_times_and_no_more(self) -> None:
        media_id = self.medium(b"what was meant")
        self.path_of(media_id).write_bytes(b"something else")
        download = self.alice.download_media(media_id)
        error = self.fails("DOWNLOAD_MEDIA_ERR_FAILURE", download.result, PATIENCE)
        self.assertIn("3 attempts", error.message)

    def test_a_destination_that_cannot_go_back_gets_no_second_copy(self) -> None:
        media_id = self.medium(b"what was meant")
        self.path_of(media_id).write_bytes(b"something else")
        pipe = _Pipe()
        download = self.alice.download_media(media_id, to=pipe)
        self.fails("DOWNLOAD_MEDIA_ERR_FAILURE", download.result, PATIENCE)
        self.assertEqual(bytes(pipe.written), b"something else")


class _Pipe(io.RawIOBase):
    """A destination that cannot seek."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.written += data
        return len(data)


class StallTest(MediaCase):
    """No byte for `stall_timeout` seconds ends a transfer, wherever it hangs."""

    def setUp(self) -> None:
        super().setUp()
        self.impatient = self.client("bob", stall_timeout=STALL)

    def times_out(self, start: Callable[[], Transfer[Any]]) -> None:
        transfer = start()
        error = self.fails(
            f"{transfer.kind.name}_MEDIA_ERR_TIMEOUT",
            transfer.result,
            PATIENCE,
            within=STALL + STALL_BOUND,
        )
        self.assertIn("No byte moved", error.message)
        self.assertFalse(transfer.cancelled())

    def uploading(self) -> Transfer[Any]:
        return self.impatient.create_media_message_by_uploading(DATA)

    def test_a_gateway_that_does_not_accept(self) -> None:
        with media_through(self.impatient, self.entered(deaf_address())):
            self.times_out(self.uploading)

    def test_an_upload_that_stalls_in_its_body(self) -> None:
        self.proxy.stall(sent=PIECE, only_new=True)
        self.times_out(self.uploading)
        wait_until(lambda: self.stored() == [], message="a fragment stays")

    def test_an_upload_that_is_never_answered(self) -> None:
        self.proxy.stall(received=0, only_new=True)
        self.times_out(self.uploading)
        wait_until(lambda: self.stored() == [], message="what nobody knows of stays")

    def test_a_download_that_is_never_answered(self) -> None:
        media_id = self.medium()
        self.proxy.stall(received=0, only_new=True)
        self.times_out(lambda: self.impatient.download_media(media_id))

    def test_a_download_that_stalls_in_its_body(self) -> None:
        media_id = self.medium()
        self.proxy.stall(received=PIECE, only_new=True)
        target = self.folder() / "file"
        self.times_out(lambda: self.impatient.download_media(media_id, to=target))
        wait_until(lambda: [path.suffix for path in target.parent.iterdir()] == [".part"])

    def test_a_slow_transfer_is_no_stall(self) -> None:
        self.proxy.slow_down(len(DATA) / (3 * STALL))
        began = time.monotonic()
        message = self.uploading().result(PATIENCE)
        self.assertGreater(time.monotonic() - began, 2 * STALL)
        self.assertEqual(self.stored_bytes(message.media_id), DATA)


class RefusedTest(MediaCase):
    retry_timeout = 1.0

    def test_a_gateway_that_is_down_fails_a_transfer_with_one_clear_error(self) -> None:
        self.proxy.refuse()
        upload = self.upload()
        download = self.alice.download_media("A" * 32)
        for transfer, name in ((upload, "UPLOAD"), (download, "DOWNLOAD")):
            error = self.fails(f"{name}_MEDIA_ERR_FAILURE", transfer.result, PATIENCE)
            self.assertIn("refused", error.message)

    def test_a_gateway_that_comes_back_between_retries_is_used(self) -> None:
        self.proxy.refuse()
        upload = self.upload()
        wait_until(lambda: "rtm-sync-transfer_0" in names_of_threads())
        self.proxy.restore()
        self.assertEqual(self.stored_bytes(upload.result(PATIENCE).media_id), DATA)

    def test_unknown_malformed_and_expired_ids_are_refused_at_once(self) -> None:
        expired = self.medium(b"old")
        with sqlite3.connect(self.data / "rtm.sqlite3") as database:
            changed = database.execute(
                "UPDATE media SET expires_at = 1.0, info = json_set(info, '$.expires_at', 1.0)"
            ).rowcount
        database.close()
        self.assertEqual(changed, 1)
        for media_id, name in (
            ("A" * 32, "NOT_EXIST"),
            ("short", "INVALID_ARGUMENT"),
            (expired, "NOT_EXIST"),
        ):
            download = self.alice.download_media(media_id)
            self.fails(f"DOWNLOAD_MEDIA_ERR_{name}", download.result, PATIENCE, within=1.0)

    def test_a_source_that_shrinks_fails_with_the_reason(self) -> None:
        source = self.folder() / "log"
        source.write_bytes(DATA)
        self.proxy.stall(sent=PIECE, only_new=True)
        upload = self.alice.create_media_message_by_uploading(source)
        wait_until(lambda: self.proxy.held)
        os.truncate(source, 2_000_000)
        self.proxy.restore()
        self.proxy.drop()
        error = self.fails("UPLOAD_MEDIA_ERR_FAILURE", upload.result, PATIENCE)
        self.assertIn("it was changed while it was uploaded", error.message)
        wait_until(lambda: self.stored() == [], message="a fragment stays")

    def test_a_password_file_of_the_machine_does_not_replace_the_session(self) -> None:
        netrc = self.folder() / "netrc"
        netrc.write_text("default login somebody password secret\n")
        with mock.patch.dict(os.environ, {"NETRC": str(netrc)}):
            media_id = self.medium(b"mine")
            self.assertEqual(
                self.alice.download_media(media_id).result(PATIENCE).to_bytes(), b"mine"
            )


class StrangeAnswerTest(MediaCase):
    """Whatever stands between, or is not a gateway: one typed error that says what was seen."""

    retry_timeout = 0.5

    def answered(self, status: int, headers: dict[str, str], body: bytes = b"") -> list[RtmError]:
        """What an upload and a download make of that answer to everything they ask."""
        address, self.asked = self.entered(http_server(status, headers, body))
        with media_through(self.alice, address):
            transfers = [self.upload(b"x" * 1000), self.alice.download_media("A" * 32)]
            errors = [transfer.exception(PATIENCE) for transfer in transfers]
        self.assertGreaterEqual(len(self.asked), 2)
        for error, name in zip(errors, ("UPLOAD", "DOWNLOAD"), strict=True):
            self.assertIsInstance(error, RtmError)
            self.assertEqual(error.code.name, f"{name}_MEDIA_ERR_FAILURE", error)
        return errors  # type: ignore[return-value]

    def test_a_sign_in_page_instead_of_an_answer(self) -> None:
        page = b"<html>Please accept our terms.</html>"
        headers = {"Content-Type": "text/html", "Content-Length": str(len(page))}
        for error in self.answered(200, headers, page):
            self.assertIn("is not a gateway", error.message)

    def test_a_redirect_of_an_upload(self) -> None:
        headers = {"Location": "http://127.0.0.1:9/", "Content-Length": "0"}
        upload, _ = self.answered(302, headers)
        self.assertIn("302", upload.message)

    def test_an_upload_that_is_stored_wrong_each_time_is_sent_three_times(self) -> None:
        headers = {
            "Location": "/v1/media/" + "A" * 32,
            "Upload-Offset": "1000",
            "Repr-Digest": f"sha-256=:{base64.b64encode(bytes(32)).decode()}:",
            "Content-Length": "0",
        }
        upload, _ = self.answered(201, headers)
        self.assertIn("3 attempts", upload.message)
        self.assertIn("do not have the digest", upload.message)
        self.assertEqual(len([line for line in self.asked if line.startswith("POST")]), 3)

    def test_an_upload_goes_on_at_its_own_address_whatever_the_answer_says(self) -> None:
        """Behind a TLS proxy a Location may say http, and the session's token goes along."""
        elsewhere = "http://127.0.0.1:9/v1/media/" + "A" * 32
        headers = {"Location": elsewhere, "Upload-Offset": "0", "Content-Length": "0"}
        self.answered(201, headers)
        own = self.proxy.url.replace("ws://", "http://") + "/v1/media"
        self.assertIn(f"PATCH {own}/{'A' * 32}", self.asked)
        self.assertFalse([line for line in self.asked if elsewhere in line])

    def test_an_error_that_is_none_of_ours(self) -> None:
        for error in self.answered(418, {"Content-Length": "6"}, b"teapot"):
            self.assertIn("418 teapot", error.message)

    def test_an_answer_with_nonsense_in_its_headers(self) -> None:
        headers = {"Upload-Offset": "many", "Location": "/x", "Content-Length": "nine"}
        self.answered(201, headers)

    def test_an_answer_that_breaks_off(self) -> None:
        for error in self.answered(507, {"Content-Length": "5000"}, b"disk f"):
            self.assertRegex(error.message, r"failed, \d+ attempts? in .* seconds; last: ")


class RetryAfterTest(unittest.TestCase):
    def asked(self, value: str) -> float:
        response = requests.Response()
        response.headers["Retry-After"] = value
        return retry_after(response)

    def test_seconds_and_dates_are_understood_and_nonsense_is_nothing(self) -> None:
        self.assertEqual(self.asked("7"), 7.0)
        in_a_minute = email.utils.formatdate(time.time() + 60, usegmt=True)
        self.assertAlmostEqual(self.asked(in_a_minute), 60.0, delta=5.0)
        for nothing in ("", "-3", "soon", "1e9", "Thu, 01 Jan 1970 00:00:00 GMT"):
            with self.subTest(nothing):
                self.assertEqual(self.asked(nothing), 0.0)


class KilledGatewayTest(MediaCase):
    def setUp(self) -> None:
        super().setUp()
        self.process = self.entered(GatewayProcess(self.folder()))
        self.proxy = self.entered(type(self.proxy)(self.process.url))
        self.data = self.process.data
        self.alice = self.patient_client("alice")

    def kill_in_upload(self) -> Transfer[Any]:
        self.proxy.stall(sent=PIECE)
        upload = self.upload()
        wait_until(lambda: self.proxy.held and any(".part" in name for name in self.stored()))
        self.process.kill()
        self.proxy.restore()
        return upload

    def test_the_upload_goes_on_where_it_was_when_the_gateway_is_back(self) -> None:
        upload = self.kill_in_upload()
        sent = self.proxy.bytes_sent
        self.process.start()
        message = upload.result(PATIENCE)
        self.assertEqual(self.stored_bytes(message.media_id), DATA)
        self.assertLess(self.proxy.bytes_sent - sent, len(DATA))
        self.assertEqual(self.stored(), [message.media_id])

    def test_the_upload_fails_clearly_and_a_restart_leaves_no_part(self) -> None:
        self.retry_timeout = 1.0
        self.alice = self.patient_client("bob")
        upload = self.kill_in_upload()
        self.fails("UPLOAD_MEDIA_ERR_FAILURE", upload.result, PATIENCE)
        self.process.start()
        wait_until(lambda: self.stored() == [], PATIENCE, "the given up upload stays")
        message = self.retried_upload()
        self.assertEqual(self.stored_bytes(message.media_id), DATA)

    def retried_upload(self) -> Any:
        """The client comes back by itself; an upload may fail until it has."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self.upload().result(PATIENCE)
            except RtmError:
                if time.monotonic() > deadline:
                    raise

    def test_completed_media_survive(self) -> None:
        media_id = self.medium(b"complete")
        upload = self.kill_in_upload()
        upload.cancel()
        self.process.start()
        with RtmClient("app", url=self.process.url) as bob:
            bob.login("bob")
            self.assertEqual(bob.download_media(media_id).result(PATIENCE).to_bytes(), b"complete")


def names_of_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate()]
