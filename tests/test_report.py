"""A report states what was measured, beside what it should be, in one page without requests."""

import base64
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from sciflow.errors import DataError
from sciflow.report import (
    Entry,
    Environment,
    Figure,
    Report,
    Section,
    read_report,
    read_reports,
    write_index,
)
from sciflow.templates import format_number

# One transparent pixel.
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


def entry(**changes):
    values = {"name": "W1", "value": 0.8, "reference": 0.9, "source": "paper", "tolerance": 0.05}
    return Entry(**(values | changes))


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "elsewhere" / "cells.png"
    path.parent.mkdir()
    path.write_bytes(PNG)
    return Figure(path, "cells by <day>", "A & B")


@pytest.fixture
def report(picture):
    good = entry(value=0.88, seed=7, seconds=1.25, error=0.013, unit="nm")
    bad = entry(name="<b>energy</b>", value=-8.1, reference=-8.0705, source='"Table" 1')
    return Report(
        "A <script>alert(1)</script> title",
        (Section("First & only", "One.\n\nTwo <i>.", (good, bad), (picture,)),),
        command="sciflow demo --full > log",
    )


class Page(HTMLParser):
    """Collects tags with their attributes, and the text of the page by tag."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.rows, self.stack = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.stack.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        while self.stack and self.stack.pop() != tag:
            pass

    def handle_data(self, data):
        if {"td", "th"} & set(self.stack):
            self.rows[-1][-1] = " ".join((self.rows[-1][-1] + " " + data).split())

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.mark.parametrize(
    ("value", "direction", "relative", "verdict"),
    [
        (9.5, "equal", False, "pass"),
        (10.5, "equal", False, "pass"),
        (9.25, "equal", False, "fail"),
        (10.75, "equal", False, "fail"),
        (14.0, "equal", True, "pass"),
        (16.0, "equal", True, "fail"),
        (-100.0, "at most", False, "pass"),
        (10.5, "at most", False, "pass"),
        (10.75, "at most", False, "fail"),
        (100.0, "at least", False, "pass"),
        (9.5, "at least", False, "pass"),
        (9.25, "at least", False, "fail"),
        (5.0, "at least", True, "pass"),
        (4.5, "at least", True, "fail"),
    ],
)
def test_the_verdict_follows_from_the_numbers(value, direction, relative, verdict):
    made = entry(value=value, reference=10, tolerance=0.5, direction=direction, relative=relative)
    assert made.verdict == verdict


def test_a_relative_tolerance_of_a_negative_reference_is_positive():
    assert entry(value=-10.4, reference=-10, tolerance=0.05, relative=True).verdict == "pass"
    assert entry(value=-10.6, reference=-10, tolerance=0.05, relative=True).verdict == "fail"


def test_a_verdict_cannot_be_typed():
    with pytest.raises(TypeError, match="verdict"):
        entry(verdict="pass")
    with pytest.raises(AttributeError):
        entry().verdict = "pass"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("value", float("nan")),
        ("value", float("inf")),
        ("reference", float("-inf")),
        ("tolerance", -0.1),
        ("tolerance", float("inf")),
        ("error", -1.0),
        ("seconds", float("nan")),
        ("source", ""),
        ("name", ""),
    ],
)
def test_a_bad_number_or_missing_word_is_refused(name, value):
    with pytest.raises(ValueError, match=name):
        entry(**{name: value})


def test_what_is_no_number_is_refused():
    with pytest.raises((TypeError, TypeCheckError), match="value"):
        entry(value="0.8")


def test_numbers_of_numpy_become_plain():
    made = entry(value=np.float64(0.8), reference=1)
    assert type(made.value) is type(made.reference) is float


def test_reading_gives_back_what_was_written(report, tmp_path):
    written = report.save_json(tmp_path / "run")
    again = read_report(written)
    assert again.title == report.title
    assert again.command == report.command
    assert again.environment == report.environment
    assert again.sections[0].entries == report.sections[0].entries
    (figure,) = again.sections[0].figures
    assert (figure.alt, figure.caption) == ("cells by <day>", "A & B")
    assert figure.path == tmp_path / "run" / "figures" / "cells.png"
    assert figure.path.read_bytes() == PNG
    # What was read can be written, in the same place and in another.
    assert again.save_json(tmp_path / "run").read_text() == written.read_text()
    assert read_report(again.save_json(tmp_path / "copy")).sections[0].text == "One.\n\nTwo <i>."


def test_a_verdict_changed_in_the_file_is_not_believed(report, tmp_path):
    path = report.save_json(tmp_path)
    content = json.loads(path.read_text())
    rows = content["sections"][0]["entries"]
    assert [row["verdict"] for row in rows] == ["pass", "pass"]
    rows[1]["value"] = -9.0
    path.write_text(json.dumps(content))
    assert [e.verdict for e in read_report(path).sections[0].entries] == ["pass", "fail"]


def test_the_page_asks_nothing_of_any_server(report, tmp_path):
    page = Page(report.write(tmp_path / "run").read_text(encoding="utf-8"))
    addresses = [
        value
        for _, attrs in page.tags
        for key, value in attrs.items()
        if key in ("src", "href", "srcset", "data", "action", "poster", "background")
    ]
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not page.all("script") and not page.all("link") and not page.all("iframe")
    policy = [m["content"] for m in page.all("meta") if "http-equiv" in m]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    (image,) = page.all("img")
    assert base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) == PNG
    assert image["alt"] == "cells by <day>"


def test_the_page_holds_the_figures_beside_their_references(report, tmp_path):
    page = Page(report.write(tmp_path).read_text(encoding="utf-8"))
    heading, good, bad = page.rows
    assert heading == [
        "Quantity",
        "Measured",
        "Reference",
        "Source",
        "Tolerance",
        "Verdict",
        "Seed",
        "Seconds",
    ]
    assert good == ["W1", "0.880 ± 0.013 nm", "0.900 nm", "paper", "0.05", "✓ pass", "7", "1.2"]
    assert bad[:3] == ["<b>energy</b>", "−8.100", "−8.070"]
    assert bad[3:] == ['"Table" 1', "0.05", "✓ pass", "–", "–"]
    viewport = [m["content"] for m in page.all("meta") if m.get("name") == "viewport"]
    assert viewport == ["width=device-width, initial-scale=1"]


def test_the_page_is_escaped_and_says_how_it_was_made(report, tmp_path):
    text = report.write(tmp_path).read_text(encoding="utf-8")
    assert "<script>" not in text and "<b>energy" not in text and "<i>" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "sciflow demo --full &gt; log" in text
    made = Environment.current()
    for version in (made.sciflow, made.torch, made.numpy, made.python, report.environment.date):
        assert f"<dd>{version}</dd>" in text
    assert "2 of 2 measured values meet their references" in text


def test_a_failure_is_counted_and_named_in_words(tmp_path):
    failing = Report("t", (Section("s", entries=(entry(), entry(value=0.9))),))
    text = failing.write(tmp_path).read_text(encoding="utf-8")
    assert "1 of 2 measured values meet" in text
    assert Page(text).rows[1][5] == "✗ fail"


def test_one_page_is_made_of_all_recipes_below_a_folder(report, tmp_path):
    for name in ("b", "a/inner"):
        Report(f"recipe {name}", report.sections).save_json(tmp_path / "runs" / name)
    reports = read_reports(tmp_path / "runs")
    assert [r.title for r in reports] == ["recipe a/inner", "recipe b"]
    index = write_index(reports, tmp_path / "out", title="All")
    page = Page(index.read_text(encoding="utf-8"))
    assert len(page.all("img")) == 2
    assert len(page.all("table")) == 2
    targets = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    links = {link["href"].removeprefix("#") for link in page.all("a")}
    assert links == {"r1", "r2"}
    assert links <= targets
    levels = [int(tag[1]) for tag, _ in page.tags if tag in ("h1", "h2", "h3")]
    assert levels == [1, 2, 3, 2, 3]


def test_what_cannot_be_read_is_named(report, tmp_path):
    with pytest.raises(DataError, match=r"holds no metrics\.json"):
        read_reports(tmp_path)
    path = report.save_json(tmp_path / "run")
    content = json.loads(path.read_text())
    (tmp_path / "run" / "figures" / "cells.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"cells\.png"):
        read_report(path)
    for broken in ("{", "[]", "{}", json.dumps(content | {"format": 99})):
        path.write_text(broken)
        with pytest.raises(DataError, match=r"metrics\.json"):
            read_report(path)
    (tmp_path / "run" / "figures" / "cells.png").write_bytes(PNG)
    content["sections"][0]["entries"][1]["colour"] = "red"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="colour"):
        read_report(path)
    content["sections"][0]["entries"][0]["value"] = float("nan")
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="must be finite"):
        read_report(path)
    with pytest.raises(ValueError, match="reports"):
        write_index([], tmp_path)


def test_two_pictures_of_one_name_are_not_mixed_up(picture, tmp_path):
    other = tmp_path / "cells.png"
    other.write_bytes(PNG + b"other")
    both = Section("s", figures=(picture, Figure(other, "more cells")))
    with pytest.raises(ValueError, match="figures must differ in name"):
        Report("t", (both,)).save_json(tmp_path / "run")
    # The same picture twice is one file, and a later run replaces what an earlier one wrote.
    Report("t", (Section("s", figures=(picture, picture)),)).save_json(tmp_path / "run")
    other.replace(picture.path)
    written = Report("t", (Section("s", figures=(picture,)),)).save_json(tmp_path / "run")
    assert read_report(written).sections[0].figures[0].path.read_bytes() == PNG + b"other"


def test_a_picture_needs_words_and_a_known_format(tmp_path):
    with pytest.raises(ValueError, match="alt"):
        Figure(tmp_path / "a.png", " ")
    with pytest.raises(ValueError, match="path"):
        Figure(tmp_path / "a.jpg", "cells")


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml")])
def test_matplotlib_figures_are_saved_beside_the_report(tmp_path, name, start):
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(1, 1))
    made = Figure.save(canvas, tmp_path, name, "an empty figure")
    assert made.path == tmp_path / "figures" / name
    assert made.path.read_bytes().startswith(start)
    written = Report("t", (Section("s", figures=(made,)),)).write(tmp_path)
    kind = {"a.png": "image/png", "a.svg": "image/svg+xml"}[name]
    assert Page(written.read_text()).all("img")[0]["src"].startswith(f"data:{kind};base64,")


@pytest.mark.parametrize(
    ("value", "resolution", "text"),
    [
        (0.8379123, 0.012, "0.838"),
        (-8.070421, 0.001, "−8.0704"),
        (0.8379123, 0.0, "0.837912"),
        (1234.5, 20.0, "1234"),
        (3.2e-15, 1e-12, "3.2e−15"),
        (0.0, 1e-12, "0"),
        (2.5e7, 1.0, "2.5e+07"),
    ],
)
def test_numbers_are_written_to_their_resolution(value, resolution, text):
    assert format_number(value, resolution) == text
