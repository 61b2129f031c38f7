"""A fair queue: nobody waits for all that another has asked for."""

from __future__ import annotations

import unittest

from rtm_sync.rules.shares import FairQueue, Owner

ALICE, BOB, SERVER = Owner("shop", "alice"), Owner("shop", "bob"), Owner("shop")
OTHER = Owner("game", "alice")


class FairQueueTest(unittest.TestCase):
    def setUp(self) -> None:
        self.queue: FairQueue[int] = FairQueue(100, 1000, 10_000)

    def served(self, count: int, cost: float = 1.0, now: float = 0.0) -> list[tuple[Owner, int]]:
        found = []
        for _ in range(count):
            owner, item = self.queue.take()
            self.queue.charge(owner, cost, now)
            found.append((owner, item))
        return found

    def test_another_app_waits_for_one_item_only(self) -> None:
        for number in range(100):
            self.assertIsNone(self.queue.put(ALICE, number))
        self.assertEqual(self.served(10), [(ALICE, number) for number in range(10)])
        self.assertIsNone(self.queue.put(OTHER, 0))
        self.assertIsNone(self.queue.put(OTHER, 1))
        self.assertEqual(self.served(3), [(OTHER, 0), (OTHER, 1), (ALICE, 10)])

    def test_many_users_of_an_app_are_one_app(self) -> None:
        for number in range(100):
            self.queue.put(Owner("shop", f"user-{number}"), number)
        self.served(1)
        for number in range(50):
            self.queue.put(OTHER, number)
        owners = [owner.app_id for owner, _ in self.served(40)]
        self.assertEqual(owners.count("game"), 20)

    def test_users_of_an_app_get_turns_by_what_they_cost(self) -> None:
        for number in range(10):
            self.queue.put(ALICE, number)
            self.queue.put(BOB, number)
        self.assertEqual(self.served(1, cost=5.0), [(ALICE, 0)])
        self.assertEqual([owner for owner, _ in self.served(5)], [BOB] * 5)

    def test_costs_are_forgotten(self) -> None:
        self.queue.charge(ALICE, 1000.0, 0.0)
        self.queue.charge(BOB, 1.0, 400.0)
        self.queue.put(ALICE, 1)
        self.queue.put(BOB, 2)
        self.assertEqual(self.served(1), [(ALICE, 1)])

    def test_each_bound_names_whom_it_bounds(self) -> None:
        queue: FairQueue[int] = FairQueue(2, 3, 5)
        for owner in (ALICE, ALICE, SERVER):
            self.assertIsNone(queue.put(owner, 0))
        self.assertIn("2 queries of 'alice' wait", queue.put(ALICE, 0) or "")
        self.assertIn("3 queries of the app wait", queue.put(BOB, 0) or "")
        self.assertIsNone(queue.put(OTHER, 0))
        self.assertIsNone(queue.put(OTHER, 0))
        self.assertIn("5 queries of all apps wait", queue.put(Owner("third"), 0) or "")
        self.assertEqual(len(queue), 5)
        for _ in range(5):
            queue.take()
        self.assertEqual(len(queue), 0)
        self.assertRaises(IndexError, queue.take)
