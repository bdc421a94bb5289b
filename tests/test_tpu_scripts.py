"""tpu_scripts/run.sh against a gcloud that records what it is given and runs the workers' command here, with bash.

What the user typed must reach isoflop unchanged through both shells, whatever is in it.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "tpu_scripts" / "run.sh"
BASH = shutil.which("bash")
pytestmark = pytest.mark.skipif(BASH is None, reason="tpu_scripts need bash")

# Each would change or run something if one shell too many, or one too few, read it.
HOSTILE = [
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned #",
    "a && touch pwned",
    "> pwned",
    "it's",
    'say "hi"',
    "back\\slash \\$HOME $HOME ${HOME}",
    "new\nline\ttab",
    "ends in a newline\n",
    "",
    " ",
    "*",
    "~",
    "!!",
    "{a,b}",
    "%q %s",
    "--name",
    "--dry-run",
    "--",
    "λ→∞",
    "model.width=64",
]

RECORDER = '#!/bin/bash\nprintf "%s\\0" "$@" > {path}\n'
FAKE_GCLOUD = (
    RECORDER + 'cd "$HOME"\nfor arg; do case $arg in --command=*) exec bash -c "${{arg#--command=}}";; esac; done\n'
)


class Slice:
    """A home folder with a checkout in it, standing for one worker, and the recorded arguments of both programs."""

    def __init__(self, root: Path, checkout: str):
        self.home = root / "home"
        self.gcloud_path, self.isoflop_path = root / "gcloud-arguments", root / "isoflop-arguments"
        _program(root / "bin" / "gcloud", FAKE_GCLOUD.format(path=self.gcloud_path))
        _program(self.home / checkout / ".venv" / "bin" / "isoflop", RECORDER.format(path=self.isoflop_path))
        path = os.pathsep.join([str(root / "bin"), os.environ["PATH"]])
        self.environment = {**os.environ, "HOME": str(self.home), "PATH": path}

    def run(self, *command: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            command, env=self.environment, cwd=self.home, capture_output=True, text=True, timeout=60, check=False
        )

    def pwned(self) -> list[Path]:
        return list(self.home.rglob("pwned"))


def _program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(text)
    path.chmod(0o755)


def _arguments(path: Path) -> list[str]:
    return path.read_bytes().decode().split("\0")[:-1]


@pytest.fixture
def worker(tmp_path):
    return Slice(tmp_path, checkout="isoflop")


def test_the_arguments_reach_gcloud_and_isoflop_unchanged(worker):
    options = ["--name", "ladder", "--zone", "us-central2-b", "--project", "lab"]
    done = worker.run(BASH, str(SCRIPT), *options, "experiments/smoke.py", *HOSTILE)
    assert done.returncode == 0, done.stderr
    assert _arguments(worker.isoflop_path) == ["run", "experiments/smoke.py", *HOSTILE]
    given = _arguments(worker.gcloud_path)
    ssh = ["compute", "tpus", "tpu-vm", "ssh", "ladder", "--zone=us-central2-b", "--project=lab", "--worker=all"]
    assert given[:-1] == ssh and given[-1].startswith("--command=cd isoflop && .venv/bin/isoflop run ")
    assert worker.pwned() == []


def test_the_dry_run_prints_one_line_that_does_what_the_run_does(worker):
    options = ["--name", "ladder", "--zone", "us-central2-b"]
    dry = worker.run(BASH, str(SCRIPT), *options, "--dry-run", "experiments/smoke.py", *HOSTILE)
    assert dry.returncode == 0 and dry.stderr == "" and dry.stdout.count("\n") == 1
    assert not worker.gcloud_path.exists(), "the dry run called gcloud"

    pasted = worker.run(BASH, "-c", dry.stdout)
    assert pasted.returncode == 0, pasted.stderr
    assert _arguments(worker.isoflop_path) == ["run", "experiments/smoke.py", *HOSTILE]
    from_dry_run = _arguments(worker.gcloud_path)

    worker.run(BASH, str(SCRIPT), *options, "experiments/smoke.py", *HOSTILE)
    assert _arguments(worker.gcloud_path) == from_dry_run
    assert worker.pwned() == []


def test_a_folder_may_have_any_name(tmp_path):
    folder = "it's; touch pwned $(touch pwned)"
    worker = Slice(tmp_path, checkout=folder)
    done = worker.run(BASH, str(SCRIPT), "--name", "n", "--zone", "z", "--folder", folder, "experiments/smoke.py")
    assert done.returncode == 0, done.stderr
    assert _arguments(worker.isoflop_path) == ["run", "experiments/smoke.py"] and worker.pwned() == []


def test_the_exit_code_is_the_one_of_the_run(worker):
    (worker.home / "isoflop" / ".venv" / "bin" / "isoflop").write_text("#!/bin/bash\nexit 7\n")
    assert worker.run(BASH, str(SCRIPT), "--name", "n", "--zone", "z", "experiments/smoke.py").returncode == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--name is missing"),
        (["--name", "n", "experiments/smoke.py"], "--zone is missing"),
        (["--name", "n", "--zone", "z"], "the experiment file is missing"),
        (["--name", "n", "--zone"], "--zone needs a value"),
        (["--name", "", "--zone", "z", "experiments/smoke.py"], "--name needs a value"),
        (["--name", "--zone", "z", "experiments/smoke.py"], "--name needs a value"),
        (["--nmae", "n", "--zone", "z", "experiments/smoke.py"], "unknown option --nmae"),
    ],
)
def test_wrong_options_are_named_and_nothing_runs(worker, arguments, message):
    done = worker.run(BASH, str(SCRIPT), *arguments)
    assert done.returncode == 2 and message in done.stderr
    assert not worker.gcloud_path.exists()


def test_the_help_says_what_the_script_does_not_do(worker):
    done = worker.run(BASH, str(SCRIPT), "--help")
    assert done.returncode == 0 and "does not create or delete the slice" in done.stdout
