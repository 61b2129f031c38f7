"""The kits of the five engine contracts find faults: back ends with one fault each fail them."""

from __future__ import annotations

import asyncio
import unittest
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rtm_sync.hub.engine.archive import HistoryQuery
from rtm_sync.hub.engine.bus import Recovered
from rtm_sync.hub.engine.directory import Claim
from rtm_sync.hub.engine.mailbox import MailboxLimits, StoredMessages
from rtm_sync.hub.engine.media_index import MediaUsage
from rtm_sync.hub.engine.node import ChannelEvent, Delivery, Node
from rtm_sync.hub.engine.part import EnginePart
from rtm_sync.hub.local.archive import LocalArchive
from rtm_sync.hub.local.bus import LocalBus
from rtm_sync.hub.local.directory import LocalDirectory
from rtm_sync.hub.local.engine import LocalEngine
from rtm_sync.hub.local.mailbox import LocalMailbox
from rtm_sync.hub.local.media_index import LocalMediaIndex
from rtm_sync.protocol.events import ChannelMessage
from rtm_sync.protocol.requests import MessageFromPeer, PeerCall
from rtm_sync.protocol.values import (
    ChannelAttribute,
    ChannelPosition,
    HistoricalMessage,
    MediaInfo,
    PeerOnlineState,
)
from rtm_sync.testing import (
    ArchiveContract,
    BusContract,
    DirectoryContract,
    EngineContract,
    MailboxContract,
    MediaIndexContract,
)
from tests.support import RtmTestCase
from tests.testing.test_contracts import fails

Attributes = dict[str, ChannelAttribute]


# -- directories --


class _NeverEvicts(LocalDirectory):
    async def claim(self, app_id: str, uid: str, session_id: str) -> Claim:
        self._held.pop((app_id, uid), None)
        return await super().claim(app_id, uid, session_id)


class _CountsEachUsersSessions(LocalDirectory):
    async def claim(self, app_id: str, uid: str, session_id: str) -> Claim:
        return replace(await super().claim(app_id, uid, session_id), revision=1)


class _ClaimsAnew(LocalDirectory):
    async def claim(self, app_id: str, uid: str, session_id: str) -> Claim:
        await self.release(app_id, uid, session_id)
        return await super().claim(app_id, uid, session_id)


class _ReleasesForAnybody(LocalDirectory):
    async def release(self, app_id: str, uid: str, session_id: str) -> None:
        held = self._held.get((app_id, uid))
        await super().release(app_id, uid, held.claim.session_id if held else session_id)


class _TrustsFormerSessions(LocalDirectory):
    def _held_by(self, app_id: str, uid: str, session_id: str) -> Any:
        return self._held.get((app_id, uid))


class _KicksOutOfEveryApp(LocalDirectory):
    async def kick(self, app_id: str, uid: str) -> bool:
        return any([await super(_KicksOutOfEveryApp, self).kick(*key) for key in list(self._held)])


class _ForgetsWhoIsUnreachable(LocalDirectory):
    async def presence(self, app_id: str, uids: Sequence[str]) -> dict[str, PeerOnlineState]:
        found = await super().presence(app_id, uids)
        unreachable = PeerOnlineState.UNREACHABLE
        return {
            uid: PeerOnlineState.OFFLINE if state is unreachable else state
            for uid, state in found.items()
        }


class _AnswersInItsOwnOrder(LocalDirectory):
    async def presence(self, app_id: str, uids: Sequence[str]) -> dict[str, PeerOnlineState]:
        return await super().presence(app_id, sorted(uids))


class _TellsEverybody(LocalDirectory):
    def _report_presence(self, app_id: str, uid: str, state: PeerOnlineState) -> None:
        self._running_node.presence_changed(app_id, uid, state)


class _TellsOfTheFirstChangeOnly(LocalDirectory):
    def _report_presence(self, app_id: str, uid: str, state: PeerOnlineState) -> None:
        super()._report_presence(app_id, uid, state)
        self._followed.discard((app_id, uid))


class _CountsFollowers(LocalDirectory):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.counts: dict[tuple[str, str], int] = {}

    async def follow(self, app_id: str, uid: str) -> PeerOnlineState:
        self.counts[app_id, uid] = self.counts.get((app_id, uid), 0) + 1
        return await super().follow(app_id, uid)

    async def unfollow(self, app_id: str, uid: str) -> None:
        self.counts[app_id, uid] = self.counts.get((app_id, uid), 0) - 1
        if self.counts[app_id, uid] == 0:
            await super().unfollow(app_id, uid)


class _FollowsAcrossApps(LocalDirectory):
    def _report_presence(self, app_id: str, uid: str, state: PeerOnlineState) -> None:
        if uid in {followed for _, followed in self._followed}:
            self._running_node.presence_changed(app_id, uid, state)


class _AnswersAndThenFollows(LocalDirectory):
    async def follow(self, app_id: str, uid: str) -> PeerOnlineState:
        state = self._state_of(app_id, uid)
        await self.banned_until(app_id, uid)  # takes a while
        await super().follow(app_id, uid)
        return state


class _AnswersOfflineToFollowers(LocalDirectory):
    async def follow(self, app_id: str, uid: str) -> PeerOnlineState:
        await super().follow(app_id, uid)
        return PeerOnlineState.OFFLINE


class _KeepsAttributes(LocalDirectory):
    async def claim(self, app_id: str, uid: str, session_id: str) -> Claim:
        before = await self.user_attributes(app_id, uid)
        claim = await super().claim(app_id, uid, session_id)
        await self.put_user_attributes(app_id, uid, session_id, before or {})
        return claim


class _MergesAttributes(LocalDirectory):
    async def put_user_attributes(
        self, app_id: str, uid: str, session_id: str, attributes: dict[str, str]
    ) -> None:
        before = await self.user_attributes(app_id, uid) or {}
        await super().put_user_attributes(app_id, uid, session_id, before | attributes)


class _KnowsNoAppsInBans(LocalDirectory):
    async def banned_until(self, app_id: str, uid: str) -> float:
        return max(
            [
                await super(_KnowsNoAppsInBans, self).banned_until(app, uid)
                for app in (app_id, "contract")
            ]
        )


class _ListsEndedBans(LocalDirectory):
    async def bans(self, app_id: str, now: float, after: str, limit: int) -> dict[str, float]:
        return await super().bans(app_id, 0.0, after, limit)


class _ListsAllBansAtOnce(LocalDirectory):
    async def bans(self, app_id: str, now: float, after: str, limit: int) -> dict[str, float]:
        return await super().bans(app_id, now, after, 1000)


class _BeginsAPageWithItsMark(LocalDirectory):
    async def bans(self, app_id: str, now: float, after: str, limit: int) -> dict[str, float]:
        return await super().bans(app_id, now, after[:-1], limit)


class _KeepsTheFirstRevocation(LocalDirectory):
    async def revoke(self, app_id: str, uid: str, before: float) -> None:
        if not await self.revoked_before(app_id, uid):
            await super().revoke(app_id, uid, before)


class _ForgetsBansAtARestart(LocalDirectory):
    async def start(self, node: Node) -> None:
        await super().start(node)
        await self._running_database.run(lambda connection: connection.execute("DELETE FROM bans"))


class _ServesAfterItsEnd(LocalDirectory):
    def _require_running(self) -> None:
        pass


DIRECTORIES: tuple[tuple[type[LocalDirectory], str], ...] = (
    (_NeverEvicts, "test_a_claim_evicts_the_former_session_before_it_returns"),
    (_CountsEachUsersSessions, "test_each_claim_of_a_user_has_a_larger_revision"),
    (_ClaimsAnew, "test_claiming_again_changes_nothing"),
    (_ReleasesForAnybody, "test_only_the_holder_can_give_a_claim_up"),
    (_TrustsFormerSessions, "test_a_former_session_changes_nothing"),
    (_KicksOutOfEveryApp, "test_the_holder_of_a_user_can_be_kicked"),
    (_ForgetsWhoIsUnreachable, "test_presence_is_answered_for_each_asked_in_order"),
    (_AnswersInItsOwnOrder, "test_presence_is_answered_for_each_asked_in_order"),
    (_TellsEverybody, "test_only_followed_users_are_told_of"),
    (_TellsOfTheFirstChangeOnly, "test_presence_of_a_followed_user_is_told_as_it_changes"),
    (_CountsFollowers, "test_a_user_is_unfollowed_at_once_however_often_it_was_followed"),
    (_FollowsAcrossApps, "test_only_followed_users_are_told_of"),
    (_AnswersAndThenFollows, "test_nothing_is_missed_between_the_answer_and_the_first_change"),
    (_AnswersOfflineToFollowers, "test_following_answers_with_the_present_state"),
    (_KeepsAttributes, "test_a_new_session_begins_without_the_former_ones_attributes"),
    (_MergesAttributes, "test_a_users_attributes_live_as_long_as_the_claim"),
    (_KnowsNoAppsInBans, "test_a_ban_holds_for_its_user_until_it_is_ended"),
    (_ListsEndedBans, "test_the_bans_of_an_app_can_be_listed"),
    (_ListsAllBansAtOnce, "test_the_bans_come_in_pages_in_the_order_of_the_ids"),
    (_BeginsAPageWithItsMark, "test_the_bans_come_in_pages_in_the_order_of_the_ids"),
    (_KeepsTheFirstRevocation, "test_a_revocation_is_one_users_alone_and_outlives_a_restart"),
    (_ForgetsBansAtARestart, "test_a_ban_outlives_a_restart"),
    (_ServesAfterItsEnd, "test_a_directory_that_is_not_running_refuses"),
)


# -- buses --


class _AlwaysReceived(LocalBus):
    async def send_to_peer(self, app_id: str, uid: str, message: PeerCall) -> Delivery:
        await super().send_to_peer(app_id, uid, message)
        return Delivery.RECEIVED


class _SendsToEveryApp(LocalBus):
    async def send_to_peer(self, app_id: str, uid: str, message: PeerCall) -> Delivery:
        await super().send_to_peer("contract", uid, message)
        return await super().send_to_peer(app_id, uid, message)


class _SendsTheNewestFirst(LocalBus):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.waiting: list[PeerCall] = []

    async def send_to_peer(self, app_id: str, uid: str, message: PeerCall) -> Delivery:
        self.waiting.append(message)
        await _a_moment()
        return await super().send_to_peer(app_id, uid, self.waiting.pop())


class _JoinsInSilence(LocalBus):
    async def join(self, app_id: str, channel_id: str, uid: str, session_id: str) -> None:
        self._members.setdefault((app_id, channel_id), {})[uid] = (session_id,)


class _TellsEachSessionsJoin(LocalBus):
    async def join(self, app_id: str, channel_id: str, uid: str, session_id: str) -> None:
        await self.leave(app_id, channel_id, uid, session_id)
        await super().join(app_id, channel_id, uid, session_id)


class _LeavesForAnybody(LocalBus):
    async def leave(self, app_id: str, channel_id: str, uid: str, session_id: str) -> None:
        for each in self._members.get((app_id, channel_id), {}).get(uid, ()):
            await super().leave(app_id, channel_id, uid, each)


class _KnowsTheLastJoinOnly(LocalBus):
    async def join(self, app_id: str, channel_id: str, uid: str, session_id: str) -> None:
        await super().join(app_id, channel_id, uid, session_id)
        self._members[app_id, channel_id][uid] = (session_id,)


class _KnowsTheFirstJoinOnly(LocalBus):
    async def join(self, app_id: str, channel_id: str, uid: str, session_id: str) -> None:
        await super().join(app_id, channel_id, uid, session_id)
        members = self._members[app_id, channel_id]
        members[uid] = members[uid][:1]


class _CountsJoins(LocalBus):
    async def join(self, app_id: str, channel_id: str, uid: str, session_id: str) -> None:
        await super().join(app_id, channel_id, uid, session_id)
        self.joins = getattr(self, "joins", 0) + 1

    async def leave(self, app_id: str, channel_id: str, uid: str, session_id: str) -> None:
        self.joins -= 1
        if self.joins == 0:
            await super().leave(app_id, channel_id, uid, session_id)


class _CountsSessions(LocalBus):
    async def member_counts(self, app_id: str, channel_ids: Sequence[str]) -> dict[str, int]:
        return {
            name: sum(map(len, self._members.get((app_id, name), {}).values()))
            for name in channel_ids
        }


class _CountsAcrossApps(LocalBus):
    async def member_counts(self, app_id: str, channel_ids: Sequence[str]) -> dict[str, int]:
        return {
            name: sum(len(users) for key, users in self._members.items() if key[1] == name)
            for name in channel_ids
        }


class _GivesNoPositions(LocalBus):
    async def publish(self, app_id: str, event: ChannelEvent) -> None:
        self._running_node.deliver_to_channel(app_id, event)


class _DropsNewsOfAttributes(LocalBus):
    async def publish(self, app_id: str, event: ChannelEvent) -> None:
        if isinstance(event, ChannelMessage):
            await super().publish(app_id, event)


class _LosesWhatComesAfterAJoin(LocalBus):
    """Starts to deliver a channel's messages to the node a little after the join has returned."""

    async def recover(
        self, app_id: str, channel_id: str, since: ChannelPosition | None
    ) -> Recovered:
        self.misses = 2
        return await super().recover(app_id, channel_id, since)

    async def publish(self, app_id: str, event: ChannelEvent) -> None:
        log = self._running_log
        if isinstance(event, ChannelMessage) and getattr(self, "misses", 0):
            self.misses -= 1
            log._deliver = lambda *_: None
        await super().publish(app_id, event)
        log._deliver = self._running_node.deliver_to_channel


class _RecoversEverything(LocalBus):
    async def recover(
        self, app_id: str, channel_id: str, since: ChannelPosition | None
    ) -> Recovered:
        recovered = await super().recover(app_id, channel_id, since)
        if since is None:
            return recovered
        whole = replace(recovered.position, sequence=0)
        return await super().recover(app_id, channel_id, whole)


class _IsAlwaysComplete(LocalBus):
    async def recover(
        self, app_id: str, channel_id: str, since: ChannelPosition | None
    ) -> Recovered:
        return replace(await super().recover(app_id, channel_id, since), complete=True)


class _HasOneLogForAllApps(LocalBus):
    async def publish(self, app_id: str, event: ChannelEvent) -> None:
        if not isinstance(event, ChannelMessage):
            await super().publish(app_id, event)
            return
        node = self._running_node
        self._running_log._deliver = lambda _, message: node.deliver_to_channel(app_id, message)
        await super().publish("all", event)

    async def recover(
        self, app_id: str, channel_id: str, since: ChannelPosition | None
    ) -> Recovered:
        return await super().recover("all", channel_id, since)


class _ForgetsMessagesAtARestart(LocalBus):
    async def start(self, node: Node) -> None:
        self._path = None
        await super().start(node)


class _TakesTheRestForAll(LocalBus):
    """Goes on with the count after a restart, but has lost the newest message."""

    async def stop(self) -> None:
        if self._log is not None and self._log._database is not None:
            await self._log._database.run(
                lambda connection: connection.execute(
                    "DELETE FROM messages WHERE sequence = (SELECT max(sequence) FROM messages)"
                )
            )
        await super().stop()


class _PublishesAgainAfterARestart(LocalBus):
    async def start(self, node: Node) -> None:
        await super().start(node)
        self._running_log._former_ids.clear()


class _ChangesInTheOpen(LocalBus):
    async def change_channel_attributes(
        self, app_id: str, channel_id: str, change: Callable[[Attributes], Attributes]
    ) -> Attributes:
        self._require_running()
        before = await self.channel_attributes(app_id, channel_id)
        after = change(before)
        await _a_moment()
        return await super().change_channel_attributes(app_id, channel_id, lambda _: after)


class _SwallowsRefusals(LocalBus):
    async def change_channel_attributes(
        self, app_id: str, channel_id: str, change: Callable[[Attributes], Attributes]
    ) -> Attributes:
        try:
            return await super().change_channel_attributes(app_id, channel_id, change)
        except KeyError:
            return {}


class _ForgetsAttributesAtOnce(LocalBus):
    def _forget_attributes_later(self, key: tuple[str, str]) -> None:
        if key not in self._members and "topic" in self._channel_attributes.get(key, {}):
            self._forget_attributes(key)


BUSES: tuple[tuple[type[LocalBus], str], ...] = (
    (_AlwaysReceived, "test_a_user_who_is_nowhere_or_in_another_app_is_offline"),
    (_SendsToEveryApp, "test_a_user_who_is_nowhere_or_in_another_app_is_offline"),
    (_SendsTheNewestFirst, "test_messages_to_a_peer_arrive_in_the_order_they_were_sent"),
    (_JoinsInSilence, "test_joins_and_leaves_are_told_once_and_so_are_the_counts"),
    (_TellsEachSessionsJoin, "test_joins_and_leaves_are_told_once_and_so_are_the_counts"),
    (_LeavesForAnybody, "test_a_late_leave_of_a_former_session_leaves_its_successor_in"),
    (_KnowsTheFirstJoinOnly, "test_a_late_leave_of_a_former_session_leaves_its_successor_in"),
    (_KnowsTheLastJoinOnly, "test_a_late_join_of_a_former_session_does_not_harm_its_successor"),
    (_CountsJoins, "test_a_session_that_joined_twice_leaves_at_once"),
    (_CountsSessions, "test_a_late_leave_of_a_former_session_leaves_its_successor_in"),
    (_CountsAcrossApps, "test_members_are_counted_for_each_channel_asked_in_order"),
    (_GivesNoPositions, "test_what_is_published_comes_in_order_with_growing_positions"),
    (_DropsNewsOfAttributes, "test_news_of_attributes_reaches_the_channel"),
    (_RecoversEverything, "test_a_member_recovers_what_came_after_its_position"),
    (_LosesWhatComesAfterAJoin, "test_what_comes_after_the_recovered_position_is_told"),
    (_IsAlwaysComplete, "test_an_unknown_position_makes_the_answer_incomplete"),
    (_HasOneLogForAllApps, "test_a_message_of_another_apps_channel_is_told_as_that_apps"),
    (_ForgetsMessagesAtARestart, "test_messages_of_a_channel_outlive_a_restart"),
    (_TakesTheRestForAll, "test_messages_of_a_channel_outlive_a_restart"),
    (_PublishesAgainAfterARestart, "test_a_message_sent_again_after_a_restart_comes_once"),
    (_ChangesInTheOpen, "test_changes_of_a_channel_at_the_same_time_all_count"),
    (_SwallowsRefusals, "test_a_change_that_raises_changes_nothing"),
    (_ForgetsAttributesAtOnce, "test_a_channel_that_was_left_keeps_its_attributes_for_a_while"),
)


# -- mailboxes --


class _KeepsCopies(LocalMailbox):
    async def store(
        self,
        app_id: str,
        uid: str,
        message: MessageFromPeer,
        limits: MailboxLimits,
        *,
        is_offered: bool,
    ) -> int | None:
        self.copies = getattr(self, "copies", 0) + 1
        copy = replace(message, message_id=f"{message.message_id} {self.copies}")
        return await super().store(app_id, uid, copy, limits, is_offered=is_offered)


class _TakesIdsOfOthersForCopies(LocalMailbox):
    async def store(
        self,
        app_id: str,
        uid: str,
        message: MessageFromPeer,
        limits: MailboxLimits,
        *,
        is_offered: bool,
    ) -> int | None:
        for item in (await self.waiting(app_id, uid, 0, 1000)).messages:
            if item.message.message_id == message.message_id:
                return item.key
        return await super().store(app_id, uid, message, limits, is_offered=is_offered)


class _KeepsForEver(LocalMailbox):
    async def waiting(self, app_id: str, uid: str, after: int, limit: int) -> StoredMessages:
        now, self._now = self._now, lambda: 0.0
        try:
            return await super().waiting(app_id, uid, after, limit)
        finally:
            self._now = now


class _StoresOtherwise(LocalMailbox):
    """A mailbox that changes what it is told to store."""

    def changed(self, limits: MailboxLimits) -> MailboxLimits:
        return limits

    async def store(
        self,
        app_id: str,
        uid: str,
        message: MessageFromPeer,
        limits: MailboxLimits,
        *,
        is_offered: bool,
    ) -> int | None:
        limits = self.changed(limits)
        return await super().store(app_id, uid, message, limits, is_offered=is_offered)


class _KeepsAll(_StoresOtherwise):
    def changed(self, limits: MailboxLimits) -> MailboxLimits:
        return replace(limits, offline=10_000)


class _IsNeverFull(_StoresOtherwise):
    def changed(self, limits: MailboxLimits) -> MailboxLimits:
        return replace(limits, messages=10**6)


class _CountsNoBytes(_StoresOtherwise):
    def changed(self, limits: MailboxLimits) -> MailboxLimits:
        return replace(limits, bytes=10**9)


class _KeepsAWeek(_StoresOtherwise):
    def changed(self, limits: MailboxLimits) -> MailboxLimits:
        return replace(limits, retention=7 * 24 * 3600.0)


class _DropsWhatWasOffered(LocalMailbox):
    async def store(
        self,
        app_id: str,
        uid: str,
        message: MessageFromPeer,
        limits: MailboxLimits,
        *,
        is_offered: bool,
    ) -> int | None:
        key = await super().store(app_id, uid, message, limits, is_offered=is_offered)
        await self._running_database.run(
            lambda connection: connection.execute(
                "DELETE FROM offline WHERE app_id = ? AND uid = ? AND key <= (SELECT key FROM "
                "offline WHERE app_id = ? AND uid = ? ORDER BY key DESC LIMIT 1 OFFSET ?)",
                (app_id, uid, app_id, uid, limits.offline),
            )
        )
        return key


class _KeepsTwoHundredOfAllUsers(LocalMailbox):
    async def store(
        self,
        app_id: str,
        uid: str,
        message: MessageFromPeer,
        limits: MailboxLimits,
        *,
        is_offered: bool,
    ) -> int | None:
        key = await super().store(app_id, uid, message, limits, is_offered=is_offered)
        await self._running_database.run(
            lambda connection: connection.execute(
                "DELETE FROM offline WHERE key <= "
                "(SELECT key FROM offline ORDER BY key DESC LIMIT 1 OFFSET ?)",
                (limits.offline,),
            )
        )
        return key


class _GivesTheNewestFirst(LocalMailbox):
    async def waiting(self, app_id: str, uid: str, after: int, limit: int) -> StoredMessages:
        page = await super().waiting(app_id, uid, after, limit)
        return StoredMessages(page.messages[::-1], page.last_key)


class _GivesEverythingAtOnce(LocalMailbox):
    async def waiting(self, app_id: str, uid: str, after: int, limit: int) -> StoredMessages:
        return await super().waiting(app_id, uid, after, 10_000)


class _KnowsNoApps(LocalMailbox):
    async def waiting(self, app_id: str, uid: str, after: int, limit: int) -> StoredMessages:
        return await super().waiting("contract", uid, after, limit)


class _DiscardsForAnybody(LocalMailbox):
    async def discard(self, app_id: str, uid: str, keys: Sequence[int], *, remember: float) -> None:
        await super().discard("contract", "bob", keys, remember=remember)


class _DiscardsEverything(LocalMailbox):
    async def discard(self, app_id: str, uid: str, keys: Sequence[int], *, remember: float) -> None:
        found = await self.waiting(app_id, uid, 0, 1000)
        every = [item.key for item in found.messages]
        await super().discard(app_id, uid, every, remember=remember)


class _ForgetsWhatWasHandled(LocalMailbox):
    async def discard(self, app_id: str, uid: str, keys: Sequence[int], *, remember: float) -> None:
        await super().discard(app_id, uid, keys, remember=0.0)


class _RemembersWhatWasHandledForEver(LocalMailbox):
    async def discard(self, app_id: str, uid: str, keys: Sequence[int], *, remember: float) -> None:
        await super().discard(app_id, uid, keys, remember=10**9)


class _RemembersWhatAStrangerDiscards(LocalMailbox):
    async def discard(self, app_id: str, uid: str, keys: Sequence[int], *, remember: float) -> None:
        page = await self.waiting("contract", "bob", 0, 1000)
        self.strange = {item.message.message_id for item in page.messages if uid != "bob"}
        await super().discard(app_id, uid, keys, remember=remember)

    async def store(
        self,
        app_id: str,
        uid: str,
        message: MessageFromPeer,
        limits: MailboxLimits,
        *,
        is_offered: bool,
    ) -> int | None:
        if message.message_id in getattr(self, "strange", ()):
            return None
        return await super().store(app_id, uid, message, limits, is_offered=is_offered)


class _MarksNothing(LocalMailbox):
    async def mark_offered(self, app_id: str, uid: str, keys: Sequence[int]) -> None:
        pass


class _MarksForAnybody(LocalMailbox):
    async def mark_offered(self, app_id: str, uid: str, keys: Sequence[int]) -> None:
        await super().mark_offered("contract", "bob", keys)


class _ReusesKeys(LocalMailbox):
    SCHEMA = LocalMailbox.SCHEMA.replace(" AUTOINCREMENT", "")


class _AnswersBeforeItIsStored(LocalMailbox):
    def __init__(self, path: Path, now: Callable[[], float]) -> None:
        super().__init__(path, now)
        self.begun: list[Callable[[], Awaitable[int | None]]] = []

    async def store(
        self,
        app_id: str,
        uid: str,
        message: MessageFromPeer,
        limits: MailboxLimits,
        *,
        is_offered: bool,
    ) -> int | None:
        store = super().store
        self.begun.append(lambda: store(app_id, uid, message, limits, is_offered=is_offered))
        return len(self.begun)

    async def waiting(self, app_id: str, uid: str, after: int, limit: int) -> StoredMessages:
        for store in self.begun:
            await store()
        self.begun.clear()
        return await super().waiting(app_id, uid, after, limit)

    async def stop(self) -> None:
        self.begun.clear()
        await super().stop()


class _ForgetsAtARestart(LocalMailbox):
    async def start(self, node: Node) -> None:
        await super().start(node)
        await self._running_database.run(
            lambda connection: connection.execute("DELETE FROM offline")
        )


MAILBOXES: tuple[tuple[type[LocalMailbox], str], ...] = (
    (_KeepsCopies, "test_a_copy_changes_nothing_but_another_senders_is_no_copy"),
    (_TakesIdsOfOthersForCopies, "test_a_copy_changes_nothing_but_another_senders_is_no_copy"),
    (_KeepsForEver, "test_after_seven_days_messages_are_gone"),
    (_KeepsAll, "test_the_newest_two_hundred_are_kept_for_each_receiver"),
    (_KeepsTwoHundredOfAllUsers, "test_the_newest_two_hundred_are_kept_for_each_receiver"),
    (_KeepsAWeek, "test_no_more_are_kept_than_the_caller_says_and_no_longer"),
    (_GivesTheNewestFirst, "test_messages_wait_in_order_for_their_receiver_only"),
    (_KnowsNoApps, "test_messages_wait_in_order_for_their_receiver_only"),
    (_DiscardsForAnybody, "test_only_the_receiver_discards_messages_and_only_those"),
    (_DiscardsEverything, "test_only_the_receiver_discards_messages_and_only_those"),
    (
        _ForgetsWhatWasHandled,
        "test_a_copy_of_a_handled_message_is_not_stored_while_it_is_remembered",
    ),
    (
        _RemembersWhatWasHandledForEver,
        "test_a_copy_of_a_handled_message_is_not_stored_while_it_is_remembered",
    ),
    (
        _RemembersWhatAStrangerDiscards,
        "test_the_ids_of_messages_that_only_a_stranger_discards_are_not_remembered",
    ),
    (_ReusesKeys, "test_a_key_is_never_given_twice"),
    (_AnswersBeforeItIsStored, "test_a_mailbox_that_is_not_running_refuses"),
    (_ForgetsAtARestart, "test_waiting_messages_outlive_a_restart"),
    (_IsNeverFull, "test_a_full_mailbox_refuses_and_has_room_again"),
    (_CountsNoBytes, "test_a_full_mailbox_refuses_and_has_room_again"),
    (
        _DropsWhatWasOffered,
        "test_what_was_offered_is_never_dropped_nor_counted_for_the_two_hundred",
    ),
    (_GivesEverythingAtOnce, "test_a_page_begins_after_a_key_and_is_no_longer_than_asked"),
    (_MarksNothing, "test_what_was_offered_is_marked_and_stays_so"),
    (_MarksForAnybody, "test_what_was_offered_is_marked_and_stays_so"),
)


# -- archives --


class _StoresCopies(LocalArchive):
    async def store_history(
        self, app_id: str, message: HistoricalMessage, retention: float
    ) -> None:
        self.copies = getattr(self, "copies", 0) + 1
        copy = replace(message, message_id=f"{message.message_id} {self.copies}")
        await super().store_history(app_id, copy, retention)


class _ChangesOneQuery(LocalArchive):
    def changed(self, query: HistoryQuery) -> HistoryQuery:
        raise NotImplementedError

    async def history(
        self, app_id: str, query: HistoryQuery, now: float
    ) -> list[tuple[int, HistoricalMessage]]:
        return await super().history(app_id, self.changed(query), now)


class _GoesOneWay(_ChangesOneQuery):
    def changed(self, query: HistoryQuery) -> HistoryQuery:
        return replace(query, both_ways=False)


class _MixesUsersAndChannels(_ChangesOneQuery):
    def changed(self, query: HistoryQuery) -> HistoryQuery:
        return replace(query, is_channel=None)


class _IncludesTheEnd(_ChangesOneQuery):
    def changed(self, query: HistoryQuery) -> HistoryQuery:
        return replace(query, end=None if query.end is None else query.end + 1)


class _KnowsOneOrder(_ChangesOneQuery):
    def changed(self, query: HistoryQuery) -> HistoryQuery:
        return replace(query, newest_first=False)


class _IgnoresOffsets(_ChangesOneQuery):
    def changed(self, query: HistoryQuery) -> HistoryQuery:
        return replace(query, offset=0)


class _RepeatsTheLastOfAPage(_ChangesOneQuery):
    def changed(self, query: HistoryQuery) -> HistoryQuery:
        step = 1 if query.newest_first else -1
        return replace(query, after=None if query.after is None else query.after + step)


class _CountsThePage(LocalArchive):
    async def history_count(self, app_id: str, query: HistoryQuery, now: float) -> int:
        return len(await self.history(app_id, query, now))


class _CountsTheExpired(LocalArchive):
    async def history_count(self, app_id: str, query: HistoryQuery, now: float) -> int:
        return await super().history_count(app_id, query, 0)


class _ShowsTheExpired(LocalArchive):
    async def history(
        self, app_id: str, query: HistoryQuery, now: float
    ) -> list[tuple[int, HistoricalMessage]]:
        return await super().history(app_id, query, 0)


class _ArchivesAWeek(LocalArchive):
    async def store_history(
        self, app_id: str, message: HistoricalMessage, retention: float
    ) -> None:
        await super().store_history(app_id, message, 7 * 24 * 3600.0)


class _KnowsIdsOnly(LocalArchive):
    SCHEMA = LocalArchive.SCHEMA.replace(
        "UNIQUE (app_id, source, destination, is_channel, message_id)",
        "UNIQUE (app_id, message_id)",
    )


class _ShowsEveryApp(LocalArchive):
    async def history(
        self, app_id: str, query: HistoryQuery, now: float
    ) -> list[tuple[int, HistoricalMessage]]:
        return await super().history("contract", query, now)


class _LosesMilliseconds(LocalArchive):
    async def store_history(
        self, app_id: str, message: HistoricalMessage, retention: float
    ) -> None:
        props = message.message_props
        rounded = replace(props, server_received_ts=props.server_received_ts // 1000 * 1000)
        await super().store_history(app_id, replace(message, message_props=rounded), retention)


class _BurnsItsArchive(LocalArchive):
    async def start(self, node: Node) -> None:
        await super().start(node)
        await self._running_database.run(
            lambda connection: connection.execute("DELETE FROM history")
        )


ARCHIVES: tuple[tuple[type[LocalArchive], str], ...] = (
    (_StoresCopies, "test_a_copy_is_kept_once_and_everything_seven_days"),
    (_GoesOneWay, "test_each_kind_of_conversation_is_found"),
    (_MixesUsersAndChannels, "test_each_kind_of_conversation_is_found"),
    (_IncludesTheEnd, "test_each_kind_of_conversation_is_found"),
    (_KnowsOneOrder, "test_each_kind_of_conversation_is_found"),
    (_ShowsEveryApp, "test_each_kind_of_conversation_is_found"),
    (_IgnoresOffsets, "test_pages_meet_without_gap_or_copy_in_both_orders"),
    (_RepeatsTheLastOfAPage, "test_pages_meet_without_gap_or_copy_in_both_orders"),
    (_CountsThePage, "test_pages_meet_without_gap_or_copy_in_both_orders"),
    (_CountsTheExpired, "test_a_copy_is_kept_once_and_everything_seven_days"),
    (_ShowsTheExpired, "test_a_copy_is_kept_once_and_everything_seven_days"),
    (_ArchivesAWeek, "test_a_message_is_kept_as_long_as_the_caller_says"),
    (_KnowsIdsOnly, "test_an_id_in_another_conversation_is_another_message"),
    (_LosesMilliseconds, "test_a_message_of_the_history_is_what_was_stored"),
    (_BurnsItsArchive, "test_the_history_outlives_a_restart"),
)


# -- media indexes --


class _ShowsMediaToEveryApp(LocalMediaIndex):
    async def media(self, app_id: str, media_id: str) -> MediaInfo | None:
        return await super().media("contract", media_id)


class _HidesTheExpired(LocalMediaIndex):
    async def media(self, app_id: str, media_id: str) -> MediaInfo | None:
        info = await super().media(app_id, media_id)
        return None if info is None or info.expires_at <= self._now() else info


class _LosesNames(LocalMediaIndex):
    async def put_media(self, app_id: str, uid: str, info: MediaInfo) -> None:
        ascii_name = info.file_name.encode("ascii", "ignore").decode()
        await super().put_media(app_id, uid, replace(info, file_name=ascii_name))


class _RefusesToRepeat(LocalMediaIndex):
    async def put_media(self, app_id: str, uid: str, info: MediaInfo) -> None:
        if await self.media(app_id, info.media_id) is not None:
            raise OSError("it is recorded already")
        await super().put_media(app_id, uid, info)


class _RefusesToDeleteTwice(LocalMediaIndex):
    async def delete_media(self, media_id: str) -> None:
        if await self.media("contract", media_id) is None:
            raise OSError("there is none")
        await super().delete_media(media_id)


class _DeletesNothing(LocalMediaIndex):
    async def delete_media(self, media_id: str) -> None:
        self._require_running()


class _CountsOneUser(LocalMediaIndex):
    async def media_usage(self, app_id: str, uid: str) -> MediaUsage:
        usage = await super().media_usage(app_id, uid)
        return MediaUsage(usage.user, usage.user)


class _CountsMedia(LocalMediaIndex):
    async def media_usage(self, app_id: str, uid: str) -> MediaUsage:
        usage = await super().media_usage(app_id, uid)
        return MediaUsage(usage.user // 3 * 3, usage.app)


class _ExpiresEarly(LocalMediaIndex):
    async def expired_media(self, now: float) -> list[str]:
        return await super().expired_media(now + 90)


class _TellsOfTheExpiredOnce(LocalMediaIndex):
    async def expired_media(self, now: float) -> list[str]:
        found = await super().expired_media(now)
        told = getattr(self, "told", set())
        self.told = told | set(found)
        return [media_id for media_id in found if media_id not in told]


class _ExpiresOneOnly(LocalMediaIndex):
    async def expired_media(self, now: float) -> list[str]:
        found = await super().expired_media(now)
        if getattr(self, "has_told", False):
            return []
        self.has_told = bool(found)
        return found[:1]


class _DeletesWhatHasExpired(LocalMediaIndex):
    async def expired_media(self, now: float) -> list[str]:
        found = await super().expired_media(now)
        for media_id in found:
            await self.delete_media(media_id)
        return found


class _LosesItsRecords(LocalMediaIndex):
    async def start(self, node: Node) -> None:
        await super().start(node)
        await self._running_database.run(lambda connection: connection.execute("DELETE FROM media"))


MEDIA_INDEXES: tuple[tuple[type[LocalMediaIndex], str], ...] = (
    (_ShowsMediaToEveryApp, "test_a_medium_is_known_to_its_app_until_it_is_deleted"),
    (_HidesTheExpired, "test_an_expired_medium_is_known_and_counted_until_it_is_deleted"),
    (_LosesNames, "test_a_medium_is_known_to_its_app_until_it_is_deleted"),
    (_RefusesToRepeat, "test_recording_a_medium_again_changes_nothing"),
    (_RefusesToDeleteTwice, "test_a_medium_is_known_to_its_app_until_it_is_deleted"),
    (_DeletesNothing, "test_a_medium_is_known_to_its_app_until_it_is_deleted"),
    (_CountsOneUser, "test_what_media_take_is_known_of_each_user_and_app"),
    (_CountsMedia, "test_what_media_take_is_known_of_each_user_and_app"),
    (_ExpiresEarly, "test_expired_media_come_until_all_are_deleted"),
    (_TellsOfTheExpiredOnce, "test_an_expired_medium_is_known_and_counted_until_it_is_deleted"),
    (_ExpiresOneOnly, "test_expired_media_come_until_all_are_deleted"),
    (_DeletesWhatHasExpired, "test_an_expired_medium_is_known_and_counted_until_it_is_deleted"),
    (_LosesItsRecords, "test_the_record_of_a_medium_outlives_a_restart"),
)


# -- engines --


class _ForgetsItsEnd(LocalEngine):
    async def stop(self) -> None:
        self._held.clear()


class _TellsClaimsOnly(LocalEngine):
    async def send_to_peer(self, app_id: str, uid: str, message: PeerCall) -> Delivery:
        return Delivery.RECEIVED if (app_id, uid) in self._held else Delivery.UNCONFIRMED


ENGINES: tuple[tuple[type[LocalEngine], str], ...] = (
    (_ForgetsItsEnd, "test_a_mailbox_that_is_not_running_refuses"),
    (_TellsClaimsOnly, "test_a_user_can_be_reached_from_the_claim_to_the_release"),
)


async def _a_moment() -> None:
    """Let other ready tasks run first."""
    await asyncio.sleep(0)


class _Case(RtmTestCase, unittest.IsolatedAsyncioTestCase):
    patience = 0.1

    def setUp(self) -> None:
        self.path = self.folder() / "rtm.sqlite3"


def directory_case(made: type[LocalDirectory]) -> type[unittest.TestCase]:
    class Case(DirectoryContract, _Case):
        def make_directory(self) -> LocalDirectory:
            return made(self.path)

    return Case


def bus_case(made: type[LocalBus]) -> type[unittest.TestCase]:
    class Case(BusContract, _Case):
        def make_bus(self) -> LocalBus:
            return made(self.path)

    return Case


def mailbox_case(made: type[LocalMailbox]) -> type[unittest.TestCase]:
    class Case(MailboxContract, _Case):
        def make_mailbox(self) -> LocalMailbox:
            return made(self.path, lambda: self.wall)

    return Case


def archive_case(made: type[LocalArchive]) -> type[unittest.TestCase]:
    class Case(ArchiveContract, _Case):
        def make_archive(self) -> LocalArchive:
            return made(self.path, lambda: self.wall)

    return Case


def media_index_case(made: type[LocalMediaIndex]) -> type[unittest.TestCase]:
    class Case(MediaIndexContract, _Case):
        def make_media_index(self) -> LocalMediaIndex:
            return made(self.path, lambda: self.wall)

    return Case


def engine_case(made: type[LocalEngine]) -> type[unittest.TestCase]:
    class Case(EngineContract, _Case):
        def make_engine(self) -> LocalEngine:
            return made(self.path, lambda: self.wall)

    return Case


class EngineContractsTest(unittest.TestCase):
    def assert_found(
        self,
        case: Callable[[Any], type[unittest.TestCase]],
        good: type[EnginePart],
        faulty: Sequence[tuple[type[EnginePart], str]],
    ) -> None:
        for name in sorted({name for _, name in faulty}):
            self.assertFalse(fails(case(good), name), f"the good one fails {name}")
        for made, name in faulty:
            with self.subTest(made.__name__):
                broken = case(made)
                broken.patience = 1.0  # type: ignore[attr-defined]  # it waits for what never comes
                self.assertTrue(fails(broken, name))

    def test_each_fault_of_a_directory_is_found(self) -> None:
        self.assert_found(directory_case, LocalDirectory, DIRECTORIES)

    def test_each_fault_of_a_bus_is_found(self) -> None:
        self.assert_found(bus_case, LocalBus, BUSES)

    def test_each_fault_of_a_mailbox_is_found(self) -> None:
        self.assert_found(mailbox_case, LocalMailbox, MAILBOXES)

    def test_each_fault_of_an_archive_is_found(self) -> None:
        self.assert_found(archive_case, LocalArchive, ARCHIVES)

    def test_each_fault_of_a_media_index_is_found(self) -> None:
        self.assert_found(media_index_case, LocalMediaIndex, MEDIA_INDEXES)

    def test_each_fault_of_an_engine_is_found(self) -> None:
        self.assert_found(engine_case, LocalEngine, ENGINES)

    def test_an_object_of_another_kind_is_named(self) -> None:
        case = directory_case(LocalBus)  # type: ignore[arg-type]
        result = unittest.TestResult()
        case("test_the_bans_of_an_app_can_be_listed").run(result)
        ((_, trace),) = result.failures
        self.assertIn("is not a Directory", trace)
