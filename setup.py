"""Builds perjoule; with PERJOULE_COMPILE=1 its core as well, by mypyc: the same modules, at half of their CPU time (decision 0010).

mypyc leaves a dataclass's `__init__` to the interpreter, which takes a sixth of what a compiled request does, and looks a constant up each
time, unless it is said to be one, and so the clock. So a copy is compiled in which all of this is written out.
"""

import ast
import os
import shutil
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
COPY = HERE / "build" / "core"
COMPILED = ("units", "record", "ports", "telemetry", "metering/*", "dialects/*", "access/*",
            "http/addresses", "http/remembered", "http/paths", "http/heads", "http/connection", "http/upstream", "http/inbound",
            "http/downstream", "http/front", "relay/*",
            "records/recent", "records/row", "records/span", "records/tally",
            "process/desk", "process/in_order", "process/link", "process/remote_desk", "process/shared_desk", "process/wire")
CALLED = frozenset({"time.monotonic", "time.monotonic_ns", "time.time_ns", "orjson.loads", "orjson.dumps", "asyncio.get_running_loop"})


def modules():
    """The files that are compiled: what sees every frame and every request, and what divides the joules."""
    shutil.rmtree(COPY, ignore_errors=True)
    shutil.copytree(HERE / "src" / "perjoule", COPY / "perjoule", ignore=shutil.ignore_patterns("__pycache__"))
    found = sorted(path for name in COMPILED for path in COPY.glob(f"perjoule/sidecar/{name}.py") if path.name != "__init__.py")
    for path in found:
        path.write_text(written_out(path.read_text()))
    return [str(path.relative_to(HERE)) for path in found]


def written_out(text):
    """A module's text in which constants are said to be such, and dataclasses have an `__init__` of their own. It assigns, so none is
    frozen there; their hash stays. The last that was let go of is kept for the next that is made. `__slots__` are left out: compiled
    classes have no others, and nobody could inherit from them."""
    lines, tree = text.splitlines(), ast.parse(text)
    body, called = tree.body, calls_named(lines, tree)
    for part in reversed(body):
        if isinstance(part, ast.ClassDef):
            for slots in (each for each in part.body if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == "__slots__"):
                lines[slots.lineno - 1:slots.end_lineno] = [""] * (slots.end_lineno - slots.lineno + 1)
        if isinstance(part, ast.ClassDef) and (mark := next((m for m in part.decorator_list if "dataclass" in ast.unparse(m)), None)):
            told = {option.arg: ast.unparse(option.value) for option in mark.keywords} if isinstance(mark, ast.Call) else {}
            if told.pop("frozen", "") == "True" and told.get("eq") != "False":
                told["unsafe_hash"] = "True"
            fields = [field for field in part.body if isinstance(field, ast.AnnAssign)]
            lines.insert(fields[-1].end_lineno, init_of(fields))
            lines[mark.lineno - 1] = f"@dataclass({', '.join(f'{name}={value}' for name, value in (told | {'init': 'False'}).items())})"
            if not part.bases:
                lines.insert(mark.lineno - 1, "@mypyc_attr(free_list_len=1)")
        elif isinstance(part, ast.Assign | ast.AnnAssign):
            name = getattr(part.targets[0] if isinstance(part, ast.Assign) else part.target, "id", "")
            known = isinstance(part.value, ast.Tuple) or "TypeVar" in ast.unparse(part.value) or "Final" in lines[part.lineno - 1]
            if name.isupper() and not known:  # mypyc 2.4 takes long tuples of numbers for not set
                kind = f"[{ast.unparse(part.annotation)}]" if isinstance(part, ast.AnnAssign) else ""
                lines[part.lineno - 1] = f"{name}: Final{kind} =" + lines[part.lineno - 1].partition("=")[2]
    first = body[0].end_lineno if ast.get_docstring(tree) is not None else 0
    imports_end = max((part.end_lineno for part in body if isinstance(part, ast.Import | ast.ImportFrom)), default=first)
    lines[imports_end:imports_end] = [f"{name_of(call)}: Final = {call}" for call in sorted(called)]
    lines[first:first] = ["from typing import TYPE_CHECKING, Final", "if TYPE_CHECKING:", "    from mypy_extensions import mypyc_attr"]
    return "\n".join(lines) + "\n"


def calls_named(lines, tree):
    """Which of CALLED the functions of a module call. In its lines they then do so by a name of the module's own: mypyc looks functions of
    C modules up for each call."""
    found = [node.func for part in tree.body if isinstance(part, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
             for node in ast.walk(part) if isinstance(node, ast.Call) and ast.unparse(node.func) in CALLED]
    for call in sorted(found, key=lambda call: (call.lineno, call.col_offset), reverse=True):
        line = lines[call.lineno - 1].encode()
        named = name_of(ast.unparse(call)).encode()
        lines[call.lineno - 1] = (line[:call.col_offset] + named + line[call.end_col_offset:]).decode()
    return {ast.unparse(call) for call in found}


def name_of(call):
    """The module's own name for it."""
    return "_" + call.replace(".", "_")


def init_of(fields):
    """The `__init__` of these annotated assignments."""
    wanted, kept = [], []
    for field in fields:
        name, kind, default = field.target.id, ast.unparse(field.annotation), field.value
        value = name
        if isinstance(default, ast.Call) and ast.unparse(default.func) == "field":
            options = {option.arg: option.value for option in default.keywords}
            default = options.get("default")
            if "default_factory" in options:
                kind, default = f"{kind} | None", ast.Constant(None)
                value = f"({ast.unparse(options['default_factory'])})() if {name} is None else {name}"
        wanted.append(f"{name}: {kind}" + (f" = {ast.unparse(default)}" if default is not None else ""))
        kept.append(f"        self.{name} = {value}")
    return f"    def __init__(self, {', '.join(wanted)}) -> None:\n" + "\n".join(kept)


def built():
    """What `setup` is told beside pyproject.toml."""
    if os.environ.get("PERJOULE_COMPILE") != "1":
        return {}
    try:
        from mypyc.build import mypycify
    except ImportError:  # asked for what is needed to build, before it is there
        return {"setup_requires": ["mypy[mypyc]>=1.15"]}
    options = ["--config-file=", "--ignore-missing-imports", "--follow-imports=silent"]
    extensions = mypycify([*options, *modules()], group_name="perjoule")
    if os.name == "posix":  # all of it is in one library, whose functions call each other directly if nobody else can
        for extension in extensions:
            extension.extra_compile_args.append("-fvisibility=hidden")
    return {"ext_modules": extensions}


setup(**built())
