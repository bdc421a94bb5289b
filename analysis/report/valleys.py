"""The sections on isoFLOP valleys (approach 2): the minima, how they were read, and what the design can tell."""

from analysis.compute import IsoFlop, Support
from analysis.compute.design import OFTEN, SMALL_BIAS, SMALL_MISS
from analysis.compute.readings import LAW
from analysis.fit import by_reason
from analysis.report.document import Bullets, Content, Number, Paragraph, Section, Strong, Table, residue, span
from analysis.studies import Study

TITLE = "IsoFLOP valleys (approach 2)"
NAMES = {LAW: "approach 3: the law itself"}
CURVES = {
    "parabola": "A parabola of loss in log(params) is drawn through each budget's sizes; its minimum is the optimum.",
    "interpolation": "The logarithm of each budget's losses is interpolated in log(params) by Akima's method "
    "(Porian et al. 2024); its minimum is the optimum.",
    LAW: "The optima are the fitted law's own at the same budgets: approach 3 read elsewhere, no second opinion.",
}


def valleys_section(study: Study) -> Section:
    """Approach 2, or why there is none."""
    isoflop = study.isoflop
    if isoflop is None:
        return Section(TITLE, (Paragraph(f"Not fitted. {study.isoflop_note}"),))
    rows = tuple(
        (
            Number(valley.budget_flops),
            Number(valley.runs, "d"),
            span(valley.params),
            span(valley.tokens),
            span(valley.loss_nats),
            "every point" if valley.misfit_nats != valley.misfit_nats else Number(valley.misfit_nats, ".2g"),
        )
        for valley in isoflop.valleys
    )
    columns = (
        "budget (FLOP)", study.law.fit.counted, "optimal params (count)", "optimal tokens (count)",
        "loss there (nats per token)", "points off the curve (nats)",
    )  # fmt: skip
    blocks = (Paragraph(_how_it_is_read(isoflop)), Table(columns, rows), Bullets(tuple(_lines(study, isoflop))))
    return Section(TITLE, blocks)


def exponents(isoflop: IsoFlop) -> Content:
    """One sentence with the exponents of approach 2."""
    return (
        f"Approach 2 ({isoflop.reading}): optimal params grow as flops to the power ", span(isoflop.params.exponent),
        ", tokens to the power ", span(isoflop.tokens.exponent), ".",
    )  # fmt: skip


def remarks(isoflop: IsoFlop) -> tuple[Content, ...]:
    """What must be known of the valleys: the reading and why, notes on the table, and what was left out."""
    why = f"Approach 2 reads minima by {isoflop.reading}: {isoflop.why}."
    notes = tuple(Strong(note) for note in isoflop.notes)
    return (why, *notes, *(f"left out of the valleys: {text}" for text in by_reason(isoflop.left_out)))


def design_section(isoflop: IsoFlop) -> Section:
    """What these sizes and budgets can tell, were the fitted law the truth: each approach's bias and spread."""
    design = isoflop.design
    noise = residue(design.noise.value, *((".2%",) if design.noise.is_share else (".3g", "nats")))
    text = (
        "The fitted law is taken for the truth and put through this table's own sizes and budgets in ",
        Number(design.sweeps, "d"), " simulated sweeps; the noise of a run is ", noise,
        " of its loss" if design.noise.is_share else "", f" ({design.noise.source}). The truth there: optimal params "
        "grow as flops to the power ", Number(design.exponent), "; the far optimum is ", Number(design.far_params),
        " params at ", Number(design.far_flops), " FLOP. Bias is without noise, spread the standard deviation with it.",
    )  # fmt: skip
    columns = (
        "approach", "exponent: bias", "spread", ("width of its ", Number(design.level, ".0%"), " interval"),
        "far optimum (times the truth)", "its spread", "no frontier",
    )  # fmt: skip
    rows = tuple(_support_row(found, isoflop.reading) for found in design.supports)
    return Section("What this design can tell", (Paragraph(text), Table(columns, rows), Bullets(_verdict(isoflop))))


def _support_row(found: Support, used: str) -> tuple[Content, ...]:
    name = NAMES.get(found.approach, found.approach)
    if found.exponent_bias != found.exponent_bias:
        return (name, "no frontier", "", "", "", "", Number(found.failed, ".0%"))
    return (
        Strong(name) if found.approach == used else name,
        residue(found.exponent_bias, "+.2g"),
        residue(found.exponent_spread, ".2g"),
        residue(found.exponent_width, ".2g"),
        Number(found.optimum_factor, ".3g"),
        residue(found.optimum_spread, ".1%"),
        Number(found.failed, ".0%"),
    )


def _verdict(isoflop: IsoFlop) -> tuple[Content, ...]:
    design, used = isoflop.design, isoflop.design.support(isoflop.reading)
    supported = [found.approach for found in design.supports if design.supports_well(found)]
    lines: list[Content] = []
    if supported:
        names = ", ".join(NAMES.get(name, name) for name in supported)
        lines.append(
            (
                f"This design supports: {names}. Their bias, of the exponent and of the far optimum's logarithm, is "
                "no more than half the width of their ", Number(design.level, ".0%"), " interval, or "
                f"below {SMALL_BIAS:g} and {SMALL_MISS:.0%}, and at most {OFTEN:.0%} of the sweeps have no frontier.",
            )
        )  # fmt: skip
    else:
        lines.append(
            Strong(
                "This design supports no approach: each is biased by more than half the width of its interval, or "
                "often fails."
            )
        )
    biased = [found.approach for found in design.supports if found.approach not in supported]
    if biased:
        lines.append(f"Not to be trusted on it: {', '.join(NAMES.get(name, name) for name in biased)}.")
    if not design.supports_well(used):
        lines.append(Strong(f"The minima above are read by {used.approach}, which it does not support."))
    lines.append(
        "Approach 3 has no bias here since the simulated truth is its own law; that it fits, its residuals say."
    )
    return tuple(lines)


def _how_it_is_read(isoflop: IsoFlop) -> str:
    kind, _, count = isoflop.reading.partition(":")
    text = CURVES.get(isoflop.reading, f"A parabola is drawn through the {count} lowest losses of each budget.")
    return f"{text} Read so: {isoflop.why}."


def _lines(study: Study, isoflop: IsoFlop) -> list[Content]:
    lines: list[Content] = [
        (
            f"optimal {name} = scale * flops^exponent: exponent ", span(law.exponent), ", scale ", span(law.scale),
            f" {name} at 1 FLOP",
        )
        for name, law in (("params", isoflop.params), ("tokens", isoflop.tokens))
    ]  # fmt: skip
    if isoflop.loss is not None:
        loss = isoflop.loss.intervals
        lines.append(
            (
                "loss at the optimum = E + scale / flops^exponent: E ", span(loss["E"]), " nats per token, scale ",
                span(loss["scale"]), " nats per token, exponent ", span(loss["exponent"]),
            )
        )  # fmt: skip
    else:
        lines.append(f"loss at the optimum against flops: not fitted ({isoflop.loss_note})")
    drawn = "of the law's resamples" if isoflop.reading == LAW else "of the noise of a run"
    lines.append(("intervals: ", Number(study.bootstraps, "d"), f" draws {drawn}"))
    lines += [Strong(note) for note in isoflop.notes]
    return lines + [f"left out: {item.run}: {item.reason}" for item in isoflop.left_out]
