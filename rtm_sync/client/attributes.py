"""The attribute calls of a client: key-value pairs of users and channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..protocol.requests import (
    ChangeChannelAttributes,
    ChangeUserAttributes,
    GetChannelAttributes,
    GetUserAttributes,
)
from ..protocol.values import AttributeChange, ChannelAttribute
from .arguments import checked_attributes, checked_id, checked_keys
from .calls import CALL_TIMEOUT, ClientCalls


class AttributeCalls(ClientCalls):
    """Attributes of users and channels. A part of `RtmClient`."""

    def set_local_user_attributes(
        self, attributes: Mapping[str, str], *, timeout: float = CALL_TIMEOUT
    ) -> None:
        """Replace this user's attributes; they live while the user is logged in.

        Args:
            attributes: at most 32; keys of 1 to 32 bytes, values of 1 byte to 8 KB, 16 KB in all
                (reference 1.3).
            timeout: seconds.

        Raises:
            AttributeOperationError: not logged in, a bad argument, too large, too often, timed out.
        """
        self._change_user(AttributeChange.SET, timeout, attributes=attributes)

    def add_or_update_local_user_attributes(
        self, attributes: Mapping[str, str], *, timeout: float = CALL_TIMEOUT
    ) -> None:
        """Add or replace some of this user's attributes. As `set_local_user_attributes`."""
        self._change_user(AttributeChange.UPDATE, timeout, attributes=attributes)

    def delete_local_user_attributes_by_keys(
        self, keys: Sequence[str], *, timeout: float = CALL_TIMEOUT
    ) -> None:
        """Remove some of this user's attributes; unknown keys are ignored."""
        self._change_user(AttributeChange.DELETE, timeout, keys=keys)

    def clear_local_user_attributes(self, *, timeout: float = CALL_TIMEOUT) -> None:
        """Remove all of this user's attributes."""
        self._change_user(AttributeChange.CLEAR, timeout)

    def get_user_attributes(self, user_id: str, *, timeout: float = CALL_TIMEOUT) -> dict[str, str]:
        """All attributes of a user who is logged in.

        Raises:
            AttributeOperationError: not logged in, USER_NOT_FOUND, too often, or timed out.
        """
        checked_id("user_id", user_id)
        return self._call(GetUserAttributes(user_id), timeout).attributes

    def get_user_attributes_by_keys(
        self, user_id: str, keys: Sequence[str], *, timeout: float = CALL_TIMEOUT
    ) -> dict[str, str]:
        """Those of a user's attributes that have these keys. As `get_user_attributes`."""
        checked_id("user_id", user_id)
        return self._call(GetUserAttributes(user_id, checked_keys(keys)), timeout).attributes

    def set_channel_attributes(
        self,
        channel_id: str,
        attributes: Mapping[str, str],
        *,
        enable_notification_to_channel_members: bool = False,
        timeout: float = CALL_TIMEOUT,
    ) -> None:
        """Replace a channel's attributes; one need not have joined it.

        They are forgotten a couple of minutes after the last member left.

        Args:
            channel_id: the channel.
            attributes: at most 32; keys of 1 to 32 bytes, values of 1 byte to 8 KB, 32 KB in all
                (reference 1.3).
            enable_notification_to_channel_members: tell the members by `AttributesUpdated`.
            timeout: seconds.

        Raises:
            AttributeOperationError: not logged in, a bad argument, too large, too often, timed out.
        """
        notify = enable_notification_to_channel_members
        change = AttributeChange.SET
        self._change_channel(channel_id, change, notify, timeout, attributes=attributes)

    def add_or_update_channel_attributes(
        self,
        channel_id: str,
        attributes: Mapping[str, str],
        *,
        enable_notification_to_channel_members: bool = False,
        timeout: float = CALL_TIMEOUT,
    ) -> None:
        """Add or replace some of a channel's attributes. As `set_channel_attributes`."""
        notify = enable_notification_to_channel_members
        change = AttributeChange.UPDATE
        self._change_channel(channel_id, change, notify, timeout, attributes=attributes)

    def delete_channel_attributes_by_keys(
        self,
        channel_id: str,
        keys: Sequence[str],
        *,
        enable_notification_to_channel_members: bool = False,
        timeout: float = CALL_TIMEOUT,
    ) -> None:
        """Remove some of a channel's attributes; unknown keys are ignored."""
        notify = enable_notification_to_channel_members
        self._change_channel(channel_id, AttributeChange.DELETE, notify, timeout, keys=keys)

    def clear_channel_attributes(
        self,
        channel_id: str,
        *,
        enable_notification_to_channel_members: bool = False,
        timeout: float = CALL_TIMEOUT,
    ) -> None:
        """Remove all of a channel's attributes."""
        notify = enable_notification_to_channel_members
        self._change_channel(channel_id, AttributeChange.CLEAR, notify, timeout)

    def get_channel_attributes(
        self, channel_id: str, *, timeout: float = CALL_TIMEOUT
    ) -> dict[str, ChannelAttribute]:
        """All attributes of a channel; one need not have joined it.

        Raises:
            AttributeOperationError: not logged in, a bad argument, too often, or timed out.
        """
        checked_id("channel_id", channel_id)
        return self._call(GetChannelAttributes(channel_id), timeout).attributes

    def get_channel_attributes_by_keys(
        self, channel_id: str, keys: Sequence[str], *, timeout: float = CALL_TIMEOUT
    ) -> dict[str, ChannelAttribute]:
        """Those of a channel's attributes that have these keys. As `get_channel_attributes`."""
        checked_id("channel_id", channel_id)
        request = GetChannelAttributes(channel_id, checked_keys(keys))
        return self._call(request, timeout).attributes

    # -- inside --

    def _change_user(
        self,
        change: AttributeChange,
        timeout: float,
        *,
        attributes: Mapping[str, str] | None = None,
        keys: Sequence[str] | None = None,
    ) -> None:
        given = None if attributes is None else checked_attributes(attributes)
        named = None if keys is None else checked_keys(keys)
        self._call(ChangeUserAttributes(change, given, named), timeout)

    def _change_channel(
        self,
        channel_id: str,
        change: AttributeChange,
        notify: bool,
        timeout: float,
        *,
        attributes: Mapping[str, str] | None = None,
        keys: Sequence[str] | None = None,
    ) -> None:
        checked_id("channel_id", channel_id)
        given = None if attributes is None else checked_attributes(attributes)
        named = None if keys is None else checked_keys(keys)
        request = ChangeChannelAttributes(channel_id, change, given, named, notify)
        self._call(request, timeout)
