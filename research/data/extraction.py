"""English docstrings and the code without them, taken from installed Python packages: the text of the embedded corpus.

Every machine that can run this project holds this text already, so nothing is downloaded. Standard library only: worker
processes import little more than this file. Which text comes out depends on the Python and package versions;
`Root` carries them.
"""

import ast
import gc
import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
import multiprocessing
import multiprocessing.connection
import os
import platform
import re
import sysconfig
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from analysis.cores import usable_cores
from research.config import check
from research.data.errors import DataError

# Import name and distribution name are the same for each of these, and each is one folder.
PACKAGES = ("tensorflow", "keras", "jax", "flax", "optax", "numpy", "scipy", "pandas", "matplotlib", "seqio")
DOMAINS = ("prose", "code")
RULES = "1.0.0"  # of this file: raise it when other text comes out of the same packages, and caches are made anew
ASCII_SHARE = 0.9  # of a docstring's characters; below it the docstring is not counted as English

_SUMMARY = "extracted.json"  # of an extraction: its counts and the digests of its files
_SKIPPED_FOLDERS = {"site-packages", "dist-packages", "__pycache__"}
_TEST_NAME = re.compile(r"(^|_)tests?(_|$)")  # test, tests, idle_test, internal_test_util, test_util.py, ops_test.py
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Root:
    """A folder of Python files and the version of what is in it."""

    name: str
    version: str
    folder: Path


@dataclass(frozen=True)
class Module:
    """One parsed file: its unique name, its docstrings (indentation cleaned), its source without them."""

    name: str
    docstrings: tuple[str, ...]
    code: str


def installed_roots() -> tuple[Root, ...]:
    """The standard library and PACKAGES as installed here. Raises ConfigError for a package that is missing."""
    roots = [Root("python", platform.python_version(), Path(sysconfig.get_paths()["stdlib"]))]
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        check(
            spec is not None,
            "embedded_corpus",
            name,
            "this package is part of the corpus and is not installed",
            "pip install 'isoflop[train]'",
        )
        roots.append(Root(name, importlib.metadata.version(name), Path(spec.submodule_search_locations[0])))
    return tuple(roots)


def versions(roots: Sequence[Root]) -> dict[str, str]:
    """Root name to version: what the corpus depends on."""
    return {root.name: root.version for root in roots}


def corpus_key(roots: Sequence[Root]) -> str:
    """Twelve hex digits that change with RULES, the Python version or any root's version."""
    text = json.dumps([RULES, platform.python_version(), *sorted(versions(roots).items())])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def extract(roots: Sequence[Root], folder: Path) -> dict:
    """Write `prose.jsonl` and `code.jsonl` (name and text, one document a line) into `folder`; return the counts.

    A prose document is the docstrings of one module, joined by blank lines; each docstring is kept where it first
    occurs in the corpus and nowhere else. A code document is one file without its docstrings; of equal files the first
    is kept. Files that do not parse are skipped and counted. The result does not depend on the number of processes.
    """
    counts = Counter(dict.fromkeys(_COUNTED, 0))
    seen: set[bytes] = set()
    with open(folder / "prose.jsonl", "w") as prose, open(folder / "code.jsonl", "w") as code:
        for module in _modules(roots):
            counts["files"] += 1
            if module is None:
                counts["files_not_parsed"] += 1
                continue
            _write(prose, module.name, "\n\n".join(_kept_docstrings(module, seen, counts)), "prose", counts)
            if not module.code.strip():
                counts["files_without_code"] += 1
            elif _first_time(module.code, seen):
                _write(code, module.name, module.code, "code", counts)
            else:
                counts["files_repeated"] += 1
    return dict(counts)


_COUNTED = (
    "files",
    "files_not_parsed",
    "files_without_code",
    "files_repeated",
    "docstrings",
    "docstrings_repeated",
    "docstrings_not_english",
    "prose_documents",
    "prose_bytes",
    "code_documents",
    "code_bytes",
)


def extracted(roots: Sequence[Root], folder: Path) -> dict:
    """`extract` unless `folder` holds its result; the folder appears whole or not at all. Returns the counts.

    Raises DataError, naming the file, for a result that has changed on disk.
    """
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.tmp") as made:
            staged = Path(made) / folder.name
            staged.mkdir()
            counts = extract(roots, staged)
            made_of = {"counts": counts, "sha256": {domain: _sha256(staged, domain) for domain in DOMAINS}}
            (staged / _SUMMARY).write_text(json.dumps(made_of, indent=2) + "\n")
            staged.rename(folder)
    try:
        made_of = json.loads((folder / _SUMMARY).read_text())
        counts, digests = made_of["counts"], made_of["sha256"]
        damaged = [f"{domain}.jsonl" for domain in DOMAINS if _sha256(folder, domain) != digests[domain]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / _SUMMARY}: damaged ({error!r}). Fix: delete {folder}, it is made anew.") from error
    if damaged:
        raise DataError(f"{folder / damaged[0]}: has changed since it was made. Fix: delete {folder}, it is made anew.")
    return counts


def _sha256(folder: Path, domain: str) -> str:
    with open(folder / f"{domain}.jsonl", "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def documents(folder: Path, domain: str) -> Iterator[tuple[str, str]]:
    """The (name, text) pairs that `extract` wrote for one domain."""
    with open(folder / f"{domain}.jsonl") as lines:
        for line in lines:
            document = json.loads(line)
            yield document["name"], document["text"]


def parse(name: str, path: Path) -> Module | None:
    """One file as a Module, or None where it is not valid Python of this version."""
    try:
        text = importlib.util.decode_source(path.read_bytes())  # coding cookie and newlines as the compiler sees them
        tree = ast.parse(text)
    except (SyntaxError, ValueError):  # ValueError: a NUL byte; UnicodeDecodeError is one too
        return None
    docstrings, cuts = [], []
    for node in _documented_nodes(tree):
        docstrings.append(inspect.cleandoc(node.body[0].value.value))
        cuts.append((node.body[0], len(node.body) == 1 and not isinstance(node, ast.Module)))
    return Module(name, tuple(docstrings), _without(text, cuts))


def _documented_nodes(tree: ast.Module) -> Iterator[ast.AST]:
    """Nodes with a docstring in the order of the file. Only bodies are walked: expressions hold no definitions."""
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(node, _DOCUMENTED) and _is_docstring(body[0]):
            yield node
        for field in ("cases", "finalbody", "orelse", "handlers", "body"):
            inner = getattr(node, field, None)
            if isinstance(inner, list):  # a lambda's body and a conditional's orelse are expressions
                stack.extend(reversed(inner))


def _is_docstring(statement: ast.stmt) -> bool:
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Constant):
        return False
    return isinstance(statement.value.value, str)


def _without(text: str, cuts: list[tuple[ast.stmt, bool]]) -> str:
    """`text` without these statements; (statement, True) marks one that is its block's only statement.

    Whole lines go where the statement stands alone; elsewhere it becomes `pass`, so that what is left still parses.
    """
    lines = text.encode().split(b"\n")  # ast counts columns in UTF-8 bytes and knows no other line end after decoding
    for statement, is_whole_block in reversed(cuts):
        first, last = statement.lineno - 1, statement.end_lineno - 1
        before, after = lines[first][: statement.col_offset], lines[last][statement.end_col_offset :]
        alone = not before.strip() and not after.strip()
        lines[first : last + 1] = [] if alone and not is_whole_block else [before + b"pass" + after]
    return b"\n".join(lines).decode()


def _kept_docstrings(module: Module, seen: set[bytes], counts: Counter) -> Iterator[str]:
    for docstring in module.docstrings:
        counts["docstrings"] += 1
        if not _is_english(docstring):
            counts["docstrings_not_english"] += 1
        elif not _first_time(docstring, seen):
            counts["docstrings_repeated"] += 1
        else:
            yield docstring


def _is_english(text: str) -> bool:
    """Mostly ASCII, not blank, and encodable (a lone surrogate is not): cheap, and right for documentation of code."""
    if text.isascii():
        return bool(text.strip())
    return sum(map(str.isascii, text)) >= ASCII_SHARE * len(text) and not re.search("[\ud800-\udfff]", text)


def _first_time(text: str, seen: set[bytes]) -> bool:
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    if digest in seen:
        return False
    seen.add(digest)
    return True


def _write(lines, name: str, text: str, domain: str, counts: Counter) -> None:
    if text:
        lines.write(json.dumps({"name": name, "text": text}) + "\n")
        counts[f"{domain}_documents"] += 1
        counts[f"{domain}_bytes"] += len(text.encode())


def _modules(roots: Sequence[Root]) -> Iterator[Module | None]:
    """All files of all roots in a fixed order, parsed by one process per core."""
    names, paths = zip(*(pair for root in roots for pair in _files(root)), strict=True)
    cores = len(usable_cores())
    if cores == 1 or len(paths) < 200:  # below that a process takes longer to start than to parse
        yield from map(parse, names, paths)
        return
    # Spawned, because forking a process that has started jax or tensorflow threads can deadlock.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(cores, 8), mp_context=context, initializer=_start_worker) as pool:
        yield from pool.map(parse, names, paths, chunksize=32)


def _start_worker() -> None:
    """End this process when the one that started it ends, however that ends: nothing else would tell it."""
    gc.disable()  # a syntax tree is tens of thousands of objects without cycles: collecting among them doubles the time
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def _files(root: Root) -> Iterator[tuple[str, Path]]:
    for folder, folders, files in os.walk(root.folder):
        folders[:] = sorted(f for f in folders if f not in _SKIPPED_FOLDERS and not _TEST_NAME.search(f))
        for file in sorted(files):
            if file.endswith(".py") and not _TEST_NAME.search(file.removesuffix(".py")):
                path = Path(folder, file)
                yield f"{root.name}/{path.relative_to(root.folder).as_posix()}", path
