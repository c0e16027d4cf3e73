"""Tables whose rows are kept as they come: what was stopped goes on, and several processes may add rows."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]


def parser(doc: str | None, quick: str, seeds: list[int], **closed: Iterable[str]) -> argparse.ArgumentParser:
    """What such a benchmark is told; ``closed``: options with several of these words, all of them by default."""
    words = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--check", action="store_true")
    words.add_argument("--quick", action="store_true", help=quick)
    for name, known in closed.items():
        words.add_argument(f"--{name}", nargs="+", choices=list(known), default=list(known))
    words.add_argument("--seeds", nargs="+", type=int, default=seeds)
    words.add_argument("--json", type=Path, default=None)
    return words


def place(name: str, options: argparse.Namespace) -> Path:
    """Where the rows are; those of ``--quick`` in a temporary folder."""
    return options.json or (Path(tempfile.mkdtemp()) if options.quick else RESULTS) / f"{name}.json"


class Rows:
    """Rows by key, and the page that they make.

    page   text of all rows, written beside them
    """

    def __init__(self, path: Path, page: Callable[[Mapping[str, Row]], str]) -> None:
        self.path, self.page = path, page
        self.kept: dict[str, Row] = self._read()

    def once(self, key: str, measure: Callable[[], Row], told: Callable[[Row], str]) -> None:
        """Measured unless it was; told and written when it is done."""
        if key in self.kept:
            return
        row = measure()
        print(f"{key}: {told(row)}", flush=True)
        self.kept = {**self._read(), key: row}  # another process may have changed rows meanwhile
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for path, text in (
            (self.path, json.dumps(self.kept, indent=1)),
            (self.path.with_suffix(".md"), self.page(self.kept)),
        ):
            part = path.with_name(f"{path.name}.part")
            part.write_text(text)
            part.replace(path)

    def _read(self) -> dict[str, Row]:
        return json.loads(self.path.read_text()) if self.path.exists() else {}


def verdict(short: list[str], options: argparse.Namespace) -> int:
    """The goals that fall short, and the exit status."""
    for line in short:
        print("falls short:", line)
    return 1 if options.check and short else 0
