"""Text to ids by a prepared tokenizer: what training needs of it, and so without tensorflow.

Bytes, or the SentencePiece model that lies with the token files of a config.
"""

from collections.abc import Callable
from pathlib import Path

from research.config import CONTROL_IDS, DataConfig
from research.data import sentence_pieces
from research.data.errors import DataError
from research.data.token_file import MODEL, TokenFile, folder_of, sha256


def encoder_of(data: DataConfig) -> Callable[[str], list[int]]:
    """text -> ids, without one that ends it. Raises DataError where a SentencePiece model is missing or has changed."""
    model = tokenizer_model(data)
    if model is None:
        return lambda text: [CONTROL_IDS + byte for byte in text.encode()]
    import sentencepiece  # here, since runs on bytes train where it is not installed

    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    return lambda text: sentence_pieces.encode(processor, text)


def tokenizer_model(data: DataConfig) -> Path | None:
    """The SentencePiece model of a config as it was prepared, None for bytes. Raises DataError as `encoder_of` does."""
    if data.tokenizer == "bytes":
        return None
    file = TokenFile.open(folder_of(data, data.sources[0]))
    path = file.folder / MODEL
    recorded, found = file.manifest["files"][MODEL]["sha256"], sha256(path)
    if found != recorded:
        raise DataError(
            f"{path} has sha256 {found} where its manifest says {recorded}. Fix: delete {file.folder} and prepare the "
            "data again."
        )
    return path
