"""What `isoflop generate` is asked: the options of the verb, which answers.py carries out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class GenerateRequest:
    """What is asked of the verb."""

    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN_OR_CHECKPOINT")]
    """Folder of a run, or of a Hugging Face checkpoint with its tokenizer.json."""
    prompt: Annotated[str | None, tyro.conf.arg(metavar="TEXT")] = None
    """The text to continue; an empty one begins a document."""
    prompts: Annotated[Path | None, tyro.conf.arg(metavar="FILE.jsonl")] = None
    """Prompts to continue instead, one {"prompt": TEXT} a line."""
    tokens: Annotated[int, tyro.conf.arg(metavar="N")] = 64
    """Tokens to write at most."""
    samples: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Answers to each prompt."""
    temperature: float = 1.0
    """The logits are divided by it; 0 takes the likeliest token."""
    top_k: Annotated[int | None, tyro.conf.arg(metavar="K")] = None
    """Draw from the K likeliest tokens."""
    top_p: Annotated[float | None, tyro.conf.arg(metavar="P")] = None
    """Draw from the likeliest tokens that together have probability P."""
    min_p: Annotated[float | None, tyro.conf.arg(metavar="P")] = None
    """Draw from tokens at least P times as likely as the likeliest."""
    typical_p: Annotated[float | None, tyro.conf.arg(metavar="P")] = None
    """Draw from the tokens of the most typical information that together have probability P."""
    epsilon: Annotated[float | None, tyro.conf.arg(metavar="P")] = None
    """Draw from tokens of at least probability P."""
    repetition_penalty: float = 1.0
    """Logits of tokens that the text has already are divided by it (multiplied where negative)."""
    min_new_tokens: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Write no end before as many tokens."""
    stop: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="STR")] = ()
    """End a text before this string; may be given several times."""
    json_schema: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write JSON, without white space, that satisfies the JSON schema in this file."""
    regex: Annotated[str | None, tyro.conf.arg(metavar="RE")] = None
    """Write a text that this regular expression matches as a whole."""
    grammar: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write a text of the Lark grammar in this file."""
    seed: int = 0
    """Of the draws; a prompt's text does not depend on the others or on --batch."""
    logprobs: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """With --out: log-probabilities (nats) under the model of each token and of the N likeliest at its place."""
    batch: Annotated[int, tyro.conf.arg(metavar="N")] = 16
    """Texts that are written at a time."""
    step: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Checkpoint of the run; the newest if not given."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE.jsonl")] = None
    """Write one JSON object a line here; what the file has already of the same request is not written again."""
