"""`rtm-sync serve` that kills itself (SIGKILL) at a moment, which the environment names.

The gateway is the real one until the moment comes; a profile function watches for it.
`RTM_TEST_MOMENT` names one of `MOMENTS`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import ClassVar, NamedTuple

from rtm_sync.cli import main
from rtm_sync.hub.services.messages import MessageService
from rtm_sync.hub.session import Session
from rtm_sync.protocol.requests import MessageFromPeer
from rtm_sync.testing import GatewayProcess


class Moment(NamedTuple):
    """The n-th event of the profile function, in a function, whose frame fits."""

    number: int
    event: str
    code: CodeType
    fits: Callable[[FrameType], bool] = lambda frame: True


def _is_stored_message(frame: FrameType) -> bool:
    request = frame.f_locals["request"]
    return isinstance(request, MessageFromPeer) and request.key is not None


MOMENTS = {
    "stored, not offered": Moment(3, "call", Session.call.__code__, _is_stored_message),
    "offered, receipt not read": Moment(3, "call", Session.answer.__code__),
    "received, sender not answered": Moment(3, "return", Session.answer.__code__),
    "handled, report not read": Moment(1, "call", MessageService.handled.__code__),
    "reported, not deleted": Moment(1, "return", MessageService.handled.__code__),
}


class DyingGateway(GatewayProcess):
    """A gateway that is started to die at `moment`, unless that is None.

    Args:
        data: its data folder.
    """

    _MODULE: ClassVar[str] = "tests.faults.dying_gateway"

    def __init__(self, data: Path) -> None:
        super().__init__(data)
        self.moment: str | None = None

    def _environment(self) -> dict[str, str]:
        environment = super()._environment()
        if self.moment is None:
            return environment
        return environment | {"RTM_TEST_MOMENT": self.moment}


def _watch(moment: Moment) -> None:
    left = moment.number

    def look(frame: FrameType, event: str, _: object) -> None:
        nonlocal left
        if frame.f_code is moment.code and event == moment.event and moment.fits(frame):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(look)


if __name__ == "__main__":
    if "RTM_TEST_MOMENT" in os.environ:
        _watch(MOMENTS[os.environ["RTM_TEST_MOMENT"]])
    main()
