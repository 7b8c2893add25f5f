"""Models: saved and loaded they are the same bytes and answers; what was altered, or would run code, is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests import made_up
from tests.tasks.other_tasks import Masked
from torch import nn

import deepsky as ds
from deepsky import baselines, registry, store, tasks
from deepsky.augment import dihedral
from deepsky.card import card
from deepsky.errors import InputError
from deepsky.inference import predict
from deepsky.io import sha256, write_json
from deepsky.model import Model, check_folder, load
from deepsky.schema import Column
from deepsky.training import train

FAMILIES = sorted(registry.names("baselines"))


class Named(nn.Module):
    """A network of the user's, which deepsky does not have; the loading tests find it by its name here."""

    features = 6

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(2, 6, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x):
        return self.layers(x)


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    return made_up.survey(tmp_path_factory.mktemp("model") / "blobs", n=500)


def trained(survey, **options):
    given = {"network": "convnet", "settings": {"width": 4}, "steps": 6, "batch": 32, "baseline": None}
    return train(tasks.Classify("shape"), survey, **{**given, **options}, quiet=True)


@pytest.fixture(scope="module")
def made(survey):
    return trained(survey, baseline="logistic", precision="float32")


@pytest.fixture
def saved(made, tmp_path):
    return made.save(tmp_path / "model")


def answers(model, survey):
    return predict(model, survey.fold("test"), quiet=True)


def same(a, b) -> bool:
    """Equal to the last bit, NaN included."""
    assert a.names == b.names
    return all(np.array_equal(a.column(n), b.column(n), equal_nan=a.column(n).dtype.kind == "f") for n in a.names)


def reseal(folder: Path, **changes) -> None:
    """Change keys of model.json and set the checksums right again, as a forger would."""
    data = json.loads((folder / "model.json").read_text())
    for key, value in changes.items():
        data[key] = {**data[key], **value} if isinstance(value, dict) else value
    write_json(folder / "model.json", data)
    seal(folder)


def seal(folder: Path) -> None:
    sums = json.loads((folder / "checksums.json").read_text())
    write_json(folder / "checksums.json", {n: sha256(folder / n) for n in sums})


# -- round trip -------------------------------------------------------------------------------------------------
def test_saved_and_loaded_the_bytes_and_the_answers_are_the_same(made, saved, survey, tmp_path):
    again = load(saved.path).save(tmp_path / "again")
    files = sorted(p.relative_to(saved.path) for p in saved.path.rglob("*") if p.is_file())
    assert {Path("model.json"), Path("weights.safetensors"), Path("baseline/model.json")} < set(files)
    for name in files:
        assert (saved.path / name).read_bytes() == (again.path / name).read_bytes(), name
    assert same(answers(load(again.path), survey), answers(made, survey))
    assert load(saved.path).task == made.task and load(saved.path).contract == made.contract
    assert same(answers(load(saved.path).baseline, survey), answers(made.baseline, survey))


def test_a_run_and_its_openings_go_along_with_a_copy(survey, tmp_path):
    first = trained(survey, to=tmp_path / "first")
    write_json(first.path / "openings.json", {"test": 3})
    copy = load(first.path).save(tmp_path / "copy")
    assert (copy.path / "run.json").read_bytes() == (first.path / "run.json").read_bytes()
    assert json.loads((copy.path / "openings.json").read_text()) == {"test": 3}


def test_the_hash_follows_all_that_decides_an_answer_and_not_the_path(made, saved, tmp_path):
    shutil.move(saved.path, tmp_path / "elsewhere")
    moved = load(tmp_path / "elsewhere")
    assert moved.hash == made.hash
    calibrated = replace(moved, calibration={**moved.calibration, "log_t": moved.calibration["log_t"] + 0.1})
    domain = replace(moved, domain=replace(moved.domain, scale=moved.domain.scale * 2))
    told = replace(moved, contract=replace(moved.contract, dtype="bfloat16"))
    with torch.no_grad():
        next(moved.module.head.parameters())[0, 0] += 1e-6
    hashes = {made.hash, moved.hash, calibrated.hash, domain.hash, told.hash}
    assert len(hashes) == 5


@pytest.mark.parametrize("task", [tasks.Classify("shape", weights="balanced"), tasks.Regress(("e", "width"))],
                         ids=["classify", "regress"])  # fmt: skip
@pytest.mark.parametrize("family", FAMILIES)
def test_classical_models_round_trip(survey, family, task, tmp_path):
    quick = {"trees": 5, "iterations": 5, "rounds": 5}
    settings = {"features": "shape", **{k: v for k, v in quick.items() if k in baselines.settings(family)}}
    model = train(task, survey, network=family, settings=settings, to=tmp_path / "model", quiet=True)
    back = load(tmp_path / "model")
    assert back.hash == model.hash and back.network == replace(model.network, settings=back.network.settings)
    assert same(answers(back, survey), answers(model, survey))


def test_arrays_that_share_memory_are_saved_and_come_back(survey, tmp_path):
    class Tied(Named):
        def __init__(self):
            super().__init__()
            self.twin = self.layers[0]

    model = trained(survey, network=Tied(), to=tmp_path / "model")
    back = load(tmp_path / "model", network=Tied())
    assert same(answers(back, survey), answers(model, survey))


# -- what is refused --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["weights.safetensors", "model.json", "calibration.safetensors", "CARD.md",
                                  "seen.safetensors", "baseline/checksums.json"])  # fmt: skip
def test_an_altered_or_missing_file_is_refused_by_name(saved, name):
    file = saved.path / name
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"changed after the model was saved|not a JSON file") as error:
        load(saved.path)
    assert name in str(error.value)
    file.unlink()
    with pytest.raises(InputError, match="changed after|no such file"):
        load(saved.path)


def test_a_file_that_no_checksum_covers_does_not_count(saved):
    sums = json.loads((saved.path / "checksums.json").read_text())
    del sums["domain.safetensors"]
    write_json(saved.path / "checksums.json", sums)
    assert load(saved.path).domain is None
    del sums["weights.safetensors"]
    write_json(saved.path / "checksums.json", sums)
    with pytest.raises(InputError, match="changed after"):
        load(saved.path)
    sums["../secret"] = "0" * 64
    write_json(saved.path / "checksums.json", sums)
    with pytest.raises(InputError, match="changed after"):
        load(saved.path)


def test_a_newer_format_is_refused_before_anything_else(saved):
    reseal(saved.path, format=99)
    (saved.path / "weights.safetensors").unlink()  # what a newer one holds is not ours to say
    with pytest.raises(InputError, match="written by a newer deepsky") as error:
        load(saved.path)
    assert "pip install --upgrade" in str(error.value)


def test_an_unfinished_folder_says_so(saved, tmp_path):
    (saved.path / "checksums.json").unlink()
    with pytest.raises(InputError, match="not finished"):
        load(saved.path)
    with pytest.raises(InputError, match="not a model"):
        load(tmp_path)
    write_json(tmp_path / "run" / "run.json", {})
    with pytest.raises(InputError, match="not finished"):
        load(tmp_path / "run")


def test_nan_weights_are_neither_saved_nor_loaded(made, saved, tmp_path):
    file = saved.path / "weights.safetensors"
    state = load_file(file)
    state["head.bias"][0] = float("nan")
    save_file(state, file)
    seal(saved.path)
    with pytest.raises(InputError, match="NaN in a saved array") as error:
        load(saved.path)
    assert "head.bias" in str(error.value)
    wrong = replace(made, calibration={"log_t": np.array([np.nan])})
    with pytest.raises(InputError, match="not finite"):
        wrong.save(tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


def test_weights_of_another_network_are_refused(saved):
    reseal(saved.path, network={"settings": {"width": 8}})
    with pytest.raises(InputError, match="weights do not fit"):
        load(saved.path)


def test_names_that_stand_twice_are_refused(saved, tmp_path):
    text = (saved.path / "model.json").read_text()
    (saved.path / "model.json").write_text(text.replace('"format": 1', '"format": 1, "format": 1'))
    seal(saved.path)
    with pytest.raises(InputError, match="'format' stands twice"):
        load(saved.path)
    (saved.path / "model.json").write_text(text)
    # safetensors itself takes the last of two arrays of one name
    header = json.dumps({"log_t": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}})
    header = header[:-1] + ", " + header[1:]
    data = len(header).to_bytes(8, "little") + header.encode() + np.zeros(1).tobytes()
    (saved.path / "calibration.safetensors").write_bytes(data)
    seal(saved.path)
    with pytest.raises(InputError, match="twice|cannot be read"):
        load(saved.path)


@pytest.mark.parametrize("changes", [{"contract": 3}, {"network": {"surprise": 1}}, {"normalise": {"x": 1}},
                                     {"provenance": 5}, {"task": {"classes": 3}}])  # fmt: skip
def test_a_config_that_describes_nothing_is_an_error_in_words(saved, changes):
    reseal(saved.path, **changes)
    with pytest.raises(InputError):
        load(saved.path)


# -- nothing is executed ------------------------------------------------------------------------------------------
@pytest.fixture
def trap(tmp_path):
    """A file that leaves a mark if it is ever run."""
    file, mark = tmp_path / "trap.py", tmp_path / "mark"
    file.write_text(
        f'"""A trap."""\nimport pathlib\npathlib.Path({str(mark)!r}).touch()\n'
        "from tests.test_model import Named\n\ndef build(channels, size):\n    return Named()\n"
    )
    return file, mark


@pytest.mark.parametrize("name", ["os:system", "builtins.eval", "tests.test_model:Named", "subprocess", "nosuchthing"])
def test_a_config_that_names_something_importable_is_refused(saved, name):
    reseal(saved.path, network={"name": name, "settings": {}})
    with pytest.raises(InputError, match="a network that deepsky does not have"):
        load(saved.path)


def test_a_file_that_a_config_names_is_not_run(made, saved, trap, survey, tmp_path):
    file, mark = trap
    reseal(saved.path, network={"name": str(file), "settings": {}})
    with pytest.raises(InputError, match="a file of its own") as error:
        load(saved.path)
    assert "--trust" in str(error.value)
    reseal(saved.path, network={"name": made.network.name}, task={"task": str(file)})
    with pytest.raises(InputError, match="known by its name"):
        load(saved.path)
    classical = made.baseline.save(tmp_path / "classical")
    predictor = {**made.baseline.network.settings["predictor"], "name": str(file)}
    reseal(classical.path, network={"settings": {"predictor": predictor}})
    with pytest.raises(InputError, match="a family that deepsky does not have"):
        load(classical.path)
    assert not mark.exists()


def test_a_network_of_the_users_own_loads_only_from_what_the_user_gives(survey, tmp_path):
    model = trained(survey, network=Named(), to=tmp_path / "model")
    with pytest.raises(InputError, match="not one of deepsky's") as error:
        load(tmp_path / "model")
    assert "tests.test_model:Named" in str(error.value) and "--trust" in str(error.value)
    given = load(tmp_path / "model", network=Named())
    trusted = ds.load(tmp_path / "model", trust="tests.test_model:Named")
    assert given.hash == trusted.hash == model.hash
    assert same(answers(given, survey), answers(model, survey))
    assert same(answers(trusted, survey), answers(model, survey))
    for trust in ("tests.test_model:Nobody", "no.such.module:X", "tests.test_model", "collections:OrderedDict"):
        with pytest.raises(InputError, match="trusted"):
            load(tmp_path / "model", trust=trust)
    with pytest.raises(InputError, match="how many features"):
        load(tmp_path / "model", network=nn.Linear(3, 6))
    other = Named()
    other.layers[0] = nn.Conv2d(2, 6, 3, 3)
    with pytest.raises(InputError, match="weights do not fit"):
        load(tmp_path / "model", network=other)


def test_a_network_from_a_file_loads_with_trust_in_that_file(survey, trap, tmp_path):
    file, mark = trap
    model = trained(survey, network=str(file), settings={}, to=tmp_path / "model")
    mark.unlink(missing_ok=True)
    with pytest.raises(InputError, match="a file of its own"):
        load(tmp_path / "model")
    assert not mark.exists()
    assert same(answers(load(tmp_path / "model", trust=str(file)), survey), answers(model, survey))


# -- the folder -----------------------------------------------------------------------------------------------------
def test_a_folder_with_something_else_is_refused_before_any_training(survey, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for network in ("mlp", "logistic"):
        with pytest.raises(InputError, match="holds something else") as error:
            trained(survey, network=network, settings={}, to=tmp_path)
        assert "thesis.tex" in str(error.value)
    with pytest.raises(InputError, match="a file stands"):
        trained(survey, to=tmp_path / "thesis.tex")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_a_killed_writer_left_does_not_stop_the_saving(made, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / ".tmp-123-abc").write_bytes(b"half a file")
    check_folder(folder)
    made.save(folder)
    assert not list(folder.glob(".tmp-*")) and isinstance(load(folder), Model)


def test_saving_anew_leaves_nothing_of_the_old_model(made, saved):
    bare = replace(made, domain=None, baseline=None).save(saved.path)
    back = load(bare.path)
    assert back.domain is None and back.baseline is None
    assert not (saved.path / "baseline").exists() and not (saved.path / "domain.safetensors").exists()


def test_the_card_says_what_the_model_is_and_is_not_for(saved):
    words = (saved.path / "CARD.md").read_text()
    for part in (saved.hash, "a simulation", "g, r", '24 x 24 pixels, 0.2" a pixel', "is not for", "- long: 0."):
        assert part in words, part


def test_card_and_prediction_say_where_there_is_no_training_domain(made, survey):
    def notes(model):
        return predict(model, survey.fold("test"), quiet=True).provenance["unchecked"]

    assert "marks them" in card(made) and not any("in_domain" in n for n in notes(made))
    few = np.flatnonzero(survey.column("fold") == "valid")[:39]
    rest = np.flatnonzero(survey.column("fold") != "valid")
    blind = trained(survey.select(np.concatenate([few, rest]), "few"))
    assert blind.domain is None
    assert "nothing marks them, and the column `in_domain` is empty" in card(blind)
    assert any(n.startswith("in_domain: empty") for n in notes(blind))


# -- several views of one image ---------------------------------------------------------------------------------------
def regressed(survey, views, **options):
    task = tasks.Regress(("e", "offset", "width"), components=2, moves="scalar")
    given = {"network": "convnet", "settings": {"width": 4}, "steps": 6, "batch": 32, "baseline": None}
    return train(task, survey, **{**given, **options}, views=views, precision="float32", quiet=True)


@pytest.mark.parametrize("views", [4, 8])
def test_pooled_answers_turn_as_the_image_does(survey, views, tmp_path):
    """Whatever the network learnt: a turned image has the turned answer, a plain network's has not."""
    alone = regressed(survey, 1)
    made = replace(alone, views=views)
    sample = survey.gather(np.arange(7))
    plain = replace(sample, truth={})
    for element in dihedral.VIEWS[views]:
        turn = np.full(7, element)
        e, offset = (dihedral.turn_of(turn).matrix(spin).numpy() for spin in (2, 1))
        for model, exact in ((made, True), (alone, element == 0)):
            before, after = (
                model.answer(model.outputs(s)[0], np.zeros(7)) for s in (plain, dihedral.view(plain, turn))
            )
            close = [
                np.allclose(np.einsum("nij,nj->ni", matrix, np.stack([before[n] for n in names], 1)),
                            np.stack([after[n] for n in names], 1), atol=2e-5)
                for matrix, names in ((e, ("e1", "e2")), (offset, ("offset_x", "offset_y")))
            ]  # fmt: skip
            assert all(close) if exact else not any(close)
            if exact:
                np.testing.assert_allclose(before["width"], after["width"], atol=2e-5)
    again = load(made.save(tmp_path / "model").path)
    assert again.views == views and again.hash == made.hash != alone.hash
    assert f"views of an image, averaged | {views}" in (tmp_path / "model" / "CARD.md").read_text()


def test_the_pool_is_the_mixture_of_what_each_view_says(survey):
    made = regressed(survey, 4)
    sample = replace(survey.gather(np.arange(5)), truth={})
    head, task = made.module.head, made.task
    z = torch.randn(5, 5)
    each = []
    for element in range(4):
        outputs = replace(made, views=1).outputs(dihedral.view(sample, np.full(5, element)))[0]
        y = z * torch.tensor(task.scale) + torch.tensor(task.centre)  # turned as the image was
        pairs = [torch.einsum("ij,nj->ni", dihedral.turn_of(np.array([element])).matrix(s)[0].float(), y[:, at])
                 for s, at in ((2, [0, 1]), (1, [2, 3]))]  # fmt: skip
        turned = (torch.cat([*pairs, y[:, 4:]], 1) - torch.tensor(task.centre)) / torch.tensor(task.scale)
        each.append(head.log_prob(outputs, turned, None, None, torch.Generator()))
    pooled = head.log_prob(made.outputs(sample)[0], z, None, None, torch.Generator())
    # swapped components of a vector change their scale with them: the density of z is that of y over the same volume
    torch.testing.assert_close(pooled, torch.logsumexp(torch.stack(each), 0) - np.log(4), rtol=1e-4, atol=1e-3)


def test_classes_are_those_of_the_mean_logits(survey):
    made = trained(survey, views=8, precision="float32")
    sample = survey.gather(np.arange(6))
    logits = [replace(made, views=1).outputs(dihedral.view(sample, np.full(6, e)))[0] for e in range(8)]
    torch.testing.assert_close(made.outputs(sample)[0], torch.stack(logits).mean(0))
    turned = made.outputs(dihedral.view(sample, np.arange(6)))[0]
    torch.testing.assert_close(made.outputs(sample)[0], turned, rtol=1e-4, atol=1e-5)


VIEWLESS = {
    "3 views": (lambda s: trained(s, views=3), "1, 4, 8"),
    "classical": (lambda s: trained(s, views=4, network="logistic", settings={}), "sees each image once"),
    "flow": (lambda s: train(tasks.Regress("e", density="flow"), s, views=4, quiet=True), "density"),
    "log": (lambda s: train(tasks.Regress("e", limits=("e1", -1, 1)), s, views=4, quiet=True), "between limits"),
    "undeclared": (lambda s: train(tasks.Regress("size"), s, views=4, quiet=True), "nothing says how"),
    "no target": (lambda s: train(Masked(), s, views=4, quiet=True), "no target"),
}


@pytest.mark.parametrize("case", VIEWLESS)
def test_what_cannot_be_averaged_over_views_is_refused_before_training(survey, case):
    call, words = VIEWLESS[case]
    sized = survey.with_columns({"size": survey.column("width")}, {"size": Column(role="label", moves="fixed")})
    with pytest.raises(InputError, match=words):
        call(sized)


def test_images_that_are_not_square_have_one_view(tmp_path):
    sample = made_up.blobs(200)
    image = sample.observations["image"]
    narrow = replace(sample, observations={"image": replace(image, flux=image.flux[..., :20])})
    survey = store.write([narrow], tmp_path / "narrow", name="narrow")
    with pytest.raises(InputError, match="only square images"):
        trained(survey, views=4)


@pytest.mark.parametrize("network", ["dihedral:resnet", "equivariant", "asymmetry:dihedral:resnet"])
@pytest.mark.parametrize("target", ["e", "offset", "size"])
def test_an_invariant_network_is_not_asked_what_turns(survey, network, target):
    """It could answer the mean alone, and nothing but the figures would tell."""
    sized = survey.with_columns({"size": survey.column("width")}, {"size": Column(role="label", moves="fixed")})
    with pytest.raises(InputError, match=f"keyword {target}: .*turns? with the image"):
        train(tasks.Regress(target), sized, network=network, steps=2, baseline=None, quiet=True)
