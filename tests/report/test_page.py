"""The page: whole, self-contained, safe against catalogue text, the same bytes twice, and honest about losses."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pyarrow as pa
import pytest
import torch
from tests.report import answered

from deepsky import store
from deepsky.evaluation import Report, compare, evaluate
from deepsky.io import blake_key
from deepsky.judging import Binned
from deepsky.metrics.intervals import Estimate
from deepsky.report import page, plots, words
from deepsky.sample import Row, Sample, Truth
from deepsky.schema import Column
from deepsky.survey import Survey
from deepsky.tasks.classify import Classify
from deepsky.tasks.regress import Regress

VOID = {"meta", "img", "br", "hr", "link", "input"}
HISTORY = [{"step": s, "epoch": s / 10, "loss": 1 / s, "log loss": 1 / s + 0.1, "lr": 1e-3} for s in (1, 5, 10)]


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails where tags do not close."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, k, v or "") for k, v in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, k, v or "") for k, v in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def estimate(value: float) -> Estimate:
    return Estimate(value, value - 0.1, value + 0.1, 100, "made up")


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    return answered.survey(tmp_path_factory.mktemp("page") / "blobs", 450, bands=("g", "r", "i"), size=16)


@pytest.fixture(scope="module")
def reports(survey: Survey) -> dict[str, Report]:
    kinds = {
        "binary": (Classify("shape"), answered.binary(survey), answered.binary(survey, 1.2, seed=2)),
        "classes": (Classify("kind"), answered.classes(survey), answered.classes(survey, 0.5, seed=2)),
        "values": (Regress("width"), answered.values(survey), answered.values(survey, 0.3, seed=2)),
    }
    curve = [(n, {"AUROC": estimate(0.8)}, {"AUROC": estimate(0.7)}) for n in (100, 200, 400)]
    made = {
        kind: replace(evaluate(c, survey, task=t, classical=b, by=by, replicates=20), history=HISTORY)
        for (kind, (t, c, b)), by in zip(kinds.items(), (("kind",), (), ("mag",)), strict=True)
    }
    made["binary"] = replace(made["binary"], learning=curve)
    t, c, b = kinds["binary"]
    made["comparison"] = compare(c, b, survey, task=t, by=("mag",), replicates=20)
    return made


@pytest.fixture(scope="module")
def pages(reports: dict[str, Report], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pages")
    return {k: page.write(r, folder / f"{k}.html").read_text(encoding="utf-8") for k, r in reports.items()}


KINDS = ("binary", "classes", "values", "comparison")


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_needs_nothing_else(pages: dict[str, str], kind: str) -> None:
    seen = Page(pages[kind])
    assert not {"script", "link", "iframe", "object", "embed", "form"} & set(seen.tags)
    for tag, name, value in seen.attributes:
        assert not name.startswith("on"), f"{tag} {name}"
        if name in {"src", "href", "xlink:href"}:
            assert value.startswith(("data:image/png;base64,", "#")), f"{tag} {name}={value[:60]}"
    outside = re.sub(r'xmlns(:xlink)?="[^"]*"', "", pages[kind])
    assert "http://" not in outside and "https://" not in outside and "@import" not in outside
    assert re.findall(r"url\((?!#)", outside) == []
    assert len(pages[kind]) < 3_000_000


@pytest.mark.parametrize("kind", KINDS)
def test_every_drawing_is_whole_and_labelled(pages: dict[str, str], kind: str) -> None:
    drawings = re.findall(r"<svg .*?</svg>", pages[kind], re.S)
    captions = re.findall(r'<figure class="plot">.*?<figcaption>(.+?)</figcaption>', pages[kind], re.S)
    assert len(drawings) == len(captions) >= 4
    for drawing in drawings:
        tree = ET.fromstring(drawing)
        texts = [t.text for t in tree.iter("{http://www.w3.org/2000/svg}text")]
        assert len(texts) >= 4, "axes carry labels as text"
        assert "var(--" in drawing and "DejaVu" not in drawing
    ids = re.findall(r'\bid="([^"]+)"', pages[kind])
    twice = {i for i in ids if ids.count(i) > 1}  # shapes are named by their content: the same name, the same shape
    for name in twice:
        assert len(set(re.findall(rf'<(?:path|clipPath) id="{name}".*?/>', pages[kind], re.S))) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_every_figure_is_in_the_table_and_defined(reports: dict[str, Report], pages: dict[str, str], kind: str) -> None:
    q = next(iter(reports[kind].questions.values()))
    text = re.sub(r"\s+", " ", Page(pages[kind]).text)
    for name, e in q.figures[q.first].items():
        assert f"{name} " in text and e.definition.split(":")[0] in text
        assert str(e).partition(" [")[0].replace("-", "−") in text
    for check in reports[kind].checks.values():
        assert check.words in text
    assert "simulation" in text and "Beware" in text


def test_bins_of_a_column_that_one_class_has_say_so(survey: Survey) -> None:
    long = survey.column("shape") == "long"
    radius = np.where(long, np.linspace(0.3, 2, len(survey)), np.nan)
    here = survey.with_columns({"radius": radius}, {"radius": Column(unit="arcsec")})
    report = evaluate(answered.binary(here), here, task=Classify("shape"), by=("radius", "mag"), replicates=20)
    html = str(page.body(report))
    text = re.sub(r"\s+", " ", Page(html).text)
    # in the caption and beside the table, of this column only
    assert text.count(f"against all {int((~long).sum())} objects of the class “round”") == 2
    assert text.count("Only objects of the class “long” have values of radius") == 2
    own = report.questions["shape"].bins["radius"]
    assert len(own) > 1 and all(0.5 < b.figures["ours"]["AUROC"].value < 1 for b in own)
    assert report.json()["questions"]["shape"]["bins of one class"] == {"radius": "long"}


@pytest.mark.parametrize(("edges", "ticks"), [
    ((3, 7, 9, 13, 22, 75, 180), {"5", "10", "50", "100"}), ((1, 10, 100, 1000, 5000), {"1", "10", "100", "1000"}),
    ((0.4, 0.8, 1.2, 2.2), {"0.5", "1.0", "1.5", "2.0"}), ((0, 7, 20, 50, 100), {"0", "50", "100"}),
])  # fmt: skip
def test_bins_that_span_decades_stand_on_a_logarithmic_axis(edges: tuple[float, ...], ticks: set[str]) -> None:
    point = Estimate(0.5, 0.4, 0.6, 10, "")
    rows = [Binned("", low, high, 10, {"ours": {"AUROC": point}}) for low, high in pairwise(edges)]
    drawing = plots.bins(rows, ["AUROC"], {"ours": plots.Look("ours", plots.FIRST)}, "snr")
    assert ticks <= set(re.findall(r">([\d.]+)</text>", str(drawing)))


def test_residuals_have_numbers_on_both_axes(pages: dict[str, str]) -> None:
    drawing = next(d for d in re.findall(r"<svg .*?</svg>", pages["values"], re.S) if "width, true" in d)
    numbers = re.findall(r'<text [^>]*?\bx="([\d.]+)" y="([\d.]+)"[^>]*>[−\d.]+</text>', drawing)
    assert max(Counter(y for _, y in numbers).values()) >= 6  # three below each of the two columns


def test_losses_are_as_plain_as_wins(reports: dict[str, Report], pages: dict[str, str], survey: Survey) -> None:
    lost = evaluate(answered.binary(survey, 0.4, seed=5), survey, task=Classify("shape"),
                    classical=answered.binary(survey, 3), replicates=60)  # fmt: skip
    html = str(page.body(lost))
    won = pages["binary"]
    assert "▼ behind" in html and "behind in AUROC" in words.summary(lost)[1]
    assert "▲ ahead" in won and "ahead in AUROC" in words.summary(reports["binary"])[1]
    mark = [re.search(rf'<td class="verdict {v}"><b>', h) for v, h in (("ahead", won), ("behind", html))]
    assert all(mark), "the same markup for both"


def test_worse_than_the_constant_is_said(survey: Survey) -> None:
    n = len(survey)
    wrong = np.where(survey.column("shape") == "long", 0.01, 0.99)
    cat = answered.catalogue({"p_long": wrong, "p_round": 1 - wrong}, survey.id, prior={"long": 0.5, "round": 0.5})
    report = evaluate(cat, survey, task=Classify("shape"), replicates=30)
    assert "worse than the constant" in " ".join(words.summary(report)) and len(report.rows) == n


NASTY = (
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "$\\frac{$ & <b>", "\x00\x1b[31mred", "x" * 5000,
    "\u202edlog", "日本語", "{{ 7 * 7 }}",
)  # fmt: skip


def test_text_of_a_catalogue_never_becomes_markup(tmp_path: Path) -> None:
    here = answered.survey(tmp_path / "blobs", 120, size=16)
    ids = [f"{NASTY[i % len(NASTY)]}{i}" for i in range(len(here))]
    kinds = [NASTY[i % 3] for i in range(len(here))]
    columns = {"kind": Column("str", role="label", classes=NASTY[:3]), "<i>mag</i>": Column(unit="</svg>mag")}
    nasty = here.with_columns({"id": pa.array(ids), "kind": pa.array(kinds), "<i>mag</i>": here.column("mag")}, columns)
    nasty = replace(nasty, schema=replace(nasty.schema, name=NASTY[0], notes=(NASTY[1],), source=NASTY[0]))
    p = np.full((len(here), 3), 1 / 3)
    cat = answered.catalogue({f"p_{n}": p[:, i] for i, n in enumerate(NASTY[:3])}, ids, network=NASTY[1])
    report = evaluate(cat, nasty, task=Classify("kind"), by=("<i>mag</i>", "kind"), replicates=5)
    html = page.write(report, tmp_path / "report.html").read_text(encoding="utf-8")
    for text in (html, str(page.body(report)), nasty._repr_html_()):
        seen = Page(text)
        assert not {"script", "i"} & set(seen.tags)
        assert not [a for a in seen.attributes if a[1].startswith("on")]
        assert all(v.startswith(("data:", "#")) for _, k, v in seen.attributes if k in {"src", "href", "xlink:href"})
        assert "alert(1)" in seen.text and not re.search("[\x00\x1b\u202e]", text)
        for drawing in re.findall(r"<svg .*?</svg>", text, re.S):
            ET.fromstring(drawing)


def test_a_notebook_gets_the_same_page_without_the_frame(reports: dict[str, Report], pages: dict[str, str]) -> None:
    before = dict(matplotlib.rcParams)
    html = reports["values"]._repr_html_()
    assert dict(matplotlib.rcParams) == before, "drawing leaves the user's style alone"
    assert "<html" not in html and "<body" not in html and "<!doctype" not in html
    assert Page(html).text.strip() in Page(pages["values"]).text
    drawn = [re.findall(r"<svg .*?</svg>", h, re.S) for h in (html, pages["values"])]
    assert drawn[0] == drawn[1], "the same report gives the same bytes"
    style = re.search(r"<style>(.*?)</style>", html, re.S)
    assert style is not None
    rules = re.findall(r"^([^@{}\n][^{}]*)\{", style[1], re.M)
    assert rules and all(".deepsky" in r for r in rules), "no rule touches the rest of the notebook"


def test_the_history_and_the_learning_curve_are_drawn(pages: dict[str, str]) -> None:
    assert "Learning curve:" in pages["binary"] and "training objects" in pages["binary"]
    assert "log loss, validation fold" in pages["classes"]
    assert "Learning curve:" not in pages["values"]


def test_five_objects_one_class_and_no_baseline_still_make_a_page(survey: Survey) -> None:
    few = survey.select(np.flatnonzero(survey.column("shape") == "long")[:5], "few")
    report = evaluate(answered.binary(few), few, task=Classify("shape").bind(survey), by=("mag",), replicates=10)
    text = Page(str(page.body(report))).text
    assert "not defined" in text and "fewer than 30 objects" in text
    values = evaluate(answered.values(few), few, task=Regress("width"), by=("mag",), replicates=10)
    assert "5 objects" in Page(str(page.body(values))).text


def test_rows_without_pictures(tmp_path: Path) -> None:
    g = np.random.default_rng(0)
    x = g.normal(size=(120, 2)).astype(np.float32)
    ids = tuple(f"row-{i}" for i in range(120))
    key = torch.from_numpy(np.array([blake_key(i) for i in ids], np.uint64).view(np.int64))
    nan = torch.full((120,), float("nan"), dtype=torch.float64)
    row = Row(torch.from_numpy(x), torch.ones(120, 2), names=("g", "r"), units=("mag", "mag"))
    truth = {"width": Truth(torch.from_numpy(x.sum(1).astype(np.float64)))}
    here = store.write([Sample(ids, key, nan, nan, {"row": row}, truth)], tmp_path / "rows", name="rows")
    cat = answered.catalogue({"width": x.sum(1) + g.normal(size=120)}, here.id)
    html = str(page.body(evaluate(cat, here, task=Regress("width"), replicates=10)))
    assert "<img" not in html and "The worst mistakes" in html and "row-" in html
    shown = Page(here._repr_html_())
    assert "row of 2" in shown.text and "svg" not in shown.tags and "img" not in shown.tags
