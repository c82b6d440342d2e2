"""`perjoule ledger verify`: is every joule accounted for? Exit code 0 if so, 1 if not, 2 where it cannot be asked."""

import argparse
from dataclasses import asdict

import orjson
from rich.console import Console
from rich.text import Text

from perjoule.adapters.ledger.queries import Queries
from perjoule.adapters.ledger.verify import Account, verify, wrong_sums
from perjoule.bench.columns import Columns
from perjoule.bench.ledger_summary import amount, query_of, when

SPARE = ("from", "idle>", "unattributed>", "until", "dropped>", "measured>")  # what is dropped is said below, too
NOT_ACCOUNTED = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("--since", metavar="TIME", help="from the last account before this, as 2026-07-01T12:00:00Z or Unix seconds")
    parser.add_argument("--until", metavar="TIME", help="to the last account before this")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")


def run(asked: argparse.Namespace, ledger: Queries) -> int:
    """Raises ValueError for what is no time, or no account to go by; LedgerError."""
    where = query_of(asked).where
    stretch = where["since_unix_ns"], where["until_unix_ns"]
    accounts = verify(ledger.database, *stretch)
    if not any(account.last or account.lost or account.twice for account in accounts):
        raise ValueError(f"got a ledger without an account between {asked.since or 'its beginning'} and {asked.until or 'now'},"
                         " expected at least one: `perjoule serve` keeps one every ten seconds")
    wrong = wrong_sums(ledger.database, *stretch)
    accounted = wrong == 0 and all(account.accounted for account in accounts)
    if asked.json:
        print(orjson.dumps({"accounted": accounted, "wrong_sums": wrong, "runs": [
            {**asdict(account), "accounted": account.accounted, "conserved": account.conserved} for account in accounts]},
            option=orjson.OPT_INDENT_2).decode())
    else:
        _show(accounts, wrong, accounted)
    return 0 if accounted else NOT_ACCOUNTED


def _show(accounts: list[Account], wrong: int, accounted: bool) -> None:
    console = Console(highlight=False)
    console.print(Columns({head: [Text(cell) for cell in column] for head, column in _columns(accounts).items()}, SPARE))
    for account in accounts:
        for text in _complaints(account):
            console.print(f"run {account.instance_id}: {text}", soft_wrap=True)
    if wrong:
        console.print(f"{wrong} sums by minute, hour or day are not those of their records", soft_wrap=True)
    lost = sum(account.lost for account in accounts)
    uj = sum(abs(account.unexplained_uj or account.missing_uj or 0) for account in accounts)
    open_ends = any(account.later or account.last is None for account in accounts)
    console.print(f"Not accounted for: {lost} records and {amount(uj)} J are missing." if not accounted else
                  "Every joule is accounted for, up to the last account of each run." if open_ends else "Every joule is accounted for.")


def _columns(accounts: list[Account]) -> dict[str, list[str]]:
    def sums(name: str) -> list[str]:
        return ["–" if a.last is None else amount(getattr(a.last, name) - (getattr(a.first, name) if a.first else 0)) for a in accounts]

    return {"run": [account.instance_id[:12] for account in accounts],
            "from": ["its start" if account.first is None else when(account.first.unix_ns) for account in accounts],
            "until": ["–" if account.last is None else when(account.last.unix_ns) for account in accounts],
            "records>": [f"{account.present:,}" for account in accounts],
            "dropped>": [f"{account.dropped:,}" for account in accounts], "lost>": [f"{account.lost:,}" for account in accounts],
            "measured>": sums("measured_uj"), "idle>": sums("idle_uj"), "unattributed>": sums("unattributed_uj"),
            "settled>": sums("settled_uj"), "joules>": [amount(account.energy_uj) for account in accounts],
            "status": ["–" if account.last is None else account.last.status.value for account in accounts]}


def _complaints(account: Account) -> list[str]:
    """What a person should know of this run."""
    said = []
    if account.lost:
        named = ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in account.gaps)
        said.append(f"{account.lost} records were lost, among the places {named}")
    if account.dropped:
        said.append(f"{account.dropped} records were dropped by retention; sums by minute, hour or day have them")
    if account.twice:
        said.append(f"{account.twice} records have the place of another")
    if not account.conserved:
        said.append("what was measured is not what was divided")
    if account.unexplained_uj:
        said.append(f"{amount(account.missing_uj)} J were settled that no record has")
    if account.later:
        said.append(f"{account.later} records came after its last account, and no account says yet that they are all")
    if account.last is None:
        said.append("it kept no account; gaps can be seen, joules cannot be compared")
    return said
