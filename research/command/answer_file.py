"""A file of answers, one JSON object a line, that is gone on with where it ends."""

import json
from pathlib import Path
from typing import IO, Any

from research.config import ConfigError, check


class AnswerFile:
    """Lines are appended whole: a last one that was cut off is dropped, and its answer written again.

    asked: what the answers are to, beside the prompts; a line that says otherwise is of another request.
    Raises ConfigError for a file that holds anything else.
    """

    def __init__(self, path: Path, asked: str) -> None:
        self._path, self._asked = path, asked
        self._prompts: dict[tuple[int, int], str] = {}
        self._file: IO[bytes] | None = None

    def __enter__(self) -> "AnswerFile":
        with open(self._path, "a+b") as file:
            file.seek(0)
            whole = 0
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                self._read(number, line)
                whole += len(line)
            file.truncate(whole)
        self._file = open(self._path, "ab")
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def holds(self, number: int, sample: int, prompt: str) -> bool:
        """Whether the answer is there. Raises ConfigError if it is one to another prompt of this number."""
        found = self._prompts.get((number, sample))
        rule = f"holds an answer to another prompt {number + 1}, {found!r}"
        check(found in (None, prompt), "--out", str(self._path), rule, "name another file, or move this one away")
        return found is not None

    def write(self, line: dict[str, Any]) -> None:
        """Append an answer."""
        self._file.write((json.dumps(line | {"asked": self._asked}) + "\n").encode())
        self._file.flush()

    def _read(self, number: int, text: bytes) -> None:
        fix = "Fix: name another file, or move this one away"
        try:
            line = json.loads(text)
            place, prompt, asked = (line["number"], line["sample"]), line["prompt"], line["asked"]
        except (ValueError, KeyError, TypeError):
            raise ConfigError(
                f"--out = {str(self._path)!r}: line {number} is no answer of this command. {fix}."
            ) from None
        if asked != self._asked:
            raise ConfigError(
                f"--out = {str(self._path)!r}: line {number} answers another request, {asked}, and this one is "
                f"{self._asked}. {fix}."
            )
        self._prompts[place] = prompt
