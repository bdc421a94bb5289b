"""Experiment files and the command's entry: what an import may find, and what hides it."""

import sys

import pytest

import isoflop
from research.config import ConfigError
from research.paths import CacheFolderError, cache_dir, compiled_programs_dir
from research.plan import load

FILE = """
from dataclasses import dataclass
{}
from research.config import RunConfig

@dataclass(frozen=True)
class Mine:
    name: str = "mine"
    question: str = "?"
    law: str | None = None
    held_out_flops: float | None = None
    searched: tuple[str, ...] = ()
    steps: int = 100

    def runs(self): return (RunConfig(),)
    def following(self, losses): return ()
    def remarks(self, runs): return ()
    def held_out_run(self, optimum_params): return None

EXPERIMENT = Mine(steps=STEPS)
"""


def write(folder, first_line):
    path = folder / "mine.py"
    path.write_text(FILE.format(first_line))
    return path


def test_a_file_imports_what_lies_beside_it_and_a_plan_of_its_own_will_do(tmp_path):
    (tmp_path / "steps_of_mine.py").write_text("STEPS = 7")
    path = write(tmp_path, "from steps_of_mine import STEPS")
    assert load(path).steps == 7 and load(path, ["steps=8"]).steps == 8
    assert str(tmp_path) not in sys.path


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "from research.nowhere import STEPS",
            "mine.py, line 3: ModuleNotFoundError: No module named 'research.nowhere'",
        ),
        ("from research.config import STEPS", "mine.py, line 3: ImportError: cannot import name 'STEPS'"),
        ("STEPS = = 7", "mine.py, line 3: invalid syntax. Fix: correct the line"),
        ("STEPS = 1 / 0", "mine.py, line 3: ZeroDivisionError: division by zero. Fix"),
        ("STEPS = round(None)", "mine.py, line 3: TypeError: "),
        ("from research.config import MlpConfig\nSTEPS = MlpConfig(hiden=3)", "mine.py, line 4: TypeError: "),
        ("import sys; sys.exit(0)", "mine.py, line 3: SystemExit: 0. Fix"),
        ("from breaks import STEPS", "breaks.py, line 2: AssertionError. Fix"),
        ("from needs import STEPS", "needs.py, line 1: ModuleNotFoundError: No module named 'not_installed'"),
    ],
)
def test_a_file_that_fails_is_named_with_its_line(tmp_path, line, words):
    (tmp_path / "breaks.py").write_text("STEPS = 1\nassert STEPS == 2")
    (tmp_path / "needs.py").write_text("import not_installed")
    with pytest.raises(ConfigError) as raised:
        load(write(tmp_path, line))
    assert "mine.py" in str(raised.value) and words in str(raised.value)


def test_what_an_import_lacks_further_down_is_not_the_files_fault(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "package_of_others.py").write_text("import not_installed")
    (tmp_path / "own").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    with pytest.raises(ModuleNotFoundError, match="not_installed"):
        load(write(tmp_path / "own", "from package_of_others import STEPS"))


@pytest.mark.parametrize("name", isoflop.PACKAGES)
@pytest.mark.parametrize("file", ["__init__.py", "other.py"])
def test_a_package_that_hides_ours_is_named(tmp_path, monkeypatch, capsys, name, file):
    (tmp_path / name).mkdir()
    (tmp_path / name / file).touch()
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", ["isoflop", "plan", "absent.py"])
    # A folder without __init__.py gives way to a package that is found later.
    hidden = file == "__init__.py"
    assert isoflop.main() == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert (f"needs its own package '{name}', and {tmp_path / name / file} hides it. Fix:" in error) is hidden


def test_compiled_programs_go_nowhere_where_nothing_can_be_written(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path / "file"))
    assert compiled_programs_dir() is None
    assert f"{tmp_path / 'file' / 'xla'}: cannot be written to (Not a directory)" in caplog.text
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path / "new"))
    assert compiled_programs_dir() == tmp_path / "new" / "xla"


def test_no_home_folder_is_said_in_words(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("ISOFLOP_CACHE")
    monkeypatch.setattr("pathlib.Path.home", no_home)
    with pytest.raises(CacheFolderError, match="Fix: set ISOFLOP_CACHE"):
        cache_dir()
