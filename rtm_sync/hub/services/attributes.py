"""Attributes of users and channels: privileges, sizes, reading and writing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from ...errors import AttributeOperationError, RtmError
from ...protocol.events import AttributesUpdated
from ...protocol.ids import id_problem
from ...protocol.requests import (
    ChangeChannelAttributes,
    ChangeUserAttributes,
    GetChannelAttributes,
    GetUserAttributes,
)
from ...protocol.values import (
    AttributeChange,
    ChannelAttribute,
    ChannelAttributes,
    Done,
    UserAttributes,
)
from ...rules.attributes import (
    CHANNEL_LIMIT,
    USER_LIMIT,
    attributes_problem,
    changed,
    keys_problem,
    size_problem,
)
from ..auth.tokens import NotPrivileged
from ..engine.bus import Bus
from ..engine.directory import Directory
from ..session import Session

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class AttributeService:
    """Serves the attribute requests of one hub.

    Attributes:
        directory: keeps the users' attributes.
        bus: keeps the channels' attributes, and notifies the members of changes.
        now_ms: the wall clock, milliseconds since the epoch.
    """

    directory: Directory
    bus: Bus
    now_ms: Callable[[], int]

    async def change_user(self, session: Session, request: ChangeUserAttributes) -> Done:
        _check_change(request)
        session.check_rate("user_attribute_writes", AttributeOperationError)
        present = await self.directory.user_attributes(*session.user) or {}
        after = changed(present, request.change, request.attributes or {}, request.keys or ())
        _check_size(after, USER_LIMIT)
        await self.directory.put_user_attributes(*session.user, session.id, after)
        return Done()

    async def get_user(self, session: Session, request: GetUserAttributes) -> UserAttributes:
        _check("INVALID_ARGUMENT", id_problem("user_id", request.user_id))
        _check_keys(request.keys)
        session.check_rate("user_attribute_reads", AttributeOperationError)
        found = await self.directory.user_attributes(session.app_id, request.user_id)
        if found is None:
            raise AttributeOperationError.named(
                "USER_NOT_FOUND", f"{request.user_id!r} is not logged in."
            )
        return UserAttributes(_chosen(found, request.keys))

    async def change_channel(self, session: Session, request: ChangeChannelAttributes) -> Done:
        _check("INVALID_ARGUMENT", id_problem("channel_id", request.channel_id))
        _check_change(request)
        _check_privilege(session.privileges.may_publish, "change attributes", request.channel_id)
        session.check_rate("channel_attribute_writes", AttributeOperationError)
        now = self.now_ms()
        written = {
            key: ChannelAttribute(value, session.uid, now)
            for key, value in (request.attributes or {}).items()
        }

        def apply(present: dict[str, ChannelAttribute]) -> dict[str, ChannelAttribute]:
            after = changed(present, request.change, written, request.keys or ())
            _check_size({key: item.value for key, item in after.items()}, CHANNEL_LIMIT)
            return after

        after = await self.bus.change_channel_attributes(session.app_id, request.channel_id, apply)
        if request.enable_notification_to_channel_members:
            event = AttributesUpdated(request.channel_id, after)
            await self.bus.publish(session.app_id, event)
        return Done()

    async def get_channel(
        self, session: Session, request: GetChannelAttributes
    ) -> ChannelAttributes:
        _check("INVALID_ARGUMENT", id_problem("channel_id", request.channel_id))
        _check_keys(request.keys)
        _check_privilege(session.privileges.may_join, "read attributes", request.channel_id)
        session.check_rate("channel_attribute_reads", AttributeOperationError)
        found = await self.bus.channel_attributes(session.app_id, request.channel_id)
        return ChannelAttributes(_chosen(found, request.keys))


def _chosen(attributes: Mapping[str, V], keys: Iterable[str] | None) -> dict[str, V]:
    if keys is None:
        return dict(attributes)
    return {key: attributes[key] for key in keys if key in attributes}


def _check_change(request: ChangeUserAttributes | ChangeChannelAttributes) -> None:
    if request.change in (AttributeChange.SET, AttributeChange.UPDATE):
        _check("INVALID_ARGUMENT", attributes_problem(request.attributes))
    elif request.change is AttributeChange.DELETE:
        _check("INVALID_ARGUMENT", keys_problem(request.keys))


def _check_keys(keys: tuple[str, ...] | None) -> None:
    if keys is not None:
        _check("INVALID_ARGUMENT", keys_problem(keys))


def _check_privilege(is_allowed: Callable[[str], bool], action: str, channel_id: str) -> None:
    if not is_allowed(channel_id):
        raise AttributeOperationError.named(
            "FAILURE",
            f"The token does not allow the user to {action} of {channel_id!r}.",
            NotPrivileged(),
        )


def _check_size(attributes: Mapping[str, str], limit: int) -> None:
    _check("SIZE_OVERFLOW", size_problem(attributes, limit))


def _check(code: str, problem: str | None) -> None:
    if problem is not None:
        error: RtmError = AttributeOperationError.named(code, problem)
        raise error
