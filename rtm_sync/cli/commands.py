"""The commands: their names, their options and their output."""

from __future__ import annotations

import math
import os
import sqlite3
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..client.history import MAX_MESSAGES
from ..errors import PluginError, RtmError
from ..gateway.config import ConfigError, GatewayConfig, load_config
from ..messages import RtmMessage
from ..plugins.loader import plugin_manager
from ..printable import printable
from ..protocol.ids import id_problem
from ..version import __version__
from .options import (
    STREAM,
    UploadOptions,
    app_options,
    client_options,
    complete_path,
    finish,
    output_of,
    output_options,
    secret_given,
    upload_options,
)
from .output import (
    FAILED_PLUGINS,
    ExitCode,
    Output,
    message_line,
    message_record,
    plugin_record,
)
from .profiles import Profile, logged_in

if TYPE_CHECKING:
    from ..client.client import RtmClient


class _Commands(click.Group):
    """The command group. It turns exceptions into one line and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            output_of(ctx).note("Cancelled.")
            ctx.exit(ExitCode.INTERRUPTED)
        except (ConfigError, PluginError, click.ClickException) as error:
            shown = error
            if not isinstance(shown, click.ClickException):
                shown = click.UsageError(str(error))
            if not output_of(ctx).as_json:
                raise shown from error
            ctx.exit(output_of(ctx).error(shown))
        except (RtmError, OSError, ValueError) as error:
            ctx.exit(output_of(ctx).error(error))


@click.group(cls=_Commands)
@click.version_option(__version__, prog_name="rtm-sync")
def rtm_sync() -> None:
    """Real-time messaging with image and file messages."""


@rtm_sync.command()
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="RTM_SYNC_CONFIG",
    help="A TOML file with these options under the same names.",
)
@click.option("--host", help="Address to listen on. [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port; 0 chooses a free port. [default: 8765]")
@click.option("--data", help="Folder of the database and media. [default: rtm-data]")
@click.option("--engine", help="URL of the engine. [default: SQLite in the data folder]")
@click.option("--media", help="URL of the media store. [default: files in the data folder]")
@click.option("--app-id", help="The app to serve; needs --app-secret.")
@click.option(
    "--app-secret",
    callback=secret_given,
    help="The secret that signs the app's tokens, 32 bytes or more; or file:PATH or jwks:PATH of "
    "public keys; or - to read a line of standard input.",
)
@click.option(
    "--clock-skew",
    type=float,
    help="Seconds by which clocks of token servers may differ. [default: 30]",
)
@click.option("--limits", help="A tier of the reference and its changes: 'web sends=500/3'.")
@click.option("--origins", help="Origins whose pages may connect: https://app.example")
@click.option("--tls-cert", help="Serve wss and https: the certificate chain, a PEM file.")
@click.option("--tls-key", help="The certificate's key, a PEM file.")
@click.option("--proxies", help="Proxies whose X-Forwarded-For is trusted. [default: this machine]")
@click.option(
    "--connections-per-address",
    type=int,
    help="Connections at once from one address; 0 for no limit. [default: 1000]",
)
@click.option("--metrics", help="Address to serve Prometheus metrics on: 127.0.0.1:9464")
@click.option(
    "--silence",
    type=float,
    help="Seconds without a frame after which a client is disconnected. [default: 10]",
)
@click.option(
    "--drain", type=float, help="Seconds that running requests have at a stop. [default: 8]"
)
@click.option("--log-level", help="debug, info, warning or error. [default: info]")
@click.option("--log-format", help="text or json, on standard error. [default: text]")
@output_options
def serve(config: Path | None, output: Output, **options: object) -> None:
    """Run the gateway until SIGTERM or Ctrl-C.

    Every option can also be set as an environment variable (such as RTM_SYNC_PORT) or in the TOML
    file. Options override variables, and variables override the file. SIGHUP reads the apps and
    secrets again.
    """
    from ..gateway.app import run  # imports aiohttp, which the other commands do not need

    try:
        settings = load_config(config, os.environ, options)
        if settings.is_open:
            click.secho(
                "NO APP SECRET: anyone on this machine may log in as any user. For trial only; "
                "set --app-id and --app-secret to serve others.",
                fg="yellow",
                bold=True,
                err=True,
            )
        run(
            settings,
            lambda url: _announce(url, settings, output),
            lambda: load_config(config, os.environ, options),
        )
    except (OSError, sqlite3.Error) as error:
        raise click.ClickException(f"The gateway cannot start: {error}") from error


def _announce(url: str, settings: GatewayConfig, output: Output) -> None:
    output.result(
        {"url": url, "data": settings.data},
        f"Serving {url} with data in {settings.data}. Stop with Ctrl-C.",
    )


@rtm_sync.command()
@click.argument("photo", required=False, type=click.Path(path_type=Path))
@click.option(
    "--transport",
    type=click.Choice(["gateway", "memory"]),
    default="gateway",
    show_default=True,
    help="A real gateway on a free local port, or a hub in this process with no sockets.",
)
@output_options
def demo(photo: Path | None, transport: str, output: Output) -> None:
    """Show two users who share a photo: upload, thumbnail, messages and download.

    Without PHOTO, the demo makes a JPEG of several megabytes that looks like a photograph.
    """
    from .demo import DemoFailed, run_demo

    if photo is not None and not photo.is_file():
        raise click.ClickException(f"{photo} is not a file. Pass a photo, or no PHOTO at all.")
    try:
        run_demo(photo, transport, output)
    except (DemoFailed, ImportError, OSError) as error:
        raise click.ClickException(str(error)) from error


@rtm_sync.command()
@click.option("--to", "peers", multiple=True, metavar="UID", help="Send to this user.")
@click.option("--channel", "channels", multiple=True, metavar="ID", help="Send to this channel.")
@click.option(
    "--file",
    "source",
    metavar="PATH",
    shell_complete=complete_path,
    help="Upload this file and send it; - is standard input.",
)
@click.option("--media-id", help="Send a medium that was uploaded before.")
@click.option("--lines", is_flag=True, help="With TEXT -: send each line as a message.")
@click.option("--raw", is_flag=True, help="Send TEXT as a raw message, as bytes.")
@click.option("--offline", is_flag=True, help="Keep the message for users who are offline.")
@click.option("--history", is_flag=True, help="Keep the message in the history.")
@click.argument("text", required=False)
@upload_options
@client_options
@output_options
def send(
    peers: tuple[str, ...],
    channels: tuple[str, ...],
    source: str | None,
    media_id: str | None,
    lines: bool,
    raw: bool,
    offline: bool,
    history: bool,
    text: str | None,
    upload: UploadOptions,
    profile: Profile,
    output: Output,
) -> None:
    """Send TEXT, a file or a stored medium to users and channels.

    TEXT - reads standard input. Prints the result for each receiver. Exit status 6 means that a
    user is offline and the message was not kept.
    """
    from .transfer import Delivery, read_messages, send_messages, uploaded_message

    if not (peers or channels):
        raise click.UsageError("No receiver is given: pass --to UID or --channel ID.")
    if sum(given is not None for given in (text, source, media_id)) != 1:
        raise click.UsageError("Pass one of TEXT, --file and --media-id.")
    if media_id is not None and upload.thumbnail is not None:
        raise click.UsageError(
            "--thumbnail makes a preview of a file that is uploaded; with --media-id pass "
            "--thumbnail-file."
        )
    profile.require("app_id", "uid")
    delivery = Delivery(peers, channels, offline, history)
    with logged_in(profile.client(), profile) as client:
        messages: Any
        if source is not None:
            messages = [uploaded_message(client, source, upload, output)]
        elif media_id is not None:
            messages = [_stored_message(client, media_id, upload)]
        else:
            messages = read_messages(text or "", lines=lines, raw=raw)
        code = send_messages(client, messages, delivery, output)
    finish([code])


@rtm_sync.command()
@click.option("--channel", "channels", multiple=True, metavar="ID", help="Join this channel, too.")
@click.option(
    "--save",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keep media, raw messages and messages.jsonl in this folder.",
)
@click.option("--count", type=click.IntRange(min=1), help="End after this number of messages.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    help="End after this number of seconds.",
)
@client_options
@output_options
def listen(
    channels: tuple[str, ...],
    save: Path | None,
    count: int | None,
    timeout: float | None,
    profile: Profile,
    output: Output,
) -> None:
    """Print messages as they arrive, one on each line, until Ctrl-C.

    Exit status 3 means that fewer than --count messages came within --timeout.
    """
    from .listen import Listener

    profile.require("app_id", "uid")
    listener = Listener(output, save, count)
    client = profile.client(on_handler_error=listener.fail)
    listener.begin(client)
    with logged_in(client, profile):
        try:
            listener.join(channels)
            output.note(f"Listening as {profile.uid}. Stop with Ctrl-C.")
            code = listener.wait(timeout)
        finally:
            listener.stop()
    finish([code])


@rtm_sync.command()
@click.option("--with", "peer_id", metavar="UID", help="Messages to and from this user.")
@click.option("--channel", "channel_id", metavar="ID", help="Messages of this channel.")
@click.option(
    "--hours",
    type=click.FloatRange(min=0, min_open=True),
    help="Only the last hours. [default: the whole history, seven days]",
)
@click.option(
    "--limit",
    type=click.IntRange(1, MAX_MESSAGES),
    default=100,
    show_default=True,
    help="At most this number of messages, the newest ones.",
)
@client_options
@output_options
def history(
    peer_id: str | None,
    channel_id: str | None,
    hours: float | None,
    limit: int,
    profile: Profile,
    output: Output,
) -> None:
    """Print messages that were sent with --history, the oldest first."""
    if (peer_id is None) == (channel_id is None):
        raise click.UsageError("Pass --with UID or --channel ID.")
    profile.require("app_id", "uid")
    start = None if hours is None else time.time() - hours * 3600
    with logged_in(profile.client(), profile) as client:
        if peer_id is not None:
            found = client.get_peer_history(peer_id, start=start, limit=limit, newest_first=True)
        else:
            channel = client.create_channel(channel_id or "")
            channel.join()  # only members may read a channel's history
            found = channel.get_history(start=start, limit=limit, newest_first=True)
    for kept in reversed(found):
        sent_at = kept.message_props.server_received_ts
        record = {
            "from": kept.source,
            "to": kept.destination,
            "is_channel": kept.is_channel,
            **message_record(kept.message),
            "message_id": kept.message_id,
            "server_received_ts": sent_at,
        }
        when = datetime.fromtimestamp(sent_at / 1000)
        sender = printable(kept.source)
        output.result(record, f"{when:%Y-%m-%d %H:%M:%S} {sender}: {message_line(kept.message)}")


@rtm_sync.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", shell_complete=complete_path)
@upload_options
@client_options
@output_options
def upload(paths: tuple[str, ...], upload: UploadOptions, profile: Profile, output: Output) -> None:
    """Upload files, up to nine at once; - is standard input.

    Prints the media ids in the order of the paths.
    """
    from .transfer import upload_files

    if upload.resume_from is not None and len(paths) > 1:
        raise click.UsageError("--resume-from is the journal of one upload; pass one PATH.")
    profile.require("app_id", "uid")
    with logged_in(profile.client(), profile) as client:
        codes = upload_files(client, paths, upload, output)
    finish(codes)


@rtm_sync.command()
@click.argument("media_ids", nargs=-1, required=True, metavar="MEDIA_ID...")
@click.option(
    "--to",
    default=".",
    metavar="PATH",
    shell_complete=complete_path,
    help="A folder, a file, or - for standard output. [default: this folder]",
)
@client_options
@output_options
def download(media_ids: tuple[str, ...], to: str, profile: Profile, output: Output) -> None:
    """Download media, up to nine at once.

    Prints the path of each file. In a folder, a file gets the sender's name, made safe, and does
    not replace another file.
    """
    from .transfer import download_media

    if len(media_ids) > 1 and to != STREAM and not Path(to).is_dir():
        raise click.UsageError(f"--to {to} is not a folder; several media need a folder.")
    profile.require("app_id", "uid")
    with logged_in(profile.client(), profile) as client:
        codes = download_media(client, media_ids, to, output)
    finish(codes)


@rtm_sync.command()
@click.argument("for_uid", metavar="UID")
@click.option("--ttl", default=3600.0, show_default=True, help="Seconds the token is valid.")
@click.option(
    "--key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Sign with this private key, a PEM file, instead of the app's secret.",
)
@click.option("--key-id", help="The key's kid in the gateway's JWKS.")
@click.option(
    "--join", multiple=True, metavar="PATTERN", help="Allow joining these channels only: room-*"
)
@click.option(
    "--publish", multiple=True, metavar="PATTERN", help="Allow sending to these channels only."
)
@click.option("--no-upload", is_flag=True, help="Forbid uploads.")
@click.option("--no-download", is_flag=True, help="Forbid downloads.")
@app_options
@output_options
def token(
    for_uid: str,
    ttl: float,
    key: Path | None,
    key_id: str | None,
    join: tuple[str, ...],
    publish: tuple[str, ...],
    no_upload: bool,
    no_download: bool,
    profile: Profile,
    output: Output,
) -> None:
    """Print a token with which UID can log in, with the privileges of the options."""
    from ..hub.auth.tokens import Privileges, make_token

    profile.require("app_id", *(() if key else ("app_secret",)))
    problem = id_problem("UID", for_uid)
    if problem is None and not (math.isfinite(ttl) and ttl >= 1):
        problem = f"--ttl is {ttl:g}; it must be at least 1 second, and finite."
    if problem is not None:
        raise click.UsageError(problem)
    privileges = Privileges(join or None, publish or None, not no_upload, not no_download)
    try:
        secret = profile.app_secret if key is None else key.read_text()
        made = make_token(
            profile.app_id, for_uid, secret, ttl=ttl, privileges=privileges, key_id=key_id
        )
    except (OSError, ValueError) as error:
        raise click.UsageError(str(error)) from error
    expires_at = int(time.time() + ttl)
    output.result({"uid": for_uid, "token": made, "expires_at": expires_at}, made)


@rtm_sync.command()
@output_options
def plugins(output: Output) -> None:
    """List the plugins: name, distribution, status, load time, hooks.

    Exit status 1 means that a plugin could not be loaded.
    """
    codes = []
    for plugin in plugin_manager.describe():
        load_time = "" if plugin.load_time is None else f" in {1000 * plugin.load_time:.1f} ms"
        output.result(
            plugin_record(plugin),
            "\t".join(
                (
                    plugin.name,
                    f"{plugin.distribution} {plugin.version}".strip(),
                    f"{plugin.status}{load_time}",
                    printable(plugin.reason) or ", ".join(plugin.hooks),
                )
            ),
        )
        codes.append(ExitCode.FAILED if plugin.status in FAILED_PLUGINS else ExitCode.DONE)
    finish(codes)


@rtm_sync.command()
@click.option("--login", "log_in", is_flag=True, help="Also log in as the user.")
@client_options
@output_options
def doctor(log_in: bool, profile: Profile, output: Output) -> None:
    """Find the cause of a problem; the output can go into a bug report.

    Checks versions, profile, proxy, certificates, the gateway and its clock, the token, the login,
    plugins and disk. Prints no secrets. Exit status 1 means that a check failed.
    """
    from .doctor import Verdict, diagnose

    codes = []
    profiles = click.get_current_context().params["profiles"]
    for finding in diagnose(profile, log_in=log_in, profiles=profiles):
        output.result(
            {
                "check": finding.check,
                "verdict": finding.verdict.value,
                "detail": finding.detail,
                **finding.seen,
            },
            f"{finding.verdict.value:8} {finding.check}: {printable(finding.detail)}",
        )
        codes.append(ExitCode.FAILED if finding.verdict is Verdict.FAILED else ExitCode.DONE)
    finish(codes)


def _stored_message(client: RtmClient, media_id: str, upload: UploadOptions) -> RtmMessage:
    return client.create_message(
        media_id=media_id,
        message_type="IMAGE" if upload.kind == "image" else "FILE",
        file_name=upload.name or "",
        description=upload.description,
        thumbnail=upload.thumbnail_file,
    )
