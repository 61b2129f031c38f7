"""How a generator is chosen, and how it is kept from holding things up."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import ClassVar, Protocol

from ..blob import Blob
from ..errors import PluginError
from ..rules.timing import Deadline
from ..supervision import start_thread
from .contract import (
    CannotThumbnail,
    Thumbnail,
    ThumbnailCallable,
    ThumbnailFailed,
    ThumbnailGenerator,
)

logger = logging.getLogger(__name__)


def choose_generator(
    generators: Sequence[ThumbnailGenerator], name: str, content_type: str
) -> ThumbnailGenerator:
    """The generator for `thumbnail=name` ("auto" or a generator's name) and that content.

    Args:
        generators: those there are, in the order in which "auto" asks them.

    Raises:
        PluginError: none is installed or capable, or several have the name; says what would help.
    """
    installed = ", ".join(generator.name for generator in generators) or "none"
    if name != "auto":
        named = [generator for generator in generators if generator.name == name]
        if len(named) > 1:
            classes = ", ".join(f"{type(one).__module__}.{type(one).__name__}" for one in named)
            raise PluginError(
                f"More than one thumbnail generator is named {name!r}: {classes}. Switch off the "
                "plugin of all but one with RTM_SYNC_DISABLE_PLUGINS."
            )
        if not named:
            raise PluginError(f"No thumbnail generator is named {name!r}; installed: {installed}.")
        return named[0]
    for generator in generators:
        if _can_handle(generator, content_type):
            return generator
    raise PluginError(
        f'thumbnail="auto" found no generator for {content_type}; installed: {installed}. '
        "Install one, for pictures: pip install rtm-sync-pillow. Or pass the thumbnail's bytes."
    )


def _can_handle(generator: ThumbnailGenerator, content_type: str) -> bool:
    try:
        return bool(generator.can_handle(content_type))
    except Exception as error:  # a plugin's code may raise anything
        logger.warning("thumbnail generator %s: can_handle failed: %s", generator.name, error)
        return False


class Stoppable(Protocol):
    """What may be stopped while a thumbnail is made; a `TransferControl` is one."""

    def check(self) -> None:
        """Raise the end, if it has come."""

    def interruptible(self, abort: Callable[[], object]) -> AbstractContextManager[None]:
        """While the block runs, the end calls `abort` to wake it."""


def generate_in_time(
    generator: ThumbnailGenerator, blob: Blob, max_bytes: int, control: Stoppable
) -> Thumbnail:
    """Have a generator make a thumbnail, and wait for it no longer than its time limit.

    Nothing can end a thread that hangs, so the generator gets one of its own, which is left behind
    then. A generator that hangs is not asked again until it is back.

    Raises:
        CannotThumbnail: as the generator says.
        ThumbnailFailed: it raised, hangs, or returned something else.
        RtmError: the transfer's end.
    """
    making = _Making(generator, blob, max_bytes)
    with control.interruptible(making.done.set):
        making.begin()
        making.done.wait(generator.time_limit)
        control.check()
    return making.result()


class _Making:
    """One call of a generator. Owns the daemon thread it runs on, which ends with the call."""

    _lock = threading.Lock()  # guards _running
    _running: ClassVar[list[_Making]] = []

    def __init__(self, generator: ThumbnailGenerator, blob: Blob, max_bytes: int) -> None:
        self._generator = generator
        self._blob = blob
        self._max_bytes = max_bytes
        self._made: object = None
        self._error: BaseException | None = None
        self.done = threading.Event()
        self._deadline = Deadline(generator.time_limit)

    def begin(self) -> None:
        """Start, unless an earlier call of the generator hangs.

        Raises:
            ThumbnailFailed: it hangs, or the system allows no more threads.
        """
        with self._lock:
            hangs = any(
                one._generator is self._generator and one._deadline.has_passed
                for one in self._running
            )
            if not hangs:
                self._running.append(self)
        if hangs:
            raise ThumbnailFailed(self._generator.name, "it still hangs in an earlier thumbnail")
        try:
            start_thread("rtm-sync-thumbnail", self._run)
        except RuntimeError as error:
            with self._lock:
                self._running.remove(self)
            raise ThumbnailFailed(self._generator.name, str(error)) from error

    def result(self) -> Thumbnail:
        """What the call came to."""
        generator = self._generator
        if not self.done.is_set():
            why = f"it was not done within {generator.time_limit:g} seconds"
            raise ThumbnailFailed(generator.name, why)
        return _checked(generator.name, self._made, self._error, self._max_bytes)

    def _run(self) -> None:
        try:
            self._made = self._generator.generate(self._blob, self._max_bytes)
        except BaseException as error:  # a plugin's code may raise anything
            self._error = error
        finally:
            with self._lock:
                self._running.remove(self)
            self.done.set()


def call_in_place(make: ThumbnailCallable, blob: Blob, max_bytes: int) -> Thumbnail:
    """Have the application's own callable make a thumbnail, on this thread.

    Raises:
        CannotThumbnail: as the callable says.
        ThumbnailFailed: it raised, or returned something else.
    """
    made: Thumbnail | bytes | None = None
    raised: BaseException | None = None
    try:
        made = make(blob, max_bytes)
    except Exception as error:  # an application's code may raise anything
        raised = error
    if isinstance(made, (bytes, bytearray, memoryview)):
        made = Thumbnail(bytes(made), 0, 0, "")
    return _checked(getattr(make, "__name__", "callable"), made, raised, max_bytes)


def _checked(name: str, made: object, raised: BaseException | None, max_bytes: int) -> Thumbnail:
    """What somebody's code made, if it is what it should be."""
    if isinstance(raised, CannotThumbnail):
        raise CannotThumbnail(f"{name} makes no thumbnail: {raised}") from raised
    if raised is not None:
        raise ThumbnailFailed(name, f"{type(raised).__name__}: {raised}") from raised
    if not isinstance(made, Thumbnail) or not isinstance(made.data, bytes):
        raise ThumbnailFailed(name, f"it returned a {type(made).__name__}, not a thumbnail")
    if len(made.data) > max_bytes:
        why = f"its thumbnail has {len(made.data):,} bytes; at most {max_bytes:,} fit the message"
        raise ThumbnailFailed(name, why)
    return made
