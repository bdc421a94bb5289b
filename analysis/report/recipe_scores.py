"""Recipes scored on a sweep as a document: what following each costs, over all cells and in each."""

from analysis.report.document import Bullets, Number, Paragraph, Section, Strong, Table
from analysis.report.table_notes import edge_note, left_out_section, notes_block, starred
from analysis.studies.recipe_scores import RecipeScore, RecipeScores


def recipe_sections(found: RecipeScores) -> tuple[Section, ...]:
    """All that `isoflop recipes TABLE` prints of the scores."""
    return (*notes_block(found.table_notes), _overall(found), _by_cell(found), *left_out_section(found.left_out))


def _overall(found: RecipeScores) -> Section:
    columns = (
        "recipe",
        "mean loss above the cells' best (relative)",
        "worst",
        "cells where it lies outside the values run",
        "cells beyond the runs it comes from",
        "cells it has seen",
        "not said, and granted",
    )
    text = (
        "In each cell a recipe is followed to the run nearest to what it says, by steps of the grid. A setting of "
        "which it says nothing is granted as the cell's best run has it, which flatters it. The best run is the "
        "luckiest of many, so that the excess is not zero for the true optimum either."
    )
    counted = ("Counted are ", Number(found.cells, "d"), " of ", Number(found.all_cells, "d"), " cells")
    asked = f": those with {' and '.join(map(str, found.unseen))}." if found.unseen else "."
    return Section(
        "What following each recipe costs",
        (
            Paragraph(text),
            Paragraph((*counted, asked)),
            Table(columns, tuple(map(_row, found.scores))),
            *_caveats(found),
        ),
    )


def _row(score: RecipeScore) -> tuple:
    seen = Number(score.seen, "d")
    granted = sorted({name for one in score.outcomes for name in one.granted})
    return (
        score.name,
        Number(score.mean_excess, ".3g"),
        Number(score.worst_excess, ".3g"),
        Number(score.outside, "d"),
        Number(score.beyond, "d"),
        Strong(seen) if score.seen else seen,
        ", ".join(granted),
    )


def _caveats(found: RecipeScores) -> tuple[Bullets, ...]:
    """What makes the recipes' numbers unequal."""
    of_these = " of these cells: its excess there is no test of it"
    seen = [score for score in found.scores if score.seen]
    told = [(Strong(f"{score.name} has seen "), Number(score.seen, "d"), of_these) for score in seen]
    told += [f"{name} says nothing of {' or '.join(found.axes)} in some of these cells" for name in found.silent]
    return (Bullets(tuple(told)),) if told else ()


def _by_cell(found: RecipeScores) -> Section:
    columns = (*found.cell, *(score.name for score in found.scores))
    rows = []
    for outcomes in zip(*(score.outcomes for score in found.scores), strict=True):
        cell = (value if isinstance(value, str) else Number(value) for value in outcomes[0].cell.values())
        excess = (starred(Number(one.excess, ".3g"), bool(one.at_edge)) for one in outcomes)
        rows.append((*cell, *excess))
    note = edge_note(any(one.at_edge for score in found.scores for one in score.outcomes))
    return Section("Loss above the best of each cell (relative)", (Table(columns, tuple(rows)), *note))
