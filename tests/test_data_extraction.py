import ast
import inspect
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from data_fixtures import write_corpus

from research.config import ConfigError
from research.data import extraction
from research.data.errors import DataError
from research.data.extraction import Root, documents, extract, extracted, installed_roots, parse, versions

AWKWARD = '''#!/usr/bin/env python
# -*- coding: utf-8 -*-
"""Module é docstring
over lines.
"""; FIRST = 1
class Only: """one line"""
class Error(Exception):
    """The only statement."""
class Nested:
    r"""Raw \\d."""  # a comment stays
    def method(self):
        "joined" " from parts"
        return "é", """not a docstring"""
    async def later(self):
        ("in parentheses")
        if self:
            def inner():
                """Inner."""
                yield 1
        else:
            class Inner:
                """In else."""
                x = 1
        return 0
    def backslash(self): \\
        "after a continuation"
if FIRST:
    def conditional():
        """In if."""
        return f"""{FIRST} not a docstring"""
try:
    pass
except ValueError:
    def handler():
        \'\'\'In except.\'\'\'
        b"""bytes are no docstring"""
"""A string that is not first is code."""
'''


def _without_docstrings(tree):
    """The tree with each docstring removed, and those docstrings: what the code domain must parse to, and the prose."""
    docstrings = []
    for node in ast.walk(tree):
        documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        if documented and ast.get_docstring(node, clean=False) is not None:
            docstrings.append(ast.get_docstring(node))
            node.body = node.body[1:]
    return tree, docstrings


def _without_passes(tree):
    """A docstring alone in its block, or sharing its line with code, leaves a `pass` behind: no difference here."""
    for node in ast.walk(tree):
        if isinstance(getattr(node, "body", None), list):
            node.body = [statement for statement in node.body if not isinstance(statement, ast.Pass)]
    return ast.dump(tree)


def _assert_is_source_without_docstrings(path):
    module = parse("name", path)
    tree, docstrings = _without_docstrings(ast.parse(path.read_bytes()))
    assert sorted(module.docstrings) == sorted(docstrings)
    assert _without_passes(ast.parse(module.code)) == _without_passes(tree)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_awkward_source_loses_its_docstrings_and_nothing_else(tmp_path, newline):
    path = tmp_path / "awkward.py"
    path.write_bytes(AWKWARD.replace("\n", newline).encode())
    _assert_is_source_without_docstrings(path)
    code = parse("name", path).code
    assert "# a comment stays" in code and "not a docstring" in code and "Inner." not in code


def test_standard_library_sources_lose_their_docstrings_and_nothing_else():
    folder = Path(sysconfig.get_paths()["stdlib"])
    for path in [*folder.glob("email/*.py"), *folder.glob("asyncio/*.py"), folder / "typing.py"]:
        _assert_is_source_without_docstrings(path)


def test_docstrings_come_in_the_order_of_the_file(tmp_path):
    path = tmp_path / "ordered.py"
    inner = 'class A:\n    """Two."""\n    def f(self):\n        """Three."""\n'
    path.write_text('"""One."""\n' + inner + 'def g():\n    """Four."""\n')
    assert parse("name", path).docstrings == ("One.", "Two.", "Three.", "Four.")


def test_other_encodings_are_read_as_python_reads_them(tmp_path):
    path = tmp_path / "latin.py"
    path.write_bytes('# -*- coding: latin-1 -*-\n"""Résumé."""\nx = "é"\n'.encode("latin-1"))
    module = parse("name", path)
    assert module.docstrings == ("Résumé.",) and module.code == '# -*- coding: latin-1 -*-\nx = "é"\n'


def test_counts_of_what_is_kept_and_left_out(tmp_path):
    package = tmp_path / "package"
    for name, text in {
        "a.py": '"""Shared."""\ndef f():\n    """Only here."""\n    return 1\n',
        "b.py": '"""Shared."""\ndef f():\n    """Mine."""\n    return 1\n',  # the code of a.py again
        "broken.py": "def f(:\n", "null.py": "x = '\0'\n", "not_utf8.py": b"x = '\xff'\n",
        "empty.py": "", "only_docs.py": '"""Документация на русском языке."""\n',
        "surrogate.py": '"""A lone \\ud800."""\nx = 2\n',
        "tests/t.py": '"""Skipped."""\n', "test_a.py": '"""Skipped."""\n', "a_test.py": '"""Skipped."""\n',
        "latest/kept.py": '"""Kept."""\nx = 3\n',
    }.items():  # fmt: skip
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    counts = extract((Root("package", "1", package),), tmp_path)
    prose, code = (list(documents(tmp_path, domain)) for domain in extraction.DOMAINS)
    kept = {"package/a.py": "Shared.\n\nOnly here.", "package/b.py": "Mine.", "package/latest/kept.py": "Kept."}
    assert prose == list(kept.items())
    assert [name for name, _ in code] == ["package/a.py", "package/surrogate.py", "package/latest/kept.py"]
    assert counts == {
        "files": 9, "files_not_parsed": 3, "files_without_code": 2, "files_repeated": 1, "docstrings": 7,
        "docstrings_repeated": 1, "docstrings_not_english": 2, "prose_documents": 3, "code_documents": 3,
        "prose_bytes": sum(len(text.encode()) for _, text in prose),
        "code_bytes": sum(len(text.encode()) for _, text in code),
    }  # fmt: skip


def test_no_text_twice_and_processes_change_nothing(tmp_path, monkeypatch):
    roots = write_corpus(tmp_path / "corpus", modules=220)  # enough for worker processes
    (tmp_path / "pool").mkdir(), (tmp_path / "alone").mkdir()
    pooled = extract(roots, tmp_path / "pool")
    monkeypatch.setattr(extraction.os, "sched_getaffinity", lambda pid: {0}, raising=False)
    assert extract(roots, tmp_path / "alone") == pooled
    for domain in extraction.DOMAINS:
        found = list(documents(tmp_path / "pool", domain))
        assert found == list(documents(tmp_path / "alone", domain))
        texts = [text for _, text in found]
        assert len(set(texts)) == len(texts)


def test_extraction_is_done_once_and_is_whole_or_absent(tmp_path, monkeypatch):
    roots, folder = write_corpus(tmp_path / "corpus", modules=3), tmp_path / "made" / "extracted"
    with monkeypatch.context() as broken:
        broken.setattr(extraction, "_write", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            extracted(roots, folder)
    assert not list(folder.parent.iterdir())
    counts = extracted(roots, folder)
    monkeypatch.setattr(extraction, "extract", lambda *args: pytest.fail("extracted again"))
    assert extracted(roots, folder) == counts


@pytest.mark.parametrize("name", ["prose.jsonl", "code.jsonl", "extracted.json"])
def test_an_extraction_that_changed_on_disk_is_named(tmp_path, name):
    roots, folder = write_corpus(tmp_path / "corpus", modules=3), tmp_path / "extracted"
    extracted(roots, folder)
    content = (folder / name).read_bytes()
    for damaged in (content[:40], content.replace(b"e", b"f", 1) if name.endswith("jsonl") else b"[]"):
        (folder / name).write_bytes(damaged)
        with pytest.raises(DataError, match=rf"{folder / name}: .*Fix: delete {folder}, it is made anew"):
            extracted(roots, folder)


def test_a_killed_extraction_leaves_no_process_behind():
    code = """
import multiprocessing, sys, sysconfig, tempfile, threading, time
from pathlib import Path
from research.data import extraction
from research.data.errors import DataError

def tell():
    while len(children := multiprocessing.active_children()) < 2:
        time.sleep(0.01)
    print(*(child.pid for child in children), flush=True)

if __name__ == "__main__":
    extraction.os.sched_getaffinity = lambda pid: {0, 1}
    threading.Thread(target=tell, daemon=True).start()
    root = extraction.Root("python", "0", Path(sysconfig.get_paths()["stdlib"]))
    while True:
        extraction.extract([root], Path(tempfile.mkdtemp(dir=sys.argv[1])))
"""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "script.py")
        script.write_text(code)
        command = [sys.executable, str(script), folder]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            workers = [int(pid) for pid in process.stdout.readline().split()]
            process.kill()
        assert len(workers) == 2
        deadline = time.monotonic() + 60
        while any(map(_is_alive, workers)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(map(_is_alive, workers))


def _is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_installed_roots_name_their_versions_and_a_missing_package(monkeypatch):
    roots = installed_roots()
    assert set(versions(roots)) == {"python", *extraction.PACKAGES}
    key = extraction.corpus_key(roots)
    assert key == extraction.corpus_key(roots[::-1])
    assert key != extraction.corpus_key([replace(roots[0], version="0.0"), *roots[1:]])
    monkeypatch.setattr(extraction, "PACKAGES", ("numpy", "no_such_package"))
    with pytest.raises(ConfigError, match=r"no_such_package.*not installed.*pip install"):
        installed_roots()


def test_docstring_indentation_is_cleaned_as_python_does(tmp_path):
    path = tmp_path / "indented.py"
    path.write_text('def f():\n    """Head.\n\n        Deep.\n    Body.\n    """\n')
    assert parse("name", path).docstrings == (inspect.cleandoc("Head.\n\n        Deep.\n    Body.\n    "),)
