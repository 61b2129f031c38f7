"""The example is found as an installed plugin, and passes the contract of transports."""

from __future__ import annotations

import itertools

from rtm_sync.testing import RtmTestCase, TransportContract

_numbers = itertools.count()


class BusTransportTest(TransportContract, RtmTestCase):
    keeps_history = False

    def setUp(self) -> None:
        self._url = f"bus:test-{next(_numbers)}"

    def url(self) -> str:
        return self._url
