"""The limits of the house, as functions from {path: text} to sentences that say what is wrong and what to do."""

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import PurePosixPath

Files = Mapping[str, str]

FUNCTION_LIMIT = 40
FILE_LIMIT = 300
# An auditor gets one file and reads it whole: cut in two it could not be handed over.
LONGER_FILES = {"services/auditor/verify_bundle.py": 420}
SOURCE = ("schemas", "services", "keyledger")
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager"}
# Which files may import a library: the fewer they are, the easier it is to replace or to reason about.
IMPORTERS = {
    "kafka": r"services/ledger/.*",
    "psycopg": r"services/(projector|console|auditor|embedded)/.*",
    "psycopg_pool": r"services/(projector|console|auditor)/.*",
    "lmdb": r"services/ledger/store\.py",
    "flask": r"services/[a-z_]+/(app|[a-z_]*routes)\.py|services/console/pages/.*|keyledger/middleware\.py",
}
# The auditor has no process of its own: the read API opens its checkpoints and exports to those who may read them.
LENDERS = {"projector": ("auditor",)}
# Shipped for tests, ours and other people's: the twin of the Kafka log.
TWINS = ("services/ledger/memory_log.py",)
# There is nothing to compose without a Docker engine. It says so, and in CI a skip is a failure.
MAY_SKIP = ("tests/end_to_end/test_compose.py",)
_MACHINE_PATH = re.compile(r"(?<![\w.$}/])/(?:work|root|home/\w+)/")
_UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|NotImplemented" + r"Error)\b")
_CHECKING_CALL = re.compile(r"raises|warns|assert|expect|fail|check|verify|then|must|should|eventually")


def long_functions(files: Files) -> Iterator[str]:
    """A function of more than 40 code lines (docstring, blank lines and comments aside)."""
    for path, tree in _trees(files, SOURCE):
        lines = files[path].split("\n")
        for function in _functions(tree):
            size = _code_lines(function, lines)
            if size > FUNCTION_LIMIT:
                yield f"{path}:{function.lineno}: {function.name} has {size} code lines: name a part of it and move it out"


def long_files(files: Files) -> Iterator[str]:
    """A source file of more than 300 lines."""
    for path, text in files.items():
        size = text.count("\n")
        if path.endswith(".py") and _top(path) in SOURCE and size > LONGER_FILES.get(path, FILE_LIMIT):
            yield f"{path}: {size} lines: it holds two ideas; give the second a file with its own name"


def wrong_imports(files: Files) -> Iterator[str]:
    """An import against the direction schemas ← services.ledger ← each service ← keyledger."""
    for path, tree in _trees(files, SOURCE):
        for name in sorted(_imports(path, tree)):
            parts = name.split(".")
            if parts[0] in SOURCE and not _may_import(path, parts):
                yield f"{path}: imports {name}: the direction is schemas ← services.ledger ← each service ← keyledger"
            if parts[-1] == "__main__":
                yield f"{path}: imports {name}: only the interpreter runs __main__"


def wrong_importers(files: Files) -> Iterator[str]:
    """A library imported outside the few files that may."""
    for path, tree in _trees(files, SOURCE):
        for library in sorted({name.split(".")[0] for name in _imports(path, tree)} & IMPORTERS.keys()):
            if not re.fullmatch(IMPORTERS[library], path):
                yield f"{path}: imports {library}, which only {IMPORTERS[library]} may: ask that module instead"


def banned_names(files: Files) -> Iterator[str]:
    """A module or folder whose name says nothing about what is in it."""
    for path in files:
        for part in PurePosixPath(path).with_suffix("").parts:
            if path.endswith(".py") and part in BANNED_NAMES:
                yield f"{path}: the name {part!r} says nothing: name it after what it knows"


def orphans(files: Files) -> Iterator[str]:
    """A module that nobody imports; for what other teams import (schemas, keyledger) a test or document counts too."""
    for path in files:
        module = _module(path)
        if _top(path) not in SOURCE or not path.endswith(".py") or path.endswith(("__init__.py", "__main__.py")):
            continue
        users = set(SOURCE) | {"benchmarks", "pyproject.toml"}
        if _top(path) in ("schemas", "keyledger") or path in TWINS:
            users |= {"tests", "docs", "README.md"}
        if not any(_names(text, user, module) for user, text in files.items() if user != path and _top(user) in users):
            yield f"{path}: nobody imports {module}: use it or remove it"


def unfinished(files: Files) -> Iterator[str]:
    """A mark of work left undone."""
    for path, text in files.items():
        for number, line in enumerate(text.split("\n"), 1):
            if path.endswith(".py") and _UNFINISHED.search(line):
                yield f"{path}:{number}: unfinished: do it, or file it"


def swallowed_errors(files: Files) -> Iterator[str]:
    """An except clause with nothing but pass."""
    for path, tree in _trees(files, (*SOURCE, "tests", "benchmarks")):
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and len(node.body) == 1 and isinstance(node.body[0], ast.Pass):
                yield f"{path}:{node.lineno}: an error swallowed in silence: log it, count it, or let it rise"


def weak_tests(files: Files) -> Iterator[str]:
    """A test that asserts nothing, sleeps, or may be skipped."""
    for path, tree in _trees(files, ("tests",)):
        for function in _functions(tree):
            if function.name.startswith("test_") and not _asserts(function):
                yield f"{path}:{function.lineno}: {function.name} asserts nothing"
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            name = ast.unparse(call.func)
            if name in ("time.sleep", "sleep") and path != "tests/waiting.py":
                yield f"{path}:{call.lineno}: a sleep in a test: wait for a condition with tests.waiting.eventually"
            if re.search(r"(pytest|mark)\.(skip|xfail)(if)?$", name) and path not in MAY_SKIP:
                yield f"{path}:{call.lineno}: a test that may be skipped is a test that does not run"


def misnumbered_decisions(files: Files) -> Iterator[str]:
    """A gap, a double number or a wrong name in docs/decisions."""
    pages = sorted(path.rpartition("/")[2] for path in files if path.startswith("docs/decisions/"))
    for expected, page in enumerate(pages, 1):
        if not re.fullmatch(rf"{expected:04}-[a-z0-9-]+\.md", page):
            yield f"docs/decisions/{page}: should be {expected:04}-title-in-small-letters.md"


def package_hosts(files: Files) -> Iterator[str]:
    """A requirements file that names where packages come from."""
    for path, text in files.items():
        if re.fullmatch(r".*requirements.*\.txt", path) and "://" in text:
            yield f"{path}: names a package host: make it with --no-emit-index-url --no-annotate"


def machine_paths(files: Files) -> Iterator[str]:
    """A path that exists on one person's machine only."""
    for path, text in files.items():
        for number, line in enumerate(text.split("\n"), 1):
            if _MACHINE_PATH.search(line):
                yield f"{path}:{number}: a path of one machine: make it relative"


def _trees(files: Files, tops: tuple[str, ...]) -> Iterator[tuple[str, ast.Module]]:
    for path, text in files.items():
        if path.endswith(".py") and _top(path) in tops:
            yield path, ast.parse(text)


def _top(path: str) -> str:
    return path.split("/", maxsplit=1)[0]


def _module(path: str) -> str:
    return ".".join(PurePosixPath(path).with_suffix("").parts)


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> int:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    if not body:
        return 0
    span = lines[body[0].lineno - 1 : function.end_lineno]
    return sum(1 for line in span if line.strip() and not line.strip().startswith("#"))


def _imports(path: str, tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            folder = PurePosixPath(path).parts[: -node.level] if node.level else ()
            origin = ".".join([*folder, *([node.module] if node.module else [])])
            # `from services import ledger` imports services.ledger: the names count as well as the origin.
            names |= (
                {origin, *(f"{origin}.{alias.name}" for alias in node.names)}
                if _top(origin.replace(".", "/")) in SOURCE
                else {origin}
            )
    return names


def _may_import(path: str, parts: list[str]) -> bool:
    mine, top = path.split("/"), parts[0]
    if mine[0] == "keyledger" or top == "schemas":
        return True
    if mine[0] == "schemas" or top == "keyledger":
        return False
    asked = ["ledger"] if mine[1] == "ledger" else ["ledger", mine[1], *LENDERS.get(mine[1], ())]
    return not parts[1:] or parts[1] in asked


def _names(text: str, path: str, module: str) -> bool:
    package, _, name = module.rpartition(".")
    if re.search(rf"\b{re.escape(module)}\b", text):
        return True
    if path.endswith(".py"):
        return module in _imported_by(path, text)
    return bool(re.search(rf"from {re.escape(package)} import .*\b{name}\b", text))


@cache
def _imported_by(path: str, text: str) -> frozenset[str]:
    return frozenset(_imports(path, ast.parse(text)))


def _asserts(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    nodes = list(ast.walk(function))
    calls = (ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call))
    return any(isinstance(node, ast.Assert) for node in nodes) or any(map(_CHECKING_CALL.search, calls))
