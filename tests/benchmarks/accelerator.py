"""What an accelerator must show, on one GPU or TPU: equal to the reference, fast and lean, beside its goals.

    python tests/benchmarks/accelerator.py [--small] [--seconds 340] [--only train short,moe]

One call checks, times and prints one markdown table with the card's name, in less than --seconds: items run in the
order of ITEMS, and one that is not done by then is said to be "not reached". Compiled programs are kept
(JAX_COMPILATION_CACHE_DIR), so that a second call reaches what a first one did not; --only names items that are wanted.
First come the worst differences of every attention program and every mixer's algorithms from the reference, forward and
gradient; one beyond its bound, or an item of ours that died, ends the call with status 1, after everything was timed.

Setting: 12 layers of width 1024 (221M parameters), 16,384 tokens a step, bfloat16 compute, float32 weights
(tests/accelerator_cases.py). Milliseconds are medians of 7 runs after a warm-up; GiB the device's count of its peak,
or, of programs that share a process, the compiler's; TFLOP/s the closed form's FLOPs, all pairs of positions counted,
over the time; "of peak" is that over a matrix product's measured here. A layer is its mixer alone, gradients for
parameters and input. torch.compile and `generate` are Hugging Face's Llama of the same sizes, where torch has this
device. Every item has a process of its own for each framework, and they take turns.

--small, and any run on a CPU: all of it at sizes of no meaning. It proves that the script runs, and the equalities
among what a CPU can compute: nothing of cuDNN's or Pallas' kernels, their memory, any speed or any goal.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import turns

ROUNDS = 7
LEAST_S = 10  # an item is not begun with less

GOALS = {  # row -> (column, "at least" or "at most", number): issue's goals on one GPU
    "train short": ("ratio", "at least", 1.3),
    "train short, memory": ("ratio", "at most", 1.0),
    "train long": ("ratio", "at least", 1.9),
    "train long, memory": ("ratio", "at most", 1.0),
    "wide": ("share", "at least", 0.65),
    "longest": ("ms", "at most", float("inf")),
    "moe": ("ratio", "at most", 1.35),
    "mamba": ("ms", "at most", 8.0),
    "mamba2": ("ms", "at most", 4.0),
    "rwkv7_first": ("ms", "at most", 6.0),
    "s4": ("ratio", "at most", 3.0),
    "h3": ("ratio", "at most", 3.0),
    "decoding": ("ratio", "at least", 1.5),
}


@dataclass
class Row:
    """A line of the table. share: of the measured matmul peak; ratio: what `against` says; died: of an error."""

    key: str
    what: str
    ms: float | None = None
    peak_bytes: int | None = None
    flops_per_second: float | None = None
    share: float | None = None
    against: str = ""
    ratio: float | None = None
    died: bool = False


@dataclass(frozen=True)
class Measured:
    """An item's sides after their rounds, and the machine they ran on."""

    ours: turns.Side
    torch: turns.Side | None
    machine: dict[str, Any]

    def row(self, run: str, what: str) -> Row:
        """Our run's own numbers."""
        facts, seconds = self.ours.first[run], self.ours.median(run)
        runs = f" ({facts['runs']})" if facts["runs"] else ""
        what = f"{what}{runs}, {facts['batch']} x {facts['length']}"
        row = Row(run, what, 1e3 * seconds, facts.get("peak_bytes"))
        if "flops" in facts:
            row.flops_per_second = facts["flops"] / seconds
            row.share = row.flops_per_second / self.machine["matmul_flops"]
        return row

    def torch_seconds(self, run: str) -> float | None:
        return self.torch.median(run) if self.torch and self.torch.seconds else None


def train_rows(measured: Measured, item: str) -> list[Row]:
    row = measured.row(item, "train step")
    memory = Row(f"{item}, memory", "its memory", peak_bytes=row.peak_bytes)
    theirs = measured.torch_seconds(item)
    if theirs is None:
        row.against = memory.against = missing(measured)
        return [row, memory]
    row.against, row.ratio = f"torch.compile {1e3 * theirs:.1f} ms over ours", 1e3 * theirs / row.ms
    their_bytes = measured.torch.first[item]["peak_bytes"]
    if their_bytes:
        memory.against, memory.ratio = f"ours over torch's {gib(their_bytes)} GiB", row.peak_bytes / their_bytes
    else:
        memory.against = "torch does not count it here"
    return [row, memory]


def moe_rows(measured: Measured, item: str) -> list[Row]:
    dense, *mixtures = (
        measured.row(run, what)
        for run, what in (
            ("dense", "train step beside it"),
            ("moe", "train step, 8 experts, 2 active"),
            ("moe, capacity 1.25", "the same, capacity 1.25"),
        )
    )
    for row in mixtures:
        row.against, row.ratio = f"over the dense {dense.ms:.1f} ms", row.ms / dense.ms
    return mixtures


def layer_rows(measured: Measured, item: str) -> list[Row]:
    rows = [measured.row(mixer, f"layer of {mixer}") for mixer in measured.ours.first]
    attention = next(row for row in rows if row.key == "attention")
    for row in rows:
        if row is not attention:
            row.against, row.ratio = f"over attention's {attention.ms:.2f} ms", row.ms / attention.ms
    return rows


def decoding_rows(measured: Measured, item: str) -> list[Row]:
    row, theirs = measured.row(item, "greedy decoding"), measured.torch_seconds(item)
    row.against = missing(measured)
    if theirs is not None:
        row.against, row.ratio = f"generate, static cache, {1e3 * theirs:.1f} ms over ours", 1e3 * theirs / row.ms
    return [row]


def missing(measured: Measured) -> str:
    return f"torch: {measured.torch.error}" if measured.torch else "no torch with this device"


def alone(what: str) -> Callable[[Measured, str], list[Row]]:
    return lambda measured, item: [measured.row(item, what)]


ITEMS = {  # item -> (its rows, whether torch takes turns)
    "train short": (train_rows, True),
    "train long": (train_rows, True),
    "moe": (moe_rows, False),
    "layers": (layer_rows, False),
    "decoding": (decoding_rows, True),
    "wide": (alone("train step at the second width"), False),
    "longest": (alone("train step, one sequence"), False),
}
LAYERS = ("mamba", "mamba2", "rwkv7_first", "s4", "h3")  # rows of that item with a goal
CHECKS = ("attention checks", "algorithm checks")


def gib(count: float) -> str:
    return f"{count / 2**30:.1f}" if count >= 2**30 else f"{count / 2**30:.3f}"


def line(row: Row) -> str:
    """A row of the table, its goal and whether it is met."""
    goal = met = ""
    if row.key in GOALS:
        column, relation, number = GOALS[row.key]
        word, unit = {"ms": ("", " ms"), "ratio": ("ratio ", ""), "share": ("of peak ", "")}[column]
        goal = "trains" if number == float("inf") else f"{word}{relation} {number:g}{unit}"
        value = getattr(row, column)
        if value is None:
            met = "**missed**" if row.died else "not measured"
        else:
            met = "met" if (value >= number if relation == "at least" else value <= number) else "**missed**"
    cells = [
        row.what,
        "" if row.ms is None else f"{row.ms:.2f}",
        "" if row.peak_bytes is None else gib(row.peak_bytes),
        "" if row.flops_per_second is None else f"{row.flops_per_second / 1e12:.3g}",
        "" if row.share is None else f"{row.share:.2f}",
        row.against,
        "" if row.ratio is None else f"{row.ratio:.2f}",
        goal,
        met,
    ]
    return f"| {' | '.join(cells)} |"


class Call:
    """One call of the script: its clock, its wishes and what went wrong."""

    def __init__(self, small: bool, seconds: float):
        self.small, self.ends, self.wrong = small, time.monotonic() + seconds, []
        self.taken_s = {}  # item -> seconds

    def turns(self, item: str, sides: list[str], rounds: int, device: str = "") -> dict[str, turns.Side] | None:
        """None if too little time is left. Torch's missing side is no fault of ours, nor is time that ran out."""
        left = self.ends - time.monotonic()
        if left < LEAST_S:
            return None
        size = "small" if self.small else "full"
        commands = {side: [sys.executable, __file__, "--side", side, item, size, device] for side in sides}
        measured = turns.take_turns(commands, rounds, left)
        self.taken_s[item] = left - (self.ends - time.monotonic())
        error = measured["ours"].error
        if error is not None and error != turns.OUT_OF_TIME:
            self.wrong.append(f"{item}: {error}")
        return measured

    def check(self, item: str) -> None:
        measured = self.turns(item, ["ours"], 0)
        if measured is None or measured["ours"].error is not None:
            print(f"{item}: not reached" if measured is None else f"{item}: {measured['ours'].error}", flush=True)
            return
        for what, worst, bound in measured["ours"].first:
            if not worst <= bound:
                self.wrong.append(f"{what}: differs by {worst:.1e}, and may by {bound:g}")
            print(f"{what:<62} {worst:.1e} of {bound:g}{'' if worst <= bound else '  TOO FAR'}", flush=True)

    def rows(self, item: str, machine: dict[str, Any]) -> list[Row]:
        make, with_torch = ITEMS[item]
        sides = ["ours", "torch"] if with_torch and machine["torch_device"] else ["ours"]
        measured = self.turns(item, sides, ROUNDS, machine["torch_device"] or "")
        if measured is None or not measured["ours"].seconds:
            late = measured is None or measured["ours"].error == turns.OUT_OF_TIME
            why = "not reached" if late else measured["ours"].error
            keys = [key for key in GOALS if key.partition(",")[0] == item or (item == "layers" and key in LAYERS)]
            return [Row(key, key, against=why, died=not late) for key in keys]
        return make(Measured(measured["ours"], measured.get("torch"), machine), item)


def serve(side: str, item: str, size: str, device: str) -> None:
    """A side's process for one item."""
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    if side == "torch":
        os.environ["JAX_PLATFORMS"] = "cpu"  # the sizes are jax's configs, and its memory is not to be taken for them
    import accelerator_cases as cases

    from research.training.runtime import configure

    if side == "torch":
        full = size == "full" and device != "cpu"
        runs, facts = cases.torchs(item, cases.Sizes() if full else cases.SMALL, device)
        return turns.answer(runs, facts)
    configure()
    if item == "machine":
        return turns.answer({}, cases.machine)
    if item in CHECKS:
        import accelerator_checks as checks

        return turns.answer({}, checks.attention_checks if item == CHECKS[0] else checks.algorithm_checks)
    return turns.answer(*cases.ours(item, cases.sizes(size == "small")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="at tiny sizes, as on any CPU")
    parser.add_argument("--seconds", type=float, default=340, help="of the whole call")
    parser.add_argument("--only", default=",".join((*CHECKS, *ITEMS)), help="items, separated by commas")
    asked = parser.parse_args()
    wanted = asked.only.split(",")
    unknown = sorted(set(wanted) - {*CHECKS, *ITEMS})
    if unknown:
        parser.error(f"--only = {unknown}: must be among {[*CHECKS, *ITEMS]}")
    if asked.seconds <= LEAST_S:
        parser.error(f"--seconds = {asked.seconds:g}: must be above the {LEAST_S} that an item is begun with")
    call = Call(asked.small, asked.seconds)
    found = call.turns("machine", ["ours"], 0)["ours"]
    if found.error is not None:
        sys.exit(f"no machine: {found.error}")
    machine = found.first
    card = f"{machine['device']}, jax {machine['jax']}, torch {machine['torch'] or 'with this device: none'}"
    print(f"{card}; matmul peak {machine['matmul_flops'] / 1e12:.3g} TFLOP/s in bfloat16")
    if asked.small or machine["backend"] == "cpu":
        print("SMALL SIZES: this run says nothing of speed, memory or goals, whatever the table calls met or missed.")
    for item in CHECKS:
        if item in wanted:
            call.check(item)
    print(f"\n| {card} | ms | GiB | TFLOP/s | of peak | against | ratio | goal | |\n|{'---|' * 9}", flush=True)
    for item in ITEMS:
        if item in wanted:
            print("\n".join(line(row) for row in call.rows(item, machine)), flush=True)
    print("\nseconds: " + ", ".join(f"{item} {taken:.0f}" for item, taken in call.taken_s.items()))
    if call.wrong:
        sys.exit("\n" + "\n".join(call.wrong))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        serve(*sys.argv[2:])
    else:
        main()
