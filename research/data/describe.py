"""What is in the token files of a config, in lines and in numbers, from their manifests. Never imports tensorflow."""

from collections.abc import Mapping
from dataclasses import dataclass

from research.config import DataConfig
from research.data.token_file import TokenFile


@dataclass(frozen=True)
class SourceFacts:
    """One source of a mixture. Counts are of what was read of the data set."""

    name: str
    data_set: str
    share: float  # of the training tokens
    wanted_tokens: int  # in one epoch of the mixture
    train_tokens: int
    train_documents: int
    train_bytes: int
    wanted_validation_tokens: int
    validation_tokens: int
    validation_documents: int
    validation_bytes: int
    longest_bytes: int
    held_out_share: float  # of distinct documents
    empty: int  # left out
    repeated: int  # later copies of a text, left out
    is_read_to_end: bool
    folder: str


def facts(data: DataConfig, files: Mapping[str, TokenFile]) -> list[SourceFacts]:
    """What is known of each source, in the order of the config."""
    return [_of_source(data, source.name, files[source.name]) for source in data.sources]


def described(data: DataConfig, files: Mapping[str, TokenFile]) -> list[str]:
    """One line per source, and one more for each that holds less held-out text than is asked for."""
    sources = facts(data, files)
    lines = [
        f"{source.name}: {source.data_set}, {source.share:.2%} of training, {source.train_tokens:,} tokens in "
        f"{source.train_documents:,} documents ({source.train_bytes / 1e6:.1f} MB); held out "
        f"{source.held_out_share:.2%} of documents, {source.validation_tokens:,} tokens of them packed; left out "
        f"{source.empty:,} empty and {source.repeated:,} repeated"
        for source in sources
    ]
    return lines + [
        f"{source.name}: {source.validation_tokens:,} held-out tokens are all there are of the "
        f"{source.wanted_validation_tokens:,} that data.validation_tokens asks for, and its loss is of no more than "
        f"these. For more: raise data.validation_fraction = {data.validation_fraction:g}, or use a larger source"
        for source in sources
        if source.validation_tokens < source.wanted_validation_tokens
    ]


def _of_source(data: DataConfig, name: str, tokens: TokenFile) -> SourceFacts:
    documents = tokens.manifest["documents"]
    train, validation = documents["train"], documents["validation"]
    return SourceFacts(
        name=name,
        data_set=tokens.manifest["data_set"],
        share=data.mean_shares[name],
        wanted_tokens=data.source_tokens(name),
        train_tokens=train["tokens"],
        train_documents=train["documents"],
        train_bytes=train["bytes"],
        wanted_validation_tokens=data.validation_tokens,
        validation_tokens=validation["tokens"],
        validation_documents=validation["documents"],
        validation_bytes=validation["bytes"],
        longest_bytes=max(train["longest_bytes"], validation["longest_bytes"]),
        held_out_share=validation["met"] / (train["met"] + validation["met"]),
        empty=documents["empty"],
        repeated=documents["repeated"],
        is_read_to_end=documents["is_read_to_end"],
        folder=str(tokens.folder),
    )
