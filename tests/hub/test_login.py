"""Logging in to a hub that checks tokens, and what is refused before a token is looked at."""

from __future__ import annotations

from rtm_sync.hub.tokens import JwtVerifier, make_token
from rtm_sync.protocol import Login

from .support import APP, HubCase, User

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
            ("\ud800", "INVALID_TOKEN"),  # JSON can carry what UTF-8 cannot
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
        self.assertFalse((await User(self.made).login(token=token())).resumed)  # rate not spent

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
