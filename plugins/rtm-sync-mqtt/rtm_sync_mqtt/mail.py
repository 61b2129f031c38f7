"""The offline messages of one session: retained messages, deleted when they are handled."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

from rtm_sync.protocol import MessageFromPeer
from rtm_sync.transports.base import Listener

from .connection import Connection
from .memory import Delivered


class Mail:
    """Gives offline messages keys, and deletes those that the application has handled. Thread-safe.

    Args:
        connection: deletes the retained messages.
        listener: receives the messages.
        delivered: the messages that need not be given to the application again.
    """

    def __init__(self, connection: Connection, listener: Listener, delivered: Delivered) -> None:
        self._connection = connection
        self._listener = listener
        self._delivered = delivered
        self._lock = threading.Lock()  # guards both below
        self._waiting: dict[int, tuple[str, tuple[str, str]]] = {}  # topic and name, by key
        self._last_key = 0

    def take(self, topic: str, message: MessageFromPeer) -> None:
        """Pass a message on, unless it was handled before."""
        name = (message.peer_id, message.message_id)
        if not self._delivered.add(name):
            self.delete(topic)
            return
        self._delivered.remove(name)  # until it has been handled
        with self._lock:
            self._last_key = key = self._last_key + 1
            self._waiting[key] = topic, name
        offline = replace(message.message_props, is_offline_message=True)
        if not self._listener.on_event(replace(message, message_props=offline, key=key)):
            with self._lock:
                self._waiting.pop(key, None)  # the broker keeps it for the next login

    def is_waiting(self, name: tuple[str, str]) -> bool:
        """Whether the application has a message of this sender and id, and has not handled it."""
        with self._lock:
            return any(name == waiting for _, waiting in self._waiting.values())

    def handled(self, keys: Sequence[int]) -> None:
        """Delete messages that the application has handled. Never blocks."""
        for key in keys:
            with self._lock:
                topic, name = self._waiting.pop(key, ("", ("", "")))
            if topic:
                self._delivered.add(name)
                self.delete(topic)

    def delete(self, topic: str) -> None:
        """Delete a retained message."""
        self._connection.publish(topic, retain=True)
