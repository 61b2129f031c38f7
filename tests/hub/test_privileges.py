"""Actions that a token does not allow, and the effects of a kick."""

from __future__ import annotations

import time

from rtm_sync.errors import RtmError
from rtm_sync.hub.auth.tokens import JwtVerifier, Privileges, make_token
from rtm_sync.messages import RtmTextMessage
from rtm_sync.protocol.requests import (
    ChangeChannelAttributes,
    GetChannelAttributes,
    GetChannelMemberCount,
    JoinChannel,
    RenewToken,
    SendChannelMessage,
    SendMessageToPeer,
)
from rtm_sync.protocol.values import AttributeChange

from .support import APP, HubCase, User, eventually, spec, upload_whole

SECRET = "s3cret-" * 5


def token(uid: str = "alice", privileges: Privileges | None = None) -> str:
    return make_token(APP, uid, SECRET, privileges=privileges)


class TokenCase(HubCase):
    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.wall = time.time()
        self.made = await self.hub(verifiers={APP: JwtVerifier(APP, SECRET)})

    async def with_token(self, uid: str, privileges: Privileges | None = None) -> User:
        user = User(self.made)
        await user.login(uid, token=token(uid, privileges))
        return user


class PrivilegeTest(TokenCase):
    async def forbidden(self, name: str, user: User, request: object) -> None:
        error: RtmError = await self.refused(name, user.call(request))  # type: ignore[arg-type]
        self.assertIn("The token does not allow", error.message)

    async def test_only_channels_of_the_patterns_can_be_joined_or_looked_at(self) -> None:
        alice = await self.with_token("alice", Privileges(join=("room-*",)))
        await self.forbidden("JOIN_CHANNEL_ERR_REJECTED", alice, JoinChannel("secret"))
        await self.forbidden(
            "GET_CHANNEL_MEMBER_COUNT_ERR_FAILURE", alice, GetChannelMemberCount(("secret",))
        )
        await self.forbidden(
            "ATTRIBUTE_OPERATION_ERR_FAILURE", alice, GetChannelAttributes("secret")
        )
        await alice.call(JoinChannel("room-1"))
        counts = await alice.call(GetChannelMemberCount(("room-1",)))
        self.assertEqual(dict(counts.counts), {"room-1": 1})
        self.assertEqual((await alice.call(GetChannelAttributes("room-1"))).attributes, {})

    async def test_only_channels_of_the_patterns_can_be_sent_to_or_changed(self) -> None:
        alice = await self.with_token("alice", Privileges(publish=("room-*",)))
        for channel_id in ("news", "room-1"):
            await alice.call(JoinChannel(channel_id))
        text = RtmTextMessage("hi")
        await self.forbidden(
            "CHANNEL_MESSAGE_ERR_FAILURE", alice, SendChannelMessage("news", text, "1")
        )
        change = ChangeChannelAttributes("news", AttributeChange.CLEAR)
        await self.forbidden("ATTRIBUTE_OPERATION_ERR_FAILURE", alice, change)
        await alice.call(SendChannelMessage("room-1", text, "2"))
        await alice.call(ChangeChannelAttributes("room-1", AttributeChange.CLEAR))
        bob = await self.with_token("bob")
        await bob.call(JoinChannel("news"))
        await bob.call(SendChannelMessage("news", text, "1"))
        self.assertEqual(alice.texts(), ["hi"])

    async def test_uploads_and_downloads_can_be_taken_away(self) -> None:
        alice = await self.with_token("alice", Privileges(upload=False))
        bob = await self.with_token("bob", Privileges(download=False))
        begin = self.made.media.begin_upload
        await self.refused("UPLOAD_MEDIA_ERR_FAILURE", begin(alice.session, spec(5)))
        media_id = (await upload_whole(self.made, bob, b"bytes")).media_id
        stored = self.made.media.stored_media
        await self.refused("DOWNLOAD_MEDIA_ERR_FAILURE", stored(bob.session, media_id))
        self.assertEqual((await stored(alice.session, media_id)).size, 5)

    async def test_a_renewed_token_counts_from_then_on(self) -> None:
        alice = await self.with_token("alice")
        await alice.call(JoinChannel("news"))
        await alice.call(RenewToken(token("alice", Privileges(join=(), publish=()))))
        message = SendChannelMessage("news", RtmTextMessage("hi"), "1")
        await self.forbidden("CHANNEL_MESSAGE_ERR_FAILURE", alice, message)
        await self.forbidden("JOIN_CHANNEL_ERR_REJECTED", alice, JoinChannel("other"))
        bob = await self.with_token("bob")
        result = await alice.call(SendMessageToPeer("bob", RtmTextMessage("hi"), "2"))
        self.assertTrue(result.has_peer_received)
        self.assertEqual(bob.texts(), ["hi"])

    async def test_a_sender_may_what_its_token_allows_until_it_ends(self) -> None:
        given = token("alice", Privileges(publish=("news",)))
        sender = await self.made.administration.service_session_by_token(APP, "alice", given)
        text = RtmTextMessage("hi")
        await self.made.channels.send_as_non_member(sender, SendChannelMessage("news", text, "1"))
        other = SendChannelMessage("other", text, "2")
        await self.refused(
            "CHANNEL_MESSAGE_ERR_FAILURE", self.made.channels.send_as_non_member(sender, other)
        )
        await self.made.channels.send_as_non_member(
            self.made.administration.service_session(APP, "alice"), other
        )
        again = await self.made.administration.service_session_by_token(APP, "alice", given)
        self.assertIs(again, sender)
        self.assertIs(self.made.session(sender.id), sender)
        self.wall += 7200
        self.assertIsNone(self.made.session(sender.id))


class KickTest(TokenCase):
    async def test_a_kick_without_more_lets_the_token_in_again(self) -> None:
        alice = await self.with_token("alice")
        self.assertTrue(await self.made.administration.kick(APP, "alice", 0.0))
        self.assertEqual(alice.closed, (4001, "BANNED_BY_SERVER"))
        await self.with_token("alice")

    async def test_a_ban_shuts_out_sessions_and_server_processes_with_the_users_token(self) -> None:
        sender = await self.made.administration.service_session_by_token(APP, "alice", token())
        own = self.made.administration.service_session(APP, "alice")
        await self.made.administration.kick(APP, "alice", 60.0)
        self.assertIsNone(self.made.session(sender.id))
        self.assertIsNone(self.made.session(own.id))
        await self.refused("LOGIN_ERR_REJECTED", User(self.made).login(token=token()))
        by_token = self.made.administration.service_session_by_token(APP, "alice", token())
        await self.refused("LOGIN_ERR_REJECTED", by_token)
        self.wall += 61
        await self.made.administration.service_session_by_token(APP, "alice", token())

    async def test_revoked_tokens_are_refused_for_good_and_later_ones_are_not(self) -> None:
        old, bobs = token(), token("bob")
        await self.with_token("alice")
        self.wall = time.time()
        await self.made.administration.kick(APP, "alice", 0.0, revoke_tokens=True)
        error = await self.refused("LOGIN_ERR_INVALID_TOKEN", User(self.made).login(token=old))
        self.assertIn("revoked", error.message)
        by_token = self.made.administration.service_session_by_token(APP, "alice", old)
        await self.refused("LOGIN_ERR_INVALID_TOKEN", by_token)
        await User(self.made).login("bob", token=bobs)
        # The times in tokens have milliseconds.
        await eventually(lambda: time.time() > self.wall + 0.001)
        alice = User(self.made)
        await alice.login(token=token())
        await self.refused("RENEW_TOKEN_ERR_INVALID_TOKEN", alice.call(RenewToken(old)))

    async def test_a_revoked_token_does_not_resume_a_session(self) -> None:
        alice = User(self.made)
        given = token()
        result = await alice.login(token=given)
        alice.lose_connection()
        self.wall = time.time() + 1
        await self.made.administration.kick(APP, "alice", 0.0, revoke_tokens=True)
        again = User(self.made).login(token=given, session=result.session)
        await self.refused("LOGIN_ERR_INVALID_TOKEN", again)
