"""The embedded corpus as a TFDS data set: `embedded_corpus/prose` and `embedded_corpus/code`.

The text comes from `extraction.py`; both configs read the files of one extraction. There is one TFDS split, `train`,
holding everything: documents are held out in `sources.py`, by one rule for every source.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import tensorflow_datasets as tfds

from research.data import extraction
from research.data.extraction import Root


class EmbeddedCorpus(tfds.core.GeneratorBasedBuilder):
    """Docstrings (`prose`) or code without docstrings (`code`) of installed packages; features: name, text.

    `data_dir` must be the folder `folder_of(roots)` names, so that other package versions are another data set. The
    counts of the extraction are in `info.metadata`.
    """

    VERSION = tfds.core.Version(extraction.RULES)
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=domain) for domain in extraction.DOMAINS]
    name = "embedded_corpus"

    def __init__(self, *, roots: Sequence[Root], **kwargs):
        self._roots = tuple(roots)
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="English docstrings, and code without docstrings, of installed Python packages.",
            features=tfds.features.FeaturesDict({"name": tfds.features.Text(), "text": tfds.features.Text()}),
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        extracted_folder = Path(self._data_dir_root) / "extracted"
        counts = extraction.extracted(self._roots, extracted_folder)
        self.info.metadata.update(counts=counts, versions=extraction.versions(self._roots))
        return {"train": self._generate_examples(extracted_folder)}

    def _generate_examples(self, extracted_folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
        for name, text in extraction.documents(extracted_folder, self.builder_config.name):
            yield name, {"name": name, "text": text}


def folder_of(roots: Sequence[Root], datasets: Path) -> Path:
    """The TFDS folder for the corpus of these roots, inside the folder of all data sets."""
    return datasets / f"installed-{extraction.corpus_key(roots)}"
