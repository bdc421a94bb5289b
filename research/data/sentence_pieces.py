"""What the pieces of a SentencePiece model stand for, and text to them and back without losing a character.

The model is a `sentencepiece.SentencePieceProcessor`, which is given: nothing is imported for it, neither by seqio's
tasks (tokenizers.py), which bring tensorflow, nor by generation, which does without.
"""

import itertools
from typing import Any

SPACE_MARK = "\u2581"  # how SentencePiece writes a space inside a piece


def encode(model: Any, text: str) -> list[int]:
    """The ids of a text. The one character that marks spaces, which the model would decode to a space, is spelled in
    byte pieces; all other text goes to the model unchanged."""
    parts, mark = [model.EncodeAsIds(part) for part in text.split(SPACE_MARK)], byte_ids(model, SPACE_MARK.encode())
    return list(itertools.chain(*([*part, *mark] for part in parts[:-1]), parts[-1]))


def byte_ids(model: Any, text: bytes) -> list[int]:
    """The pieces of single bytes."""
    return [model.PieceToId(f"<0x{byte:02X}>") for byte in text]


def pieces(model: Any) -> list[bytes | None]:
    """The bytes of UTF-8 text that each id stands for; None for control, unknown and unused ids."""
    found: list[bytes | None] = []
    for token in range(model.GetPieceSize()):
        if model.IsByte(token):
            found.append(bytes([int(model.IdToPiece(token)[1:-1], 16)]))
        elif model.IsControl(token) or model.IsUnknown(token) or model.IsUnused(token):
            found.append(None)
        else:
            found.append(model.IdToPiece(token).replace(SPACE_MARK, " ").encode())
    return found
