"""What the tests share."""

from rtm_sync.testing import RtmTestCase, local_gateway, wait_until

__all__ = ["RtmTestCase", "local_gateway", "wait_until"]
