"""Logins at a hub that verifies tokens, and the refusals that come before the verification."""

from __future__ import annotations

import time

from rtm_sync.hub.auth.tokens import JwtVerifier, make_token
from rtm_sync.protocol.events import (
    PeersOnlineStatusChanged,
    SessionEnded,
    TokenExpired,
    TokenPrivilegeWillExpire,
)
from rtm_sync.protocol.requests import (
    Login,
    QueryPeersOnlineStatus,
    RenewToken,
    SubscribePeersOnlineStatus,
)
from rtm_sync.protocol.values import ConnectionChangeReason, PeerOnlineState

from .support import APP, HubCase, User, eventually

SECRET = "s3cret-" * 5


def token(uid: str = "alice", *, app_id: str = APP, secret: str = SECRET, ttl: float = 60) -> str:
    return make_token(app_id, uid, secret, ttl=ttl)


class LoginTest(HubCase):
    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.made = await self.hub(verifiers={APP: JwtVerifier(APP, SECRET)})

    async def test_a_login_needs_a_token_that_verifies(self) -> None:
        for given, reason in (
            (None, "INVALID_TOKEN"),
            ("\ud800", "INVALID_TOKEN"),  # JSON can carry a lone surrogate, UTF-8 cannot
            (token(secret="other" * 8), "INVALID_TOKEN"),
            (token("bob"), "INVALID_TOKEN"),
            (token(ttl=-3600), "TOKEN_EXPIRED"),
            (token(app_id="other"), "INVALID_APP_ID"),
        ):
            with self.subTest(given=given):
                await self.refused(f"LOGIN_ERR_{reason}", User(self.made).login(token=given))
        self.assertEqual(self.made.session_count, 0)
        await User(self.made).login(token=token())
        self.assertEqual(self.made.session_count, 1)

    async def test_a_refused_login_harms_nobody_who_is_there(self) -> None:
        alice = User(self.made)
        await alice.login(token=token())
        for _ in range(5):
            await self.refused("LOGIN_ERR_INVALID_TOKEN", User(self.made).login(token="no"))
        self.assertIsNone(alice.closed)
        # Refused logins do not count towards the login rate.
        self.assertFalse((await User(self.made).login(token=token())).resumed)

    async def test_an_app_without_a_verifier_does_not_exist(self) -> None:
        login = User(self.made).login(app_id="other", token=token(app_id="other"))
        await self.refused("LOGIN_ERR_INVALID_APP_ID", login)

    async def test_resuming_needs_a_good_token_too(self) -> None:
        alice, again = User(self.made), User(self.made)
        result = await alice.login(token=token())
        alice.lose_connection()
        expired = again.login(token=token(ttl=-3600), session=result.session)
        await self.refused("LOGIN_ERR_TOKEN_EXPIRED", expired)
        self.assertTrue((await again.login(token=token(), session=result.session)).resumed)

    async def test_what_is_wrong_with_a_login_is_said_by_its_code(self) -> None:
        for login, reason in (
            (Login("", "alice"), "INVALID_APP_ID"),
            (Login("a" * 65, "alice"), "INVALID_APP_ID"),
            (Login("\ud800", "alice"), "INVALID_APP_ID"),
            (Login(APP, ""), "INVALID_ARGUMENT"),
            (Login(APP, "a" * 65), "INVALID_ARGUMENT"),
            (Login(APP, "a/b"), "INVALID_ARGUMENT"),
            (Login(APP, "alice\n"), "INVALID_ARGUMENT"),
            (Login(APP, "null"), "INVALID_ARGUMENT"),
            (Login(APP, "alice", version=2), "REJECTED"),
        ):
            with self.subTest(login=login):
                await self.refused(f"LOGIN_ERR_{reason}", self.made.login(login, User(self.made)))


class TokenLifeTest(HubCase):
    """A session ends when its token expires, unless the token is renewed."""

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.wall = time.time()
        self.made = await self.hub(verifiers={APP: JwtVerifier(APP, SECRET)})
        self.user_ = User(self.made)
        await self.user_.login(token=token(ttl=600))

    def told(self, kind: type[object]) -> int:
        return sum(isinstance(item, kind) for item in self.user_.received)

    async def look(self) -> None:
        """Let the hub check its sessions a few times."""
        for _ in range(3):
            await self.skip(1.1)

    async def test_it_is_warned_once_and_then_ended_with_a_reason(self) -> None:
        self.wall += 560
        await self.look()
        self.assertEqual(self.told(TokenPrivilegeWillExpire), 0)
        self.wall += 15
        await self.look()
        await eventually(lambda: self.told(TokenPrivilegeWillExpire))
        self.assertEqual(self.told(TokenPrivilegeWillExpire), 1)
        self.assertIsNone(self.user_.closed)
        self.wall += 30
        await self.look()
        await eventually(lambda: self.user_.closed and self.made.session_count == 0)
        self.assertEqual(
            [
                item
                for item in self.user_.received
                if not isinstance(item, TokenPrivilegeWillExpire)
            ],
            [TokenExpired(), SessionEnded(ConnectionChangeReason.TOKEN_EXPIRED)],
        )

    async def test_a_renewed_token_lets_it_go_on(self) -> None:
        self.wall += 575
        await self.look()
        await self.user_.call(RenewToken(token(ttl=3600)))
        self.wall += 60
        await self.look()
        self.assertIsNone(self.user_.closed)
        self.assertEqual(self.told(TokenPrivilegeWillExpire), 1)

    async def test_a_token_that_is_not_good_renews_nothing(self) -> None:
        for given, name in (
            (token("bob"), "RENEW_TOKEN_ERR_INVALID_TOKEN"),
            (token(ttl=-3600), "RENEW_TOKEN_ERR_TOKEN_EXPIRED"),
            ("x", "RENEW_TOKEN_ERR_TOO_OFTEN"),
        ):
            await self.refused(name, self.user_.call(RenewToken(given)))
        self.wall += 610
        await self.look()
        await eventually(lambda: self.user_.closed)


class ReachableTest(HubCase):
    async def test_a_user_not_heard_of_for_six_seconds_is_unreachable_until_it_is_back(
        self,
    ) -> None:
        hub = await self.hub()
        alice, bob = await self.user(hub), await self.user(hub, "bob")
        await alice.call(SubscribePeersOnlineStatus(("bob",)))

        def told() -> list[PeerOnlineState]:
            news = [item for item in alice.received if isinstance(item, PeersOnlineStatusChanged)]
            return [item.states["bob"] for item in news]

        async def look() -> None:
            for _ in range(3):
                await self.skip(1.1)

        bob.silence = 5.9
        await look()
        self.assertEqual(told(), [PeerOnlineState.ONLINE])
        bob.silence = 6.5
        await look()
        await eventually(lambda: len(told()) == 2)
        status = await alice.call(QueryPeersOnlineStatus(("bob",)))
        self.assertEqual(status.online, {"bob": True})
        bob.silence = 0.0
        await look()
        await eventually(lambda: len(told()) == 3)
        bob.lose_connection()
        for _ in range(8):
            await self.skip(1.1)
        await eventually(lambda: len(told()) == 4)
        await self.skip(30)
        await eventually(lambda: len(told()) == 5)
        unreachable = PeerOnlineState.UNREACHABLE
        self.assertEqual(
            told(),
            [
                PeerOnlineState.ONLINE,
                unreachable,
                PeerOnlineState.ONLINE,
                unreachable,
                PeerOnlineState.OFFLINE,
            ],
        )
