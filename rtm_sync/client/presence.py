"""The presence calls of a client: queries and subscriptions of users' online states."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import PeerSubscriptionStatusError, QueryPeersOnlineStatusError
from ..protocol.requests import (
    QueryPeersBySubscriptionOption,
    QueryPeersOnlineStatus,
    SubscribePeersOnlineStatus,
    UnsubscribePeersOnlineStatus,
)
from ..protocol.values import PeerSubscriptionOption
from .arguments import as_list
from .calls import CALL_TIMEOUT, ClientCalls


class PresenceCalls(ClientCalls):
    """Which users are online. A part of `RtmClient`."""

    def query_peers_online_status(
        self, peer_ids: Sequence[str], *, timeout: float = CALL_TIMEOUT
    ) -> dict[str, bool]:
        """Whether each of these users is logged in, in the order given.

        Args:
            peer_ids: 1 to 256 uids (reference 1.3).
            timeout: seconds.

        Raises:
            QueryPeersOnlineStatusError: not logged in, a bad argument, too often, or timed out.
        """
        ids = as_list("peer_ids", peer_ids, QueryPeersOnlineStatusError)
        return self._call(QueryPeersOnlineStatus(ids), timeout).online

    def subscribe_peers_online_status(
        self, peer_ids: Sequence[str], *, timeout: float = CALL_TIMEOUT
    ) -> None:
        """Subscribe to `PeersOnlineStatusChanged` of these users; the first event comes at once.

        The subscription survives lost connections, and ends with the logout.

        Args:
            peer_ids: uids; at most 512 in all (reference 1.3). A user may be repeated.
            timeout: seconds.

        Raises:
            PeerSubscriptionStatusError: not logged in, a bad argument, OVERFLOW, too often, or
                timed out.
        """
        ids = as_list("peer_ids", peer_ids, PeerSubscriptionStatusError)
        self._call(SubscribePeersOnlineStatus(ids), timeout)

    def unsubscribe_peers_online_status(
        self, peer_ids: Sequence[str], *, timeout: float = CALL_TIMEOUT
    ) -> None:
        """End the subscription to these users.

        Raises:
            PeerSubscriptionStatusError: not logged in, a bad argument, too often, or timed out.
        """
        ids = as_list("peer_ids", peer_ids, PeerSubscriptionStatusError)
        self._call(UnsubscribePeersOnlineStatus(ids), timeout)

    def query_peers_by_subscription_option(
        self,
        option: PeerSubscriptionOption | str = PeerSubscriptionOption.ONLINE_STATUS,
        *,
        timeout: float = CALL_TIMEOUT,
    ) -> list[str]:
        """The users this client is subscribed to.

        Raises:
            ValueError: the option has no such value.
            QueryPeersBySubscriptionOptionError: not logged in, too often, or timed out.
        """
        request = QueryPeersBySubscriptionOption(PeerSubscriptionOption(option))
        return list(self._call(request, timeout).user_ids)
