"""Options that commands share: for output, for the login, and for uploads."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from ..blob import Blob
from ..client.client import RtmClient
from ..gateway.config import ConfigError
from ..messages import MessageType, RtmFileMessage
from ..transfers.control import ProgressCallback
from ..transfers.transfer import Transfer
from ..transfers.upload import checked_blob
from .output import ExitCode, Output
from .profiles import KINDS, load_profile, load_profiles

_OUTPUT = "rtm_sync.output"
STREAM = "-"
_MOST_OF_A_SECRET = 65_536  # bytes

Command = Callable[..., Any]


def output_of(context: click.Context) -> Output:
    """The output of the running command; a plain one before a command runs."""
    found = context.meta.get(_OUTPUT)
    return found if isinstance(found, Output) else Output()


def output_options(command: Command) -> Command:
    """Add `--json` and `--quiet`. The command gets the argument `output`."""

    @click.option("--json", "as_json", is_flag=True, help="Print JSON objects, one on each line.")
    @click.option("-q", "--quiet", is_flag=True, help="Print only results and errors.")
    @functools.wraps(command)
    def wrapped(*args: Any, as_json: bool, quiet: bool, **options: Any) -> Any:
        output = Output(as_json=as_json, quiet=quiet)
        click.get_current_context().meta[_OUTPUT] = output
        return command(*args, output=output, **options)

    return wrapped


def _complete_profile(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    try:
        names = load_profiles(context.params.get("profiles"))
    except ConfigError:
        return []
    return [name for name in sorted(names) if name.startswith(incomplete)]


def complete_path(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Let the shell complete file names, for a parameter that is a path or `-`."""
    return [CompletionItem(incomplete, type="file")]


def secret_given(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> str | None:
    """A secret of the command line; `-` is a line of standard input, which no process list shows.

    A terminal asks for it, and does not show what is typed.
    """
    if value != STREAM:
        return value
    if sys.stdin.isatty():
        return str(click.prompt(parameter.human_readable_name, hide_input=True, err=True))
    line = sys.stdin.buffer.readline(_MOST_OF_A_SECRET).decode("utf-8", "surrogateescape")
    if not line.rstrip("\r\n"):
        raise click.BadParameter("standard input has no line to read.", context, parameter)
    return line.rstrip("\r\n")


_PROFILE_OPTIONS = (
    click.option(
        "--profile",
        "profile_name",
        envvar="RTM_SYNC_PROFILE",
        shell_complete=_complete_profile,
        help="The profile's name in the profiles file. [default: default]",
    ),
    click.option(
        "--profiles",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="RTM_SYNC_PROFILES",
        help="The profiles file.",
    ),
)
_APP_OPTIONS = (
    click.option("--app-id", help="The app."),
    click.option(
        "--app-secret",
        callback=secret_given,
        help="The app's secret, which signs tokens; - reads a line of standard input.",
    ),
)
_CLIENT_OPTIONS = (
    click.option("--url", help="URL of the hub. [default: ws://127.0.0.1:8765]"),
    click.option("--uid", help="The user to log in as."),
    click.option(
        "--token", callback=secret_given, help="The user's token; - reads a line of standard input."
    ),
    click.option("--proxy", help="An HTTP proxy's URL, or \"none\". [default: the environment's]"),
    click.option(
        "--ca-file",
        shell_complete=complete_path,
        help="Certificates to trust. [default: the environment's]",
    ),
)


def client_options(command: Command) -> Command:
    """Add the options of hub, app and user. The command gets the argument `profile`."""
    return _with_profile(command, (*_PROFILE_OPTIONS, *_APP_OPTIONS, *_CLIENT_OPTIONS))


def app_options(command: Command) -> Command:
    """Add the options of the app. The command gets the argument `profile`."""
    return _with_profile(command, (*_PROFILE_OPTIONS, *_APP_OPTIONS))


def _with_profile(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    @functools.wraps(command)
    def wrapped(*args: Any, profile_name: str | None, profiles: Path | None, **given: Any) -> Any:
        chosen = {name: given.pop(name) for name in KINDS if name in given}
        profile = load_profile(profiles, profile_name, os.environ, chosen)
        return command(*args, profile=profile, **given)

    return _with_options(wrapped, options)


def _with_options(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class UploadOptions:
    """The options of an upload.

    Attributes:
        kind: "file", "image", or "auto", which takes a file with a picture's header as an image.
        name: the file name that receivers see; None for the source's own name.
        description: the message's text.
        thumbnail: "auto", or the name of an installed generator.
        thumbnail_file: a picture file that is the thumbnail.
        resume_from: the journal with which another process can resume the upload.
    """

    kind: str
    name: str | None
    description: str
    thumbnail: str | None
    thumbnail_file: Path | None
    resume_from: Path | None

    def start(
        self, client: RtmClient, source: str, on_progress: ProgressCallback | None
    ) -> Transfer[RtmFileMessage]:
        """Start the upload of a path, or of standard input for `-`.

        Raises:
            UploadMediaError: as `RtmClient.create_media_message_by_uploading`.
        """
        # Once, because a FIFO or a process substitution can be read once only.
        is_stream = source == STREAM
        blob = checked_blob(sys.stdin.buffer if is_stream else source)
        return client.create_media_message_by_uploading(
            blob,
            message_type=self._message_type(blob),
            file_name=self.name or ("" if is_stream else None),
            description=self.description,
            thumbnail=self.thumbnail_file or self.thumbnail,
            resume_from=self.resume_from,
            on_operation_progress=on_progress,
        )

    def _message_type(self, blob: Blob) -> MessageType:
        if self.kind != "auto":
            return MessageType(self.kind.upper())
        try:
            is_picture = blob.dimensions() is not None
        except OSError:
            is_picture = False  # the upload raises the same error with a code
        return MessageType.IMAGE if is_picture else MessageType.FILE


_UPLOAD_OPTIONS = (
    click.option(
        "--type",
        "kind",
        type=click.Choice(["auto", "file", "image"]),
        default="auto",
        show_default=True,
        help="The kind of message; auto looks at the file's header.",
    ),
    click.option("--name", help="The file name that receivers see."),
    click.option("--description", default="", help="The message's text."),
    click.option("--thumbnail", help='"auto", or the name of an installed generator.'),
    click.option(
        "--thumbnail-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="A picture file that is the thumbnail.",
    ),
    click.option(
        "--resume-from",
        type=click.Path(dir_okay=False, path_type=Path),
        help="A journal file, with which the same command resumes an upload that was killed.",
    ),
)


def upload_options(command: Command) -> Command:
    """Add the options of uploads. The command gets the argument `upload`."""
    names = UploadOptions.__slots__

    @functools.wraps(command)
    def wrapped(*args: Any, **options: Any) -> Any:
        upload = UploadOptions(**{name: options.pop(name) for name in names})
        return command(*args, upload=upload, **options)

    return _with_options(wrapped, _UPLOAD_OPTIONS)


def finish(codes: list[ExitCode]) -> None:
    """End the command with the first exit status that is not DONE, if there is one."""
    failed = next((code for code in codes if code is not ExitCode.DONE), None)
    if failed is not None:
        click.get_current_context().exit(failed)
