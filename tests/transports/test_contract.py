"""Both built-in transports pass the one contract."""

from __future__ import annotations

import itertools

from rtm_sync.testing import TransportContract
from tests.support import RtmTestCase, local_gateway

_numbers = itertools.count()


class EmbeddedTransportTest(TransportContract, RtmTestCase):
    def setUp(self) -> None:
        self._url = f"memory://contract-{next(_numbers)}"

    def url(self) -> str:
        return self._url


class GatewayTransportTest(TransportContract, RtmTestCase):
    def setUp(self) -> None:
        self._url = self.entered(local_gateway(self.folder()))

    def url(self) -> str:
        return self._url
