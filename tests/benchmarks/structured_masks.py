"""What a mask costs: microseconds a token and row, masks and advance together, at the median over the tokens of texts.

    python tests/benchmarks/structured_masks.py

Texts of three grammars (a JSON schema, a regular expression, SELECT queries in Lark) are drawn once from their masks
and then written again, one a row, at batch 1 and 16, on all cores: a byte vocabulary (goal: below 60 at either batch)
and a SentencePiece one of 4,096 pieces trained on such texts and on this repository's sources. Printed besides: the
99th percentile, and how long the grammar takes to be checked and the rows to be set up. Best of REPEATS, which shields
the median from what else the machine does now and then; its load is printed, for a machine that is busy throughout.
Medians printed on two cores at a load of 15.6: bytes 21 to 41 at batch 1 and 17 to 21 at 16; SentencePiece 32 to 73 and
24 to 81.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from structured_draws import BYTES, END, allowed, sentencepiece_vocabulary
from structured_examples import PERSON, TABLES, select_grammar

from research.generation.structured.constraint import GrammarConstraint
from research.generation.structured.grammar import Grammar, json_schema, lark, regex

REPEATS = 5
PACKAGES = Path(__file__).parents[2] / "research"
STEPS = 120  # tokens of a row at most
GRAMMARS: dict[str, Callable[[], Grammar]] = {
    "schema": lambda: json_schema(json.dumps(PERSON)),
    "regex": lambda: regex(r"(?:[A-Z][a-z]{2,9} ){3,30}[0-9]{1,4}"),
    "select": lambda: lark(select_grammar(TABLES)),
}


def written(grammar: Grammar, pieces: tuple[bytes | None, ...], rows: int) -> np.ndarray:
    """(steps, B) ids: one text a row, drawn uniformly from its masks, then the end."""
    constraint, rng = GrammarConstraint(grammar, rows, pieces, END), np.random.default_rng(0)
    steps = []
    for _ in range(STEPS):
        steps.append(np.array([rng.choice(allowed(mask_W)) for mask_W in constraint.masks()]))
        constraint.advance(steps[-1], np.ones(rows, bool))
        if (steps[-1] == END).all():
            break
    return np.stack(steps)


def microseconds(grammar: Grammar, pieces: tuple[bytes | None, ...], tokens_LB: np.ndarray) -> np.ndarray:
    """What each step took for a row that still wrote."""
    constraint = GrammarConstraint(grammar, tokens_LB.shape[1], pieces, END)
    running_B, took = np.ones(tokens_LB.shape[1], bool), []
    for tokens_B in tokens_LB:
        began = time.perf_counter()
        constraint.masks()
        constraint.advance(tokens_B, running_B)
        took.append((time.perf_counter() - began) / running_B.sum() * 1e6)
        running_B = running_B & (tokens_B != END)
    return np.array(took)


def sources() -> tuple[str, ...]:
    """The lines of this repository's packages."""
    files = sorted(PACKAGES.glob("**/*.py"))
    return tuple(line for file in files for line in file.read_text().splitlines() if line.strip())


def main() -> None:
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; microseconds a token and row, masks and advance")
    print(f"{'vocabulary':<18} {'grammar':<8} {'batch':>5} {'median':>7} {'99 %':>8} {'check ms':>9} {'rows ms':>8}")
    for name, pieces in (("bytes", BYTES), ("SentencePiece", sentencepiece_vocabulary(4096, sources()))):
        for kind, make in GRAMMARS.items():
            for rows in (1, 16):
                began = time.perf_counter()
                grammar = make()
                checked = time.perf_counter()
                GrammarConstraint(grammar, rows, pieces, END)
                ready = time.perf_counter()
                tokens_LB = written(grammar, pieces, rows)
                runs = [microseconds(grammar, pieces, tokens_LB) for _ in range(REPEATS)]
                best = min(runs, key=np.median)
                print(
                    f"{name + ' ' + str(len(pieces)):<18} {kind:<8} {rows:5d} {np.median(best):7.1f} "
                    f"{np.percentile(best, 99):8.1f} {1e3 * (checked - began):9.1f} {1e3 * (ready - checked):8.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
