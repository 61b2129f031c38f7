"""The MQTT transport passes the contract of all transports."""

from __future__ import annotations

import contextlib
from typing import Any, ClassVar

import rtm_sync_mqtt

from rtm_sync import RtmClient
from rtm_sync.testing import RtmTestCase, TransportContract

from .broker import Broker, running_broker


class MqttTransportTest(TransportContract, RtmTestCase):
    keeps_history = False

    _broker: ClassVar[Broker]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        stack = contextlib.ExitStack()
        cls.addClassCleanup(stack.close)
        cls._broker = stack.enter_context(running_broker())

    def setUp(self) -> None:
        self._url = self._broker.url(media=self.folder())

    def url(self) -> str:
        return self._url

    def client(self, uid: str | None = None, **options: Any) -> RtmClient:
        return super().client(uid, plugins=(rtm_sync_mqtt,), **options)  # installed or not
