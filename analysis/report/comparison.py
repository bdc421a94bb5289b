"""Write a comparison of families down: comparison.json, figures and report.md."""

from pathlib import Path

from analysis import figures, json_values
from analysis.files import write_atomically
from analysis.report.study import constants
from analysis.studies import Cell, Comparison, Family, by_length


def write_comparison(folder: Path | str, title: str, question: str, comparison: Comparison) -> list[Path]:
    """Write comparison.json, the figures its measures allow and report.md into `folder`; returns the paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    json_path, report_path = folder / "comparison.json", folder / "report.md"
    write_atomically(json_path, json_values.dumps(comparison).encode())
    lines = [f"# {title}\n", f"{question}\n", *_cells(comparison), *_laws(comparison)]
    lines += [*_joint(comparison), *_lengths(comparison)]
    paths = [json_path]
    for name, text, draw in _drawings(comparison):
        paths += figures.save(draw(), folder / "figures" / name)
        lines += [f"![{text}](figures/{name}.png)\n", f"{text} [PDF](figures/{name}.pdf)\n"]
    lines += _left_out(comparison)
    write_atomically(report_path, "\n".join(lines).encode())
    return [*paths, report_path]


def _cells(comparison: Comparison) -> list[str]:
    rows = [
        "## Each family at its best learning rate\n",
        "| family | budget (FLOP) | params (active) | learning rate (of how many) | seeds | loss (nats per token) | "
        "lowest to highest |",
        "|---|---|---|---|---|---|---|",
    ]
    rows += [_cell_row(family, cell) for family in comparison.families for cell in family.cells]
    if any(cell.at_edge for family in comparison.families for cell in family.cells):
        rows.append("\n**edge**: the best rate is an end of the sweep, and the family may do better beyond it.")
    return [*rows, ""]


def _cell_row(family: Family, cell: Cell) -> str:
    budget = "-" if cell.budget_flops is None else f"{cell.budget_flops:.3g}"
    edge = ", **edge**" if cell.at_edge else ""
    return (
        f"| {family.name} | {budget} | {cell.params:.4g} ({cell.active_params:.4g}) | {cell.learning_rate:.3g} "
        f"({cell.rates}{edge}) | {len(cell.runs)} | {cell.loss_nats:.4f} | {cell.lowest:.4f} to {cell.highest:.4f} |"
    )


def _laws(comparison: Comparison) -> list[str]:
    if not any(family.law for family in comparison.families):
        return []
    rows = [
        "## Loss against compute\n",
        f"loss = (flops_scale / flops)^alpha over the budgets trained, {comparison.level:.0%} intervals.\n",
        "| family | alpha | residual scale |",
        "|---|---|---|",
    ]
    for family in comparison.families:
        if family.law is None:
            rows.append(f"| {family.name} | not fitted: {family.law_note} | |")
        else:
            rows.append(f"| {family.name} | {family.law.intervals['alpha']} | {family.law.fit.residual_scale:.2%} |")
    return [*rows, ""]


def _joint(comparison: Comparison) -> list[str]:
    if comparison.joint is None:
        return [f"## All families together\n\nNot fitted: {comparison.joint_note}\n"] if comparison.joint_note else []
    law, joint = comparison.joint.fit.law, comparison.joint
    lines = ["## All families together\n", f"`{law.formula}` ({law.citation}), by {joint.fit.objective}.\n"]
    lines += [*constants(joint, comparison.level), "", f"Residual scale {joint.fit.residual_scale:.2%}.\n"]
    weak = [f"- **{name} is weakly identified**: {reason}." for name, reason in joint.weakly_identified.items()]
    return [*lines, *weak, ""]


def _lengths(comparison: Comparison) -> list[str]:
    lines = []
    for measure in figures.LENGTH_MEASURES:
        curves = {family.name: by_length(family.cells[-1], measure) for family in comparison.families if family.cells}
        curves = {name: curve for name, curve in curves.items() if len(curve[0])}
        if curves:
            lengths = next(iter(curves.values()))[0]
            lines += [f"## {measure} by length\n", "| family | " + " | ".join(map(str, lengths)) + " |"]
            lines.append("|---|" + "---|" * len(lengths))
            lines += [
                f"| {name} | " + " | ".join(f"{value:.3f}" for value in values) + " |"
                for name, (_, values) in curves.items()
            ]
            lines.append("")
    return lines


def _drawings(comparison: Comparison) -> list[tuple]:
    found = []
    if any(cell.budget_flops for family in comparison.families for cell in family.cells):
        text = "Held-out loss of each family at its best learning rate; bars span its seeds."
        found.append(("loss_by_family", text, lambda: figures.loss_by_family(comparison)))
    for measure in figures.LENGTH_MEASURES:
        if any(len(by_length(family.cells[-1], measure)[0]) for family in comparison.families if family.cells):
            text = f"{measure} against length, each family at its best learning rate."
            found.append(
                (f"{measure}_by_length", text, lambda measure=measure: figures.measure_by_length(comparison, measure))
            )
    return found


def _left_out(comparison: Comparison) -> list[str]:
    rows = [(family.name, item) for family in comparison.families for item in family.left_out]
    if not rows:
        return []
    lines = ["## Runs left out\n", "| family | run | reason |", "|---|---|---|"]
    return [*lines, *(f"| {name} | {item.run} | {item.reason} |" for name, item in rows), ""]
