"""Run tables of published scaling-law papers, as runs tables: found through one setting, never shipped.

The measurements belong to their authors. Put the files where the environment variable ISOFLOP_SCALING_DATA (or the
argument `folder`) says, one folder per data set; `load` reads them into the schema of `runs_table.py` plus columns of
their own, and says where to get what is not there. `SOURCES` holds origin, paper and licence as data.
"""

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.datasets import readers
from analysis.runs_table import read_file, validate

SETTING = "ISOFLOP_SCALING_DATA"


class DatasetError(ValueError):
    """A published table is asked for that is not there or does not exist; the message says where to get it."""


@dataclass(frozen=True)
class Source:
    """Where a published table comes from.

    files: what `load` needs inside the folder of the data set's name, each with how it comes from the repository.
    licence: as the repository states it; without one, measure with it and cite the paper, and pass nothing on.
    """

    name: str
    repository: str
    commit: str
    paper: str
    licence: str
    files: dict[str, str]
    reader: Callable[..., pd.DataFrame]
    note: str = ""

    @property
    def url(self) -> str:
        """The repository at the commit the readers were written against."""
        return f"https://github.com/{self.repository}/tree/{self.commit}"


NO_LICENCE = "no licence file in the repository"

SOURCES = {
    source.name: source
    for source in (
        Source(
            "chinchilla_epoch",
            "epoch-research/analyzing-chinchilla",
            "92258837425e1b5f2851d624287f0120583a3d0e",
            "Besiroglu et al. 2024, arXiv:2404.10102; the points are of Hoffmann et al. 2022, arXiv:2203.15556",
            NO_LICENCE,
            {"svg_extracted_data.csv": "data/svg_extracted_data.csv as it is"},
            readers.chinchilla_epoch,
            "tokens = flops / (6 * params). The five highest losses are held out, as the paper leaves them out.",
        ),
        Source(
            "datablations",
            "huggingface/datablations",
            "13701315b163f1c54642b94ad237b2699187c3ee",
            "Muennighoff et al. 2023, arXiv:2305.16264",
            "Apache-2.0",
            {
                "runs.csv": "the table that cell 60 of utils/parametric_fit.ipynb prints, "
                "with columns name, params, tokens, unique_tokens, val_loss"
            },
            readers.datablations,
        ),
        Source(
            "porian_refinedweb",
            "formll/resolving-scaling-law-discrepancies",
            "0dc60d91b8a525858a3067fc9e4a46ff5374cc6f",
            "Porian et al. 2024, arXiv:2406.19146",
            "MIT",
            {
                "isoflop_points.csv": "orig_n, orig_t and orig_loss of data/summary_df*.pickle.xz, one row per run and "
                "budget, with columns dataset, hparams, warmup, decay, param_count, val, flops, n, tokens, loss",
                "published_exponents.csv": "their exponents with bootstrap intervals from the same files, with columns "
                "dataset to val as above, then a_bs_median_weighted, ci_lo, ci_hi",
            },
            readers.porian_refinedweb,
            "`configuration` names the ten settings, each a set of isoFLOP valleys. Losses are read "
            "along long runs: rows of one size share a run.",
        ),
        Source(
            "steplaw_dense",
            "step-law/steplaw",
            "32a8f4cc50247695fb56cc6c9117abdf67c97763",
            "Li et al. 2025, arXiv:2503.04715",
            NO_LICENCE,
            {"dense_lr_bs_loss.csv": "data/dense_lr_bs_loss.csv as it is"},
            readers.steplaw_dense,
            "loss_nats is their smoothed training loss, and params leave the embeddings out.",
        ),
        Source(
            "routed_moe",
            "google-deepmind/scaling_laws_for_routing",
            "42da0c392b127df2c01fa7b705f72396050d05e5",
            "Clark et al. 2022, arXiv:2202.01169",
            "Apache-2.0",
            {"curves.csv.gz": "data/curves.csv.gz as it is"},
            readers.routed_moe,
            "`family` is the router. active_params is the size of the dense model that the routed one was "
            "made from, and flops are 6 * active_params * tokens.",
        ),
        Source(
            "overtraining_gadre",
            "mlfoundations/scaling",
            "a003c4913793ac2ae7ef87b28ecb562955d026d5",
            "Gadre et al. 2024, arXiv:2403.08540",
            "MIT",
            {
                "models.csv": "exp_data/models/*.json flattened, one row a model: hyperparameters hp_*, losses loss_*",
                "evals.csv": "exp_data/evals/*.json flattened, one row a model and one column a task",
            },
            readers.overtraining_gadre,
            "loss_nats is the loss on C4; `family` is the training set (c4_original, rpj, rw_original).",
        ),
        Source(
            "olmo_ladder",
            "allenai/OLMo-ladder",
            "67a3f440f787d020da35e3ca8eeae475fae754f5",
            "Bhagia et al. 2024, arXiv:2412.04403",
            "Apache-2.0",
            {"runs.csv": "file, params, fwd_flops_per_token of the 16 ladder runs"}
            | {f"{run}.csv.gz": "the run's log of the same name, compressed" for run in readers.OLMO_RUNS},
            readers.olmo_ladder,
            "One row per checkpoint; `last` marks the end of a run, whose name is in `ladder_run`. loss_nats is on C4; "
            "task_loss_<task> is bits per byte of the correct answers.",
        ),
        Source(
            "marin_isoflops",
            "Open-Athena/scaling-law-analysis",
            "3e0656ee3dce1a2c89aa67691920f5eb9d30f0fc",
            "isoFLOP sweeps of the Marin project, March 2026, on comma, dclm and nemotron",
            NO_LICENCE,
            {"isoflops.csv": "the rows whose source is marin_202603 of the repository's table of isoFLOP points"},
            readers.marin_isoflops,
            "`family` is the training set.",
        ),
        Source(
            "misfitting",
            "hadasah/scaling_laws",
            "1f3708c0a12df0effb0ee906b1da5f9f0ff4f4f1",
            "Li, Kudugunta and Zettlemoyer 2025, arXiv:2502.18969",
            NO_LICENCE,
            {"scaling_results_last_ckpt_only.csv": "the table of that name as it is"},
            readers.misfitting,
            "Several peak learning rates a size and length; loss on C4.",
        ),
        Source(
            "obs_scaling",
            "ryoungj/ObsScaling",
            "4d6e1e43fd2635d04654aa77d1df9d5266ea0382",
            "Ruan, Maddison and Hashimoto 2024, arXiv:2405.10938",
            "Apache-2.0",
            {"base_llm_benchmark_eval.csv": "eval_results/base_llm_benchmark_eval.csv as it is"},
            readers.obs_scaling,
            "Benchmark scores of public models; no loss is measured, loss_nats is missing throughout.",
        ),
        Source(
            "beyond_chinchilla",
            "nikhilsardana/beyond-chinchilla",
            "190f70e365dc75037a2b3178609d00243f24b4b9",
            "Sardana et al. 2024, arXiv:2401.00448",
            "Apache-2.0",
            {"trainingresults.csv": "the table of that name as it is"},
            readers.beyond_chinchilla,
            "loss_nats is their smoothed training loss; accuracies are of the evaluation gauntlet, chance subtracted.",
        ),
        Source(
            "supercollapse",
            "shikaiqiu/supercollapse",
            "003336f61d167a47cbe8a356faac85759daacdff",
            "Qiu et al. 2025, arXiv:2507.02119",
            NO_LICENCE,
            {
                "c5m_runs.csv": "one row per run of the CIFAR-5M transformers: run, D, P, lr, B, schedule, seed",
                "c5m_history.csv.gz": "their learning curves: run, step, compute, test_loss, lr; compressed",
                "mlp_runs.csv": "the same for the power-law features",
                "mlp_history.csv.gz": "the same for the power-law features; compressed",
            },
            readers.supercollapse,
            "One row per run and step of a learning curve, named in `curve`; `family` is c5m or mlp.",
        ),
    )
}


def source(name: str) -> Source:
    """Where the data set comes from. Raises DatasetError naming the nearest for an unknown name."""
    if name not in SOURCES:
        near = difflib.get_close_matches(name, SOURCES, n=3, cutoff=0.3) or list(SOURCES)
        raise DatasetError(f"dataset = {name!r}: no such data set. Fix: use one of {', '.join(near)}.")
    return SOURCES[name]


def load(name: str, folder: Path | str | None = None) -> pd.DataFrame:
    """The published table as a validated runs table: schema columns, then columns of its own.

    folder: holds one folder per data set; without it, the setting ISOFLOP_SCALING_DATA. Raises DatasetError that says
    what to get from where when the setting, a file or a column of it is missing.
    """
    wanted = source(name)
    tables = {}
    for file, origin in wanted.files.items():
        path = _root(wanted, folder) / name / file
        if not path.is_file():
            raise DatasetError(f"dataset = {name!r}: no file {path}. Fix: {_how_to_get(wanted, {file: origin})}")
        tables[file] = read_file(path)
    try:
        table = wanted.reader(*tables.values())
    except KeyError as error:
        raise DatasetError(
            f"dataset = {name!r}: column {error} is missing. Fix: {_how_to_get(wanted, wanted.files)}"
        ) from error
    table["experiment"] = name
    return validate(table)


def _root(wanted: Source, folder: Path | str | None) -> Path:
    given = folder if folder is not None else os.environ.get(SETTING)
    if not given:
        raise DatasetError(
            f"{SETTING}: not set, so {wanted.name!r} cannot be found. Fix: set it to a folder of your choice; "
            f"{_how_to_get(wanted, wanted.files)}"
        )
    return Path(given)


def _how_to_get(wanted: Source, files: dict[str, str]) -> str:
    listed = "; ".join(f"{wanted.name}/{file} is {origin}" for file, origin in list(files.items())[:3])
    more = f"; and {len(files) - 3} files like it" if len(files) > 3 else ""
    return f"from {wanted.url} ({wanted.licence}), {listed}{more}. Cite {wanted.paper}."
