"""For tests of applications and plugins: a leak-checking test case, gateways, faults, contracts.

Only the standard library's `unittest` is needed; the gateways also need the gateway extra, and
`GatewayProcess` the cli extra. For Flask apps there is `rtm_sync.testing.flask_kit`.
"""

from .archive_contract import ArchiveContract
from .bus_contract import BusContract
from .case import RtmTestCase, wait_until
from .clock import VirtualClock
from .directory_contract import DirectoryContract
from .engine_contract import EngineContract
from .faults import FaultProxy, FaultStep, random_faults
from .gateway import local_gateway
from .gateway_process import GatewayProcess
from .mailbox_contract import MailboxContract
from .media_index_contract import MediaIndexContract
from .media_store_contract import MediaStoreContract
from .peer import ScriptedPeer
from .ports import free_port
from .thumbnail_contract import ThumbnailContract
from .token_verifier_contract import TokenVerifierContract
from .transport_contract import TransportContract

__all__ = [
    "ArchiveContract",
    "BusContract",
    "DirectoryContract",
    "EngineContract",
    "FaultProxy",
    "FaultStep",
    "GatewayProcess",
    "MailboxContract",
    "MediaIndexContract",
    "MediaStoreContract",
    "RtmTestCase",
    "ScriptedPeer",
    "ThumbnailContract",
    "TokenVerifierContract",
    "TransportContract",
    "VirtualClock",
    "free_port",
    "local_gateway",
    "random_faults",
    "wait_until",
]
