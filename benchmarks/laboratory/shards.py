"""Divides a work list among several machines."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


def shard_of(items: Iterable[T], shard: str, owner: Callable[[T], Any]) -> list[T]:
    """Return the part of one machine.

    Args:
        items: the work list.
        shard: which machine of how many: `"2/3"` for the second of three.
        owner: returns what an item belongs to. All items that belong to the same are on one machine.

    Raises:
        ValueError: `shard` names no machine.
    """
    number, slash, of = shard.partition("/")
    if not slash or not number.isdecimal() or not of.isdecimal() or not 1 <= int(number) <= int(of):
        raise ValueError(f"--shard {shard}: give the number of this machine and how many there are, such as 1/4")
    items = list(items)
    machines = {one: place % int(of) + 1 for place, one in enumerate(dict.fromkeys(map(owner, items)))}
    return [item for item in items if machines[owner(item)] == int(number)]
