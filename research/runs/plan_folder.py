"""A plan's folder: what follows from the runs of one plan of an experiment.

`<runs-dir>/<experiment>/plans/<key>/` holds plan.json, prediction.json, timings.jsonl and what the report is made of.
The runs themselves lie beside `plans/` and are shared: a run that two plans contain is trained once. A plan is the
experiment's value after `--set`, and the key its fingerprint, behind a label for people: `default-1f0c...` is the file
as it stands, `budgets-seeds-9a7e...` has those two fields changed.
"""

import errno
import json
import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.files import write_atomically
from research.config import RunConfig, check, fingerprint, run_name, to_dict

if TYPE_CHECKING:
    from research.plan import Experiment  # a worker must not load jax, which comes with it, before it has its cores

NO_SUCH_FOLDER = (  # what the path is, or who may write there, and no fault of the machine
    errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENOENT, errno.ENAMETOOLONG,
    errno.ELOOP,
)  # fmt: skip
LONGEST_NAME = 200  # bytes of a run's name; file systems allow 255, and temporary names are longer
LABEL_LENGTH = 40  # characters; a folder's name has room for 255 bytes, a line of `ls` for fewer


class NotWritableError(RuntimeError):
    """A folder cannot be written to; the message names it and the fix."""


@dataclass(frozen=True)
class PlanFolder:
    """An experiment and where it is on disk. `assignments`: the `a.b=value` that made it of the file's EXPERIMENT."""

    experiment: "Experiment"
    runs_dir: Path
    assignments: tuple[str, ...] = ()

    @cached_property
    def configs(self) -> tuple[RunConfig, ...]:
        """The planned runs, the held-out one not among them.

        Raises ConfigError for a run that is planned twice, or whose name is too long for a folder.
        """
        return self.checked(self.experiment.runs())

    def checked(self, configs: tuple[RunConfig, ...]) -> tuple[RunConfig, ...]:
        """The runs of one round; raises ConfigError as `configs` does."""
        for name, times in Counter(map(run_name, configs)).items():
            check(
                times == 1,
                f"runs of {self.experiment.name}",
                name,
                f"stands {times} times in the plan",
                "name each of its sizes, seeds and other values once",
            )
            length = len(name.encode())
            check(length <= LONGEST_NAME, "family", name, f"gives a folder's name of {length} bytes", "shorten it")
        return configs

    @property
    def experiment_dir(self) -> Path:
        """The folder of the runs, shared by all plans of the experiment."""
        return self.runs_dir / self.experiment.name

    @cached_property
    def path(self) -> Path:
        """The folder, there or not. One of the same fingerprint is the same plan, whatever its label."""
        plans, digest = self.experiment_dir / "plans", fingerprint(self.experiment)
        return min(plans.glob(f"*-{digest}"), default=plans / f"{_label(self.assignments)}-{digest}")

    @property
    def prediction_path(self) -> Path:
        return self.path / "prediction.json"

    @property
    def timings_path(self) -> Path:
        return self.path / "timings.jsonl"

    def make(self) -> None:
        """Make the folder and write plan.json, the plan as a value, unless it is there.

        Raises NotWritableError if the runs folder cannot be written to.
        """
        make_folder(self.path, "--runs-dir")
        path = self.path / "plan.json"
        if not path.exists():
            plan = {"set": self.assignments, "plan": to_dict(self.experiment)}
            write_atomically(path, (json.dumps(plan, indent=2) + "\n").encode())


def make_folder(path: Path, option: str) -> None:
    """Make the folder at `path`, and see that a file can be made in it.

    Raises NotWritableError, which names `option` as what to change, if not.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        if error.errno not in NO_SUCH_FOLDER:
            raise
        raise NotWritableError(
            f"{path}: cannot be written to ({error.strerror}). Fix: make it writable, or give another {option}."
        ) from error


def _label(assignments: tuple[str, ...]) -> str:
    """The fields that were set, by their own names: base.training.seed=1 is `seed`."""
    names = dict.fromkeys(assignment.partition("=")[0].strip().rpartition(".")[2] for assignment in assignments)
    return "-".join(names)[:LABEL_LENGTH].strip("-") or "default"
