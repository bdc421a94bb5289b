"""The verbs on an experiment's text: `isoflop data prepare FILE` and `isoflop data describe FILE`."""

from rich import box
from rich.console import Console
from rich.table import Table

from research.command.verbs import Request
from research.config import DataConfig
from research.data.describe import SourceFacts, facts
from research.data.prepare import prepare
from research.data.token_file import open_files
from research.plan import load, select


def prepare_data(request: Request, console: Console) -> int:
    """Build the token files that the runs need and are not there, and print where they are; trains nothing."""
    for data in _texts(request, console):
        files = prepare(data, report=lambda line: _print(console, line))
        for file in files.values():
            _print(console, str(file.folder))
    return 0


def describe_data(request: Request, console: Console) -> int:
    """Print what is in the token files of the runs. Raises DataError for one that has not been prepared."""
    for data in _texts(request, console):
        sources = facts(data, open_files(data))
        console.print(_table(data, sources))
        for source in sources:
            _print(console, f"{source.name}: {source.data_set} in {source.folder}")
    return 0


def _texts(request: Request, console: Console) -> list[DataConfig]:
    """The different texts of the runs that are asked for."""
    configs = select(load(request.file, request.assignments).runs(), request.only)
    texts = list(dict.fromkeys(config.data for config in configs if config.needs_token_files))
    if not texts:
        console.print("these runs need no token files: synthetic tasks are drawn, and examples read, as they train")
    return texts


def _table(data: DataConfig, sources: list[SourceFacts]) -> Table:
    """A line per measure and a column per source, which stays readable at 80 columns."""
    rows = {
        "share of training": lambda s: f"{s.share:.2%}",
        "tokens in one epoch": lambda s: f"{s.wanted_tokens:,}",
        "training tokens": lambda s: f"{s.train_tokens:,}",
        "training documents": lambda s: f"{s.train_documents:,}",
        "training bytes": lambda s: f"{s.train_bytes:,}",
        "bytes per token": lambda s: f"{s.train_bytes / s.train_tokens:.3f}",
        "held-out tokens asked": lambda s: f"{s.wanted_validation_tokens:,}",
        "held-out tokens": lambda s: f"{s.validation_tokens:,}",
        "held-out documents": lambda s: f"{s.validation_documents:,}",
        "held-out bytes": lambda s: f"{s.validation_bytes:,}",
        "held out, of documents": lambda s: f"{s.held_out_share:.2%}",
        "longest document, bytes": lambda s: f"{s.longest_bytes:,}",
        "left out: empty": lambda s: f"{s.empty:,}",
        "left out: repeated": lambda s: f"{s.repeated:,}",
        "read to its end": lambda s: "yes" if s.is_read_to_end else "no",
    }
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, header_style="bold")
    table.add_column(f"tokenizer {data.tokenizer}", no_wrap=True)
    for source in sources:
        table.add_column(source.name, justify="right", no_wrap=True)
    for name, value in rows.items():
        table.add_row(name, *map(value, sources))
    table.caption = f"asked to hold out {data.validation_fraction:.2%} of the distinct documents"
    table.caption_justify = "left"
    return table


def _print(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
