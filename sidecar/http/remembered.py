"""What was worked out from what clients send, kept for the next time, in a memory that they cannot fill."""

from typing import AnyStr, TypeVar

V = TypeVar("V")


def remember(memory: dict[AnyStr, V], key: AnyStr, value: V, *, most: int, longest: int) -> None:
    """Keep what `key` gave, unless that is longer than `longest`. There are `most` at most: when it is full, all is forgotten."""
    if len(key) <= longest:
        if len(memory) == most:
            memory.clear()
        memory[key] = value
