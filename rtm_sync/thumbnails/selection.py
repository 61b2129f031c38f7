"""The choice of a thumbnail generator, and calls of generators with a time limit."""

from __future__ import annotations

import logging
import os
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
    given_thumbnail,
)

logger = logging.getLogger(__name__)


def choose_generator(
    generators: Sequence[ThumbnailGenerator], name: str, content_type: str
) -> ThumbnailGenerator:
    """The generator for `thumbnail=name` and a content type.

    Args:
        generators: the installed generators, in the order in which "auto" tries them.
        name: "auto" or a generator's name.
        content_type: the MIME type of the content, for "auto".

    Raises:
        PluginError: no generator has the name or can handle the content, or several have the name.
            The message says how to solve it.
    """
    installed = ", ".join(generator.name for generator in generators) or "none"
    if name != "auto":
        named = [generator for generator in generators if generator.name == name]
        if len(named) > 1:
            classes = ", ".join(f"{type(one).__module__}.{type(one).__name__}" for one in named)
            raise PluginError(
                f"More than one thumbnail generator is named {name!r}: {classes}. Disable the "
                "plugins of all but one with RTM_SYNC_DISABLE_PLUGINS."
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
    """A task that can be cancelled while a thumbnail is made. `TransferControl` is one."""

    def check(self) -> None:
        """Raise the task's error when the task was cancelled."""

    def interruptible(self, abort: Callable[[], object]) -> AbstractContextManager[None]:
        """A context manager: cancelling the task calls `abort` to wake the block."""


def generate_in_time(
    generator: ThumbnailGenerator, blob: Blob, max_bytes: int, control: Stoppable
) -> Thumbnail:
    """Call a generator, and wait for its thumbnail until the generator's time limit.

    A hanging thread cannot be ended. So each call runs on its own thread, which is abandoned at the
    time limit. A generator with a hanging call is not called again until that call returns.

    Args:
        generator: the generator.
        blob: the content.
        max_bytes: the limit for the thumbnail's bytes.
        control: the transfer; when it is cancelled, the wait ends.

    Raises:
        CannotThumbnail: the generator cannot make a thumbnail of the blob.
        ThumbnailFailed: the generator raised an exception, hangs, or returned something else.
        RtmError: the transfer was cancelled.
    """
    call = _GeneratorCall(generator, blob, max_bytes)
    with control.interruptible(call.done.set):
        call.start()
        call.done.wait(generator.time_limit)
        control.check()
    return call.result()


class _GeneratorCall:
    """One call of a generator. Owns the daemon thread of the call, which ends with the call."""

    _lock = threading.Lock()  # guards _running
    _running: ClassVar[list[_GeneratorCall]] = []

    def __init__(self, generator: ThumbnailGenerator, blob: Blob, max_bytes: int) -> None:
        self._generator = generator
        self._blob = blob
        self._max_bytes = max_bytes
        self._made: object = None
        self._error: BaseException | None = None
        self.done = threading.Event()
        self._deadline = Deadline(generator.time_limit)

    def start(self) -> None:
        """Start the thread, unless an earlier call of the generator hangs.

        Raises:
            ThumbnailFailed: an earlier call hangs, or the system allows no more threads.
        """
        with self._lock:
            hangs = any(
                one._generator is self._generator and one._deadline.has_passed
                for one in self._running
            )
            if not hangs:
                self._running.append(self)
        if hangs:
            raise ThumbnailFailed(self._generator.name, "an earlier call of it still hangs")
        try:
            start_thread("rtm-sync-thumbnail", self._run)
        except RuntimeError as error:
            with self._lock:
                self._running.remove(self)
            raise ThumbnailFailed(self._generator.name, str(error)) from error

    def result(self) -> Thumbnail:
        """The thumbnail. Raises like `generate_in_time`."""
        generator = self._generator
        if not self.done.is_set():
            reason = f"it was not done within {generator.time_limit:g} seconds"
            raise ThumbnailFailed(generator.name, reason)
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
    """Call the application's own callable on this thread, and return its thumbnail.

    Raises:
        CannotThumbnail: the callable cannot make a thumbnail of the blob.
        ThumbnailFailed: the callable raised an exception, or returned something else.
    """
    made: object = None
    raised: BaseException | None = None
    try:
        returned = make(blob, max_bytes)
        is_data = isinstance(returned, (bytes, bytearray, memoryview, Blob, os.PathLike))
        made = given_thumbnail(returned) if is_data or hasattr(returned, "read") else returned
    except Exception as error:  # an application's code may raise anything
        raised = error
    return _checked(getattr(make, "__name__", "callable"), made, raised, max_bytes)


def _checked(name: str, made: object, raised: BaseException | None, max_bytes: int) -> Thumbnail:
    """The result of a plugin's or an application's code, if it is a thumbnail that fits."""
    if isinstance(raised, CannotThumbnail):
        raise CannotThumbnail(f"{name} makes no thumbnail: {raised}") from raised
    if raised is not None:
        raise ThumbnailFailed(name, f"{type(raised).__name__}: {raised}") from raised
    if not isinstance(made, Thumbnail) or not isinstance(made.data, bytes):
        raise ThumbnailFailed(name, f"it returned a {type(made).__name__}, not a thumbnail")
    if len(made.data) > max_bytes:
        size = len(made.data)
        reason = f"its thumbnail has {size:,} bytes; at most {max_bytes:,} fit the message"
        raise ThumbnailFailed(name, reason)
    return made
