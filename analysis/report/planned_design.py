"""The section on a planned design: what it could tell, and what would tell twice as much."""

from analysis.compute.readings import LAW
from analysis.report.document import Bullets, Content, Number, Paragraph, Section, Strong, Table, residue
from analysis.studies.planned_design import PlannedDesign, Variant

WHAT = ("the exponent's interval", "the held-out prediction's interval")


def planned_design_section(found: PlannedDesign) -> Section:
    """Widths of the intervals of the exponents and of the held-out loss that a plan can be expected to give."""
    design = found.variants[0].design
    noise = residue(design.noise.value, *((".2%",) if design.noise.is_share else (".3g", "nats")))
    text: Content = (
        f"Prior: {found.prior}. Were it the truth, optimal params would grow as flops to the power ",
        Number(design.exponent), ", and a run at ", Number(design.far_flops), " FLOP would be best with ",
        Number(design.far_params), " params. Noise of a run: ", noise, f" ({design.noise.source}); ",
        Number(design.sweeps, "d"), f" simulated sweeps. Approach 2 reads valleys by {found.reading}, approach 3 fits "
        "the prior's own law. Widths are of ", Number(design.level, ".0%"), " intervals; that of the held-out "
        "prediction, a share of the loss, has the noise of its one run in it.",
    )  # fmt: skip
    columns = (
        "plan", "cost (times)", "approach 2: bias of the exponent", "its width", "approach 3: width of the exponent",
        "of the held-out prediction",
    )  # fmt: skip
    rows = tuple(_row(found, variant) for variant in found.variants)
    lines = (*_prior_reach(found), *_unsupported(found), *_halving(found))
    return Section("What this plan can tell", (Paragraph(text), Table(columns, rows), Bullets(lines)))


def _prior_reach(found: PlannedDesign) -> tuple[Content, ...]:
    """Whether the plan lies far from the runs that the prior was fitted to."""
    if found.reach is None:
        return ("Of which sizes and tokens the prior's runs were is not known here: it may be extrapolated.",)
    if not found.reach.warning:
        return ()
    text = (
        "The prior is extrapolated: the plan lies ", Number(found.reach.factor, ".3g"),
        f" times beyond the {found.reach.quantity} that it was fitted to, and nothing says that it holds there.",
    )  # fmt: skip
    return (Strong(text),)


def _unsupported(found: PlannedDesign) -> tuple[Content, ...]:
    """On which of the plans approach 2 is not to be read, by the rule that a study has for its own design."""
    bad = [one.name for one in found.variants if not one.design.supports_well(one.design.support(found.reading))]
    if not bad:
        return ()
    plans = "any of these plans" if len(bad) == len(found.variants) else f"these plans: {'; '.join(bad)}"
    return (
        f"Approach 2 by {found.reading} is not supported by {plans}. It is biased by more than half the width of its "
        "interval, of the exponent or of the far optimum, or often finds no frontier.",
    )


def _row(found: PlannedDesign, variant: Variant) -> tuple[Content, ...]:
    valleys, law = variant.design.support(found.reading), variant.design.support(LAW)
    return (
        variant.name,
        Number(variant.cost, ".3g"),
        residue(valleys.exponent_bias, "+.2g"),
        residue(valleys.exponent_width, ".2g"),
        residue(law.exponent_width, ".2g"),
        residue(law.prediction_width, ".2%"),
    )


def _halving(found: PlannedDesign) -> tuple[Content, ...]:
    lines = []
    for i, what in enumerate(WHAT):
        cheap = sorted((variant for variant in found.variants if variant.halves[i]), key=lambda variant: variant.cost)
        if cheap:
            lines.append(
                (
                    f"Cheapest here to halve {what} (approach 3): {cheap[0].name}, ",
                    Number(cheap[0].cost, ".3g"),
                    " times the cost.",
                )
            )
        else:
            lines.append(f"None of these halves {what} (approach 3).")
    return tuple(lines)
