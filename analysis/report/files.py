"""Reports as files: law.json or comparison.json, the figures, and report.md. Needs matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import figures, json_values
from analysis.files import write_atomically
from analysis.report.captions import (
    CaptionedFigure,
    comparison_figures,
    sample_figures,
    study_figures,
    sweep_figures,
)
from analysis.report.comparison import comparison_document
from analysis.report.document import Figure, Section
from analysis.report.markdown import markdown
from analysis.report.samples import sample_document
from analysis.report.study import StudyReport
from analysis.report.sweep_laws import sweep_document
from analysis.studies import Comparison, SampleStudy, SweepLaws


def write_study(folder: Path | str, table: pd.DataFrame, report: StudyReport) -> list[Path]:
    """Write law.json, figures (PNG and PDF) and report.md into `folder`; returns the paths, report.md last.

    table: the one that was fitted, with the held-out run if it likes; the figures show its rows.
    """
    drawn = study_figures(table, report)
    return _write(Path(folder), "law.json", report.to_dict(), drawn, report.document(_figures(drawn)))


def write_comparison(folder: Path | str, title: str, question: str, comparison: Comparison) -> list[Path]:
    """Write comparison.json, the figures its measures allow and report.md into `folder`; returns the paths."""
    drawn = comparison_figures(comparison)
    document = comparison_document(title, question, comparison, _figures(drawn))
    return _write(Path(folder), "comparison.json", comparison, drawn, document)


def write_sweep(folder: Path | str, title: str, question: str, found: SweepLaws, table: pd.DataFrame) -> list[Path]:
    """Write sweep.json, the figures of the bowls and report.md into `folder`; returns the paths.

    table: the one that was searched.
    """
    drawn = sweep_figures(found, table)
    return _write(Path(folder), "sweep.json", found, drawn, sweep_document(title, question, found, _figures(drawn)))


def write_samples(folder: Path | str, title: str, found: SampleStudy) -> list[Path]:
    """Write samples.json, the figure and report.md into `folder`; returns the paths."""
    drawn = sample_figures(found)
    return _write(Path(folder), "samples.json", found, drawn, sample_document(title, found, _figures(drawn)))


def write_document(path: Path, document: Section) -> Path:
    """Write a document as Markdown."""
    write_atomically(path, markdown(document).encode())
    return path


def _write(folder: Path, name: str, values: Any, drawn: Sequence[CaptionedFigure], document: Section) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / name, json_values.dumps(values).encode())
    images = figures.save_all({folder / "figures" / one.figure.name: one.draw for one in drawn})
    return [folder / name, *images, write_document(folder / "report.md", document)]


def _figures(drawn: Sequence[CaptionedFigure]) -> tuple[Figure, ...]:
    return tuple(one.figure for one in drawn)
