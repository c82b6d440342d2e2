"""`perjoule ledger`: what the records add up to, one by one or together, and whether all of them are there."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from perjoule.adapters.ledger.database import LedgerError, open_database
from perjoule.adapters.ledger.queries import Queries
from perjoule.sidecar.settings.config import ConfigError
from perjoule.sidecar.settings.sources import state_folder

USAGE_ERROR = 2
SUBCOMMANDS = {  # in `perjoule.bench.ledger_NAME`: add_arguments(parser), and run(asked, ledger), which answers the exit code
    "summary": "what is in it, and what it adds up to by model or tenant",
    "records": "one record, or the latest",
    "verify": "is every joule accounted for?",
    "export": "all records, for other programs",
    "report": "what it cost, in money and carbon",
}
PLACE = ("FILE|URL is a SQLite file or postgresql://USER@HOST/DATABASE; without it, $PERJOULE_LEDGER, else where `perjoule serve` keeps"
         " its own.")


def run(argv: Sequence[str]) -> int:
    """The command. Exit code 2: a wrong flag, or a ledger that cannot be read."""
    args = list(argv)
    where = args.pop(0) if args and args[0] not in SUBCOMMANDS and not args[0].startswith("-") else None
    parser = argparse.ArgumentParser("perjoule ledger", usage="%(prog)s [-h] [FILE|URL] COMMAND …", description=__doc__.partition(": ")[2],
                                     epilog=PLACE)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    wanted = args[0] if args and args[0] in SUBCOMMANDS else None
    for name, text in SUBCOMMANDS.items():
        command = commands.add_parser(name, prog=f"perjoule ledger [FILE|URL] {name}", help=text, description=text, epilog=PLACE)
        if name == wanted:  # nobody pays for what he does not use
            module = import_module(f"perjoule.bench.ledger_{name}")
            module.add_arguments(command)
    asked = parser.parse_args(args)
    try:
        database = open_database(_place(where), create=False)
        try:
            code: int = module.run(asked, Queries(database))
            return code
        finally:
            database.close()
    except (LedgerError, ConfigError, ValueError) as error:
        print(f"perjoule ledger {asked.command}: {error}", file=sys.stderr)
        return USAGE_ERROR


def _place(where: str | None) -> str | Path:
    told = where or os.environ.get("PERJOULE_LEDGER") or "auto"
    return state_folder() / "ledger.sqlite3" if told == "auto" else told


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
