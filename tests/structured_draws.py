"""Vocabularies, and texts drawn token by token from the masks of a grammar, for the tests of structured output."""

import functools
import io
import json
from collections.abc import Sequence

import numpy as np
import sentencepiece

from research.generation.structured.constraint import GrammarConstraint
from research.generation.structured.grammar import Grammar

END = 1
BYTES: tuple[bytes | None, ...] = (None, None, None, *(bytes([byte]) for byte in range(256)))
CLOSERS = b'"}]0'  # what ends the strings, objects, arrays and numbers that a uniform draw would seldom end


def allowed(mask_W: np.ndarray) -> list[int]:
    """The ids whose bits a row of masks sets."""
    return np.flatnonzero(np.unpackbits(mask_W.view(np.uint8), bitorder="little")).tolist()


@functools.cache
def sentencepiece_vocabulary(ids: int = 400, texts: tuple[str, ...] = ()) -> tuple[bytes | None, ...]:
    """The pieces of a small model with byte pieces, trained on JSON, SQL, text beyond ASCII, and further texts.

    They are fewer than `ids` where the texts have not as many words.
    """
    rng, model = np.random.default_rng(0), io.BytesIO()
    words = ["name", "city", "value", "année", "naïve", "€5", "SELECT", "FROM", "WHERE", "count", "日本", "\U0001f600"]
    lines = [json.dumps({str(rng.choice(words)): [str(rng.choice(words)), int(rng.integers(1000))]}, ensure_ascii=False)
             for _ in range(300)] + [" ".join(rng.choice(words, 6)) for _ in range(300)]  # fmt: skip
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*lines, *texts]), model_writer=model, vocab_size=ids, model_type="bpe",
        byte_fallback=True, normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False,
        pad_id=0, eos_id=END, unk_id=2, bos_id=-1, hard_vocab_limit=False, minloglevel=2)  # fmt: skip
    read = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return tuple(_piece(read, token) for token in range(read.GetPieceSize()))


def _piece(read: sentencepiece.SentencePieceProcessor, token: int) -> bytes | None:
    if read.IsByte(token):
        return bytes([int(read.IdToPiece(token)[3:5], 16)])
    if read.IsControl(token) or read.IsUnknown(token) or read.IsUnused(token):
        return None
    return read.IdToPiece(token).replace("\u2581", " ").encode()


def drawn(
    grammar: Grammar,
    pieces: Sequence[bytes | None],
    rows: int,
    seed: int,
    closing: float = 0.0,
    most: int = 400,
) -> list[str]:
    """The texts of the rows that ended within `most` tokens, each token drawn uniformly from the row's mask.

    closing: the share of draws that are from the end and the pieces of one of CLOSERS alone, where any is allowed.
    """
    constraint, rng = GrammarConstraint(grammar, rows, pieces, END), np.random.default_rng(seed)
    closers = {END, *(token for token, piece in enumerate(pieces) if piece and len(piece) == 1 and piece in CLOSERS)}
    written, running_B = [b""] * rows, np.ones(rows, bool)
    ended: dict[int, str] = {}
    for _ in range(most):
        tokens_B = np.full(rows, END, np.int32)
        for row, mask_W in enumerate(constraint.masks()):
            ids = allowed(mask_W)
            assert ids and max(ids) < len(pieces)
            if not running_B[row]:
                assert ids == [END]
                continue
            near = [token for token in ids if token in closers]
            tokens_B[row] = rng.choice(near if near and rng.random() < closing else ids)
            if tokens_B[row] == END:
                ended[row] = written[row].decode()
            else:
                written[row] += pieces[tokens_B[row]]
        constraint.advance(tokens_B, running_B)
        running_B = running_B & (tokens_B != END)
        if not running_B.any():
            break
    return list(ended.values())
