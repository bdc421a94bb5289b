"""What `isoflop generate` does: prompts in batches through a model, and the answers on a screen or in a file."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from research.command.answer_file import AnswerFile
from research.command.generate import GenerateRequest
from research.config import LogProbs, SamplingConfig, check, fingerprint
from research.generation import Decoding, StopStrings, Written, decode, padded
from research.generation.source import Source, load
from research.generation.structured.constraint import GrammarConstraint
from research.generation.structured.grammar import Grammar, json_schema, lark, regex
from research.generation.vocabulary import text_stream
from research.training.runtime import configure

PROMPT_MULTIPLE = 16  # tokens that prompts are padded to, so that those of many lengths share few compiled programs
STEPS_BETWEEN_LOOKS = 4  # for a reader who waits
GRAMMARS = {"json_schema": json_schema, "regex": regex, "grammar": lark}  # options, of which one may be given
TRANSFORMS = "temperature top_k top_p min_p typical_p epsilon repetition_penalty min_new_tokens"
Watch = Callable[[Written], None]


class Row(NamedTuple):
    """One answer: the prompt that it is to, and which of its samples."""

    number: int
    sample: int
    prompt: str


def write_answers(request: GenerateRequest) -> int:
    """Answer every prompt, `samples` times each. Raises ConfigError for a value that means nothing, before any work."""
    sampling = SamplingConfig(**{name: getattr(request, name) for name in TRANSFORMS.split()})
    prompts = _prompts(request)
    _check(request, sampling)
    grammar = _grammar(request)
    configure()
    source = load(request.source, request.step)
    check(
        source.config.encoder is None,
        "source",
        source.name,
        "is an encoder-decoder, which reads a source beside its prompt",
        "call research.generation.decode with sources",
    )
    logprobs = None if request.logprobs is None else LogProbs(best=request.logprobs)
    decoding = Decoding(request.tokens, sampling, source.vocabulary.end_ids, logprobs)
    stops = StopStrings(source.vocabulary.pieces, request.stop) if request.stop else None
    ids = [source.vocabulary.prompt(prompt) for prompt in prompts]
    rule = "has no end token, and a text of a grammar must end"
    check(grammar is None or len(decoding.end_ids) > 0, "source", source.name, rule, "write without a grammar")
    batches = list(_batches(prompts, request))

    def write(batch: Sequence[Row], steps: int | None = None, watch: Watch | None = None) -> Written:
        numbers = list(dict.fromkeys(row.number for row in batch))
        pieces, constraint = source.vocabulary.pieces, None
        if grammar is not None:
            constraint = GrammarConstraint(grammar, len(batch), pieces, decoding.end_ids[0])
        return decode(
            source.config,
            source.params,
            decoding,
            *padded([ids[number] for number in numbers], PROMPT_MULTIPLE),
            samples=len(batch) // len(numbers),
            first_sample=batch[0].sample,
            numbers_P=numbers,
            seed=request.seed,
            stop_strings=stops,
            constraint=constraint,
            steps=None if constraint is not None else steps,
            watch=watch,
        )

    if request.out is None:
        _to_screen(source, batches, write, stops)
    else:
        asked = {"source": source.name, "seed": request.seed, "stop": request.stop, "decoding": fingerprint(decoding)}
        if grammar is not None:
            asked["grammar"] = fingerprint(grammar)
        _to_file(request.out, json.dumps(asked), source, batches, write)
    return 0


def _to_screen(source: Source, batches: Sequence[Sequence[Row]], write: Callable, stops: StopStrings | None) -> None:
    held = 0 if stops is None else max(map(len, stops.strings)) - 1  # bytes that a stop string may have begun with
    steps = STEPS_BETWEEN_LOOKS if sys.stdout.isatty() else None
    many = sum(map(len, batches)) > 1
    for batch in batches:
        screen = _Screen(source, batch, many, held)
        write(batch, steps, screen.show)


class _Screen:
    """The answers of one batch in their order, the one at its head while it grows."""

    def __init__(self, source: Source, batch: Sequence[Row], many: bool, held: int) -> None:
        self._source, self._held = source, held
        self._waiting = list(enumerate(batch))
        self._many = many
        self._begin()

    def _begin(self) -> None:
        self._stream, self._shown, self._headed = text_stream(), 0, False

    def show(self, written: Written) -> None:
        """Print what is new of the answers, down to the first that has not ended."""
        while self._waiting:
            b, row = self._waiting[0]
            if not self._headed:
                _print(f"--- prompt {row.number + 1}, sample {row.sample + 1}\n" if self._many else "")
                # Through the same stream: an answer may go on with a character that the prompt was cut in.
                _print(self._stream(row.prompt.encode("utf-8", "surrogateescape"), False))
                self._headed = True
            text, ended = answer(self._source, written, b), written.ends[b] != ""
            whole = len(text) if ended else max(self._shown, len(text) - self._held)
            _print(self._stream(text[self._shown : whole], ended))
            self._shown = whole
            if not ended:
                return
            _print("\n")
            del self._waiting[0]
            self._begin()


def _to_file(out: Path, asked: str, source: Source, batches: Sequence[Sequence[Row]], write: Callable) -> None:
    with AnswerFile(out, asked) as file:
        for batch in batches:
            missing = [b for b, row in enumerate(batch) if not file.holds(*row)]
            if not missing:
                continue
            written = write(batch)
            for b in missing:
                file.write(_line(source, batch[b], written, b))


def _line(source: Source, row: Row, written: Written, b: int) -> dict[str, Any]:
    """What is said of one answer. The text is without the stop string, the tokens are all that were written."""
    text, tokens = answer(source, written, b).decode("utf-8", "replace"), written.row(b)
    line = {**row._asdict(), "text": text, "end": written.ends[b], "tokens": tokens.tolist()}
    if written.logprobs_BT is not None:
        line["logprobs"] = [round(float(value), 6) for value in written.logprobs_BT[b, : len(tokens)]]
    if written.removed_bits_BT.any():
        line["removed_bits"] = [round(float(value), 6) for value in written.removed_bits_BT[b, : len(tokens)]]
    if written.best_BTN is not None:
        line["best"] = [
            [[int(token), round(float(value), 6)] for token, value in zip(*place)]
            for place in zip(written.best_BTN[b, : len(tokens)], written.best_logprobs_BTN[b])
        ]
    return line


def answer(source: Source, written: Written, b: int) -> bytes:
    """The bytes of one row's text, without the stop string that ended it."""
    stop = written.stops[b]
    return source.vocabulary.bytes_of(written.row(b))[: None if stop is None else stop.start]


def _prompts(request: GenerateRequest) -> list[str]:
    given = [name for name in ("prompt", "prompts") if getattr(request, name) is not None]
    check(len(given) == 1, "--prompt", request.prompt, "must be given, or else --prompts, not both", "give one of them")
    if request.prompt is not None:
        return [request.prompt]
    found = []
    for number, line in enumerate(request.prompts.read_text(encoding="utf-8").splitlines(), 1):
        try:
            said = json.loads(line)
        except ValueError:
            said = None
        right = isinstance(said, dict) and isinstance(said.get("prompt"), str)
        rule = 'must be an object with a text "prompt"'
        check(right, f"--prompts {request.prompts} line {number}", line, rule, 'write {"prompt": "Once"}')
        found.append(said["prompt"])
    check(len(found) > 0, "--prompts", str(request.prompts), "holds no prompt", 'write {"prompt": "Once"} into it')
    return found


def _grammar(request: GenerateRequest) -> Grammar | None:
    given = [name for name in GRAMMARS if getattr(request, name) is not None]
    options = [f"--{name.replace('_', '-')}" for name in GRAMMARS]
    check(len(given) <= 1, options[0], given, f"must be given without {' and '.join(options[1:])}", "give one of them")
    if not given:
        return None
    (name,) = given
    value = getattr(request, name)
    text = value if isinstance(value, str) else value.read_text(encoding="utf-8")
    return GRAMMARS[name](text, f"--{name.replace('_', '-')}")


def _check(request: GenerateRequest, sampling: SamplingConfig) -> None:
    for name in ("samples", "batch"):
        check(getattr(request, name) >= 1, f"--{name}", getattr(request, name), "must be at least 1", "leave it out")
    check(0 <= request.seed < 2**32, "--seed", request.seed, "must lie between 0 and 2^32 - 1", "choose another")
    check(
        not sampling.greedy or request.samples == 1,
        "--samples",
        request.samples,
        "would all be the same text at temperature 0",
        "raise --temperature, or leave --samples out",
    )
    check(
        request.logprobs is None or request.out is not None,
        "--logprobs",
        request.logprobs,
        "are written to a file alone",
        "give --out, too",
    )


def _batches(prompts: Sequence[str], request: GenerateRequest) -> Iterator[list[Row]]:
    """Rows in batches: several prompts with all their samples, or a part of the samples of one."""
    together = max(1, request.batch // request.samples)
    of_one = min(request.samples, request.batch)
    for first in range(0, len(prompts), together):
        numbers = range(first, min(first + together, len(prompts)))
        for sample in range(0, request.samples, of_one):
            samples = range(sample, min(sample + of_one, request.samples))
            yield [Row(number, s, prompts[number]) for number in numbers for s in samples]


def _print(text: str) -> None:
    """At once, and what the stream's encoding lacks as a question mark."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()
