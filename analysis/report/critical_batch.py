"""Critical batches as a document: the law at each loss beside the gradients' noise scale, and what each batch took."""

import math

from analysis.intervals import Interval
from analysis.quantities import QUANTITY
from analysis.report.document import Bullets, Content, Number, Paragraph, Section, Strong, Table, ends, notes_on
from analysis.report.table_notes import left_out_section, left_out_table, notes_block
from analysis.studies.critical_batch import CriticalBatch, CriticalBatches


def critical_batch_sections(found: CriticalBatches) -> tuple[Section, ...]:
    """All that `isoflop critical-batch` prints."""
    missed = tuple(one for at in found.found for one in at.missed)
    batches = (Section("Batches left out", left_out_table(missed, "batch")),) if missed else ()
    sections = (_critical(found), _reached(found), *batches)
    return (*notes_block(found.table_notes), *sections, *left_out_section(found.left_out))


def _critical(found: CriticalBatches) -> Section:
    interval = (Number(found.level, ".0%"), " interval")
    columns = (
        *found.cell, "loss (nats per token)", "batches", "critical batch (tokens)", interval, "fewest tokens", interval,
        "fewest steps", interval, "noise scale (tokens)", "why there is none",
    )  # fmt: skip
    text = (
        "The tokens of a loss grow as 1 + batch / critical batch (McCandlish et al. 2018). The intervals, of profile "
        "likelihoods, hold the scatter of the batches around that line. The noise scale, tr(Sigma) / |G|^2 of the "
        "gradients, should be near the critical batch: it is the runs' own, read at the same loss, the median over "
        "batches."
    )
    intervals = [value for at in found.found for value in (at.critical_batch, at.tokens_min, at.steps_min) if value]
    rows = tuple(_row(at) for at in found.found)
    return Section("Critical batches", (Paragraph(text), Table(columns, rows), *notes_on(intervals)))


def _row(at: CriticalBatch) -> tuple[Content, ...]:
    fitted = [part for value in (at.critical_batch, at.tokens_min, at.steps_min) for part in _span(value)]
    loss, batches = Number(at.loss_nats, QUANTITY), Number(len(at.reached), "d")
    return (*_cell(at), loss, batches, *fitted, _known(at.noise_scale_tokens), at.reason)


def _span(interval: Interval | None) -> tuple[Content, Content]:
    return ("none", "") if interval is None else (Number(interval.value), ends(interval))


def _reached(found: CriticalBatches) -> Section:
    columns = (*found.cell, "loss (nats per token)", "batch (tokens)", "tokens", "steps", "noise scale (tokens)")
    rows = tuple(
        (
            *_cell(at),
            Number(at.loss_nats, QUANTITY),
            Number(one.batch_tokens),
            Strong(Number(one.tokens)) if one.at_edge else Number(one.tokens),
            Number(one.steps),
            _known(one.noise_scale_tokens),
        )
        for at in found.found
        for one in at.reached
    )
    blocks = [Table(columns, rows, grouped=True)]
    edges = sum(one.at_edge for at in found.found for one in at.reached)
    if edges:
        told = " have their best learning rate at an end of those tried, and their tokens are marked: fewer may do"
        blocks.append(Bullets(((Number(edges, "d"), " of ", Number(len(rows), "d"), told),)))
    return Section("What each batch took", tuple(blocks))


def _cell(at: CriticalBatch) -> tuple[Content, ...]:
    return tuple(value if isinstance(value, str) else Number(value) for value in at.cell.values())


def _known(value: float) -> Content:
    return "" if math.isnan(value) else Number(value)
