"""Things with memory that one call at a time works with, and that are kept for the next one."""

from typing import Any, Generic, Protocol, TypeVar

KINDS = 16  # that are kept at most
LIMIT = 1 << 26  # bytes that are kept at most


class Lent(Protocol):
    """Something to work with, and the memory that it holds."""

    nbytes: int


Thing = TypeVar("Thing", bound=Lent)


class Lending(Generic[Thing]):
    """Things by their kind, which depends on sizes, say.

    A thing is taken by one caller, and its kind has another one made for the next that comes
    before it is put back. Of too many kinds, and of too much memory, the ones used first go.
    """

    def __init__(self) -> None:
        self.free: dict[Any, list[Thing]] = {}

    def taken(self, kind: Any) -> Thing | None:
        """One that nobody has; None if there is none."""
        try:
            return self.free[kind].pop()
        except (IndexError, KeyError):
            return None

    def put_back(self, kind: Any, thing: Thing) -> None:
        """Nobody works with it any more; what is too large is not kept."""
        if thing.nbytes > LIMIT:
            return
        free = self.free.get(kind)
        if free is None:
            self._make_room(thing.nbytes)
            free = self.free.setdefault(kind, [])
        free.append(thing)

    def _make_room(self, size: int) -> None:
        """For something of a new kind."""
        kept = list(self.free.items())
        total = size + sum(thing.nbytes for _, things in kept for thing in things)
        for kind, things in kept:
            if len(self.free) < KINDS and total <= LIMIT:
                return
            total -= sum(thing.nbytes for thing in things)
            self.free.pop(kind, None)
