"""A process that kills, again and again at a random instant, a child of its own that stores records; then it says what was acknowledged.

    python -m tests.fakes.ledger_kills WHERE KILLS SEED
"""

import os
import random
import select
import signal
import sys
import time

import orjson

from perjoule.adapters.ledger.store import Ledger
from tests.fakes.ledger_writer import account, record

BATCH, AGAIN = 7, 3  # records of a batch, and how many of the one before come again
UJ = 1_000


def write(where: str, run: str, said: int) -> None:
    """Store batch after batch, each with some records of the one before, and an account now and then; say how far it has come."""
    ledger, number = Ledger(where), 0
    while True:
        batch = [record(n, arrival=time.time_ns(), energy_uj=UJ, run=run, model=f"m{n % 3}")
                 for n in range(max(1, number + 1 - AGAIN), number + BATCH + 1)]
        for each in batch:
            each.facts.record_id = f"{run}-{each.sequence}"
        ledger.put(batch)
        number += BATCH
        if number % (5 * BATCH) == 0:
            ledger.keep_balance(account(run, time.time_ns(), number, number * UJ))
        os.write(said, b"%d\n" % number)


def kill(where: str, run: str, acknowledgements: int, after_s: float) -> int:
    """Let a child write, kill it so many acknowledgements and seconds later; answers how far it had come."""
    heard, said = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(heard)
        try:
            write(where, run, said)
        finally:
            os._exit(1)
    os.close(said)
    text = b""
    while text.count(b"\n") < acknowledgements and (piece := os.read(heard, 4096)):
        text += piece
    select.select([], [], [], after_s)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    while piece := os.read(heard, 4096):
        text += piece
    os.close(heard)
    assert os.WIFSIGNALED(status), f"the child of run {run} ended by itself"
    return int(text.split(b"\n")[-2]) if b"\n" in text else 0


def main(where: str, kills: str, seed: str) -> None:
    chance = random.Random(int(seed))
    reached = {}
    for number in range(int(kills)):
        run = f"run{number}"
        if number % 2:  # while it opens or begins
            reached[run] = kill(where, run, 0, chance.uniform(0, 0.03))
        else:  # between two answers
            reached[run] = kill(where, run, chance.randrange(1, 12), chance.uniform(0, 0.003))
    sys.stdout.buffer.write(orjson.dumps(reached))


if __name__ == "__main__":
    main(*sys.argv[1:])
