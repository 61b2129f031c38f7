"""The `flask rtm` commands."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import click
from flask import current_app
from flask.cli import AppGroup

from ..client.client import RtmClient
from ..errors import RtmError
from ..hub.auth.tokens import make_token
from ..protocol.ids import id_problem
from .sessions import EXTENSION, Process, running


def rtm_commands(client_of_app: Callable[[], RtmClient]) -> AppGroup:
    """The command group `flask rtm`.

    Args:
        client_of_app: the app's own client, logged in; called in an app context.
    """
    group = AppGroup("rtm", help="Real-time messages of this app.")

    @group.command("check")
    def check() -> None:
        """Log in as this app does, and print its user and its hub."""
        with running(current_app), _one_line_errors():
            client = client_of_app()
            click.echo(f"{client.uid} of {client.app_id} is logged in at {_setting('RTM_URL')}.")

    @group.command("token")
    @click.argument("uid")
    @click.option("--ttl", default=3600.0, show_default=True, help="Seconds the token is valid.")
    def token(uid: str, ttl: float) -> None:
        """Print a token with which UID can log in."""
        with _one_line_errors():
            process: Process = current_app.extensions[EXTENSION]
            problem = id_problem("UID", uid)
            if problem is not None:
                raise ValueError(problem)
            click.echo(make_token(process.app_id, uid, process.setting("RTM_SECRET"), ttl=ttl))

    @group.command("send")
    @click.argument("peer_id")
    @click.argument("text")
    def send(peer_id: str, text: str) -> None:
        """Send TEXT to a user. The hub keeps it for a user who is offline."""
        with running(current_app), _one_line_errors():
            result = client_of_app().send_message_to_peer(
                text, peer_id, enable_offline_messaging=True
            )
            click.echo("received" if result.has_peer_received else "kept")

    return group


def _setting(name: str) -> str:
    return str(current_app.config[name])


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    """Print an error as one line, without a traceback."""
    try:
        yield
    except (RtmError, RuntimeError, ValueError) as error:
        raise click.ClickException(str(error)) from error
