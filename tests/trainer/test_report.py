"""The report of a bundle and of an evaluation: complete, honest about gaps, self-contained, and right."""

from __future__ import annotations

import csv
import importlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from algan_stream.bundle import Bundle, read_bundle
from algan_stream.cli import app
from algan_stream.errors import InputError, PluginError
from algan_stream.types import InputSpec
from algan_trainer.algan import new_state
from algan_trainer.config import Config, override
from algan_trainer.evaluate import auroc
from algan_trainer.report import charts, measures, pictures
from algan_trainer.report.building import without_folders
from algan_trainer.report.charts import Line, Mark
from algan_trainer.report.content import Report
from algan_trainer.report.fakes import draw_fakes
from algan_trainer.report.markup import document, el
from algan_trainer.report.page import render
from algan_trainer.run import run
from algan_trainer.session import Request

#: A file name that would be markup if anything forgot to escape it.
NASTY = "<img src=x onerror=alert(1)>&\"'.png"
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Checks that every tag is closed in order, and gathers texts, links and pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def draw(folder: Path, names: list[str], seed: int, *, defect: bool = False) -> None:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for name in names:
        image = rng.normal(128, 10, (40, 60)).clip(0, 255).astype(np.uint8)
        if defect:
            image[5:25, 5:25] = 0
        Image.fromarray(image).save(folder / name)


def numbered(count: int) -> list[str]:
    return [f"{i:02d}.png" for i in range(count)]


def train(data: Path, out: Path, **options: Any) -> Bundle:
    changes = {
        "network.size_px": 32,
        "network.width": 4,
        "network.latent_dim": 8,
        "batch_size": 4,
        "precision": "fp32",
        "epochs": 3,
        "validate_every": 2,
        **options.pop("changes", {}),
    }
    return run(Config(), changes, Request(data, out, out.with_name(out.name + ".work"), threads=1, **options))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("secret-place") / "gears"
    draw(root / "train" / "good", numbered(10), 1)
    draw(root / "test" / "good", [*numbered(7), NASTY], 2)
    draw(root / "test" / "hole", numbered(6), 3, defect=True)
    draw(root / "test" / "a<b>c", numbered(4), 4, defect=True)
    return root


@pytest.fixture(scope="module")
def bundle(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    torch.set_num_threads(1)
    return train(data, tmp_path_factory.mktemp("bundles") / "gear", report_pictures=3)


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("good-only")
    draw(root / "plates", numbered(12), 5)
    return train(root / "plates", root / "bundle", report_pictures=0)


def page_of(folder: Path) -> Page:
    return Page((folder / "index.html").read_text("utf-8"))


def report_of(folder: Path) -> Report:
    return msgspec.json.decode((folder / "report.json").read_bytes(), type=Report)


# ---- the report of a training ------------------------------------------------------------------------------


def test_every_file_is_there_and_has_its_hash(bundle: Bundle) -> None:
    on_disk = {p.relative_to(bundle.path).as_posix() for p in bundle.path.rglob("*") if p.is_file()} - {
        "manifest.json"
    }
    assert set(read_bundle(bundle.path).manifest.files) == on_disk
    tables = {"index.html", "report.json", "training_curve.csv", "scores.csv", "split.csv"}
    shown = {f"pictures/hard-{kind}-0{i}.webp" for kind in ("good", "anomalous") for i in (1, 2, 3)}
    sheets = {f"pictures/{name}.webp" for name in ("real", "fake-normal", "fake-anomalous")}
    assert {name.removeprefix("report/") for name in on_disk if name.startswith("report/")} >= (
        tables | shown | sheets
    )


def test_the_page_is_self_contained_and_well_formed(bundle: Bundle, data: Path) -> None:
    folder = bundle.path / "report"
    page = page_of(folder)
    assert page.tags[0] == ("html", {"lang": "en"})
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    places = [of["src"] for of in page.all("img")] + [of["href"] for of in page.all("a")]
    assert len(places) >= 9 + 4
    for place in places:
        assert place is not None
        assert not re.match(r"[a-z]+:|/", place), place
        assert (folder / place).is_file(), place
    source = (folder / "index.html").read_text("utf-8")
    assert not re.search(r"https?://|@import|url\(", source)
    for secret in (str(data.parent), data.parent.name, str(bundle.path), str(Path.home())):
        assert secret not in source
        assert secret not in (folder / "report.json").read_text("utf-8")


def test_names_of_files_and_defects_are_text_not_markup(bundle: Bundle, data: Path, tmp_path: Path) -> None:
    invoke(
        "evaluate", bundle.path, data, "--report", tmp_path / "r", "--split", "all", "--report-pictures", 99
    )
    page = page_of(tmp_path / "r")
    assert f"test/good/{NASTY}" in page.text
    assert "anomalous (a<b>c), score" in " ".join(str(of["alt"]) for of in page.all("img"))
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert {of["src"].partition("/")[0] for of in page.all("img") if of["src"]} == {"pictures"}


def test_pictures_have_texts_and_charts_have_tables(bundle: Bundle) -> None:
    page = page_of(bundle.path / "report")
    assert all(of["alt"] for of in page.all("img"))
    charts_shown = page.all("svg")
    assert len(charts_shown) == 4
    assert all(of["role"] == "img" and of["aria-label"] for of in charts_shown)
    for caption in ("Number by score", "Points on the curve", "The model's epoch in bold"):
        assert caption in page.text
    assert all(of.get("scope") in ("row", "col") for of in page.all("th"))


def test_pictures_are_small(bundle: Bundle) -> None:
    for path in (bundle.path / "report" / "pictures").iterdir():
        assert path.stat().st_size < 20_000
        with Image.open(path) as image:
            if path.name.startswith("hard"):
                assert image.size == (60, 40)  # smaller than the limit: as it is
    assert sum(p.stat().st_size for p in (bundle.path / "report").rglob("*")) < 120_000


def test_the_numbers_are_those_of_the_manifest_and_the_scores(bundle: Bundle) -> None:
    report, provenance = report_of(bundle.path / "report"), bundle.manifest.provenance
    assert report.training is not None
    assert report.model.sha256 == bundle.model_sha256
    assert report.training.chosen_epoch == provenance["checkpoint"]["epoch"]
    assert [row.epoch for row in report.training.curve] == [1, 2, 3]
    assert [row.auroc is None for row in report.training.curve] == [True, False, False]
    by_part = {result.part: result for result in report.results}
    assert list(by_part) == ["test", "validation"]
    calibration = bundle.manifest.calibration
    assert calibration is not None
    with (bundle.path / "report" / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    for part, result in by_part.items():
        assert result.auroc == provenance["metrics"][f"{part}_auroc"]
        bad = [float(r["score"]) for r in rows if r["split"] == part and r["kind"] != "good"]
        assert result.detected is not None
        assert result.detected.count == sum(s > calibration.threshold + 1e-6 for s in bad)
        assert result.detected.of == len(bad) == result.counts.anomalous
        assert {of.kind for of in result.types} == {"hole", "a<b>c"}
    good = sorted((float(r["score"]) for r in rows if r["kind"] == "good"), reverse=True)
    assert [of.score for of in report.hard_good] == pytest.approx(good[:3], abs=1e-6)
    assert f"{by_part['test'].auroc:.3f}" in page_of(bundle.path / "report").text


def test_without_labels_the_page_says_so(unlabelled: Bundle) -> None:
    folder = unlabelled.path / "report"
    page, report = page_of(folder), report_of(folder)
    assert not (folder / "pictures").exists()
    assert report.roc is None
    assert report.results[0].part == "calibration"
    for sentence in (
        "The data has no test split.",
        "Nothing defective was at hand",
        "A ROC curve needs scores of both",
        "There were no images of defective parts.",
        "Pictures were left out",
        "the paper's rule could not be followed",
    ):
        assert sentence in page.text
    assert len(report.hard_good) == 2  # listed without pictures: both that were held out
    assert "label-free" in page.text


# ---- the report of an evaluation ---------------------------------------------------------------------------


def invoke(*arguments: object) -> Any:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def test_evaluation_writes_the_same_page(bundle: Bundle, data: Path, tmp_path: Path) -> None:
    out, numbers = tmp_path / "deep" / "r", tmp_path / "n.json"
    invoke("evaluate", bundle.path, data, "--report", out, "--json", numbers, "--threads", 1)
    page, report, result = page_of(out), report_of(out), json.loads(numbers.read_text())
    (judged,) = report.results
    assert judged.auroc == result["auroc"]
    assert judged.false_rejects is not None
    assert judged.false_rejects.share == pytest.approx(result["false_reject_rate"])
    assert (judged.counts.good, judged.counts.anomalous) == (result["n_normal"], result["n_anomalous"])
    assert "Left out because the model was trained on them: 10." in page.text
    count = result["n_normal"] + result["n_anomalous"]
    assert len(list((out / "pictures").iterdir())) == 2 * count == len(page.all("img"))
    assert "shows where its score comes from" in page.text
    assert (out / "scores.csv").read_text().count("\n") == 1 + len(result["scores"])
    assert str(data.parent) not in (out / "index.html").read_text() + (out / "report.json").read_text()


def test_one_kind_only(bundle: Bundle, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "only"
    draw(folder, numbered(4), 9)
    invoke("evaluate", bundle.path, folder, "--report", tmp_path / "r")
    assert "Nothing defective was at hand" in page_of(tmp_path / "r").text
    assert report_of(tmp_path / "r").roc is None


def test_an_earlier_report_is_replaced_and_nothing_else(bundle: Bundle, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    invoke("evaluate", bundle.path, data, "--report", out)
    (out / "notes.txt").write_text("mine")
    invoke("evaluate", bundle.path, data, "--report", out, "--report-pictures", 1)
    assert (out / "notes.txt").read_text() == "mine"
    assert {path.name for path in (out / "pictures").iterdir()} == {
        f"hard-{kind}-01{why}.webp" for kind in ("good", "anomalous") for why in ("", "-why")
    }


def test_other_folders_are_refused_before_the_work(bundle: Bundle, data: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="other than a report"):
        invoke("evaluate", bundle.path, data, "--report", tmp_path / "full")
    for inside in (bundle.path / "report", bundle.path / "new"):
        with pytest.raises(InputError, match="inside the bundle"):
            invoke("evaluate", bundle.path, data, "--report", inside)
    with pytest.raises(InputError, match="it is a file"):
        invoke("evaluate", bundle.path, data, "--report", tmp_path / "full" / "thesis.txt")
    read_bundle(bundle.path)  # unharmed


def test_an_evaluation_needs_no_torch() -> None:
    code = "import sys, algan_trainer.report.evaluation, algan_trainer.judge; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "openvino"} & set(ended.stdout.split())


# ---- measures ----------------------------------------------------------------------------------------------


def two_kinds(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    good, bad = rng.normal(0, 1, rng.integers(1, 60)), rng.normal(1, 2, rng.integers(1, 60))
    return (good.round(), bad.round()) if ties else (good, bad)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_area_under_the_roc_curve_is_the_auroc(seed: int, ties: bool) -> None:
    good, bad = two_kinds(seed, ties)
    curve = measures.roc("test", good, bad)
    assert curve is not None
    points = list(zip(curve.false_rejects, curve.detected, strict=True))
    assert (points[0], points[-1]) == ((0.0, 0.0), (1.0, 1.0))
    area = sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairwise(points))
    assert area == pytest.approx(auroc(good, bad), abs=1e-12)
    for point in curve.points:
        assert point.false_rejects == pytest.approx((good > point.threshold).mean())
        assert point.detected == pytest.approx((bad > point.threshold).mean())


def test_roc_of_many_scores_is_thinned() -> None:
    rng = np.random.default_rng(0)
    curve = measures.roc("test", rng.normal(size=5000), rng.normal(0.5, 1, 5000))
    assert curve is not None
    assert len(curve.detected) == measures.MOST_CORNERS
    assert list(curve.detected) == sorted(curve.detected)
    wanted = [round(p.false_rejects, 4) for p in curve.points]
    assert wanted == [0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_bars_right_of_the_threshold_are_the_rejected(seed: int, ties: bool) -> None:
    good, bad = two_kinds(seed, ties)
    threshold = float(np.sort(good)[len(good) // 2])  # as in a calibration: one of the scores
    found = measures.histogram("test", good, bad, threshold)
    assert found is not None
    edges = np.array(found.edges)
    assert (np.diff(edges) > 0).all()
    assert threshold in found.edges
    right = edges[:-1] >= threshold
    for counts, scores in ((found.good, good), (found.anomalous, bad)):
        assert sum(counts) == len(scores)
        assert np.array(counts)[right].sum() == (scores > threshold).sum()
        for low, high, count in zip(found.edges, found.edges[1:], counts, strict=False):
            assert count == ((scores > low) & (scores <= high)).sum()


def test_histograms_that_are_out_of_the_ordinary() -> None:
    one = measures.histogram("test", np.array([2.0]), np.empty(0), None)
    assert one is not None
    assert sum(one.good) == 1
    far = measures.histogram("test", np.array([0.0, 1.0]), np.empty(0), 1e12)
    assert far is not None
    assert max(far.edges) < 2  # a threshold beyond all scores does not stretch the bins
    assert measures.histogram("test", np.empty(0), np.empty(0), 0.0) is None
    assert measures.roc("test", np.empty(0), np.ones(3)) is None


def test_wilson_interval() -> None:
    # Reference values: Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for count, of, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (1, 29, 0.0061, 0.1718),
    ):
        found = measures.rate(count, of)
        assert found is not None
        assert found.ci95 == pytest.approx((low, high), abs=5e-5)
    nothing = measures.rate(0, 20)
    assert nothing is not None
    assert nothing.ci95 == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert nothing.ci95[0] == 0.0
    assert measures.rate(0, 0) is None


def test_hardest() -> None:
    kinds = ["good", "hole", "good", "hole", "good"]
    good, bad = measures.hardest(np.array([0.1, 0.2, 0.9, 0.8, 0.5]), kinds, 2)
    assert (good, bad) == ([2, 4], [1, 3])


# ---- charts ------------------------------------------------------------------------------------------------


def heights(chart: ElementTree.Element, css: str) -> list[float]:
    bars = [e for e in chart.findall("rect") if e.get("class") == css]
    return [float(str(e.get("height"))) for e in bars]


def test_histogram_bars_are_as_high_as_their_shares() -> None:
    chart = charts.histogram_chart(
        [0, 1, 2, 3], [1, 3, 0], [0, 2, 2], title="t", x_label="x", mark=Mark(2.0, "threshold")
    )
    low, high = heights(chart, "bar s1")
    assert high == pytest.approx(3 * low, abs=0.3)
    left, right = heights(chart, "bar s2")
    assert left == right == pytest.approx(2 * low, abs=0.3)


def test_line_chart_spans_its_axes_and_skips_gaps() -> None:
    chart = charts.line_chart(
        [Line("a", [1, 2, 3, 4], [0.0, None, 2.0, 1.0], dots=True)], title="t", x_label="x", y_label="y"
    )
    dots = [(float(str(e.get("cx"))), float(str(e.get("cy")))) for e in chart.findall("circle")]
    assert len(dots) == 3
    xs, ys = zip(*dots, strict=True)
    assert xs[1] - xs[0] == pytest.approx(2 * (xs[2] - xs[1]), abs=0.2)
    assert ys[0] - ys[1] == pytest.approx(2 * (ys[0] - ys[2]), abs=0.3)  # up is smaller


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), (-3, 14, [0.0, 5.0, 10.0]), (1e-9, 4e-9, None), (7, 512, None)],
)
def test_ticks_are_round_and_few(low: float, high: float, expected: list[float] | None) -> None:
    found = charts.ticks(low, high)
    assert expected is None or found == expected
    assert 2 <= len(found) <= 7
    assert all(low <= tick <= high for tick in found)


def test_constant_curves_can_be_drawn() -> None:
    chart = charts.line_chart([Line("a", [1], [0.5])], title="t", x_label="x", y_label="y")
    assert "nan" not in document(chart).lower()


def test_markup_escapes() -> None:
    found = document(el("p", "<b>", el("i", "&"), "\"'", title='"><script>'))
    assert "<b>" not in found
    assert "<script>" not in found
    assert "&lt;b&gt;<i>&amp;</i>" in found


def test_every_report_can_be_shown(bundle: Bundle) -> None:
    report = report_of(bundle.path / "report")
    bare = msgspec.structs.replace(
        report,
        threshold=None,
        results=(),
        histogram=None,
        roc=None,
        hard_good=(),
        hard_anomalous=(),
        fakes=None,
    )
    assert "not calibrated" in Page(render(bare)).text
    assert report.training is not None
    training = msgspec.structs.replace(report.training, curve=(), best={}, rule="last")
    assert "No epoch was completed" in Page(render(msgspec.structs.replace(bare, training=training))).text


def test_absolute_paths_are_cut() -> None:
    given = {"a": "/home/ada/x.onnx", "b": ["C:\\data\\y", "rel/z", "~/w"], "c": {"d": 3, "e": None}}
    assert without_folders(given) == {"a": "x.onnx", "b": ["y", "rel/z", "w"], "c": {"d": 3, "e": None}}
    reason = {"reason": "2 skipped: /srv/line/a/1.png: torn; /srv/line: small"}
    assert without_folders(reason, [Path("/srv/line")]) == {"reason": "2 skipped: a/1.png: torn; line: small"}


def test_a_skipped_image_is_named_without_its_machine(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    draw(tmp_path / "good", numbered(8), 1)
    (tmp_path / "good" / "03.png").write_bytes(b"torn")
    folder = train(tmp_path / "good", tmp_path / "b", changes={"data.skip_bad": True}).path / "report"
    assert "03.png: cannot be decoded" in page_of(folder).text
    assert str(tmp_path) not in (folder / "index.html").read_text() + (folder / "report.json").read_text()


# ---- pictures ----------------------------------------------------------------------------------------------


def test_a_sheet_holds_every_picture_and_shrinks_large_ones() -> None:
    images = np.stack([np.full((300, 200, 3), 20 * i, np.uint8) for i in range(8)])
    canvas = pictures.sheet(images)
    assert canvas.shape == (2 * 128 + 4, 6 * 85 + 5 * 4, 3)
    assert canvas[0, 0, 0] == 0
    assert canvas[0, 89, 0] == 20
    assert canvas[132, 0, 0] == 120
    assert pictures.sheet(images[:1, :32, :32]).shape == (32, 32, 3)


def test_inputs_turn_back_into_pictures() -> None:
    from algan_stream.preprocess import preprocess

    spec = InputSpec(height_px=8, width_px=8)
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    inputs = preprocess(image, spec, pixel_format="rgb8")
    assert np.array_equal(pictures.to_rgb(inputs, spec)[0], image)


def test_fakes_leave_the_training_as_it_was(tiny: Config) -> None:
    images = torch.rand(8, 5, 32, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1
    state = new_state(tiny, images)
    before = {k: v.clone() for k, v in state.generator.state_dict().items()}
    rng = state.rng.get_state()
    made = draw_fakes(state, tiny.network.input_spec(), 5)
    assert made.normal.shape == made.anomalous.shape == (5, 32, 32, 3)
    assert not np.array_equal(made.normal, made.anomalous)
    assert all(torch.equal(v, before[k]) for k, v in state.generator.state_dict().items())
    assert torch.equal(rng, state.rng.get_state())
    assert state.generator.training
    without = override(tiny, {"algan.alpha": 1.0})
    assert len(draw_fakes(new_state(without, images), tiny.network.input_spec(), 5).anomalous) == 0


# ---- TensorBoard -------------------------------------------------------------------------------------------


@pytest.fixture
def plain_data(tmp_path: Path) -> Path:
    draw(tmp_path / "good", numbered(8), 1)
    return tmp_path / "good"


def test_tensorboard_log(plain_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    torch.set_num_threads(1)
    train(plain_data, tmp_path / "b", tensorboard=tmp_path / "log")
    reader = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    log = reader.EventAccumulator(str(tmp_path / "log"))
    log.Reload()
    tags = log.Tags()
    assert set(tags["scalars"]) == {"loss/discriminator", "loss/generator", "auroc/label_free"}
    assert set(tags["images"]) == {"images/real", "images/fake_normal", "images/fake_anomalous"}
    curve = report_of(tmp_path / "b" / "report").training
    assert curve is not None
    logged = [(event.step, event.value) for event in log.Scalars("loss/discriminator")]
    assert [step for step, _ in logged] == [row.epoch for row in curve.curve]
    assert [value for _, value in logged] == pytest.approx([row.loss_d for row in curve.curve], abs=1e-6)
    assert [event.step for event in log.Scalars("auroc/label_free")] == [2, 3]


def test_missing_tensorboard_names_the_extra(
    plain_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(PluginError, match=r"pip install 'algan-stream\[tensorboard\]'"):
        train(plain_data, tmp_path / "b", tensorboard=tmp_path / "log")
    assert not (tmp_path / "b").exists()
