"""The `isoflop` command. Every import of weight waits until a verb needs it.

The verbs on an experiment (plan, run, status, report, coordinates, data) and on a model (generate) are here; those on
anyone's table of runs (fit, predict, score, backtest) are `analysis.command` and need the analysis alone, but for
`recipes`, which reads the plans' recipes, too.
"""

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from analysis.command.outputs import standard_output
from research.command.generate import GenerateRequest

MACHINE_FAULT = 1  # exit codes; a verb itself returns 0 if everything asked for is done, or 1
USAGE_ERROR = 2
INTERRUPTED = 130
DEFAULT_WIDTHS = (64, 128, 256, 512)  # of the coordinate check
TRAIN_EXTRA = ("flax", "optax", "orbax", "tensorflow", "tensorflow_datasets", "seqio", "sentencepiece", "tensorboardX")


@dataclass(frozen=True)
class Request:
    """What every verb is asked about: the runs of one experiment."""

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """Experiment file; it defines EXPERIMENT."""
    set: Annotated[tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]], tyro.conf.arg(metavar="a.b=value")] = ()
    """Fields of EXPERIMENT to change, such as base.training.seed=1."""
    only: Annotated[str | None, tyro.conf.arg(metavar="RUN")] = None
    """One run, or a glob such as '*-w64-*'; all if not given."""
    runs_dir: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("runs")
    """Where the experiment's folder is."""

    @property
    def assignments(self) -> list[str]:
        return [assignment for group in self.set for assignment in group]


AskedFor = Annotated[Request, tyro.conf.arg(name="")]


def plan(
    request: AskedFor,
    prior: Annotated[str | None, tyro.conf.arg(metavar="LAW")] = None,
    noise_nats: Annotated[float | None, tyro.conf.arg(metavar="NATS")] = None,
) -> int:
    """Print an experiment's runs and what they cost; trains nothing.

    Args:
        prior: Say what these runs could tell if this law were the truth: hoffmann2022, besiroglu2024, or the law.json
            that a fit of another table wrote.
        noise_nats: Standard deviation of the loss between seeds; that of the law.json's table if not given.
    """
    from research.command import verbs
    from research.config import check

    check(
        prior is not None or noise_nats is None, "--noise-nats", noise_nats, "says nothing alone", "give --prior, too"
    )
    return verbs.plan(request, standard_output(), prior, noise_nats)


def run(
    request: AskedFor,
    workers: Annotated[int | None, tyro.conf.arg(metavar="N")] = None,
    together: Annotated[int, tyro.conf.arg(metavar="N")] = 1,
    retry_failed: tyro.conf.FlagCreatePairsOff[bool] = False,
) -> int:
    """Train what is not done, fit the law, predict the held-out run, train it, report.

    Args:
        workers: Worker processes, which share the cores; one per core if not given, one where an accelerator is. A run
            that is resumed with another number differs in its last bits from one that was not interrupted.
        together: Runs that differ in no more than seed and the optimizer's numbers, as those of a learning-rate sweep,
            train as one program, up to N of them in a worker: for accelerators that one small model leaves idle.
        retry_failed: Train failed runs again, each from its newest checkpoint.
    """
    from research.command import verbs
    from research.config import check
    from research.execution import local

    check(workers is None or workers >= 1, "--workers", workers, "must be at least 1", "leave it out for one per core")
    check(together >= 1, "--together", together, "must be at least 1", "leave it out to train each run alone")
    engine = partial(local.LocalEngine, workers=workers, together=together)
    return verbs.run(request, standard_output(), engine, retry_failed)


def status(request: AskedFor) -> int:
    """Print how far every run is; trains nothing."""
    from research.command import verbs

    return verbs.status(request, standard_output())


def report(request: AskedFor, out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None) -> int:
    """Write table, law, figures and report from what is done; trains nothing.

    Args:
        out: Where to write them; the plan's own folder if not given.
    """
    from research.command import verbs

    return verbs.report(request, standard_output(), out)


def coordinates(
    request: AskedFor,
    widths: Annotated[tuple[int, ...], tyro.conf.arg(metavar="W")] = (),
    depths: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N")] = (),
    steps: Annotated[int, tyro.conf.arg(metavar="N")] = 4,
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
) -> int:
    """Train a run's model a few steps at several sizes, and print how the changes of its activations grow with these.

    The first run is taken, with random tokens in place of its text; --only names another.

    Args:
        widths: Widths to train; 64 to 512 if neither these nor depths are given.
        depths: Depths to train instead.
        steps: Optimizer steps, all at the peak rate.
        out: Where to write the figure; the experiment's folder if not given.
    """
    from research.command.coordinates import show_coordinates
    from research.config import check

    check(not (widths and depths), "--depths", depths, "cannot be given with --widths", "check one after the other")
    check(steps >= 1, "--steps", steps, "must be at least 1", "leave it out for 4")
    by, sizes = ("depth", depths) if depths else ("width", widths or DEFAULT_WIDTHS)
    return show_coordinates(request, standard_output(), by, sizes, steps, out)


def generate(request: Annotated[GenerateRequest, tyro.conf.arg(name="")]) -> int:
    """Continue prompts by a trained run or a published checkpoint.

    To a terminal the text appears as it is written. With --out each answer is one line of JSON, and the same command
    goes on after the last line that is there.
    """
    from research.command.answers import write_answers

    return write_answers(request)


def data_prepare(request: AskedFor) -> int:
    """Build the token files of an experiment that are not there, and print where they are; trains nothing."""
    from research.command import data

    return data.prepare_data(request, standard_output())


def data_describe(request: AskedFor) -> int:
    """Print what is in the token files of an experiment: documents, bytes, tokens, shares, what was left out."""
    from research.command import data

    return data.describe_data(request, standard_output())


def data() -> int:
    """Prepare or describe an experiment's text: `isoflop data prepare FILE`, `isoflop data describe FILE`."""
    return main(["data", "--help"])


DATA_VERBS = {"prepare": data_prepare, "describe": data_describe}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code, and exits with 2 by itself where tyro finds a mistake."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    _open_closed_streams()
    try:
        if arguments[:1] == ["data"]:
            group, description, rest = "isoflop data", "The text of an experiment.", arguments[1:]
            return tyro.extras.subcommand_cli_from_dict(DATA_VERBS, prog=group, description=description, args=rest) or 0
        return (
            tyro.extras.subcommand_cli_from_dict(
                _verbs(), prog="isoflop", description="From a question about scale to a law.", args=arguments
            )
            or 0
        )
    except KeyboardInterrupt:
        _complain(f"stopped. Nothing that is done is lost; go on with: {shlex.join(['isoflop', *arguments])}")
        return INTERRUPTED
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in TRAIN_EXTRA:
            raise
        _complain(f"{error.name} is not installed, and this needs it. Fix: pip install '.[train]'")
        return USAGE_ERROR
    except BrokenPipeError:  # whoever read the output, such as head, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes
        return 1  # as rich does
    except OSError as error:
        from research.execution.faults import DISK_FULL, machine_fault
        from research.runs.plan_folder import NO_SUCH_FOLDER

        if machine_fault(error) is None:
            if error.filename is None or error.errno not in NO_SUCH_FOLDER:
                raise
            _complain(f"{error.filename}: {error.strerror}. Fix: name another path, or move what is there.")
            return USAGE_ERROR
        if error.errno in DISK_FULL:
            _complain(f"the disk is full ({error}). Fix: make room and repeat the command; what is done is kept.")
        else:
            _complain(f"the machine refused: {error}. Fix: mend that and repeat the command; what is done is kept.")
        return MACHINE_FAULT
    except (ValueError, RuntimeError) as error:
        if not type(error).__module__.startswith(("research.", "analysis.")):
            raise  # not worded by this project, so a reader needs the traceback
        from research.execution.faults import MachineError

        _complain(str(error))
        return MACHINE_FAULT if isinstance(error, MachineError) else USAGE_ERROR


def _verbs() -> dict[str, Callable]:
    from analysis.command.backtest import backtest
    from analysis.command.bowls import bowls
    from analysis.command.compare import compare
    from analysis.command.critical_batch import critical_batch
    from analysis.command.downstream import downstream
    from analysis.command.fit import fit
    from analysis.command.laws import laws
    from analysis.command.predict import predict
    from analysis.command.samples import samples
    from analysis.command.score import score
    from research.command.recipes import recipes

    experiment_verbs = {"plan": plan, "run": run, "status": status, "report": report}
    experiment_verbs |= {"coordinates": coordinates, "data": data, "generate": generate}
    table_verbs = {"fit": fit, "predict": predict, "score": score, "backtest": backtest}
    table_verbs |= {"laws": laws, "bowls": bowls, "recipes": recipes, "compare": compare, "downstream": downstream}
    table_verbs |= {"critical-batch": critical_batch, "samples": samples}
    return {**experiment_verbs, **table_verbs}


def _open_closed_streams() -> None:
    """A stream that was closed before the command began takes what is printed and keeps nothing."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 as long as the process


def _complain(message: str) -> None:
    Console(stderr=True).print(message, style="bold red", markup=False, soft_wrap=True, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
