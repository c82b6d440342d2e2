"""Finds the commands of perjoule in the pages, and asks the program itself which flags it has."""

import re
import shlex
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from functools import cache
from io import StringIO

from perjoule.main import PROGRAMS, main

FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
SHELLS = {"bash", "sh", "console", ""}
GROUPS = {"ledger": ("summary", "records", "verify", "export", "report"),
          "bench": tuple(name.split()[1] for name in PROGRAMS if name.startswith("bench "))}
"""Commands that have commands; a page may name the ledger's file or URL before."""
FLAG = re.compile(r"(--[a-z][\w-]*)(?:[ =]\{([^}]*)\})?")
ENDS = {"|", "||", "&&", ";", "&", ">", ">>", "<", "2>", "2>>", "(", ")"}
BEFORE = {*ENDS, "{", "exec", "-"}  # after these a command begins
NAMES = re.compile(r"^    (\w+)(?: |$)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A fence of a page: its language and what is in it."""

    language: str
    text: str


def fences(page: str) -> Iterator[Block]:
    """The blocks of a page, without the indentation of a list that they may stand in."""
    for indent, language, text in FENCE.findall(page):
        yield Block(language, re.sub(f"^{indent}", "", text, flags=re.MULTILINE))


def commands(page: str) -> Iterator[list[str]]:
    """What is typed after `perjoule`, word by word: in shell blocks, and in code spans that begin with it."""
    for block in fences(page):
        if block.language in SHELLS:
            yield from _in_shell(block)
    for span in re.findall(r"`(perjoule [^`\n]+)`", FENCE.sub("", page)):
        yield span.replace("…", " ").replace("\\|", " ").split()[1:]


def _in_shell(block: Block) -> Iterator[list[str]]:
    for line in block.text.replace("\\\n", " ").splitlines():
        if block.language == "console" and not line.startswith("$ "):
            continue
        words = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="|&;<>()")
        words.whitespace_split = True
        with suppress(ValueError):  # a quote that ends on another line: no command of ours has one
            found = list(words)
            for at, word in enumerate(found):
                if word.rpartition("/")[2] == "perjoule" and (at == 0 or "=" in found[at - 1] or found[at - 1] in BEFORE):
                    rest = found[at + 1:]
                    typed = rest[:next((end for end, other in enumerate(rest) if other in ENDS), len(rest))]
                    if typed and (block.language or typed[0] in flags_of(())):
                        yield typed


@cache
def flags_of(command: tuple[str, ...]) -> dict[str, frozenset[str]]:
    """The flags of a command, each with the values that it may have, none for any; of the program itself its commands, too.
    Raises KeyError for a command that there is not."""
    said = StringIO()
    with redirect_stdout(said), suppress(SystemExit):
        main([*command, "--help"])
    text = said.getvalue()
    if not text.startswith(f"usage: perjoule {' '.join(command)}".rstrip()) and "ledger" not in command:
        raise KeyError(command)
    found: dict[str, frozenset[str]] = {} if command else dict.fromkeys(NAMES.findall(text), frozenset())
    for flag, values in FLAG.findall(text):
        found[flag] = found.get(flag, frozenset()) | frozenset(filter(None, values.replace("\n", "").replace(" ", "").split(",")))
    return found


def mistakes(words: list[str]) -> list[str]:
    """What the program would not understand of a command."""
    if not words or words[0].startswith("-") or words[0] not in flags_of(()):
        return [] if words and words[0] in flags_of(()) else [f"perjoule {' '.join(words)}: expected a command"]
    command, rest = (words[0],), words[1:]
    if words[0] in GROUPS:
        inner = [word for word in rest if word in GROUPS[words[0]]]
        command += tuple(inner[:1])
    known = flags_of(command)
    wrong = []
    for at, word in enumerate(rest):
        flag, _, value = word.partition("=")
        if not flag.startswith("--") or flag == "--":
            continue
        if flag not in known:
            wrong.append(f"perjoule {' '.join(command)} has no {flag}")
        elif known[flag] and (value or at + 1 < len(rest)):
            value = value or rest[at + 1]
            if value.islower() and not value.startswith("-") and value not in known[flag]:
                wrong.append(f"perjoule {' '.join(command)} {flag}: got {value!r}, expected one of {sorted(known[flag])}")
    return wrong
