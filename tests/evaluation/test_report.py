"""The page says what the record says, embeds its pictures, and needs no network."""

from __future__ import annotations

import base64
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from resolvent.evaluation._numbers import duration, number, percent, plus_minus
from resolvent.evaluation._words import headline, limits
from resolvent.evaluation.record import Run, Score
from resolvent.evaluation.report import report, write_report

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class Page(HTMLParser):
    """Checks nesting and collects texts, tags and what would be loaded."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loaded += [value for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_says_what_the_record_says(run: Run, tmp_path: Path) -> None:
    page = Page(report(run, tmp_path))
    for said in (
        "mgno solves navier_stokes with a mean relative L2 error of 2 % (standard error 0.577 %), on 3 test samples, "
        "rollouts of 2 frames from frame 10.",
        "100 times faster than the reference solver",
        "at equal accuracy it is 4.00 times faster than the cheapest classical solver",
        "pays off after 70,000 solutions",
        "123,456",
        "0.0200 ± 0.0058",
        "persistence",
        "unet (failed)",
        "classical: coarse (as accurate)",
        "classical: reference (made the data)",
        "solve --pde navier_stokes --model mgno",
        '"width": 24',
        "a processor, 2 cores",
        "One seed (0).",
    ):
        assert said in page.text, said


def test_the_page_needs_no_network(run: Run, tmp_path: Path) -> None:
    (tmp_path / "fields.png").write_bytes(PIXEL)
    text = report(run, tmp_path)
    page = Page(text)
    assert page.loaded
    assert all(source.startswith("data:") for source in page.loaded)
    assert not re.search(r"https?://|@import|url\(|<script|<link", text)


def test_pictures_are_embedded_whole_and_in_order(run: Run, tmp_path: Path) -> None:
    for name in ("training.png", "fields-1.png", "zebra.png", "fields-0.png", "cost.png"):
        (tmp_path / name).write_bytes(PIXEL + name.encode())
    text = report(run, tmp_path)
    found = [base64.b64decode(code)[len(PIXEL) :].decode() for code in re.findall(r"base64,([^\"]+)", text)]
    assert found == ["fields-0.png", "fields-1.png", "cost.png", "training.png", "zebra.png"]
    assert "<figcaption>zebra</figcaption>" in text
    assert "<img" not in report(run, tmp_path / "absent")


def test_everything_is_escaped(run: Run, tmp_path: Path) -> None:
    evil = '<script>alert("&")</script>'
    changed = run.model_copy(
        update={
            "model": evil,
            "command": evil,
            "status": "failed",
            "message": evil,
            "notes": (evil,),
            "versions": {evil: evil},
            "options": {"model": {evil: evil}},
            "machine": evil,
            "compare": {evil: run.compare["persistence"]},
        }
    )
    page = Page(report(changed, tmp_path))
    assert "script" not in page.tags
    assert page.text.count(evil) >= 8


def test_a_pure_function(run: Run, tmp_path: Path) -> None:
    assert report(run, tmp_path) == report(Run.from_json(run.to_json()), tmp_path)
    path = write_report(run, tmp_path)
    assert path == tmp_path / "report.html"
    assert path.read_text() == report(run, tmp_path / "figures")


def changed_classical(run: Run, **values) -> Run:
    assert run.classical is not None
    return run.model_copy(update={"classical": run.classical.model_copy(update=values)})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"equal_accuracy": 0.25}, "at equal accuracy it is 4.00 times slower than the cheapest classical solver."),
        ({"equal_accuracy": math.inf}, "No classical solver that was measured is as accurate."),
        ({"break_even": math.inf}, "does not pay off, however many are solved."),
        ({"raw": 0.5}, "2.00 times slower than the reference solver"),
    ],
)
def test_unflattering_results_are_said(run: Run, values: dict[str, float], said: str) -> None:
    assert said in " ".join(headline(changed_classical(run, **values)))


def test_a_lost_run_claims_nothing(run: Run, tmp_path: Path) -> None:
    lost = run.model_copy(
        update={
            "metrics": {"relative_l2": Score.of([math.inf, 0.1, 0.1])},
            "status": "diverged",
            "message": "blew up at sample 0",
            "classical": None,
        }
    )
    text = Page(report(lost, tmp_path)).text
    assert "no finite answer for 1 of 3 test samples" in text
    assert "Status: diverged. blew up at sample 0" in text
    assert "was not measured" in " ".join(limits(lost))
    assert "%" not in " ".join(headline(lost))


def test_a_bare_record_has_a_page(tmp_path: Path, run: Run) -> None:
    bare = run.model_copy(
        update={"starts": (), "compare": {}, "classical": None, "history": (), "command": "", "metrics": {}}
    )
    assert "gave no answer" in Page(report(bare, tmp_path)).text


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "not measured"),
        (math.nan, "not measured"),
        (math.inf, "∞"),
        (0.0, "0"),
        (0.012345, "0.0123"),
        (1.2345, "1.23"),
        (123.45, "123"),
        (12345.6, "12,346"),
        (1.2345e-5, "1.23e-05"),
        (9.996, "10.00"),
    ],
)
def test_number(value: float | None, said: str) -> None:
    assert number(value) == said


def test_other_numbers() -> None:
    assert plus_minus(0.02, 0.00577) == "0.0200 ± 0.0058"
    assert plus_minus(0.02, math.nan) == "0.0200"
    assert percent(0.0312) == "3.12 %"
    assert percent(1.5e-9) == "1.50e-09"
    assert [duration(s) for s in (7300.0, 150.0, 90.0, 1.5, 0.0015, 2e-6)] == [
        "2.03 h",
        "2.5 min",
        "90 s",
        "1.5 s",
        "1.5 ms",
        "2 µs",
    ]
