"""`isoflop laws`: every law with all that its definition says, and a user's own."""

import pytest
import tyro
from test_analysis_command import OWN_LAW

from analysis.command.laws import laws
from analysis.laws import LAWS, LawError
from analysis.quantities import meaning_of, with_unit


def test_every_law_is_listed_with_formula_inputs_output_constants_and_citation(capsys):
    tyro.cli(laws, args=[])
    listed = capsys.readouterr().out.removeprefix("Laws\n").strip()
    sections = dict(part.split("\n", 1) for part in listed.split("\n\n"))
    assert list(sections) == list(LAWS)
    for law in LAWS.values():
        shown = sections[law.name]
        assert law.formula in shown and law.citation in shown
        assert all(f"{p.name} ({p.unit})" in shown for p in law.parameters)
        assert all(with_unit(name) in shown for name in law.inputs)
        assert f"output {law.output}" in shown


def test_one_law_in_full(capsys):
    tyro.cli(laws, args=["chinchilla"])
    shown = capsys.readouterr().out
    assert all(parameter.meaning in shown for parameter in LAWS["chinchilla"].parameters)
    assert meaning_of("tokens") in shown and "at least 6 runs" in shown and "0 to inf" in shown


def test_a_law_of_ones_own_and_an_unknown_one(tmp_path, capsys):
    (tmp_path / "own.py").write_text(OWN_LAW)
    tyro.cli(laws, args=[f"{tmp_path / 'own.py'}:RATIO"])
    assert "made for this test" in capsys.readouterr().out
    with pytest.raises(LawError, match="law = 'chinchila': no such law. Fix: use one of chinchilla"):
        tyro.cli(laws, args=["chinchila"])
    with pytest.raises(
        LawError, match=rf"law = 'nope': no such law. Fix: use one of the {len(LAWS)} that isoflop laws"
    ):
        tyro.cli(laws, args=["nope"])
