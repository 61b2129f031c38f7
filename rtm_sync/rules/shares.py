"""A queue in which everybody gets a turn, however much the others ask for. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

_HALVED_EVERY = 10.0  # seconds
_NOTHING = 0.001  # a cost that is forgotten


class Owner(NamedTuple):
    """Who asks: a user of an app, or the app's own processes with "" as the uid."""

    app_id: str
    uid: str = ""


@dataclass(slots=True)
class _App(Generic[T]):
    """The items of one app that wait, by user."""

    users: dict[str, deque[T]] = field(default_factory=dict)
    waiting: int = 0


class FairQueue(Generic[T]):
    """Items that wait for one worker. The next one is of the app that has cost least lately.

    In it, it is of the user who has cost least; the items of one user keep their order. Costs count
    half after ten seconds. Not thread-safe; time is an argument, seconds of a monotonic clock.

    Args:
        most_of_user, most_of_app, most: the most items that wait.
    """

    def __init__(self, most_of_user: int, most_of_app: int, most: int) -> None:
        self._most_of_user = most_of_user
        self._most_of_app = most_of_app
        self._most = most
        self._apps: dict[str, _App[T]] = {}
        self._waiting = 0
        self._costs: dict[Owner | str, float] = {}  # of users, and of apps
        self._halved_at = 0.0

    def __len__(self) -> int:
        return self._waiting

    def put(self, owner: Owner, item: T) -> str | None:
        """Add an item. Returns the sentence that says why it is refused, or None."""
        app = self._apps.get(owner.app_id)
        of_user = 0 if app is None else len(app.users.get(owner.uid, ()))
        for whose, number, most in (
            (f"{owner.uid!r}" if owner.uid else "the app's server", of_user, self._most_of_user),
            ("the app", 0 if app is None else app.waiting, self._most_of_app),
            ("all apps", self._waiting, self._most),
        ):
            if number >= most:
                return f"{number:,} queries of {whose} wait, which is the limit; try again later."
        if app is None:
            app = self._apps[owner.app_id] = _App()
        app.users.setdefault(owner.uid, deque()).append(item)
        app.waiting += 1
        self._waiting += 1
        return None

    def discard(self, is_over: Callable[[T], bool]) -> None:
        """Remove the items for which nobody waits any longer."""
        for app_id, app in list(self._apps.items()):
            for uid, items in list(app.users.items()):
                left = deque(item for item in items if not is_over(item))
                app.waiting -= len(items) - len(left)
                self._waiting -= len(items) - len(left)
                if left:
                    app.users[uid] = left
                else:
                    del app.users[uid]
            if not app.waiting:
                del self._apps[app_id]

    def take(self) -> tuple[Owner, T]:
        """Remove the item whose turn it is. Raises IndexError when none waits."""
        if not self._apps:
            raise IndexError("No item waits.")
        app_id = min(self._apps, key=self._cost)
        app = self._apps[app_id]
        uid = min(app.users, key=lambda uid: self._cost(Owner(app_id, uid)))
        item = app.users[uid].popleft()
        if not app.users[uid]:
            del app.users[uid]
        app.waiting -= 1
        self._waiting -= 1
        if not app.waiting:
            del self._apps[app_id]
        return Owner(app_id, uid), item

    def charge(self, owner: Owner, cost: float, now: float) -> None:
        """Count what an item has cost, such as seconds of the worker."""
        while now - self._halved_at >= _HALVED_EVERY:
            self._costs = {one: cost / 2 for one, cost in self._costs.items() if cost > _NOTHING}
            self._halved_at = self._halved_at + _HALVED_EVERY if self._costs else now
        for one in (owner, owner.app_id):
            self._costs[one] = self._cost(one) + cost

    def _cost(self, one: Owner | str) -> float:
        return self._costs.get(one, 0.0)
