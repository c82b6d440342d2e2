"""The list of what is thrown at the sidecar is whole: every number has its tests, and docs/robustness.md has them all."""

import ast
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
ROWS = re.findall(r"^\| T(\d+) \|(.*)\|$", (FOLDER.parents[1] / "docs" / "robustness.md").read_text(), re.MULTILINE)
NUMBERS = range(1, 52)
TESTS = {node.name for file in FOLDER.glob("test_*.py") for node in ast.walk(ast.parse(file.read_text()))
         if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")}


def numbers_of(name):
    """The numbers that a test's name holds: `test_t01_t02_…`."""
    return [int(number) for number in re.findall(r"_t(\d\d)(?=_)", name)]


def test_the_table_has_every_number_once_and_in_order():
    """T1 to T51, each with one row."""
    assert [int(number) for number, _ in ROWS] == list(NUMBERS)


@pytest.mark.parametrize("number", NUMBERS)
def test_every_number_has_its_tests_in_the_table(number):
    """The tests whose names hold a number are those that its row names, and there is at least one."""
    named = re.findall(r"`(test_\w+)`", dict(ROWS)[str(number)])
    assert sorted(named) == sorted(name for name in TESTS if number in numbers_of(name)) != []
