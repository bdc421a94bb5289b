"""Documents as Markdown (GitHub's, which has tables). Text is escaped: no name of a run can break a table."""

import re

from analysis.report.document import (
    Block,
    Bullets,
    Code,
    Content,
    Figure,
    Link,
    Number,
    Paragraph,
    Section,
    Span,
    Strong,
    Table,
    one_line,
)

# What is markup anywhere in a line. Underscores are so at the edge of a word only: loss_nats stays as it is.
_MARKUP = re.compile(r"[\\`*\[\]<>|~$]|&(?=#?\w+;)|(?<!\w)_|_(?!\w)")
_LINE_START = re.compile(r"^(\s*)(?=[#+=-]|\d+[.)](?:\s|$))(\d*)")


def markdown(block: Block, level: int = 1) -> str:
    """The block as Markdown, ending in a line break; level: of its heading."""
    match block:
        case Section():
            heading = f"{'#' * level} {_inline(block.title)}\n"
            return "\n".join([heading, *(markdown(inner, level + 1) for inner in block.blocks)])
        case Paragraph():
            return _line(block.content) + "\n"
        case Bullets():
            return "".join(f"- {_line(item)}\n" for item in block.items)
        case Table():
            cells = [[_inline(cell, in_table=True) for cell in row] for row in (block.columns, *block.rows)]
            cells.insert(1, ["---"] * len(block.columns))
            return "".join(f"| {' | '.join(row)} |\n" for row in cells)
        case Figure():
            image = f"![{_inline(block.title)}](figures/{block.name}.png)"
            caption = f"{_line(block.caption)} [PDF](figures/{block.name}.pdf)"
            return f"{'#' * level} {_inline(block.title)}\n\n{image}\n\n{caption}\n"
    raise TypeError(f"block = {block!r}: is no block of a document. Fix: use one of those in document.py.")


def _inline(content: Content, in_table: bool = False) -> str:
    match content:
        case str():
            return _MARKUP.sub(r"\\\g<0>", one_line(content))
        case Number():
            return _inline(str(content))
        case Span():
            return _inline((content.value, " (", content.ends, ")"))
        case Strong():
            return f"**{_inline(content.content, in_table)}**"
        case Code():
            text = one_line(content.text)
            fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
            padding = " " if "`" in text else ""
            return f"{fence}{padding}{text.replace('|', chr(92) + '|') if in_table else text}{padding}{fence}"
        case Link():
            return f"[{_inline(content.text)}]({content.path})"
        case tuple():
            return "".join(_inline(part, in_table) for part in content)
    raise TypeError(f"content = {content!r}: is none of a document. Fix: use text or a value of document.py.")


def _line(content: Content) -> str:
    """Text that begins a line, where a few more letters are markup."""
    return _LINE_START.sub(r"\1\2\\", _inline(content))
