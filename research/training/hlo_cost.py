"""What one execution of a compiled program does on one device, read from the text of its HLO (`compiled.as_text()`).

XLA's own `cost_analysis` counts the body of a loop once, and no collective. Here a `while` counts as often as it runs:
by `known_trip_count`, which the CPU's compiler writes, or (TPU) by the constants that it counts from, by and to. A loop
whose length the text does not tell counts once and is named in `unknown_loops`.

A collective counts the bytes of the whole array in which a device takes part: an all-gather's result, a
reduce-scatter's operand, of the others the array that is summed or exchanged. Those that a TPU's compiler spreads over
the steps of a computation, and of loops in it, are written at each step, under one chain, and count once, where the
chain begins. Channels would not tell: every collective of a shard_map has the same.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute")
TRANSCENDENTAL = frozenset(  # roots are left out: AdamW takes one a parameter, on every device that holds it
    ("atan2", "cosine", "erf", "exponential", "exponential-minus-one", "log", "log-plus-one", "logistic", "power",
     "sine", "tan", "tanh")
)  # fmt: skip
NO_PRODUCTS = frozenset(  # custom calls of a TPU's compiler that move, name or wait for buffers
    ("AllocateBuffer", "AssumeGatherIndicesInBound", "AsyncCollectiveDone", "AsyncCollectiveStart", "ConcatBitcast",
     "GatherScatterIndicesBitpacked")
)  # fmt: skip
MATMULS, FFTS, TRANSCENDENTALS = (
    "matmul_flops",
    "fft_flops",
    "transcendentals",
)  # and (bytes or executed, kind), (unread, what)


class HloCost(NamedTuple):
    """Counts of one execution on one device; of branches, each count is that of the dearest.

    matmul_flops: 2 for each multiply-add of dots and convolutions, complex ones too, and what a kernel states that it
    executes (Pallas' cost_estimate; megablox: of all its rows). fft_flops: 5 n log2 n for each transform of n complex
    numbers, half of it for real ones (the convention of FFTW's benchmarks). transcendentals: elements of exponentials,
    logarithms, sines and the like, without roots.
    collective_bytes, collectives: bytes by kind, and how many are executed. unknown_loops: loops around products or
    collectives that count once for want of their length. unread: operations that may multiply matrices and whose work
    the text does not tell (custom calls, ragged dots), and how often each is executed.
    """

    matmul_flops: int
    fft_flops: int
    transcendentals: int
    collective_bytes: Mapping[str, int]
    collectives: Mapping[str, int]
    unknown_loops: tuple[str, ...]
    unread: Mapping[str, int]


Shape = tuple[str, tuple[int, ...]]  # element type, dimensions


class Instruction(NamedTuple):
    name: str
    shapes: tuple[Shape, ...]  # of a tuple, its leaves'
    opcode: str
    arguments: str  # as they are written: names of operands, or a constant's value
    attributes: str
    is_root: bool

    @property
    def operands(self) -> list[str]:
        return re.findall(r"%([\w.\-]+)", self.arguments)


Computation = dict[str, Instruction]


def hlo_cost(text: str) -> HloCost:
    """The counts of the program whose optimised HLO this is. Raises ValueError for a text without an entry."""
    entry, computations = _parsed(text)
    walk = _Walk(computations)
    counts = walk.sequence(entry)

    def by_kind(what: str) -> dict[str, int]:
        return {key[1]: count for key, count in sorted(counts.items()) if key[0] == what}

    return HloCost(
        matmul_flops=counts[MATMULS,],
        fft_flops=counts[FFTS,],
        transcendentals=counts[TRANSCENDENTALS,],
        collective_bytes=by_kind("bytes"),
        collectives=by_kind("executed"),
        unknown_loops=tuple(sorted(walk.unknown_loops)),
        unread=by_kind("unread"),
    )


class _Walk:
    """Counts what computations execute; keys of a count are tuples, as above."""

    def __init__(self, computations: dict[str, Computation]):
        self.computations = computations
        self.unknown_loops: set[str] = set()

    def sequence(self, name: str, begun: Iterable[str] = ()) -> Counter:
        """One execution of an entry, a loop's body, a branch or a called computation; begun: chains before it."""
        total, chains = Counter(), set(begun)
        self._add(total, name, chains)
        return total

    def _add(self, total: Counter, name: str, chains: set) -> None:
        computation = self.computations[name]
        for instruction in computation.values():
            inner = _called(instruction)
            if instruction.opcode == "while":
                total.update(self._loop(instruction, computation, chains))
            elif instruction.opcode == "conditional":
                dearest = Counter()
                for branch in inner:
                    dearest |= self.sequence(branch, chains)
                total.update(dearest)
            elif instruction.opcode in ("call", "async-start"):
                for called in inner:
                    total.update(self.sequence(called, chains))
            elif instruction.opcode in ("fusion", "custom-call") and inner:
                for called in inner:
                    self._add(total, called, chains)
            else:
                total.update(_own(instruction, computation, chains))

    def _loop(self, loop: Instruction, computation: Computation, begun: set) -> Counter:
        body, condition = (_attribute(loop, rf"{role}=%([\w.\-]+)") for role in ("body", "condition"))
        once = self.sequence(body, begun) + self.sequence(condition, begun)
        times = _trips(loop, computation, self.computations[condition], self.computations[body])
        if times is None:
            if once[MATMULS,] or any(key[0] == "bytes" for key in once):
                self.unknown_loops.add(loop.name)
            return once
        return Counter({key: times * count for key, count in once.items()})


def _own(instruction: Instruction, computation: Computation, chains: set) -> Counter:
    """What an instruction without computations of its own does; a chain that has counted is in `chains`."""
    opcode = instruction.opcode
    kind = opcode.removesuffix("-start")
    if kind in COLLECTIVES:
        if _is_alone(instruction):
            return Counter()
        chain = _attribute(instruction, r'chain_id="(\d+)"')
        if chain in chains:
            return Counter()
        chains.update(() if chain is None else (chain,))
        return Counter({("bytes", kind): _collective_bytes(instruction, computation), ("executed", kind): 1})
    if opcode == "dot":
        return Counter({(MATMULS,): _dot_flops(instruction, computation)})
    if opcode == "convolution":
        return Counter({(MATMULS,): _convolution_flops(instruction, computation)})
    if opcode == "fft":
        return Counter({(FFTS,): _fft_flops(instruction, computation)})
    if opcode in TRANSCENDENTAL:
        return Counter({(TRANSCENDENTALS,): math.prod(instruction.shapes[0][1])})
    if opcode not in ("custom-call", "ragged-dot"):
        return Counter()
    stated = _attribute(instruction, r'"cost_estimate":\{"flops":"(\d+)"')
    if stated is not None:
        return Counter({(MATMULS,): int(stated)})
    what = _attribute(instruction, r'custom_call_target="([^"]*)"') or opcode
    return Counter() if what in NO_PRODUCTS else Counter({("unread", what): 1})


def _called(instruction: Instruction) -> list[str]:
    """Computations that an instruction runs; not those of a reduction or a sort, which are one operation."""
    if instruction.opcode not in ("fusion", "custom-call", "call", "conditional", "async-start"):
        return []
    roles = r"(?:calls|to_apply|true_computation|false_computation)=%([\w.\-]+)"
    lists = re.findall(r"(?:branch_computations|called_computations|calls)=\{([^}]*)\}", instruction.attributes)
    return re.findall(roles, instruction.attributes) + [
        name for names in lists for name in re.findall(r"%([\w.\-]+)", names)
    ]


def _collective_bytes(instruction: Instruction, computation: Computation) -> int:
    operands = [shape for name in instruction.operands for shape in computation[name].shapes]
    results = [shape for shape in instruction.shapes if shape != ("u32", ())]  # of a start: its context
    read, written = sum(map(_bytes, operands)), sum(map(_bytes, results))
    if instruction.opcode.endswith("-start") and len(results) > len(operands):  # (operands, results)
        written -= read
    return max(read, written)


def _bytes(shape: Shape) -> int:
    kind, dimensions = shape
    bits = 8 if kind == "pred" else int((re.search(r"\d+", kind) or [0])[0])  # none: a token
    return math.ceil(bits * math.prod(dimensions) / 8)


def _dot_flops(instruction: Instruction, computation: Computation) -> int:
    left = computation[instruction.operands[0]].shapes[0][1]
    contracted = _attribute(instruction, r"lhs_contracting_dims=\{([\d,]*)\}") or ""
    return (
        2 * math.prod(instruction.shapes[0][1]) * math.prod(left[int(axis)] for axis in contracted.split(",") if axis)
    )


def _convolution_flops(instruction: Instruction, computation: Computation) -> int:
    """As XLA's HloCostAnalysis::HandleConvolution: positions in the padding or between dilated elements multiply
    nothing. A TPU's compiler writes batched products as such convolutions."""
    left, right = (computation[name].shapes[0][1] for name in instruction.operands[:2])
    out = instruction.shapes[0][1]
    of_left, of_right, of_out = re.split("_|->", _attribute(instruction, r"dim_labels=([\w>\-?]+)"))
    groups, batch_groups = (
        int(_attribute(instruction, rf"{which}_group_count=(\d+)") or 1) for which in ("feature", "batch")
    )
    count = 2 * left[of_left.index("f")] // groups * out[of_out.index("f")] * left[of_left.index("b")] // batch_groups
    window = dict(re.findall(r"(\w+)=([\dx_\-]+)", _attribute(instruction, r"window=\{([^}]*)\}") or ""))
    for axis in range(len(left) - 2):
        sizes = [
            shape[labels.index(str(axis))] for shape, labels in ((left, of_left), (right, of_right), (out, of_out))
        ]
        stride, by_left, by_right = (int(window[key].split("x")[axis]) if key in window else 1
                                     for key in ("stride", "lhs_dilate", "rhs_dilate"))  # fmt: skip
        low = int(window["pad"].split("x")[axis].split("_")[0]) if "pad" in window else 0
        at = np.arange(sizes[2])[:, None] * stride + np.arange(sizes[1])[None] * by_right - low
        count *= int(np.sum((at >= 0) & (at % by_left == 0) & (at < sizes[0] * by_left)))
    return count


def _fft_flops(instruction: Instruction, computation: Computation) -> int:
    size = math.prod(map(int, _attribute(instruction, r"fft_length=\{([\d,]*)\}").split(",")))
    shapes = (computation[instruction.operands[0]].shapes[0], instruction.shapes[0])
    real = [math.prod(dimensions) for kind, dimensions in shapes if kind.startswith("f")]
    numbers = real[0] if real else math.prod(shapes[1][1])
    return round(numbers * (2.5 if real else 5) * math.log2(size))


def _trips(loop: Instruction, computation: Computation, condition: Computation, body: Computation) -> int | None:
    """How often a loop runs, None if the text does not tell: what is not a count from a constant to another by one."""
    known = _attribute(loop, r'known_trip_count":\{"n":"(\d+)"')
    if known is not None:
        return int(known)
    compare, end_of_body = _root(condition), _root(body)
    start = computation[loop.operands[0]]
    if compare.opcode != "compare" or "direction=LT" not in compare.attributes or start.opcode != "tuple":
        return None
    counter, last = (_source(condition, name) for name in compare.operands)
    index = _attribute(counter, r"index=(\d+)")
    if index is None or end_of_body.opcode != "tuple":
        return None
    first, step = _source(computation, start.operands[int(index)]), _source(body, end_of_body.operands[int(index)])
    if step.opcode != "add":
        return None
    counted, by = sorted(
        (_source(body, name) for name in step.operands), key=lambda source: source.opcode == "constant"
    )
    is_counter = counted.opcode == "get-tuple-element" and _attribute(counted, r"index=(\d+)") == index
    values = [
        int(source.arguments) if re.fullmatch(r"-?\d+", source.arguments) else None for source in (first, last, by)
    ]
    if not is_counter or None in values or values[2] <= 0:
        return None
    return max(0, -((values[0] - values[1]) // values[2]))


LISTED_ALONE = re.compile(r"replica_groups=(\{(\{\d+\},?)+\}|\[\d+,1\])")
OVER_AXES = re.compile(r"replica_groups=mesh\[([^\]]*)\] *\{([^}]*)\}")  # mesh['a'=1,'b'=8] {'a','b':(2)4}


def _is_alone(instruction: Instruction) -> bool:
    """Whether a collective's groups are of one device each, so that nothing is sent: XLA lists them or names axes."""
    if not (over := OVER_AXES.search(instruction.attributes)):
        return bool(LISTED_ALONE.search(instruction.attributes))
    sizes = {axis: int(size) for axis, size in re.findall(r"'([^']*)'=(\d+)", over[1])}
    parts = re.findall(r"'([^']*)'(?::\(\d+\)(\d+))?", over[2])  # of some axes, a part of the given size
    return all(int(part or sizes[axis]) == 1 for axis, part in parts)


def _root(computation: Computation) -> Instruction:
    return next(instruction for instruction in computation.values() if instruction.is_root)


def _source(computation: Computation, name: str) -> Instruction:
    """Where a value comes from, behind what only copies it."""
    while computation[name].opcode in ("copy", "bitcast"):
        name = computation[name].operands[0]
    return computation[name]


def _attribute(instruction: Instruction, pattern: str) -> Any:
    found = re.search(pattern, instruction.attributes)
    return found and found[1]


HEADER = re.compile(r"^(ENTRY )?%([\w.\-]+) \(.*\) -> .*\{$")
LINE = re.compile(r"^\s+(ROOT )?%([\w.\-]+) = (.*)$")


def _parsed(text: str) -> tuple[str, dict[str, Computation]]:
    """(name of the entry, computations). A computation ends where the next one begins: a custom call may hold a line
    that looks like an end."""
    entry, computations, current = None, {}, {}
    for line in text.splitlines():
        if header := HEADER.match(line):
            current = computations.setdefault(header[2], {})
            entry = header[2] if header[1] else entry
        elif found := LINE.match(line):
            current[found[2]] = _instruction(found[2], found[3], bool(found[1]))
    if entry is None:
        raise ValueError("the text of a compiled program must have a line that begins with ENTRY")
    return entry, computations


def _instruction(name: str, text: str, is_root: bool) -> Instruction:
    kind_end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    opening = text.index("(", kind_end)
    closing = _closing(text, opening)
    shapes = tuple(
        (kind, tuple(int(size) for size in dimensions.split(",") if size))
        for kind, dimensions in re.findall(r"([a-z]\w*)\[([\d,]*)\]", text[:kind_end])
    )
    opcode = text[kind_end:opening].strip()
    return Instruction(name, shapes, opcode, text[opening + 1 : closing], text[closing + 1 :], is_root)


def _closing(text: str, opening: int) -> int:
    """Index of the parenthesis that closes the one at `opening`."""
    depth = 0
    for found in re.finditer(r"[()]", text[opening:]):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return opening + found.start()
    raise ValueError(f"unbalanced parentheses in {text!r}")
