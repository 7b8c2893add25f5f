"""The command line: every command end to end, exit codes, errors in words, help with examples."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from PIL import Image
from tests import made_up
from tests.conftest import ROOT

import deepsky
from deepsky import cli
from deepsky.catalogue import Catalogue
from deepsky.cli.options import ANY, chosen, more, question, shares, words
from deepsky.errors import Incomplete, InputError
from deepsky.ingestion import ingest
from deepsky.model import load
from deepsky.survey import Survey
from deepsky.training import train

COMMANDS = ["look", "list", "check", "ingest", "split", "label", "hats", "train", "crossval", "curve", "predict",
            "evaluate", "compare", "run", "demo"]  # fmt: skip
QUICK = [
    "--network",
    "mlp",
    "--network-set",
    "hidden=(8,)",
    "--set",
    "steps=6",
    "--set",
    "precision=float32",
    "--quiet",
]


@pytest.fixture
def deepsky_(capsys, monkeypatch, tmp_path):
    """Run a command in this process, in a folder of its own: its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEEPSKY_CACHE", str(tmp_path / "cache"))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["deepsky", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    yield run
    monkeypatch.chdir(ROOT)


def good(found):
    code, out, err = found
    assert code == 0, err
    return out


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """120 JPEGs in two folders named after their classes, and a table with the same labels by id."""
    folder = tmp_path_factory.mktemp("cli")
    sample = made_up.blobs(120, bands=("r", "g", "b"))
    flux = np.clip(sample.observations["image"].flux.numpy() * 8 + 20, 0, 255).astype(np.uint8)
    names = ("long", "round")
    kind = [names[i] for i in sample.truth["shape"].value.tolist()]
    for name, word, image in zip(sample.id, kind, flux, strict=True):
        place = folder / "pictures" / word
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(place / f"{name}.jpg", quality=95)
    width = sample.truth["width"].value.numpy()
    lines = [f"{i},{k},{w}" for i, k, w in zip(sample.id, kind, width, strict=True)]
    (folder / "labels.csv").write_text("\n".join(["id,kind,width", *lines]) + "\n")
    return folder


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    return made_up.survey(tmp_path_factory.mktemp("cli") / "blobs", n=260)


@pytest.fixture(scope="module")
def model(survey, tmp_path_factory):
    return train(__import__("deepsky.tasks").tasks.Classify("shape"), survey, network="mlp", settings={"hidden": (8,)},
                 steps=6, baseline="logistic", to=tmp_path_factory.mktemp("cli") / "model", quiet=True)  # fmt: skip


# -- end to end -----------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_a_folder_of_pictures_becomes_a_model_a_report_and_a_catalogue(deepsky_, pictures, tmp_path):
    out = good(deepsky_("look", pictures / "pictures"))
    assert "120 objects" in out and "long 60, round 60" in out and (tmp_path / "look.png").stat().st_size > 1000

    out = good(deepsky_("ingest", pictures / "pictures", "--to", "s", "--workers", 0))
    assert "120 objects" in out and len(Survey.load("s")) == 120
    assert "folds      " in out and "note       class from the folders: long 60, round 60" in out
    (tmp_path / "some").mkdir()
    for file in sorted((pictures / "pictures").rglob("*.jpg"))[:40]:
        shutil.copy(file, tmp_path / "some")
    (tmp_path / "some" / "empty.jpg").touch()
    out = good(deepsky_("ingest", tmp_path / "some", "--to", "some-survey", "--workers", 0))
    assert "set aside  1 object, listed" in out and "1 times: " in out and "(empty.jpg)" in out

    before = Survey.load("s").column("fold").tolist()
    out = good(deepsky_("split", "s", "--seed", 3))
    assert "near-duplicate: none across folds" in out
    assert Survey.load("s").column("fold").tolist() != before

    out = good(deepsky_("label", "s", pictures / "labels.csv", "--labeller", "me"))
    assert "labels version 2" in out and "note: 120 objects labelled by column 'id'" in out
    assert {"kind", "width"} <= set(Survey.load("s").schema.columns)

    out = good(deepsky_("check", "s"))
    assert "classes of class" in out and (tmp_path / "check.png").exists()

    out = good(deepsky_("train", "s", "--to", "m", "--target", "class", *QUICK))
    assert "<Model mlp for classify of class" in out and load("m").task.classes == ("long", "round")
    good(deepsky_("train", "s", "--to", "m2", "--target", "kind", "--network", "logistic", "--network-set",
                  "features=shape", "--quiet"))  # fmt: skip
    good(deepsky_("train", "s", "--to", "m3", "--target", "width", "--task", "regress", "--task-set",
                  "density=gaussian", "--task-set", "log=width", *QUICK))  # fmt: skip
    assert load("m3").task.log == ("width",) and load("m3").task.density == "gaussian"
    edges = np.nanquantile(Survey.load("s").column("width").astype(float), (1 / 3, 2 / 3)).tolist()
    good(deepsky_("train", "s", "--to", "named", "--target", "width", "--task-set", f"edges={edges[0]},{edges[1]}",
                  "--task-set", "classes=narrow, middling,wide", *QUICK))  # fmt: skip
    assert load("named").task.classes == ("narrow", "middling", "wide")

    out = good(deepsky_("evaluate", "m", "s"))
    assert "AUROC" in out and Path("m/report/report.html").stat().st_size > 1000
    figures = json.loads(Path("m/report/report.json").read_text())
    assert figures["objects"] == len(Survey.load("s").fold("test"))
    assert "sigma_NMAD" in good(deepsky_("evaluate", "m3", "s", "--slice", "width > 2.2", "--to", "r3"))

    out = good(deepsky_("predict", "m", "s", "--to", "c", "--write", "x.fits", "--write", "x.vot", "--prevalence",
                        "long=0.01"))  # fmt: skip
    assert "x.fits" in out and "<Catalogue: 120 objects" in out
    table = Table.read("x.fits")
    assert len(table) == 120 and table["p_long"].max() < 1 and table["ra"].unit == "deg"
    assert Catalogue.read("c").provenance["prior"] == pytest.approx({"long": 0.01, "round": 0.99})

    good(deepsky_("train", "s", "--to", "m4", "--target", "class", "--network", "constant", "--quiet"))
    out = good(deepsky_("compare", "m", "m4", "s", "--to", "cmp"))
    assert "first: mlp" in out and "second: constant" in out and Path("cmp/report.html").exists()


def test_a_survey_that_the_model_never_saw_is_judged_as_a_whole(deepsky_, model, tmp_path):
    other = made_up.survey(tmp_path / "other", n=120, seed=4)
    out = good(deepsky_("predict", model.path, other.path, "--to", "c"))
    assert "note: filters of g, r: compared by name only" in out
    out = good(deepsky_("evaluate", model.path, other.path, "--fold", "all", "--to", "r"))
    assert "judged: 120 of 120 objects" in out and "looks like the training sample: they" in out
    report = json.loads(Path("r/report.json").read_text())
    assert report["objects"] == 120 and report["checks"]["looks like the training sample"]["reference"]


def test_a_report_on_other_objects_has_a_folder_of_its_own(deepsky_, survey, model, tmp_path):
    home = tmp_path / "m"
    shutil.copytree(model.path, home)
    other = made_up.survey(tmp_path / "other", n=120, seed=4)
    places = []
    for arguments in (("evaluate", home, survey.path), ("evaluate", home, other.path, "--fold", "all"),
                      ("evaluate", home, survey.path, "--slice", "width > 2"),
                      ("evaluate", home, survey.path, "--slice", "width < 2.4"),
                      ("evaluate", home, survey.path, "--fold", "all")):  # fmt: skip
        places.append(Path(good(deepsky_(*arguments)).splitlines()[-1].removeprefix("report: ")).parent)
    assert places[0] == home / "report" and len(set(places)) == 5 and all((p / "report.json").exists() for p in places)
    assert "all" in places[1].name and "width-2" in places[2].name
    code, _, err = deepsky_("evaluate", home, survey.path, "--slice", "width > 300")
    assert code == 1 and "no object fulfils the expression" in err and "--labels" not in err
    held = survey.fold("test").column("width")
    assert f"width from {held.min():.6g} to {held.max():.6g}" in err


def test_frames_without_coordinates_and_a_list_of_pixels(deepsky_, tmp_path):
    from astropy.io import fits

    rng = np.random.default_rng(0)
    x, y = rng.uniform(40, 160, (2, 30))
    for band in "gr":
        fits.PrimaryHDU(rng.normal(0, 1e-12, (200, 200)).astype(np.float32)).writeto(tmp_path / f"{band}.fits")
    lines = [f"s{i},{a:.2f},{b:.2f}" for i, (a, b) in enumerate(zip(x, y, strict=True))]
    Path("sources.csv").write_text("\n".join(["id,x,y", *lines]) + "\n")
    out = good(deepsky_("ingest", tmp_path / "*.fits", "--catalogue", "sources.csv", "--pixel-scale", 0.2, "--size", 16,
                        "--bands", "r,g", "--set", "zero_point=0", "--workers", 0, "--to", "s"))  # fmt: skip
    made = Survey.load("s")
    image = made.schema.observations["image"]
    assert "30 objects" in out and image.bands == ("r", "g") and image.pixel_scale == 0.2 and image.unit == "nJy"
    assert np.isnan(made.column("ra")).all() and sorted(made.column("x")) == pytest.approx(sorted(np.round(x, 2)))
    code, _, err = deepsky_("ingest", tmp_path / "*.fits", "--catalogue", "none.csv", "--to", "t")
    assert code == 1 and "none.csv" in err


def test_mask_bits_and_planes_by_their_names(deepsky_, tmp_path):
    from astropy.io import fits

    rng = np.random.default_rng(0)
    for i in range(4):
        mask = fits.ImageHDU(np.repeat([[0], [1], [2], [4]] * 4, 16, axis=1).astype(np.int32), name="MASK")
        mask.header.update({"MP_BAD": 0, "MP_CR": 1, "MP_EDGE": 2})
        image = fits.ImageHDU(rng.normal(0, 1, (16, 16)).astype(np.float32), name="IMAGE")
        (tmp_path / "masked").mkdir(exist_ok=True)
        fits.HDUList([fits.PrimaryHDU(), image, mask]).writeto(tmp_path / "masked" / f"{i}.fits")
        (tmp_path / "plain").mkdir(exist_ok=True)
        second = fits.ImageHDU(np.full((16, 16), 4.0, np.float32))
        fits.HDUList([fits.PrimaryHDU(image.data), second]).writeto(tmp_path / "plain" / f"{i}.fits")
    ways = {("--mask-bits", "BAD"): 1, ("--set", "mask_bits=BAD"): 1, ("--mask-bits", "BAD,CR"): 2,
            ("--mask-bits", "4"): 1, ("--set", "mask_bits=1,2"): 2}  # fmt: skip
    for number, (words_, masked) in enumerate(ways.items()):
        good(deepsky_("ingest", "masked", "--to", f"s{number}", "--workers", 0, *words_))
        assert Survey.load(f"s{number}").column("unmeasured") == pytest.approx(masked / 4)
    code, _, err = deepsky_("ingest", "masked", "--to", "t", "--mask-bits", "NOPE")
    assert code == 1 and "known: BAD, CR, EDGE" in err and not Path("t").exists()

    code, _, err = deepsky_("ingest", "plain", "--to", "t", "--workers", 0)
    given = re.search(r'--set "(.*?)"', err)[1]
    assert given == "planes={'0':'flux','1':'ivar'}"
    for planes in (given, "planes={0:'flux',1:'ivar'}"):
        shutil.rmtree("t", ignore_errors=True)
        good(deepsky_("ingest", "plain", "--to", "t", "--workers", 0, "--set", planes))
        image = Survey.load("t").gather(slice(None)).observations["image"]
        assert np.allclose(image.ivar.numpy(), 4.0)


@pytest.mark.slow
def test_cross_validation_ends_in_a_catalogue_and_a_report_with_the_classical_baseline(deepsky_, survey):
    out = good(deepsky_("crossval", survey.path, "--target", "shape", "--k", 2, "--to", "cv", *QUICK, "--set",
                        "baseline=logistic"))  # fmt: skip
    assert "classical: logistic" in out and "260 of 260 objects" in out
    assert len(Catalogue.read("cv")) == 260 and Path("cv/report.html").exists()
    assert good(deepsky_("crossval", survey.path, "--target", "shape", "--k", 2, "--to", "cv", *QUICK, "--set",
                         "baseline=logistic")) == out  # fmt: skip
    good(deepsky_("crossval", survey.path, "--target", "shape", "--k", 2, "--to", "cv2", *QUICK, "--set",
                  "baseline=None", "--repeats", 2))  # fmt: skip
    out = good(deepsky_("compare", "cv", "cv2/catalogue.parquet", survey.path, "--positive", "long"))
    assert "shape, of long" in out and "260 of 260 objects" in out and "first and second" not in out
    assert json.loads(Path("comparison/report.json").read_text())["objects"] == 260
    out = good(deepsky_("evaluate", "cv", survey.path))
    assert "260 of 260 objects" in out and "report: cv/report/report.html" in out
    code, _, err = deepsky_("crossval", survey.path, "--target", "shape", "--k", 3, "--to", "cv", *QUICK)
    assert code == 1 and "another" in err


@pytest.mark.slow
def test_a_learning_curve_is_drawn_in_its_report(deepsky_, survey):
    command = ("curve", survey.path, "--target", "shape", "--to", "curve", *QUICK, "--set", "baseline=logistic")
    out = good(deepsky_(*command, "--sizes", "40,1.0"))
    n = len(survey.fold("train"))
    assert "              40: AUROC" in out and f"{n:>16,}: AUROC" in out
    assert Path("curve/n-40/model.json").exists() and Path(f"curve/n-{n}/model.json").exists()
    assert "Learning curve" in Path("curve/report.html").read_text()
    assert [p["n"] for p in json.loads(Path("curve/report.json").read_text())["learning curve"]] == [40, n]
    code, _, err = deepsky_(*command, "--sizes", "some")
    assert code == 1 and "--sizes takes numbers" in err
    code, _, err = deepsky_(*command, "--sizes", "40,1.0", "--seed", 3)
    assert code == 1 and "keyword seed: the folder holds another learning curve" in err


def test_a_catalogue_is_judged_where_it_says_or_is_told_what_it_answers(deepsky_, survey, model):
    good(deepsky_("predict", model.path, survey.path, "--to", "c"))
    code, _, err = deepsky_("evaluate", "c", survey.path)
    assert code == 1 and "does not say what it answers" in err and "--target COLUMN" in err
    for place in ("c", "c/catalogue.parquet"):
        out = good(deepsky_("evaluate", place, survey.path, "--target", "shape"))
        assert f"judged: {len(survey.fold('test'))} of" in out
    assert Path("c/report/report.html").exists() and Path("c/catalogue-report/report.html").exists()
    out = good(deepsky_("compare", "c", model.path, survey.path, "--to", "cmp"))
    assert "AUROC" in out and Path("cmp/report.html").exists()


def test_a_run_is_repeated_from_its_file(deepsky_, survey):
    good(deepsky_("train", survey.path, "--to", "m", "--target", "shape", *QUICK, "--set", "baseline=None"))
    again = good(deepsky_("train", "--from", "m/run.json", "--to", "again", "--quiet"))
    assert load("m").hash == load("again").hash and load("m").hash in again
    good(deepsky_("train", survey.path, "--from", "m", "--to", "third", "--quiet"))
    assert load("third").hash == load("m").hash
    code, _, err = deepsky_("train", "--from", "m/run.json", "--to", "x", "--batch", 3, "--task", "regress")
    assert code == 1 and "batch" in err and "task" in err and "leave these options out" in err
    code, _, err = deepsky_("train", "--from", "m/model.json", "--to", "x")
    assert code == 1 and "unknown keys" in err


def test_train_says_where_the_model_lies_how_good_it_is_and_what_comes_next(deepsky_, survey, tmp_path):
    train_fold, valid = survey.fold("train").id, survey.fold("valid").id
    lines = [f"{name},{'ab'[i % 2]}" for i, name in enumerate(survey.id) if name not in (*train_fold[:3], *valid[:1])]
    (tmp_path / "labels.csv").write_text("\n".join(["id,word", *lines]) + "\n")
    given = ("train", survey.path, "--labels", "labels.csv", "--target", "word")
    out = good(deepsky_(*given, "--to", "m", *QUICK, "--set", "baseline=none")).splitlines()
    n = len(valid) - 1
    assert out[0].startswith("<Model mlp") and out[1] == "model      m"
    best = min(h["log loss"] for h in load("m").history)
    assert out[2] == f"score      log loss {best:.4g} on {n} objects of the validation fold"
    assert out[3].startswith(f"objects    train {len(train_fold) - 3} (3 more have no label), valid {n} (1 more")
    assert out[4] == ("augmented  dihedral: images are turned and flipped in training (--set augment=none where the "
                      "answer depends on it)")  # fmt: skip
    assert out[5].startswith("next       deepsky evaluate m ") and len(out) == 6
    good(deepsky_(*out[5].split()[2:], "--to", "r"))  # what it proposes works
    out = good(deepsky_("train", survey.path, "--target", "shape", "--to", "n", *QUICK, "--set", "augment=no",
                        "--set", "baseline=none"))  # fmt: skip
    assert "augmented  no\n" in out and "turned and flipped" not in out and "no label" not in out
    out = good(deepsky_("train", survey.path, "--target", "shape", "--to", "c", "--network", "constant"))
    assert "augmented" not in out and "score      log loss 0.6" in out


def test_a_model_with_a_network_of_the_users_own_needs_trust(deepsky_, survey, tmp_path):
    (tmp_path / "mine.py").write_text(
        '"""A network."""\nfrom torch import nn\n\n\nclass Own(nn.Sequential):\n    features = 2\n\n\n'
        "def build(channels, size, *, width=2):\n"
        "    return Own(nn.Flatten(), nn.Linear(channels * size[0] * size[1], width))\n"
    )
    good(deepsky_("train", survey.path, "--to", "m", "--target", "shape", "--network", "./mine.py", "--set", "steps=3",
                  "--set", "baseline=None", "--quiet"))  # fmt: skip
    code, _, err = deepsky_("predict", "m", survey.path, "--to", "c")
    assert code == 1 and "a file of its own" in err and "--trust" in err
    good(deepsky_("predict", "m", survey.path, "--to", "c", "--trust", "./mine.py", "--fold", "test"))
    assert len(Catalogue.read("c")) == len(survey.fold("test"))
    good(deepsky_("evaluate", "m", survey.path, "--trust", "./mine.py", "--to", "r"))


def test_list_names_everything_with_a_line(deepsky_):
    out = good(deepsky_("list"))
    for word in ("recipes", "lens-ground", "classify", "resnet", "random-forest", "fits-cutouts", "dihedral"):
        assert word in out
    assert all(len(line.split(maxsplit=1)) == 2 for line in out.splitlines() if line.startswith("  "))


# -- help -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_says_what_it_is_for_with_an_example(deepsky_, command):
    out = good(deepsky_(command, "--help"))
    assert f"Usage: deepsky {command}" in out and f"  deepsky {command}" in out.split("Examples:")[1]
    for line in out.split("Examples:")[1].strip().splitlines():  # the examples are real: every option exists
        for word in line.split():
            if word.startswith("--"):
                assert word in out.split("Examples:")[0], word


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_takes_labels_takes_the_name_of_their_ids(deepsky_, command):
    options = good(deepsky_(command, "--help")).split("Examples:")[0].split()
    assert ("--labels" in options) <= ("--id-column" in options)


def test_the_column_of_ids_is_named_where_it_is_not_plain(deepsky_, pictures, tmp_path):
    names = [p.stem for p in sorted((pictures / "pictures").rglob("*.jpg"))]
    rows = [f"z{i},{name},{i % 2}" for i, name in enumerate(names)]
    (tmp_path / "odd.csv").write_text("\n".join(["id,shown,kind", *rows]))
    code, _, err = deepsky_("look", pictures / "pictures", "--labels", "odd.csv")
    assert code == 1 and "--id-column shown" in err
    assert "kind: 0 60, 1 60" in good(
        deepsky_("look", pictures / "pictures", "--labels", "odd.csv", "--id-column", "shown")
    )


def test_there_are_no_other_commands_and_each_is_described_whole(deepsky_):
    out = good(deepsky_("--help"))
    lines = out.split("Commands:")[1].strip().splitlines()
    assert [line.split()[0] for line in lines] == COMMANDS
    assert not [line for line in lines if line.rstrip().endswith("...")]
    assert deepsky.__version__ in good(deepsky_("--version"))


def test_help_is_there_at_once():
    """Less than half a second of processor time, and nothing heavy imported."""
    code = ("import resource, sys; sys.argv = ['deepsky', '--help']\nfrom deepsky.cli import main\n"
            "try: main()\nexcept SystemExit: pass\nu = resource.getrusage(resource.RUSAGE_SELF)\n"
            "heavy = [m for m in ('torch', 'numpy', 'astropy', 'pyarrow', 'sklearn') if m in sys.modules]\n"
            "print('SECONDS', u.ru_utime + u.ru_stime, *heavy)")  # fmt: skip
    found = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        _, seconds, *heavy = done.stdout.splitlines()[-1].split()
        assert not heavy and "Commands:" in done.stdout
        found.append(float(seconds))
    assert min(found) < 0.5


def test_a_survey_goes_out_as_hats(deepsky_, survey, tmp_path):
    out = good(deepsky_("hats", survey.path, "--to", "cat"))
    assert f"{len(survey):,} objects" in out and (tmp_path / "cat" / "hats.properties").is_file()
    assert "is not empty" in deepsky_("hats", survey.path, "--to", "cat")[2]


# -- errors -----------------------------------------------------------------------------------------------------------
def test_errors_are_words_on_stderr_with_exit_code_one(deepsky_, survey, model, tmp_path):
    (tmp_path / "text.txt").write_text("no survey")

    def learn(*words):
        return ("train", survey.path, "--to", "m", "--target", "shape", *words)

    (tmp_path / "blocked").write_text("a file where a folder should be")
    for arguments, expected in (
        (("look", "nothing"), "there is no such file or folder"),
        (("check", "nothing"), "there is no such file or folder"),
        (("ingest", "nothing", "--to", "s"), "there is no such file or folder"),
        (("split", "text.txt"), "text.txt"),
        (("label", survey.path, "nothing.csv"), "nothing.csv"),
        (("train", survey.path, "--to", "m"), "known: e, offset, shape, width"),
        (("train", "--to", "m"), "no survey is named"),
        (("train", survey.path, "--to", "m", "--target", "shap"), "did you mean 'shape'"),
        (("train", survey.path, "--to", "m", "--target", "shape", "--task", "clasify"), "did you mean 'classify'"),
        (("train", survey.path, "--to", "m", "--target", "shape", "--network", "resnt"), "did you mean 'resnet'"),
        (("train", survey.path, "--to", "m", "--target", "shape", "--set", "ephocs=3"), "did you mean 'epochs'"),
        (("train", survey.path, "--to", "m", "--target", "shape", "--set", "epochs"), "--set takes key=value"),
        (("train", survey.path, "--to", "m", "--target", "shape", "--network-set", "widht=3"), "did you mean 'width'"),
        (("train", survey.path, "--to", "m", "--target", "shape", "--task-set", "weight=a"), "did you mean 'weights'"),
        (learn("--set", "lr=fast"), "--set lr: a setting has the wrong type\n  found: fast\n  expected: a number"),
        (learn("--set", "seed=abc"), "--set seed"),
        (learn("--set", "augment=True"), "unknown augmentation"),
        (learn("--set", "balance=perhaps"), "expected: true or false"),
        (learn("--network-set", "width=abc"), "--network-set width"),
        (learn("--network-set", "dropout=0,5"), "found: 0,5\n  expected: a number"),
        (learn("--network", "logistic", "--network-set", "features=shape,edges"), "expected: shape+edges"),
        (learn("--network", "logistic", "--network-set", "feature=shape"), "did you mean 'features'"),
        (learn("--network", "RandomForst"), "did you mean 'random-forest'"),
        (learn("--network", "resnet:lanusse"), "fix: --network resnet --network-set depth=lanusse"),
        (learn("--task-set", "smoothing=high"), "--task-set smoothing"),
        (learn("--task-set", "edges=2.5,a"), "--task-set edges"),
        (learn("--task-set", "name=foo"), "no such setting"),
        (learn("--task", "regress", "--task-set", "components=abc"), "--task-set components"),
        (learn("--task", "regress", "--task-set", "limits=0,10"), "--task-set limits"),
        (learn("--task", "regress", "--target", "width", "--task-set", "log=True"), "known: width"),
        (learn("--target", "SHAPE"), "did you mean 'shape'"),
        (("predict", model.path, survey.path, "--to", "c", "--set", "batch=0"), "batch is out of range"),
        (("predict", model.path, survey.path, "--to", "c", "--set", "batch=abc"), "--set batch"),
        (("train", survey.path, "--to", "blocked", "--target", "shape"), "a file stands"),
        (("crossval", survey.path, "--to", "cv", "--target", "shape", "--k", "1"), "two folds or more"),
        (("predict", "nothing", survey.path, "--to", "c"), "not a model"),
        (("predict", model.path, "nothing", "--to", "c"), "there is no such file or folder"),
        (("predict", model.path, survey.path, "--to", "c", "--write", "x.docx"), "no such catalogue format"),
        (("predict", model.path, survey.path, "--to", "c", "--prevalence", "lens=0.1"), "known: long, round"),
        (("predict", model.path, survey.path, "--to", "c", "--prevalence", "long"), "--prevalence takes CLASS=SHARE"),
        (("predict", model.path, survey.path, "--to", "c", "--set", "bach=3"), "did you mean 'batch'"),
        (("evaluate", model.path, survey.path, "--fold", "tset"), "did you mean 'test'"),
        (("evaluate", model.path, survey.path, "--slice", "mag >"), "mag >"),
        (("evaluate", model.path, survey.path, "--by", "magnitude"), "magnitude"),
        (("compare", model.path, "nothing", survey.path), "not a model"),
        (("predict", survey.path, model.path, "--to", "c"), f"fix: deepsky predict {model.path} {survey.path}"),
        (("evaluate", survey.path, model.path), f"fix: deepsky evaluate {model.path} {survey.path}"),
        (("compare", model.path, survey.path, model.path), f"deepsky compare {model.path} {model.path} {survey.path}"),
        (("evaluate", survey.path, survey.path), "a survey, where a model is expected"),
        (("train", model.path, "--to", "m", "--target", "shape"), "a model, where a survey is expected"),
        (("run", "lens-ground", "--quick", "--seeds", "0"), "at least one seed"),
        (("run", "lens-grond"), "did you mean 'lens-ground'"),
    ):  # fmt: skip
        code, out, err = deepsky_(*arguments)
        assert code == 1 and err.startswith("deepsky: ") and expected in err, (arguments, out, err)
        assert not out
    assert not Path("m").exists() and not Path("c").exists()


def test_mistakes_in_the_command_itself_are_explained_with_exit_code_one(deepsky_):
    for arguments, expected in (
        (("trian",), "Did you mean 'train'"), (("train", "--no-such-thing"), "No such option"),
        (("look",), "Missing argument"), (("ingest", "x"), "--to"), ((), "Commands:"),
        (("train", "x", "--to", "m", "--epochs", "many"), "Invalid value for '--epochs'"),
    ):  # fmt: skip
        code, out, err = deepsky_(*arguments)
        assert code == 1 and expected in out + err, (arguments, out, err)


def test_unfinished_work_has_exit_code_two(deepsky_, survey, model, monkeypatch):
    def stopped(*arguments, **options):
        raise Incomplete("tiles are missing")

    monkeypatch.setattr("deepsky.inference.predict", stopped)
    code, _, err = deepsky_("predict", model.path, survey.path, "--to", "c")
    assert code == 2 and err == "deepsky: tiles are missing\n"


def test_what_the_system_refuses_is_said_without_a_traceback(deepsky_, survey, model, monkeypatch):
    def refused(*arguments, **options):
        raise PermissionError(13, "Permission denied", "/survey/x")

    monkeypatch.setattr("deepsky.inference.predict", refused)
    code, _, err = deepsky_("predict", model.path, survey.path, "--to", "c")
    assert code == 1 and err == "deepsky: /survey/x: Permission denied\n"


def test_a_mistake_of_ours_shows_its_traceback(deepsky_, survey, model, monkeypatch):
    monkeypatch.setattr("deepsky.inference.predict", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        deepsky_("predict", model.path, survey.path, "--to", "c")


# -- in a process of its own ----------------------------------------------------------------------------------------
def process(*arguments, **options):
    command = [sys.executable, "-m", "deepsky", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options
    )


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_trained_and_the_same_command_goes_on(survey, tmp_path):
    command = ["train", survey.path, "--to", tmp_path / "m", "--target", "shape", "--network", "mlp"]
    command += ["--network-set", "hidden=(8,)", "--set", "steps=100000", "--set", "baseline=None"]
    with process(*command) as child:
        begun = next((line for line in child.stderr if "training" in line), "")
        child.send_signal(signal.SIGINT)
        out, err = child.communicate()
    assert begun and child.returncode == 2, err
    assert "stopped by SIGINT at step" in err and "the same command goes on" in err and "Traceback" not in err
    assert not out  # results go to stdout, and there is none
    assert (tmp_path / "m" / "checkpoint.pt").exists()


@pytest.mark.slow
def test_ctrl_c_in_a_prediction_cancels(survey, model, tmp_path):
    slow = ("import time, sys\nfrom deepsky import inference\nreal = inference._tile\n"
            "def slowly(*a):\n    open(sys.argv[-1], 'w').close(); time.sleep(60); return real(*a)\n"
            f"inference._tile = slowly\nsys.argv = ['deepsky', 'predict', {str(model.path)!r}, {str(survey.path)!r}, "
            f"'--to', {str(tmp_path / 'c')!r}, '--set', 'batch=64', '--write', {str(tmp_path / 'mark.csv')!r}]\n"
            "from deepsky.cli import main\nmain()\n")  # fmt: skip
    with subprocess.Popen([sys.executable, "-c", slow], cwd=ROOT, stderr=subprocess.PIPE, text=True) as child:
        while child.poll() is None and not (tmp_path / "mark.csv").exists():
            time.sleep(0.02)
        child.send_signal(signal.SIGINT)
        err = child.communicate()[1]
    assert child.returncode == 130 and "deepsky: cancelled" in err and "Traceback" not in err


def test_a_reader_that_has_seen_enough_is_no_error():
    with process("list") as child:
        child.stdout.read(10)
        child.stdout.close()
        err = child.stderr.read()
    assert not err and child.returncode in (0, 1)


# -- words ------------------------------------------------------------------------------------------------------------
def test_words_are_read_as_the_types_of_what_takes_them():
    kinds = {"a": int, "d": tuple[int, ...], "e": str, "f": bool, "g": str, "h_i": str, "j": tuple[str, ...]}
    given = ["a=3", "d=(1, 2)", "e=dihedral,shift=1", "f=no", "g=", "h-i=x y", "j=E,S0, S", "unknown=1"]
    assert words(given, kinds, "--task-set") == {
        "a": 3,
        "d": (1, 2),
        "e": "dihedral,shift=1",
        "f": False,
        "g": "",
        "h_i": "x y",
        "j": ("E", "S0", "S"),
        "unknown": "1",  # whoever takes the words refuses it
    }
    assert more(["balance=No", "baseline=NONE", "lr=1", "augment=none", "steps=1e2"], train) == {
        "balance": False, "baseline": None, "lr": 1.0, "augment": "none", "steps": 100,
    }  # fmt: skip
    assert more(["bands=g,r", "class-folders=off", "id=No", "size=32"], ingest, ANY) == {
        "bands": ("g", "r"), "class_folders": False, "id": "No", "size": 32,
    }  # fmt: skip
    task = question("regress", "width", None, ["limits=width,0,10", "log=width"])
    assert task.limits == (("width", 0.0, 10.0),) and task.log == ("width",)
    assert question("classify", "shape", None, ["multilabel=false"]).multilabel is False
    assert chosen("RandomForest", ["smooth=No"]) == {"network": "random-forest", "settings": {"smooth": False}}
    assert chosen("resnet", ["squeeze=false"])["settings"] == {"squeeze": False}
    assert shares(["strong-lens=0.01", "a=b=0.2"]) == {"strong-lens": 0.01, "a=b": 0.2} and shares([]) is None
    with pytest.raises(InputError, match="no such argument") as error:
        more(["netwrok=mlp"], train)
    assert "network, settings, seed" in str(error.value) and "survey" not in str(error.value).split("known:")[1]
