"""The work of `upload`, `download` and `send`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

from ..client.channel import RtmChannel
from ..client.client import RtmClient
from ..errors import RtmError
from ..messages import RtmFileMessage, RtmMessage, as_message
from ..printable import printable
from ..transfers.transfer import Transfer
from .options import STREAM, UploadOptions
from .output import ExitCode, Output, byte_count, message_record


def upload_files(
    client: RtmClient, sources: Sequence[str], options: UploadOptions, output: Output
) -> list[ExitCode]:
    """Upload, up to nine sources at once. Prints the media ids in the order of the sources."""
    uploads: list[Transfer[RtmFileMessage] | RtmError] = []
    codes = []
    with output.bars() as bars:
        for source in sources:
            try:
                uploads.append(options.start(client, source, bars.of(Path(source).name)))
            except RtmError as error:  # continue with the other sources
                uploads.append(error)
        for source, upload in zip(sources, uploads, strict=True):
            try:
                if isinstance(upload, RtmError):
                    raise upload
                message = upload.result()
            except RtmError as error:
                codes.append(output.error(error, source))
            else:
                codes.append(ExitCode.DONE)
                output.result(message_record(message) | {"source": source}, message.media_id)
                until = datetime.fromtimestamp(message.expires_at).astimezone()
                output.note(
                    f"{source}: {message.message_type} of {byte_count(message.size)}, kept until "
                    f"{until:%Y-%m-%d %H:%M}"
                )
    return codes


def download_media(
    client: RtmClient, media_ids: Sequence[str], to: str, output: Output
) -> list[ExitCode]:
    """Download, up to nine media at once. Prints the paths. `to` "-" is standard output."""
    if to == STREAM:
        codes = []
        with output.bars() as bars:
            for media_id in media_ids:  # one after the other, into one stream
                stream: IO[bytes] = sys.stdout.buffer
                transfer = client.download_media(
                    media_id, to=stream, on_operation_progress=bars.of(media_id)
                )
                try:
                    transfer.result()
                    stream.flush()
                    codes.append(ExitCode.DONE)
                except RtmError as error:
                    codes.append(output.error(error, media_id))
                    break  # the next medium would look like the rest of this one
        return codes
    downloads: list[Transfer[Path] | RtmError] = []
    codes = []
    with output.bars() as bars:
        for media_id in media_ids:
            try:
                downloads.append(
                    client.download_media(media_id, to=to, on_operation_progress=bars.of(media_id))
                )
            except RtmError as error:
                downloads.append(error)
        for media_id, download in zip(media_ids, downloads, strict=True):
            try:
                if isinstance(download, RtmError):
                    raise download
                path = download.result()
            except RtmError as error:
                codes.append(output.error(error, media_id))
            else:
                codes.append(ExitCode.DONE)
                size = path.stat().st_size
                output.result({"media_id": media_id, "path": str(path), "size": size}, str(path))
                output.note(f"{media_id}: {byte_count(size)}")
    return codes


@dataclass(frozen=True, slots=True)
class Delivery:
    """The receivers of messages, and the options of sending.

    Attributes:
        peers, channels: the receivers.
        offline: whether messages are kept for peers that are offline.
        historical: whether messages are kept in the history.
    """

    peers: tuple[str, ...]
    channels: tuple[str, ...]
    offline: bool
    historical: bool


def send_messages(
    client: RtmClient, messages: Iterable[RtmMessage], delivery: Delivery, output: Output
) -> ExitCode:
    """Send each message to all receivers, and print the results. Returns the first failure."""
    first = ExitCode.DONE  # not a list: a stream of lines may be endless
    channels = []
    for channel_id in delivery.channels:
        channel = client.create_channel(channel_id)
        channel.join()
        channels.append(channel)
    for message in messages:
        for peer in delivery.peers:
            code = _to_peer(client, message, peer, delivery, output)
            first = first or code
        for channel in channels:
            code = _to_channel(channel, message, delivery, output)
            first = first or code
    return first


def _to_peer(
    client: RtmClient, message: RtmMessage, peer: str, delivery: Delivery, output: Output
) -> ExitCode:
    try:
        sent = client.send_message_to_peer(
            message,
            peer,
            enable_offline_messaging=delivery.offline,
            enable_historical_messaging=delivery.historical,
        )
    except RtmError as error:
        return output.error(error, peer)
    received, kept = sent.has_peer_received, sent.cached_by_server
    outcome = "received" if received else "kept for the next login" if kept else "is offline"
    output.result(
        {"to": peer, "has_peer_received": received, "cached_by_server": kept}, f"{peer}: {outcome}"
    )
    return ExitCode.DONE if received or kept else ExitCode.NOT_RECEIVED


def _to_channel(
    channel: RtmChannel, message: RtmMessage, delivery: Delivery, output: Output
) -> ExitCode:
    try:
        channel.send_message(message, enable_historical_messaging=delivery.historical)
    except RtmError as error:
        return output.error(error, channel.channel_id)
    output.result({"channel": channel.channel_id, "sent": True}, f"{channel.channel_id}: sent")
    return ExitCode.DONE


def uploaded_message(
    client: RtmClient, source: str, options: UploadOptions, output: Output
) -> RtmFileMessage:
    """Upload one file, and return its message."""
    with (
        output.bars() as bars,
        options.start(client, source, bars.of(printable(Path(source).name))) as upload,
    ):
        return upload.result()


def read_messages(text: str, *, lines: bool, raw: bool) -> Iterator[RtmMessage]:
    """The message of a text. For "-", standard input as one message or a message for each line."""
    if text != STREAM:
        yield as_message(text.encode() if raw else text)
        return
    source = sys.stdin.buffer
    for data in source if lines else [source.read()]:
        content = data.rstrip(b"\r\n") if lines else data
        if content or not lines:  # skip empty lines
            yield as_message(content if raw else content.decode(errors="replace"))
