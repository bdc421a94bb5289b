"""Where a model comes from: the folder of a run, from this machine or another, or of a published checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from research.config import ConfigError, MeshConfig, ModelConfig, RunConfig, check, from_dict
from research.data.token_file import MODEL, folder_of
from research.generation.vocabulary import (
    Vocabulary,
    byte_vocabulary,
    hugging_face_vocabulary,
    sentence_piece_vocabulary,
)
from research.pretrained import read_checkpoint
from research.pretrained.files import CONFIG
from research.runs import RunFolder
from research.runs.records import read_object
from research.sharding import make_mesh
from research.training.checkpoint import Checkpoints
from research.training.parents import measured_parameters


@dataclass(frozen=True, eq=False)
class Source:
    """A model with its parameters, and what its ids mean."""

    name: str  # of the folder, and for a run the step of its checkpoint
    config: ModelConfig
    params: Any
    vocabulary: Vocabulary


def load(folder: Path | str, step: int | None = None) -> Source:
    """The model in a folder: a run's, at the checkpoint of `step` or the newest, or a Hugging Face checkpoint.

    Raises ConfigError for a folder that is neither, a step that is not saved, or a run that learned no text;
    CheckpointError or CorruptCheckpointError for files that are missing or damaged, DataError for a tokenizer that is.
    """
    folder = Path(folder)
    rule = "holds no config.json, so that it is neither a run nor a checkpoint"
    check((folder / CONFIG).is_file(), "source", str(folder), rule, "name a folder such as runs/EXPERIMENT/RUN")
    said = read_object(folder / CONFIG)
    if "model_type" in said:
        check(
            step is None, "step", step, "names a checkpoint of a run, and this folder holds one model", "leave it out"
        )
        config, params = read_checkpoint(folder)
        vocabulary = hugging_face_vocabulary(folder)
        return Source(folder.resolve().name, config, params, vocabulary.of_size(config.vocab_size))
    try:
        run = from_dict(RunConfig, said)
    except ValueError as error:
        raise ConfigError(f"{folder / CONFIG}: no run of this version of the code: {error}") from error
    rule = "learned a synthetic task, whose symbols are no text"
    check(run.task is None, "task", run.task and run.task.name, rule, "name a run of a data source")
    vocabulary = _vocabulary_of(folder, run)
    step, params = _parameters(RunFolder(folder), run, step)
    return Source(f"{folder.resolve().name}@{step}", run.model, params, vocabulary.of_size(run.model.vocab_size))


def _parameters(folder: RunFolder, run: RunConfig, step: int | None) -> tuple[int, Any]:
    """The parameters that the run's losses are of, on one device, and their step."""
    rule = "holds no checkpoint: the run has not been trained so far, or only its other files were copied"
    check(
        folder.checkpoint_step() > 0, "source", str(folder.path), rule, "train it, or copy its folder checkpoints, too"
    )
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    with Checkpoints(folder.checkpoints_path, run.checkpoint) as checkpoints:
        steps = checkpoints.steps()
        step = steps[-1] if step is None else step
        check(step in steps, "step", step, f"is no checkpoint of this run, which has {steps}", "name one of those")
        return step, measured_parameters(run, checkpoints, step, mesh)


def _vocabulary_of(folder: Path, run: RunConfig) -> Vocabulary:
    """Of a run's tokenizer: the file beside its config.json, else that of the token files of this machine."""
    if run.data.tokenizer == "bytes":
        return byte_vocabulary()
    places = [folder, *(folder_of(run.data, source) for source in run.data.sources)]
    for place in places:
        if (place / MODEL).is_file():
            return sentence_piece_vocabulary(place / MODEL)
    raise ConfigError(
        f"source = {str(folder)!r}: its SentencePiece model is neither there nor in {places[-1]}. Fix: copy {MODEL} "
        f"from the machine that trained the run into {folder}."
    )
