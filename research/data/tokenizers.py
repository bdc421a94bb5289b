"""Text to ids and back: bytes, or a SentencePiece model trained on the training split. Imports tensorflow (by seqio).

In both, id 0 pads, 1 ends a document, 2 is unused, `decode(encode(text)) == text` for every text, and every id stands
for a fixed number of bytes of text, which makes bits per byte exact for any stretch of tokens.
"""

import io
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import sentencepiece
import seqio
import tensorflow as tf

from analysis.cores import usable_cores
from research.config import BYTE_IDS, CONTROL_IDS, EOS_ID, PAD_ID, UNKNOWN_ID, ConfigError, DataConfig, check
from research.data import sentence_pieces
from research.data.errors import DataError
from research.data.sentence_pieces import SPACE_MARK
from research.data.token_file import MANIFEST, MODEL, files_of, key_of, sha256, tokenizer_recipe

SAMPLE_BYTES = 8_000_000  # of training text that a SentencePiece model is trained on
_LONGEST_LINE_BYTES = 65_536  # SentencePiece's own limit is one it would skip longer lines by; ours are cut to this
_TRAINER = {
    "model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity", "add_dummy_prefix": False,
    "remove_extra_whitespaces": False, "allow_whitespace_only_pieces": True, "character_coverage": 0.9995,
    "pad_id": PAD_ID, "eos_id": EOS_ID, "unk_id": UNKNOWN_ID, "bos_id": -1, "hard_vocab_limit": False,
}  # fmt: skip


class ExactSentencePieceVocabulary(seqio.SentencePieceVocabulary):
    """SentencePiece that also keeps the character it marks spaces with, which it would decode to a space.

    That one character is spelled in byte pieces; all other text goes to the model unchanged.
    """

    def _encode(self, s: str) -> list[int]:
        return sentence_pieces.encode(self.tokenizer, s)

    def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
        parts = self.tf_tokenizer.tokenize(tf.strings.split([s], SPACE_MARK).flat_values)
        marks = tf.repeat([self._mark_ids()], parts.nrows(), axis=0)
        return tf.concat([parts, marks], axis=1).flat_values[: -len(self._mark_ids())]

    def _mark_ids(self) -> list[int]:
        return sentence_pieces.byte_ids(self.tokenizer, SPACE_MARK.encode())


def byte_vocabulary() -> seqio.ByteVocabulary:
    """Byte b is id CONTROL_IDS + b."""
    return seqio.ByteVocabulary()


def token_bytes(vocabulary: seqio.Vocabulary) -> np.ndarray:
    """(ids,) uint16: how many bytes of UTF-8 text each id stands for; 0 for padding, end of document, unused."""
    counts = np.zeros(vocabulary.vocab_size, np.uint16)
    if isinstance(vocabulary, seqio.ByteVocabulary):
        counts[CONTROL_IDS:BYTE_IDS] = 1
        return counts
    for token, piece in enumerate(sentence_pieces.pieces(vocabulary.tokenizer)):
        counts[token] = len(piece or b"")
    return counts


def trained_model(data: DataConfig, texts: Callable[[], Iterable[str]], folder: Path) -> Path:
    """The SentencePiece model file of a config, trained on at most SAMPLE_BYTES of `texts()` if `folder` has none.

    It is named by what it learns from (`tokenizer_recipe`), so that every mixture that asks for the same tokenizer
    shares it. Raises ConfigError if there is no text, or data.vocab_size does not suit it; DataError for a model that
    has changed on disk.
    """
    made = folder / key_of(tokenizer_recipe(data))
    if not made.exists():
        with tempfile.TemporaryDirectory(dir=_made(folder), prefix=f"{made.name}.tmp") as staging:
            staged = Path(staging) / made.name
            staged.mkdir()
            (staged / MODEL).write_bytes(_train(data, texts()))
            described = {**tokenizer_recipe(data), "sentencepiece": sentencepiece.__version__, "trainer": _TRAINER,
                         "sample_bytes": SAMPLE_BYTES, "files": files_of(staged)}  # fmt: skip
            (staged / MANIFEST).write_text(json.dumps(described, indent=2) + "\n")
            staged.rename(made)
    _verify(made)
    return made / MODEL


def _verify(folder: Path) -> None:
    fix = f"Fix: delete {folder} and prepare the data again"
    try:
        recorded = json.loads((folder / MANIFEST).read_text())["files"][MODEL]["sha256"]
        found = sha256(folder / MODEL)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} holds no whole SentencePiece model ({error!r}). {fix}.") from error
    if found != recorded:
        raise DataError(f"{folder / MODEL} has sha256 {found} where its manifest says {recorded}. {fix}.")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _train(data: DataConfig, texts: Iterable[str]) -> bytes:
    model = io.BytesIO()
    lines = list(_lines(texts))  # read outside the call, which would make an error of its own of one in reading
    check(
        len(lines) > 0,
        "data.tokenizer_sources" if data.tokenizer_sources else "data.sources",
        [source.tfds for source in data.tokenizer_mix],
        "hold no text for SentencePiece to learn from: every document is empty, a repeat, or held out",
        "use larger sources",
    )
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=model, vocab_size=data.vocab_size, minloglevel=2,
            max_sentence_length=_LONGEST_LINE_BYTES, num_threads=len(usable_cores()), **_TRAINER)  # fmt: skip
    except RuntimeError as error:  # how SentencePiece reports what is wrong with its input
        raise ConfigError(
            f"data.vocab_size = {data.vocab_size}: SentencePiece cannot train such a model on this text: "
            f"{error}. Fix: choose another data.vocab_size, or tokenizer bytes."
        ) from error
    return model.getvalue()


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """Lines of at most SAMPLE_BYTES in all: SentencePiece takes a line for a sentence, and pieces never cross one."""
    left = SAMPLE_BYTES
    for text in texts:
        for line in filter(None, text.split("\n")):
            for start in range(0, len(line), _LONGEST_LINE_BYTES // 4):
                yield line[start : start + _LONGEST_LINE_BYTES // 4]
            left -= len(line.encode()) + 1
        if left <= 0:
            return
