"""A corpus of a few hundred kilobytes from modules written on the spot, for the tests of research/data."""

import random
from pathlib import Path

from research.config import DataConfig, SourceConfig
from research.data.extraction import Root

# Everything a tokenizer may trip over: SentencePiece's own space mark, control characters, names of control ids.
ODD_TEXT = "Mark \u2581\u2581 \u2581, \x01\x7f\t controls,   spaces, \U0001f600 e\u0301 \xa0, </s><unk> <0x41> <pad>"
LONG_DOCUMENT_BYTES = 50_000  # dozens of rows of the mixture, hundreds of windows
PROSE = SourceConfig("prose", "embedded_corpus/prose", 0.7)
CODE = SourceConfig("code", "embedded_corpus/code", 0.3)


def write_corpus(folder: Path, modules: int = 80) -> tuple[Root, ...]:
    """Modules with docstrings and code of all lengths, one of them very long, one that holds every odd character."""
    rng = random.Random(0)
    folder.mkdir(parents=True)
    for index in range(modules):
        sentences = [" ".join(rng.choices(_WORDS, k=rng.randint(4, 12))) for _ in range(rng.randint(2, 30))]
        functions = "\n".join(
            f'def f_{index}_{i}(value):\n    """Give {rng.choice(_WORDS)} {index} {i}."""\n    return value + {i}\n'
            for i in range(rng.randint(3, 60))
        )
        body = ". ".join(sentences)
        (folder / f"module_{index:03}.py").write_text(f'"""{body}."""\n{functions}')
    long = " ".join(rng.choices(_WORDS, k=LONG_DOCUMENT_BYTES // 5))
    (folder / "long_module.py").write_text(f'"""{long}"""\nLONG = {list(range(4000))}\n')
    (folder / "odd_module.py").write_text(f'"""{ODD_TEXT}"""\nODD = 1\n')
    return (Root("tiny", "1.0", folder),)


def data_config(**changes) -> DataConfig:
    """Both domains of that corpus, with a fifth of the documents held out."""
    return DataConfig(**{"sources": (PROSE, CODE), "validation_fraction": 0.2, "train_tokens": 60_000,
                         "validation_tokens": 30_000, **changes})  # fmt: skip


_WORDS = [
    "the", "a", "of", "to", "in", "array", "value", "index", "model", "token", "batch", "step", "loss", "shape", "axis",
    "matrix", "returns", "number", "mean", "sum", "over", "along", "given", "where", "each", "first", "last", "new",
]  # fmt: skip
