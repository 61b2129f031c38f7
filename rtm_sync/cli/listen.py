"""`listen`: prints arriving messages and, with a folder, saves them."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from ..client.client import RtmClient
from ..errors import RtmError
from ..messages import RtmFileMessage, RtmMessage, RtmRawMessage
from ..printable import printable
from ..protocol.values import ConnectionChangeReason, ConnectionState, ReceivedMessageProperties
from ..transfers.transfer import Transfer
from .output import ExitCode, Output, message_line, message_record

JOURNAL = "messages.jsonl"
_MAX_DOWNLOADS = 100  # unfinished downloads at which the handlers block, and with them the hub


class Listener:
    """The event handlers of one `listen`. They run on the client's dispatcher thread.

    Args:
        output: the command's output.
        save: folder for media, raw messages and a journal of all messages; None saves nothing.
        count: number of messages after which it ends; None for no limit.
    """

    def __init__(self, output: Output, save: Path | None, count: int | None) -> None:
        self._output = output
        self._save = save
        self._left = count
        self._slots = threading.BoundedSemaphore(_MAX_DOWNLOADS)
        self._changed = threading.Condition()  # guards _downloads, and writing to the journal
        self._downloads = 0
        self._over = threading.Event()
        self._stopped = False
        self._client: RtmClient | None = None
        self.code = ExitCode.DONE
        if save is not None:
            save.mkdir(parents=True, exist_ok=True)
            (save / JOURNAL).touch()  # so that no downloaded file takes this name

    def begin(self, client: RtmClient) -> None:
        """Handle the events of a client, which is not logged in yet."""
        self._client = client
        client.on("MessageFromPeer", self._from_peer)
        client.on("ConnectionStateChanged", self._state_changed)
        client.on("Reconnected", self._reconnected)

    def join(self, channels: Sequence[str]) -> None:
        """Join channels and handle their messages. Raises JoinChannelError."""
        assert self._client is not None
        for channel_id in channels:
            channel = self._client.create_channel(channel_id)

            def on_channel_message(
                message: RtmMessage,
                member: str,
                props: ReceivedMessageProperties,
                channel_id: str = channel_id,
            ) -> None:
                self._receive(message, member, props, channel_id)

            channel.on("ChannelMessage", on_channel_message)
            channel.join()

    def wait(self, timeout: float | None) -> ExitCode:
        """Listen until the count or the timeout in seconds; then wait for running downloads."""
        if not self._over.wait(timeout) and self._left is not None:
            self._output.note(
                f"{self._left} more messages were expected; none came within {timeout} seconds."
            )
            self.code = ExitCode.UNREACHABLE
        with self._changed:  # each download ends, at the latest by its stall timeout
            self._changed.wait_for(lambda: not self._downloads)
        return self.code

    def stop(self) -> None:
        """Ignore all later events. Called before the client is closed.

        A message of a peer whose handler has begun is still printed, because it counts as handled.
        """
        self._leave_the_rest()
        self._stopped = True

    def fail(self, error: BaseException) -> None:
        """Report the exception of a handler, and end. For `on_handler_error`."""
        if self._stopped:
            return
        if isinstance(error, Exception):
            self.code = self._output.error(error)
        self._leave_the_rest()
        self._over.set()

    def _leave_the_rest(self) -> None:
        """Take no more messages of peers, so that stored ones wait for the next command."""
        if self._client is not None:
            self._client.off("MessageFromPeer", self._from_peer)

    def _from_peer(self, message: RtmMessage, peer: str, props: ReceivedMessageProperties) -> None:
        self._receive(message, peer, props, None)

    def _receive(
        self,
        message: RtmMessage,
        sender: str,
        props: ReceivedMessageProperties,
        channel: str | None,
    ) -> None:
        if self._left == 0 or (self._stopped and channel is not None):
            return
        record = {
            "event": "message",
            "from": sender,
            "channel": channel,
            **message_record(message),
            "server_received_ts": props.server_received_ts,
            "is_offline_message": props.is_offline_message,
        }
        when = datetime.fromtimestamp(props.server_received_ts / 1000)
        place = f" in {printable(channel)}" if channel is not None else ""
        self._output.result(
            record, f"{when:%H:%M:%S} {printable(sender)}{place}: {message_line(message)}"
        )
        if self._save is not None:
            self._write_to_journal(record)
            if isinstance(message, RtmRawMessage):
                self._save_bytes(self._save, message.raw_message, props.server_received_ts)
            elif isinstance(message, RtmFileMessage):
                self._download(self._save, message.media_id)
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                self._leave_the_rest()
                self._over.set()

    def _write_to_journal(self, record: dict[str, object]) -> None:
        assert self._save is not None
        with self._changed, (self._save / JOURNAL).open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(record) + "\n")

    def _save_bytes(self, folder: Path, data: bytes, milliseconds: int) -> None:
        for number in itertools.count():
            path = folder / f"message-{milliseconds}-{number}.bin"
            try:
                with path.open("xb") as file:
                    file.write(data)
            except FileExistsError:
                continue
            self._report_saved(path, None)
            return

    def _download(self, folder: Path, media_id: str) -> None:
        assert self._client is not None
        self._slots.acquire()
        try:
            transfer = self._client.download_media(media_id, to=folder)
        except RtmError:
            self._slots.release()
            raise
        with self._changed:
            self._downloads += 1
        transfer.add_done_callback(lambda done: self._downloaded(media_id, transfer))

    def _downloaded(self, media_id: str, transfer: Transfer[Path]) -> None:
        self._slots.release()
        try:
            if not transfer.cancelled():
                self._report_saved(transfer.result(), media_id)
        except RtmError as error:
            self.code = self._output.error(error, media_id)
        finally:
            with self._changed:
                self._downloads -= 1
                self._changed.notify_all()

    def _report_saved(self, path: Path, media_id: str | None) -> None:
        record: dict[str, object] = {"event": "saved", "path": str(path), "media_id": media_id}
        self._write_to_journal(record)
        if self._output.as_json:
            self._output.result(record, "")
        else:
            self._output.note(f"saved {path}")

    def _state_changed(self, state: ConnectionState, reason: ConnectionChangeReason) -> None:
        if state is ConnectionState.ABORTED:
            self._output.note(f"The session has ended: {reason.name}.")
            self.code = ExitCode.FAILED
            self._over.set()
        self._report({"event": "connection", "state": state.value, "reason": reason.name})

    def _reconnected(self, recovered: bool) -> None:
        lost = "" if recovered else "; messages may be lost"
        self._output.note(f"The client is connected again{lost}.")
        self._report({"event": "reconnected", "recovered": recovered})

    def _report(self, record: dict[str, object]) -> None:
        if self._output.as_json:
            self._output.result(record, "")
