"""Sliding windows: exact rates, and bounded memory."""

from __future__ import annotations

import unittest
from dataclasses import fields
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from rtm_sync.rules.limits import Limits
from rtm_sync.rules.rates import KeyedWindows, Rate, SlidingWindow

ROOT = Path(__file__).parents[2]


class SlidingWindowTest(unittest.TestCase):
    def test_so_many_and_no_more_until_the_first_is_old(self) -> None:
        window = SlidingWindow(Rate(3, 2.0))
        self.assertEqual([window.allow(at) for at in (0.0, 0.5, 1.0, 1.5)], [True] * 3 + [False])
        self.assertFalse(window.allow(1.9))
        self.assertTrue(window.allow(2.0))  # the event at 0.0 has left the window
        self.assertFalse(window.allow(2.4))
        self.assertTrue(window.allow(2.5))

    @given(st.lists(st.integers(0, 40), max_size=60), st.integers(1, 5), st.integers(1, 6))
    def test_no_window_ever_holds_more(self, gaps: list[int], count: int, seconds: int) -> None:
        window, now, allowed = SlidingWindow(Rate(count, seconds)), 0, []
        for gap in gaps:
            now += gap / 8
            recent = [at for at in allowed if at > now - seconds]
            self.assertEqual(window.allow(now), len(recent) < count)
            if len(recent) < count:
                allowed.append(now)

    def test_keys_do_not_count_for_each_other_and_are_forgotten(self) -> None:
        windows = KeyedWindows(Rate(1, 1.0), max_keys=10)
        self.assertTrue(all(windows.allow(key, 0.0) for key in range(10)))
        self.assertFalse(windows.allow(3, 0.5))
        self.assertTrue(all(windows.allow(key, 5.0) for key in range(100, 110)))
        self.assertLessEqual(len(windows._windows), 11)

    def test_a_flood_of_names_takes_no_memory(self) -> None:
        windows = KeyedWindows(Rate(1, 60.0), max_keys=100)
        for key in range(10_000):
            windows.allow(key, 0.0)
        self.assertLessEqual(len(windows._windows), 100)

    def test_the_defaults_are_the_references(self) -> None:
        limits = Limits()
        self.assertEqual(limits.media_size, 30 * 1024 * 1024)
        self.assertEqual((limits.transfers, limits.joined_channels), (9, 20))
        self.assertEqual((limits.retention, limits.offline_messages), (7 * 86_400, 200))
        self.assertEqual((limits.sends, limits.logins), (Rate(1500, 3.0), Rate(2, 1.0)))
        self.assertEqual((limits.joins, limits.same_channel_joins), (Rate(50, 3.0), Rate(2, 5.0)))
        self.assertEqual(Limits.web().sends, Rate(180, 3.0))
        self.assertEqual(str(limits.sends), "1,500 in 3 s")

    def test_the_table_for_operators_has_every_limit_and_both_tiers(self) -> None:
        table = [
            [cell.strip() for cell in line.split("|")[1:5]]
            for line in (ROOT / "docs" / "operations.md").read_text().splitlines()
            if line.count("|") == 5
        ]
        rows = {row[0].strip("`"): row for row in table if hasattr(Limits(), row[0].strip("`"))}
        self.assertEqual(list(rows), [item.name for item in fields(Limits)])
        for name, (_, _, linux, web) in rows.items():
            for tier, shown in (("linux", linux), ("web", web or linux)):
                given = "" if shown in ("none", "enough for `sends`") else f"{name}={shown}"
                self.assertEqual(
                    getattr(Limits.parse(f"{tier} {given}"), name),
                    getattr(Limits.parse(tier), name),
                    f"{name} of {tier}",
                )

    def test_an_operator_names_a_tier_and_what_differs(self) -> None:
        self.assertEqual(Limits.parse(""), Limits())
        self.assertEqual(Limits.parse("linux"), Limits())
        self.assertEqual(Limits.parse("web"), Limits.web())
        limits = Limits.parse("web sends=500/1.5 transfers=3 session_grace=5 user_bytes=1_000_000")
        self.assertEqual(
            (limits.sends, limits.transfers, limits.session_grace, limits.user_bytes),
            (Rate(500, 1.5), 3, 5.0, 1_000_000),
        )
        self.assertEqual(limits.presence_queries, Limits.web().presence_queries)
        self.assertEqual(Limits.parse("user_uploads=20/3600").user_uploads, Rate(20, 3600))

    def test_what_cannot_be_is_refused_by_name(self) -> None:
        for text, why in (
            ("linux web", "'web' is neither"),
            ("sendz=1/1", "'sendz' is not a limit; the limits are media_size"),
            ("sends=100", "sends is '100'; it must be COUNT/SECONDS"),
            ("sends=0/1", "sends is '0/1'"),
            ("sends=1/nan", "sends is '1/nan'"),
            ("transfers=0", "transfers is '0'; it must be a whole number above 0"),
            ("announced_members=3001", "announced_members is 3,001; it must be at most 3,000"),
            ("invitation_content=99999", "it must be at most 32,768, because one frame"),
            ("session_grace=inf", "session_grace is 'inf'; it must be a number of seconds above 0"),
        ):
            with self.subTest(text), self.assertRaisesRegex(ValueError, why):
                Limits.parse(text)
