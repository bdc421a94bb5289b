"""Where the verbs on a table write: what cannot be is refused before any work, and a pipe gets every character."""

import errno
import io
import os
import sys

import pytest
import tyro
from planted_tables import planted_table

from analysis.command.backtest import backtest
from analysis.command.fit import fit
from analysis.command.outputs import OutputError, check_file, check_folder, standard_output, write_json, writing
from analysis.command.predict import predict
from analysis.command.score import score
from analysis.laws import CHINCHILLA
from analysis.studies import PredictionError


def run(verb, *arguments):
    tyro.cli(verb, args=[str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("verb", "option", "path", "reason"),
    [
        (fit, "--json", "folder", "is a folder"),
        (fit, "--json", "file/law.json", "Not a directory"),
        (fit, "--json", "file/new/law.json", "Not a directory"),
        (fit, "--json", f"{'long' * 99}.json", "File name too long"),
        (fit, "--json", "/dev/null", "is no regular file"),
        (fit, "--figures", "file", "Not a directory"),
        (fit, "--figures", "file/new", "Not a directory"),
        (backtest, "--json", "folder", "is a folder"),
        (backtest, "--figures", "file", "Not a directory"),
        (predict, "--out", "folder", "is a folder"),
        (predict, "--out", "file/p.json", "Not a directory"),
        (score, "--json", "folder", "is a folder"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is_read(tmp_path, monkeypatch, verb, option, path, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match=rf"^{option} = '{path}': cannot be written \({reason}\). Fix: give"):
        run(verb, "absent", option, path)
    assert sorted(os.listdir()) == ["file", "folder"] and (tmp_path / "file").read_text() == "mine"


def test_a_prediction_takes_the_place_of_no_other_file(tmp_path):
    (tmp_path / "runs.csv").write_text("mine")
    with pytest.raises(PredictionError, match="runs.csv': is not a prediction .*Fix: give a file that isoflop predict"):
        run(predict, tmp_path / "absent.csv", "--out", tmp_path / "runs.csv")


def test_a_check_leaves_nothing_behind_and_what_it_cannot_see_is_worded_too(tmp_path):
    check_file("--json", tmp_path / "new" / "law.json")
    check_folder("--figures", tmp_path / "new" / "figures")
    check_file("--json", None)
    check_folder("--figures", None)
    assert not list(tmp_path.iterdir())
    long = tmp_path / ("x" * 250)  # a name of its own, and not with the ending of the file that is renamed to it
    check_file("--json", long)
    with pytest.raises(OutputError, match=r"--json = '.*x': cannot be written \(File name too long\)"):
        write_json(standard_output(), long, 1.0)
    with pytest.raises(OSError, match="No space left"), writing("--json", long):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_pipe_gets_every_row_on_a_line_of_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    planted_table().to_csv(tmp_path / "runs.csv", index=False)
    run(fit, tmp_path / "runs.csv", "--bootstraps", 20)
    lines = capsys.readouterr().out.splitlines()
    for parameter in CHINCHILLA.parameters:
        assert any(
            line.startswith(parameter.name) and line.endswith(parameter.meaning) for line in map(str.strip, lines)
        )
    monkeypatch.setenv("COLUMNS", "60")
    standard_output().print("word " * 20)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 60


@pytest.mark.parametrize(
    ("encoding", "printed"), [("latin-1", b"l\xe4uf?0"), ("ascii", b"l?uf?0"), ("utf-8", "l\u00e4uf\u21920".encode())]
)
def test_a_character_that_the_encoding_lacks_is_a_question_mark(monkeypatch, encoding, printed):
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    standard_output().print("l\u00e4uf\u21920")
    stream.flush()
    assert stream.buffer.getvalue().strip() == printed
