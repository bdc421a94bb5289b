"""The repository against its own rules: who imports whom, what the locks pin, what the files may hold."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent

# The packages in their order of import. A module belongs to its longest prefix here and imports only from its own or
# from an earlier one.
IMPORT_ORDER = (
    "analysis.cores",
    "research.optim.soap",  # what a library would bring: configs name it as they name optax
    "research.config",
    "research.presets",
    "research.paths",
    "research.sharding",
    "research.per_device",
    "research.optim.parametrisation",  # what parameters are and how they scale: models declare them by it
    "research.models",
    "research.pretrained",
    "research.plan",
    "research.data",
    "research.optim",
    "analysis",
    "research.runs",
    "research.training",
    "research.generation",  # of a run, too: it reads run folders and their checkpoints
    "research.evaluation",
    "research.execution",
    "research.command",
)
# The runs table is the whole contract between research and analysis; the command alone reaches further.
MAY_IMPORT_ANALYSIS = {
    "research.data": ("analysis.cores",),  # one count of cores for both
    "research.execution": ("analysis.cores",),
    "research.runs": ("analysis.files", "analysis.lifecycle"),
    "research.runs.table": ("analysis.runs_table",),
    "research.runs.prediction": ("analysis.studies.prediction",),
    "research.command": ("analysis",),
}

# Third-party packages that stay where they are: package -> the modules (and what is below them) that may import it.
PREPARE = tuple(f"research.data.{name}" for name in ("corpus", "sources", "tokenizers", "packing", "prepare"))
CONFINED = {
    "orbax": ("research.training.checkpoint",),
    "tensorboardX": ("research.training.metrics",),
    "tensorflow": PREPARE,
    "tensorflow_datasets": PREPARE,
    "tensorflow_text": PREPARE,
    "seqio": PREPARE,
    "sentencepiece": (*PREPARE, "research.data.encoding", "research.generation.vocabulary"),
    "tokenizers": ("research.generation.vocabulary",),
    "flax": ("research",),
    "optax": ("research",),
    "optuna": ("research.plan.sequential",),
    "llguidance": ("research.generation.structured.extra",),
    "json_repair": ("research.generation.structured.extra",),
    "matplotlib": ("analysis",),
    "torch": (),
    "transformers": (),
}
MOST_LINES = 350
NO_ROOMS = {"utils", "util", "helpers", "helper", "common", "misc"}
LOCKED_PYTHONS = ("3.11", "3.12", "3.13")

# Package indexes and home folders: what a file holds that was copied from a terminal or generated on someone's machine.
HOST_OR_PATH = re.compile(
    r"pythonhosted|pypi\.(org|io)|--(extra-)?index-url|--find-links|file:///"
    r"|(?<![\w.~}-])/(home|root|Users|work|workspace|opt|private)/\w"
)


@cache
def repository_files() -> tuple[Path, ...]:
    """Every file that git keeps or would keep."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: there is no list of the repository's files")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return tuple(path for name in listed.split("\0") if name and (path := ROOT / name).is_file())


@cache
def module_files() -> dict[str, Path]:
    files = {}
    for path in [*ROOT.glob("research/**/*.py"), *ROOT.glob("analysis/**/*.py")]:
        parts = path.relative_to(ROOT).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


@cache
def imports() -> dict[str, frozenset[str]]:
    """Module -> every absolute name it imports anywhere, also inside functions.

    `from a import b` gives a.b, and a too unless b is a module of this project.
    """
    modules, found = module_files(), {}
    for module, path in modules.items():
        names = set()
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{module} line {node.lineno}: write the import absolutely"
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                names |= inner if inner <= modules.keys() else inner | {node.module}
        found[module] = frozenset(names)
    return found


def below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def station(name: str) -> int:
    """The index in IMPORT_ORDER of the longest prefix of a module's name, or -1."""
    matching = [prefix for prefix in IMPORT_ORDER if below(name, prefix)]
    return IMPORT_ORDER.index(max(matching, key=len)) if matching else -1


def own_imports() -> list[tuple[str, str]]:
    """(module, module of this project that it imports), packages that are only namespaces left out."""
    modules = imports()
    pairs = ((module, name) for module, names in modules.items() for name in names if name in modules)
    return [(module, name) for module, name in pairs if name != "research" and name != module]


def test_every_module_has_its_place_in_the_order():
    homeless = [module for module in imports() if module != "research" and station(module) < 0]
    assert not homeless, f"{homeless} are not in IMPORT_ORDER: put each where it belongs, left of what may import it"


def test_modules_import_only_from_their_left():
    wrong = [f"{module} imports {name}" for module, name in own_imports() if station(name) > station(module)]
    assert not wrong, f"imports against the order: {wrong}"


def test_analysis_is_reached_through_the_runs_table():
    wrong = []
    for module, name in own_imports():
        if below(name, "analysis") and not below(module, "analysis"):
            allowed = [place for room, places in MAY_IMPORT_ANALYSIS.items() if below(module, room) for place in places]
            if not any(below(name, place) or below(place, name) for place in allowed):
                wrong.append(f"{module} imports {name}")
        elif below(module, "analysis") and not below(name, "analysis"):
            wrong.append(f"{module} imports {name}")
    assert not wrong, f"research and analysis share only the runs table: {wrong}"


def test_no_import_cycle():
    graph: dict[str, set[str]] = {module: set() for module in imports()}
    for module, name in own_imports():
        # A package without code of its own imports nothing, so what imports it waits for nothing.
        graph[module].add(name)
    done: set[str] = set()
    while ready := {module for module, needs in graph.items() if module not in done and needs <= done}:
        done |= ready
    assert done == set(graph), f"these modules import each other in a circle: {sorted(set(graph) - done)}"


@pytest.mark.parametrize("package", sorted(CONFINED))
def test_third_party_packages_stay_where_they_belong(package):
    importers = [module for module, names in imports().items() if any(below(name, package) for name in names)]
    wrong = [module for module in importers if not any(below(module, place) for place in CONFINED[package])]
    assert not wrong, f"{wrong} import {package}; only {CONFINED[package] or 'tests'} may"


def test_every_imported_package_is_declared():
    distributions = importlib.metadata.packages_distributions()
    analysis, training = declared(), declared("train", "search", "structured", "pretrained")
    missing = []
    for module, names in imports().items():
        allowed = analysis if below(module, "analysis") else analysis | training
        for top in {name.split(".")[0] for name in names} - {"research", "analysis"} - sys.stdlib_module_names:
            if not {canonicalize_name(name) for name in distributions.get(top, [top])} & allowed.keys():
                missing.append(f"{module} imports {top}")
    assert not missing, f"imported and not a dependency in pyproject.toml: {missing}"


def _modules_loaded_by(modules: list[str]) -> set[str]:
    """The top-level packages in a fresh interpreter after importing the modules."""
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\nprint(*sys.modules)"
    command = [sys.executable, "-c", code, *modules]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return {name.split(".")[0] for name in done.stdout.split()}


def test_analysis_loads_nothing_of_the_training_side():
    loaded = _modules_loaded_by([module for module in imports() if below(module, "analysis")])
    assert "analysis" in loaded
    assert not loaded & {"research", "flax", "optax", "orbax", "tensorflow", "seqio"}


def test_only_preparing_data_loads_tensorflow():
    training = [m for m in imports() if below(m, "research") and not any(below(m, place) for place in PREPARE)]
    loaded = _modules_loaded_by(training)
    assert "jax" in loaded
    assert not loaded & {"tensorflow", "tensorflow_datasets", "tensorflow_text", "seqio"}


@cache
def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def declared(*extras: str) -> dict[str, Requirement]:
    """The dependencies of the base and of some extras, by canonical name."""
    project = pyproject()["project"]
    listed = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    return {canonicalize_name((requirement := Requirement(line)).name): requirement for line in listed}


@cache
def locked(file: str, python: str) -> dict[str, str]:
    """Name -> version of every pin that holds on Linux for one version of Python; no name may have two."""
    environment = {**default_environment(), "sys_platform": "linux", "platform_system": "Linux"}
    environment |= {"python_version": python, "python_full_version": f"{python}.1"}
    pins = {}
    for line in (ROOT / "requirements" / file).read_text().splitlines():
        if not line or line[0] in " #":
            continue
        pin = Requirement(line.removesuffix("\\"))
        if pin.marker is None or pin.marker.evaluate(environment):
            name = canonicalize_name(pin.name)
            assert name not in pins, f"{file} pins {name} twice for Python {python}"
            pins[name] = str(pin.specifier).removeprefix("==")
    return pins


@pytest.mark.parametrize("python", LOCKED_PYTHONS)
@pytest.mark.parametrize(
    ("file", "extras"),
    [("train.lock", ("train", "search", "structured", "test")), ("oracles.lock", ("oracles", "pretrained"))],
)
def test_the_locks_cover_what_pyproject_asks_for(file, extras, python):
    pins = locked(file, python)
    for name, requirement in declared(*extras).items():
        assert name in pins, f"requirements/{file} has no {name} for Python {python}: run make lock"
        assert pins[name] in requirement.specifier, f"requirements/{file} pins {name} {pins[name]}, not {requirement}"
    # Its protobuf and seqio's do not go together.
    assert "apache-beam" not in pins


@pytest.mark.parametrize("python", LOCKED_PYTHONS)
def test_the_two_locks_agree(python):
    train, oracles = locked("train.lock", python), locked("oracles.lock", python)
    assert [name for name in train.keys() & oracles.keys() if train[name] != oracles[name]] == []
    # The oracles run on the CPU: torch's CUDA packages are several GB that no test uses.
    assert not [name for name in oracles if name.startswith(("nvidia", "cuda", "triton"))]


def test_every_pin_of_the_training_lock_has_a_hash():
    text = (ROOT / "requirements" / "train.lock").read_text()
    pins = [block for block in re.split(r"\n(?=[a-zA-Z])", text) if re.match(r"[\w.-]+==", block)]
    assert len(pins) > 50
    assert [block.split()[0] for block in pins if "--hash=sha256:" not in block] == []


def test_no_package_host_or_machine_path_in_a_file():
    found = []
    for path in repository_files():
        if path == Path(__file__) or path.suffix in {".png", ".pdf", ".npz", ".npy", ".parquet"}:
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if match := HOST_OR_PATH.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {match.group()}")
    assert not found


def test_files_stay_short_and_are_named_for_what_they_hold():
    python_files = [path for path in repository_files() if path.suffix == ".py"]
    assert python_files
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in python_files}
    too_long = {name: lines for name, lines in lengths.items() if lines > MOST_LINES}
    assert not too_long, f"over {MOST_LINES} lines: {too_long}"
    rooms = {part for path in python_files for part in (*path.relative_to(ROOT).parent.parts, path.stem)}
    assert not rooms & NO_ROOMS, f"name a module for what it holds: {rooms & NO_ROOMS}"


def test_the_tests_run_under_the_settings_of_conftest():
    assert jax.device_count() == 8 and jax.default_backend() == "cpu"
    with pytest.raises(ValueError, match="rank"):
        jnp.zeros((2, 3)) + jnp.zeros(3)
    assert jax.config.jax_compilation_cache_dir is not None


def test_an_environment_is_not_built_by_the_python_in_it():
    """make removes .venv before it builds it anew, and an active one comes first on the PATH."""
    assert sys.prefix != sys.base_prefix, "this test runs in the environment that make built"
    command = ["sh", str(ROOT / ".ci" / "find-python"), sys.executable]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert not Path(found).is_relative_to(sys.prefix) and Path(found).is_relative_to(sys.base_prefix)
