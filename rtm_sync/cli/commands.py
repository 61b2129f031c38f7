"""The commands: what they are called, what they take, what they print."""

from __future__ import annotations

import math
import os
import sqlite3
import sys
from pathlib import Path

import click

from ..errors import PluginError
from ..gateway.config import ConfigError, GatewayConfig, load_config
from ..hub.tokens import make_token
from ..protocol import app_id_problem, id_problem
from ..version import __version__


@click.group()
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
@click.option("--port", type=int, help="Port; 0 takes a free one. [default: 8765]")
@click.option("--data", help="Folder of database and media. [default: rtm-data]")
@click.option("--engine", help="URL of the engine. [default: SQLite in the data folder]")
@click.option("--media", help="URL of the media store. [default: files in the data folder]")
@click.option("--app-id", help="The app that is served; needs --app-secret.")
@click.option("--app-secret", help="Signs the app's tokens; 32 bytes or more.")
@click.option("--limits", type=click.Choice(["linux", "web"]), help="The reference's two tiers.")
@click.option("--origins", help="Web pages that may use it from a browser: https://app.example")
@click.option("--drain", type=float, help="Seconds that running requests get. [default: 8]")
def serve(config: Path | None, **options: object) -> None:
    """Run the gateway until SIGTERM or Ctrl-C.

    Every option is also an environment variable, RTM_SYNC_PORT and so on, and a name in the TOML
    file; options win over variables, variables over the file.
    """
    from ..gateway.app import run  # aiohttp, which the other commands need not wait for

    try:
        settings = load_config(config, os.environ, options)
        if settings.is_open:
            click.secho(
                "NO APP SECRET: anybody on this machine may log in as anybody. For trial only; "
                "set --app-id and --app-secret to serve others.",
                fg="yellow",
                bold=True,
                err=True,
            )
        run(settings, lambda url: _announce(url, settings))
    except (ConfigError, PluginError) as error:
        raise click.UsageError(str(error)) from error
    except (OSError, sqlite3.Error) as error:
        raise click.ClickException(f"The gateway cannot start: {error}") from error


def _announce(url: str, settings: GatewayConfig) -> None:
    click.echo(f"Serving {url} with data in {settings.data}. Stop with Ctrl-C.")
    sys.stdout.flush()


@rtm_sync.command()
@click.argument("uid")
@click.option("--app-id", required=True, envvar="RTM_SYNC_APP_ID")
@click.option("--app-secret", required=True, envvar="RTM_SYNC_APP_SECRET")
@click.option("--ttl", default=3600.0, show_default=True, help="Seconds the token is valid.")
def token(uid: str, app_id: str, app_secret: str, ttl: float) -> None:
    """Print a token with which UID can log in."""
    problem = app_id_problem(app_id) or id_problem("UID", uid)
    if problem is None and not (math.isfinite(ttl) and ttl >= 1):
        problem = f"--ttl is {ttl:g}; it must be at least 1 second, and finite."
    if problem is not None:
        raise click.UsageError(problem)
    try:
        click.echo(make_token(app_id, uid, app_secret, ttl=ttl))
    except ValueError as error:
        raise click.UsageError(str(error)) from error


@rtm_sync.command()
@click.argument("photo", required=False, type=click.Path(path_type=Path))
@click.option(
    "--transport",
    type=click.Choice(["gateway", "memory"]),
    default="gateway",
    show_default=True,
    help="A real gateway on a free local port, or a hub in this process with no sockets.",
)
def demo(photo: Path | None, transport: str) -> None:
    """Show the whole story: two users, a photo, its thumbnail, messages, a download.

    Without PHOTO it makes a photograph-like JPEG of several megabytes.
    """
    from .demo import DemoFailed, run_demo

    if photo is not None and not photo.is_file():
        raise click.ClickException(f"{photo} is no file; name a photo, or none to have one made.")
    try:
        run_demo(photo, transport)
    except (DemoFailed, ImportError, OSError) as error:
        raise click.ClickException(str(error)) from error
