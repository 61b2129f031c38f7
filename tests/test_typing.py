"""What type checkers say about user code: right code passes, mistakes with events are errors.

`data/typed_user.py` is user code of every public part. Pyright comes as `basedpyright`, which pip
installs whole, while the package `pyright` downloads the checker when it runs.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import rtm_sync
from rtm_sync import Blob, LocalInvitation, RemoteInvitation, RtmChannel, RtmClient, RtmSender
from rtm_sync.client.events import EventEmitter
from rtm_sync.transports.base import Listener
from tests.support import PATIENCE, RtmTestCase, at_once

REPOSITORY = Path(__file__).parents[1]
USER = REPOSITORY / "tests" / "data" / "typed_user.py"
LONG = 3 * PATIENCE  # a type checker reads much before it says a word

PREAMBLE = """
from __future__ import annotations
import asyncio, concurrent.futures
from pathlib import Path
from rtm_sync import *
from rtm_sync.client.events import EventEmitter
client = RtmClient("app")
channel = client.create_channel("room")
call = client.create_local_invitation("bob")
invitation: RemoteInvitation
"""

RIGHT = (
    PREAMBLE
    + """
@client.on("MessageFromPeer")
def received(message: RtmMessage, peer_id: str, props: ReceivedMessageProperties) -> None:
    if isinstance(message, RtmImageMessage):
        print(message.width * message.height, props.server_received_ts + 1)

@client.on("connection_state_changed")
def changed(state: ConnectionState, reason: ConnectionChangeReason) -> int:
    return reason.value

@channel.on("MemberLeft")
def left(member_id: str) -> None: ...

@channel.on("Reconnected")
def back(recovered: object) -> None: ...

client.on("Reconnected", back)
client.once("MessageFromPeer", lambda message, peer_id, props: print(peer_id.upper()))
channel.on("ChannelMessage", lambda message, member_id, props: print(message.description))
channel.on("member_joined", lambda member_id: print(member_id.upper()))
left(member_id="the decorated function keeps its signature")

@client.on("RemoteInvitationReceived")
def invited(invitation: RemoteInvitation) -> None:
    invitation.on("RemoteInvitationCanceled", lambda content: print(content.upper()))

client.on("TokenExpired", lambda: client.renew_token("fresh"))
client.on("PeersOnlineStatusChanged", lambda states: print(sorted(states)))
channel.on("MemberCountUpdated", lambda count: print(count + 1))
channel.on("AttributesUpdated", lambda attributes: print(attributes["topic"].value))
call.once("LocalInvitationAccepted", lambda response: print(response.upper()))
call.on("LocalInvitationFailure", lambda reason: print(reason.name))
EventEmitter.on(client, str(channel), print)

image = client.create_media_message_by_uploading("cat.jpg", message_type="IMAGE")
print(image.result().thumbnail_width)
with client.download_media("id", to=Path("copy")) as download:
    print(download.result(timeout=1.5).stem)
for done in concurrent.futures.as_completed([image]):
    print(done.result().height)

async def story() -> int:
    return (await asyncio.wrap_future(image)).width

class Meter:
    total: float | None = None
    def update(self, n: float = 1) -> bool: return True

client.download_media("id", on_operation_progress=tqdm_progress(Meter()))
"""
)

WRONG = {
    'client.on("MessageFromPeers", print)': "No overload variant",
    'client.on("ChannelMessage", print)': "No overload variant",
    'channel.on("MessageFromPeer", print)': "No overload variant",
    'client.on("MessageFromPeer", lambda message: None)': "No overload variant",
    'client.on("MessageFromPeer", lambda m, p, q: p.nope)': "No overload variant",
    'client.on("Reconnected")(len)': "type variable",
    'client.once("ConnectionStateChanged", lambda s, r: s.nope)': "No overload variant",
    'client.download_media("id").result().nope': '"Blob" has no attribute "nope"',
    'client.download_media("id", to="copy").result().nope': '"Path" has no attribute "nope"',
    "tqdm_progress(object())": "incompatible type",
}


INTERNAL = {"EVENTS", "emit", "end_streams", "event_name"} | {
    name for name in vars(Listener) if not name.startswith("_")
}
RECEIVERS: dict[str, type[EventEmitter]] = {
    "client": RtmClient,
    "channel": RtmChannel,
    "call": LocalInvitation,
    "invitation": RemoteInvitation,
}
FOUR_ARGUMENTS = [  # no event has so many
    f'{name}.on("{event}", lambda a, b, c, d: None)'
    for name, kind in RECEIVERS.items()
    for event in sorted(kind.EVENTS)
]


MISTAKES = [*WRONG, *FOUR_ARGUMENTS]
FIRST = PREAMBLE.count("\n") + 1  # the line of the first mistake
SOURCES = {
    "right.py": RIGHT,
    "mistakes.py": PREAMBLE + "\n".join(MISTAKES),
    "user.py": USER.read_text(),
}


class CheckersTest(RtmTestCase):
    """Both type checkers read the same files; they take seconds to start, so they run at once."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.sources = Path(tempfile.mkdtemp(prefix="rtm-sync-test-"))
        cls.addClassCleanup(shutil.rmtree, cls.sources)
        for name, source in SOURCES.items():
            (cls.sources / name).write_text(source)
        cls.mypy_said, cls.pyright_said = at_once(cls.mypy, cls.pyright)

    @classmethod
    def mypy(cls) -> str:
        """What `mypy --strict` says."""
        files = [str(cls.sources / name) for name in SOURCES]
        command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", *files]
        done = subprocess.run(
            command, cwd=REPOSITORY, capture_output=True, text=True, timeout=LONG, check=False
        )
        assert done.stderr == "", done.stderr
        return done.stdout

    @classmethod
    def pyright(cls) -> str:
        """What strict pyright says, as JSON."""
        settings = {
            "include": list(SOURCES),
            "typeCheckingMode": "strict",
            "extraPaths": [str(REPOSITORY)],
        }
        (cls.sources / "pyrightconfig.json").write_text(json.dumps(settings))
        command = [sys.executable, "-m", "basedpyright", "--outputjson", "-p", str(cls.sources)]
        return subprocess.run(
            [*command, "--pythonpath", sys.executable],
            cwd=cls.sources,
            capture_output=True,
            text=True,
            timeout=LONG,
            check=False,
        ).stdout

    def mypy_says(self, name: str) -> list[str]:
        """Its lines about a source. Out of mypy's cache they name the folder of an earlier run."""
        return [
            line
            for line in self.mypy_said.splitlines()
            if f"/{name}:" in line and not re.search(r": (note|\w+): +def ", line)
        ]

    def pyright_says(self, name: str) -> list[tuple[int, str]]:
        """Its errors about a source: lines, counted from 1, and words."""
        said = json.loads(self.pyright_said)
        self.assertEqual(said["summary"]["filesAnalyzed"], len(SOURCES))
        return [
            (found["range"]["start"]["line"] + 1, found["message"])
            for found in said["generalDiagnostics"]
            if Path(found["file"]).name == name
        ]

    def test_right_code_passes(self) -> None:
        self.assertEqual(self.mypy_says("right.py"), [])

    def test_user_code_of_every_public_part_is_clean_for_both(self) -> None:
        self.assertEqual(self.mypy_says("user.py"), [])
        self.assertEqual(self.pyright_says("user.py"), [])

    def test_every_mistake_is_an_error_on_its_line_for_mypy(self) -> None:
        said = self.mypy_says("mistakes.py")
        for number, code in enumerate(MISTAKES, start=FIRST):
            with self.subTest(code):
                errors = "\n".join(line for line in said if f".py:{number}: error" in line)
                self.assertIn(WRONG.get(code, "No overload variant"), errors)

    def test_every_mistake_is_an_error_on_its_line_for_pyright(self) -> None:
        found = {line for line, _ in self.pyright_says("mistakes.py")}
        missed = [code for line, code in enumerate(MISTAKES, start=FIRST) if line not in found]
        self.assertEqual(missed, [])


class OverloadsTest(unittest.TestCase):
    def test_every_event_has_overloads_of_its_own(self) -> None:
        known = frozenset().union(*(kind.EVENTS for kind in RECEIVERS.values()))
        client = REPOSITORY / "rtm_sync" / "client"
        files = (client / "handlers.py", client / "invitation_events.py")
        text = "".join(path.read_text() for path in files)
        named = {
            name
            for line in re.findall(r"Literal\[(.+?)\]", text, re.DOTALL)
            for name in line.split('"')
        }
        for event in known:
            snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", event).lower()
            with self.subTest(event):
                self.assertLessEqual({event, snake}, named)


class UserCodeTest(unittest.TestCase):
    def test_it_uses_every_public_name_and_every_method_of_a_user(self) -> None:
        tree = ast.parse(USER.read_text())
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        self.assertEqual(set(rtm_sync.__all__) - names - attributes, set())
        for kind in (RtmClient, RtmChannel, RtmSender, LocalInvitation, RemoteInvitation, Blob):
            public = {name for name in dir(kind) if not name.startswith("_")} - INTERNAL
            with self.subTest(kind.__name__):
                self.assertEqual(public - attributes, set())
