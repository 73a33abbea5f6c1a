"""How long the sentences of the documents are: ``python docs/sentences.py [FILE ...]``.

Counts words of prose. Code, tables, headings and HTML are left out; each item of a list is a text of its own.
"""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
END = re.compile(r"(?<=[.!?])[)\"*`]*\s+(?=[A-Z0-9`*\"\[(]|autoseg|nnU-Net)")


def main(files: list[str]) -> int:
    """Print the number of sentences, their median, the 95th percentile and the longest ones."""
    paths = [Path(file) for file in files] or [ROOT / "README.md", *documents()]
    whole = [
        (len(words(sentence)), sentence, path) for path in paths for sentence in sentences(path.read_text(encoding="utf-8"))
    ]
    for path in paths:
        _show(path.name, [length for length, _, origin in whole if origin == path])
    _show("all", [length for length, _, _ in whole])
    for length, sentence, path in sorted(whole, key=lambda one: -one[0])[:5]:
        print(f"{length} words, {path.name}: {sentence[:100]}...")
    return 0


def documents() -> list[Path]:
    """The hand-written pages of the site."""
    return sorted(path for path in (ROOT / "docs").rglob("*.md") if not {"generated", "_build"} & set(path.parts))


def sentences(text: str) -> Iterator[str]:
    """Sentences of prose in Markdown."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^(#|\||<).*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"^\s*(?:[-*]|\d+\.)\s", "\n\n", text, flags=re.MULTILINE)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    for paragraph in re.split(r"\n\s*\n", text):
        for sentence in END.split(" ".join(paragraph.split())):
            if words(sentence):
                yield sentence


def words(sentence: str) -> list[str]:
    """What is read as words: a piece of code counts as one, signs do not count."""
    return [word for word in re.sub(r"`[^`]*`", "code", sentence).split() if re.search(r"\w", word)]


def _show(name: str, lengths: list[int]) -> None:
    if lengths:
        most = sorted(lengths)[int(0.95 * (len(lengths) - 1))]
        print(f"{name}: {len(lengths)} sentences, median {statistics.median(lengths):g} words, 95th percentile {most}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
