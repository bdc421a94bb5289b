"""Examples of prompt and completion in a JSON Lines file: read, checked line by line, and split by what they share."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from research.config import ExamplesConfig
from research.data.errors import DataError
from research.data.splitting import digest_of, is_held_out
from research.data.token_file import sha256


class Example(NamedTuple):
    """One line. label: None where none was asked for."""

    line: int
    prompt: str
    completion: str
    label: int | None
    is_held_out: bool


def examples_of(path: Path | str, **settings: Any) -> ExamplesConfig:
    """The section of a run that reads the file as it is now. Raises OSError if it cannot be read."""
    return ExamplesConfig(sha256=sha256(Path(path)), path=str(path), **settings)


def read_examples(config: ExamplesConfig, labels: int | None) -> list[Example]:
    """The examples of the file in its order; blank lines are passed over.

    labels: labels are 0 to labels - 1, and every example has one; None: none is read. Raises DataError for a file that
    is missing or not the one of the digest, for a line that is no example, naming it, and where training and held-out
    examples share a prompt.
    """
    path = Path(config.path)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file. Fix: copy it there, or set examples.path to where it is.")
    found = sha256(path)
    if found != config.sha256:
        raise DataError(
            f"{path}: has sha256 {found}, and examples.sha256 is {config.sha256}: it has changed since the run was "
            "planned. Fix: bring the file back, or plan another run with the new digest."
        )
    examples = [_example(config, labels, number, record) for number, record in _records(path)]
    _check_sides(path, config, examples)
    return examples


def _records(path: Path) -> Iterator[tuple[int, dict]]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line.decode())
            except (ValueError, RecursionError) as error:  # of the text's encoding, too
                raise _bad(path, number, f"is no JSON ({error})", "repair or delete it") from error
            if not isinstance(record, dict):
                raise _bad(path, number, f"is {type(record).__name__}, no object", "write one object a line")
            yield number, record


def _example(config: ExamplesConfig, labels: int | None, number: int, record: dict) -> Example:
    path = Path(config.path)
    prompt, completion, group = (
        _text(path, number, record, name) for name in ("prompt", "completion", config.split_by)
    )
    label = record.get("label")
    if labels is None:
        label = None
    elif not isinstance(label, int) or not 0 <= label < labels:
        rule = f"label = {label!r}: must be one of the {labels} labels that the objective knows, 0 to {labels - 1}"
        raise _bad(path, number, rule, "correct it, or train an objective of more classes")
    held_out = is_held_out(digest_of(group.encode()), config.held_out_fraction)
    return Example(number, prompt, completion, None if label is None else int(label), held_out)


def _text(path: Path, number: int, record: dict, name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str) or not value.strip():
        said = (
            f"has no field {name!r}" if name not in record else f"{name} = {value!r}: must be a text that is not empty"
        )
        raise _bad(path, number, said, "give it one, or delete the line")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _bad(path, number, f"{name} is no Unicode text ({error.reason})", "repair it") from error
    return value


def _bad(path: Path, number: int, rule: str, fix: str) -> DataError:
    return DataError(f"{path}: line {number:,}: {rule}. Fix: {fix}.")


def _check_sides(path: Path, config: ExamplesConfig, examples: list[Example]) -> None:
    for side in (False, True):
        if not any(example.is_held_out == side for example in examples):
            raise DataError(
                f"{path}: {'no' if side else 'only'} example is held out of {len(examples):,}, split by "
                f"{config.split_by!r} with examples.held_out_fraction = {config.held_out_fraction}. Fix: change the "
                "fraction, or use more examples."
            )
    held_out = {example.prompt: example.line for example in examples if example.is_held_out}
    for example in examples:
        if not example.is_held_out and example.prompt in held_out:
            raise _bad(
                path,
                example.line,
                f"its prompt is that of line {held_out[example.prompt]:,}, which is held out: {config.split_by!r} "
                "differs between them",
                "split by prompt, or give both the same value",
            )
