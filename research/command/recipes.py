"""`isoflop recipes`: what each recipe says at a scale, or what following each costs in the cells of a sweep."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from analysis.command.bowls import Swept
from analysis.command.outputs import check_file, standard_output, write_json
from analysis.command.request import AS_IT_IS, Merged, Reading

if TYPE_CHECKING:
    from rich.console import Console

    from analysis.studies import RecipeScores, Recommended
    from research.plan.recipes import Rule, Scale

USUAL = Swept()
SAME_CELL = 1e-3  # relative: authors and tables round params and tokens


def recipes(
    table: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="[TABLE]")] = None,
    *,
    params: Annotated[float | None, tyro.conf.arg(metavar="N")] = None,
    tokens: Annotated[float | None, tyro.conf.arg(metavar="D")] = None,
    batch_tokens: Annotated[float | None, tyro.conf.arg(metavar="B")] = None,
    reading: Annotated[Reading, Merged] = AS_IT_IS,
    swept: Annotated[Swept, Merged] = USUAL,
    unseen: Annotated[tuple[str, ...], tyro.conf.arg(metavar="COLUMN>NUMBER")] = (),
    fitted: Path | None = None,
    json: Path | None = None,
) -> None:
    """Print what each recipe says at --params and --tokens, or score all of them on a sweep of hyperparameters.

    An experiment follows one by recipe=Recipe(NAME). A recipe that is relative to a base run says nothing here.

    Args:
        table: a sweep, with loss_nats, the columns of the cell and the axes, as `isoflop bowls` reads it.
        params: without a table: params of the model; they stand for every recipe's own count of them.
        tokens: without a table: tokens of the whole run.
        batch_tokens: without a table: tokens of a step, for warm-ups in steps; by default each recipe's own.
        reading: the table, as in `isoflop fit`.
        swept: the cells, of params and tokens at least.
        unseen: count only cells with this, as 'params>=5e8' 'flops>1e20': those that no recipe has seen.
        fitted: laws of one's own as a further recipe: a file that `isoflop bowls --json` wrote.
        json: file that gets what is printed, as JSON.
    """
    from research.config import check

    console = standard_output()
    check_file("--json", json)
    rules = _rules(fitted)
    if table is None:
        _check_scale(params, tokens, batch_tokens)
        check(not unseen, "--unseen", unseen, "chooses cells of a table", "give the table, or leave it out")
        write_json(console, json, _show_listing(console, rules, params, tokens, batch_tokens))
        return
    given = {"--params": params, "--tokens": tokens, "--batch-tokens": batch_tokens}
    for option, value in given.items():
        check(value is None, option, value, "is read of each cell of the table", "leave it out, or leave out the table")
    write_json(console, json, _show_scores(console, rules, reading, table, swept, unseen))


def _rules(fitted: Path | None) -> "dict[str, Rule]":
    """The recipes that say something by themselves."""
    from research.plan.recipes import RULES
    from research.plan.recipes.fitted import read

    own = {} if fitted is None else {"fitted": read(fitted).rule()}
    return {name: rule for name, rule in RULES.items() if not rule.relative and rule.constants == ()} | own


def _check_scale(params: float | None, tokens: float | None, batch_tokens: float | None) -> None:
    from research.config import check

    for option, value in (("--params", params), ("--tokens", tokens)):
        check(value is not None, option, None, "is needed without a table", "give --params 7e9 --tokens 1.4e11")
    for option, value in (("--params", params), ("--tokens", tokens), ("--batch-tokens", batch_tokens)):
        check(value is None or 0 < value < float("inf"), option, value, "must be above zero", "give a count, as 7e9")


def _show_listing(
    console: "Console", rules: "Mapping[str, Rule]", params: float, tokens: float, batch_tokens: float | None
) -> list[dict[str, Any]]:
    """Print each recipe's settings, its formula and its source; the same as values."""
    from dataclasses import asdict

    from research.command.text_table import Column, TextTable, print_table
    from research.plan.recipes import RULES, Scale

    scale = Scale.of_counts(params, tokens, batch_tokens)
    found = [
        {
            "recipe": name,
            **asdict(rule.settings(scale, {})),
            "outside": [rule.range_of(quantity) for quantity in rule.outside(scale)],
            "formula": rule.formula,
            "source": rule.source,
        }
        for name, rule in rules.items()
    ]
    settings = [name for name in found[0] if name not in ("recipe", "outside", "formula", "source")]
    heads = [Column(name.replace("_", "\n")) for name in settings]
    columns = (Column("recipe", is_number=False), *heads, Column("outside of its own runs", False, may_be_cut=True))
    rows = tuple((one["recipe"], *(_text(one[name]) for name in settings), "; ".join(one["outside"])) for one in found)
    title = f"Recipes at {params:.4g} params and {tokens:.4g} tokens"
    caption = "params stand for every recipe's own count of them; compute is 6 FLOPs a param and token"
    print_table(TextTable(columns, rows, title, caption), console)
    for one in found:
        line = f"{one['recipe']}: {one['formula']}. {one['source']}"
        console.print(line, markup=False, soft_wrap=True, highlight=False)
    relative = ", ".join(name for name, rule in RULES.items() if rule.relative)
    console.print(f"{relative}: relative to the base run of a plan", markup=False, highlight=False)
    return found


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _show_scores(
    console: "Console",
    rules: "Mapping[str, Rule]",
    reading: Reading,
    path: Path,
    swept: Swept,
    unseen: tuple[str, ...],
) -> "RecipeScores":
    """Print what following each recipe costs; the same as values."""
    from analysis.report import recipe_sections, show
    from analysis.studies import Condition, recipe_scores, swept_cells
    from research.config import check

    for name in ("params", "tokens"):
        check(name in swept.cell, "--cell", swept.cell, f"has no {name}, which recipes are read at", f"add {name}")
    table = reading.read(path, (*swept.cell, *swept.axes, "loss_nats"))
    asked = {**vars(swept), "unseen": tuple(map(Condition.parse, unseen))}
    cells = swept_cells(table, **asked)
    found = recipe_scores(table, [_recommended(name, rule, cells) for name, rule in rules.items()], **asked)
    show(console, *recipe_sections(found))
    return found


def _recommended(name: str, rule: "Rule", cells: tuple[dict[str, Any], ...]) -> "Recommended":
    from dataclasses import asdict

    from analysis.studies import Recommended
    from research.plan.recipes import Scale

    scales = [Scale.of_counts(cell["params"], cell["tokens"], cell.get("batch_tokens")) for cell in cells]
    said = [asdict(rule.settings(scale, {})) for scale in scales]
    return Recommended(
        name,
        settings=tuple({key: value for key, value in one.items() if value is not None} for one in said),
        seen=tuple(_has_seen(rule, scale) for scale in scales),
        beyond=tuple(bool(rule.outside(scale)) for scale in scales),
    )


def _has_seen(rule: "Rule", scale: "Scale") -> bool:
    """Whether a cell is one of those that the recipe comes from."""
    return any(
        abs(scale.params / params - 1) < SAME_CELL and abs(scale.tokens / tokens - 1) < SAME_CELL
        for params, tokens in rule.cells
    )
