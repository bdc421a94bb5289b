"""What the ids of a model mean as text, for every tokenizer that a model here may have. Never imports tensorflow.

Three are known: the bytes, SentencePiece models as this project trains them, and the tokenizer.json of a Hugging Face
folder. All give the same four things, and text is bytes first: a token may end inside a character of UTF-8.
"""

import codecs
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from research.config import BYTE_IDS, CONTROL_IDS, EOS_ID, check
from research.data import sentence_pieces
from research.data.errors import DataError
from research.pretrained.settings import CheckpointError

TOKENIZER = "tokenizer.json"


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Text to ids and back."""

    pieces: tuple[bytes | None, ...]  # what each id writes; None: control ids and those that are unused
    end_ids: tuple[int, ...]  # after which nothing more is written
    begin_ids: tuple[int, ...]  # what a prompt begins with
    encode: Callable[[str], list[int]]  # the ids of a text alone

    def prompt(self, text: str) -> list[int]:
        """The ids that a model reads before it continues `text`.

        Raises ConfigError for an empty text where the model needs one.
        """
        ids = [*self.begin_ids, *self.encode(text)]
        rule = "must not be empty: this tokenizer has no token that a text begins with"
        check(len(ids) > 0, "prompt", text, rule, "give the first words")
        return ids

    def bytes_of(self, ids: Sequence[int]) -> bytes:
        """What the ids write."""
        return b"".join(self.pieces[token] or b"" for token in ids)

    def decode(self, ids: Sequence[int]) -> str:
        """What the ids write, with U+FFFD in place of bytes that are no UTF-8."""
        return self.bytes_of(ids).decode("utf-8", "replace")

    def of_size(self, vocab_size: int) -> "Vocabulary":
        """For a model of `vocab_size` ids, of which those beyond the tokenizer's write nothing.

        Raises ConfigError if the tokenizer has more.
        """
        check(
            vocab_size >= len(self.pieces),
            "model.vocab_size",
            vocab_size,
            f"must be at least the {len(self.pieces)} ids of its tokenizer",
            "put the tokenizer that the model was trained with into its folder",
        )
        unused = (None,) * (vocab_size - len(self.pieces))
        return Vocabulary((*self.pieces, *unused), self.end_ids, self.begin_ids, self.encode)


def text_stream() -> Callable[[bytes, bool], str]:
    """A function from further bytes, and whether they are the last, to the text that is whole by now.

    The bytes of a character that has only begun are held back until the rest of it is there.
    """
    return codecs.getincrementaldecoder("utf-8")("replace").decode


def byte_vocabulary() -> Vocabulary:
    """Byte b is id CONTROL_IDS + b. Bytes that are no UTF-8 may come as the surrogates of a command line's text."""
    pieces = (*(None,) * CONTROL_IDS, *(bytes([byte]) for byte in range(BYTE_IDS - CONTROL_IDS)))

    def encode(text: str) -> list[int]:
        return [CONTROL_IDS + byte for byte in _bytes(text)]

    return Vocabulary(pieces, (EOS_ID,), (EOS_ID,), encode)


def sentence_piece_vocabulary(file: Path) -> Vocabulary:
    """A SentencePiece model as research/data/tokenizers.py trains it. Raises DataError for a file that is none."""
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor()
    try:
        model.Load(str(file))
    except (OSError, RuntimeError) as error:
        raise DataError(f"{file}: is no SentencePiece model ({error}). Fix: copy it again.") from error

    def encode(text: str) -> list[int]:
        ids: list[int] = []
        for part, whole in _utf8_parts(_bytes(text)):
            ids += sentence_pieces.encode(model, part.decode()) if whole else sentence_pieces.byte_ids(model, part)
        return ids

    end = model.eos_id()
    return Vocabulary(tuple(sentence_pieces.pieces(model)), (end,), (end,), encode)


def hugging_face_vocabulary(folder: Path) -> Vocabulary:
    """The tokenizer.json of a folder, by the library `tokenizers`.

    Its byte-level tokenizers and those that mark a space by U+2581 are known: in both each id writes fixed bytes. The
    end ids are those of generation_config.json, else of config.json.

    Raises CheckpointError for a folder without one, a file that is none, any other kind, and without the library.
    """
    file = folder / TOKENIZER
    if not file.exists():
        raise CheckpointError(
            f"{folder}: no {TOKENIZER}, without which its ids mean no text. Fix: save the tokenizer, too: "
            "AutoTokenizer.from_pretrained(source).save_pretrained(folder)."
        )
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError as error:
        raise CheckpointError(
            f"{file}: needs the library tokenizers, which is not installed. Fix: pip install '.[pretrained]'."
        ) from error
    try:
        tokenizer = Tokenizer.from_file(str(file))
        said = json.loads(file.read_bytes())
    except Exception as error:  # of the library's own class, Exception itself
        raise CheckpointError(f"{file}: is no tokenizer ({error}). Fix: copy it again.") from error
    end_ids = _end_ids(folder)
    begin_ids = tokenizer.encode("").ids
    while begin_ids and begin_ids[-1] in end_ids and len(begin_ids) > 1:
        begin_ids = begin_ids[:-1]  # what the tokenizer closes a text with

    def encode(text: str) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError:
            rule = "must be text in UTF-8: this tokenizer splits characters itself"
            check(False, "prompt", text, rule, "give whole characters")
        return tokenizer.encode(text, add_special_tokens=False).ids

    return Vocabulary(
        _pieces(file, said, tokenizer.get_vocab(with_added_tokens=True)), end_ids, tuple(begin_ids), encode
    )


def _pieces(file: Path, said: dict[str, Any], ids: dict[str, int]) -> tuple[bytes | None, ...]:
    kinds = _kinds(said.get("decoder")) | _kinds(said.get("pre_tokenizer"))
    if "ByteLevel" in kinds:
        bytes_of = _byte_level
    elif kinds & {"Metaspace", "ByteFallback"}:
        bytes_of = _with_space_marks
    else:
        raise CheckpointError(
            f"{file}: decoder {sorted(kinds)}: must be ByteLevel, ByteFallback or Metaspace, whose ids write fixed "
            "bytes. Fix: use a checkpoint with such a tokenizer."
        )
    pieces: list[bytes | None] = [None] * (1 + max(ids.values(), default=-1))
    added = {token["content"]: token["special"] for token in said.get("added_tokens", ())}
    for piece, token in ids.items():
        if piece in added:
            pieces[token] = None if added[piece] else piece.encode()
        else:
            pieces[token] = bytes_of(piece)
    return tuple(pieces)


def _kinds(part: Any) -> set[str]:
    """The types of a decoder or pre-tokenizer of tokenizer.json, and of those that it is a sequence of."""
    if not part:
        return set()
    inner = [*part.get("decoders", ()), *part.get("pretokenizers", ())]
    return {part["type"]}.union(*map(_kinds, inner))


def _byte_level(piece: str) -> bytes:
    """GPT-2 writes each byte as a character that can be seen (bytes_to_unicode of its published encoder.py)."""
    return bytes(_BYTE_OF[character] for character in piece)


def _byte_characters() -> dict[str, int]:
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


_BYTE_OF = _byte_characters()


def _with_space_marks(piece: str) -> bytes:
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return bytes([int(piece[3:5], 16)])
    return piece.replace(sentence_pieces.SPACE_MARK, " ").encode()


def _end_ids(folder: Path) -> tuple[int, ...]:
    for name in ("generation_config.json", "config.json"):
        file = folder / name
        if file.exists() and (said := json.loads(file.read_bytes()).get("eos_token_id")) is not None:
            return tuple(said) if isinstance(said, list) else (said,)
    return ()


def _bytes(text: str) -> bytes:
    """UTF-8, with the bytes of a command line that were none as they stood there."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        rule = "holds half of a surrogate pair, which stands for no text"
        check(False, "prompt", text, rule, "write the whole character")
        raise


def _utf8_parts(text: bytes) -> list[tuple[bytes, bool]]:
    """The text in parts, true at those that are UTF-8."""
    parts: list[tuple[bytes, bool]] = []
    while text:
        try:
            text.decode()
        except UnicodeDecodeError as error:
            parts += [(text[: error.start], True)] * (error.start > 0) + [(text[error.start : error.end], False)]
            text = text[error.end :]
        else:
            return [*parts, (text, True)]
    return parts
