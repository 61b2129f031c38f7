"""For tests of applications and plugins: a leak-checking test case, a gateway, faults, contracts.

Only the standard library's `unittest` is needed; `local_gateway` also needs the gateway extra.
"""

from .case import RtmTestCase, wait_until
from .faults import FaultProxy
from .gateway import local_gateway
from .transport_contract import TransportContract

__all__ = ["FaultProxy", "RtmTestCase", "TransportContract", "local_gateway", "wait_until"]
