"""The contract: a survey that does not fit a model is refused, with what differs and the command that mends it."""

import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests import made_up

from deepsky import store, tasks
from deepsky.contract import Contract, psf_fwhm, reordered
from deepsky.errors import ContractError
from deepsky.inference import predict
from deepsky.ingestion import ingest
from deepsky.sample import Image, Row
from deepsky.survey import Survey
from deepsky.training import train


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    return made_up.survey(tmp_path_factory.mktemp("contract") / "blobs", n=260)


@pytest.fixture(scope="module")
def model(survey, tmp_path_factory):
    return train(tasks.Classify("shape"), survey, network="convnet", settings={"width": 4}, steps=8, batch=32,
                 baseline=None, to=tmp_path_factory.mktemp("contract") / "a model", quiet=True)  # fmt: skip


def schema_of(survey: Survey, **changes) -> Survey:
    """The survey as if its image had another schema; nothing is read."""
    image = replace(survey.schema.observations["image"], **changes)
    return replace(survey, schema=replace(survey.schema, observations={"image": image}))


def made(path: Path, name: str, **changes) -> Survey:
    """Blobs whose image differs in some way, written as a survey of their own."""
    sample = made_up.blobs(60, **changes.pop("options", {}))
    image = replace(sample.observations["image"], **changes)
    return store.write([replace(sample, observations={"image": image})], path / name, name=name)


def test_what_a_model_was_trained_on_fits(model, survey):
    assert model.contract.check(survey) is None
    words = model.contract.doubts(survey.fold("test"))
    assert words == ("filters of g, r: compared by name only",)
    assert predict(model, survey.fold("test"), quiet=True).provenance["unchecked"][:1] == list(words)


# -- bands --------------------------------------------------------------------------------------------------------
def test_missing_bands_are_named(model, tmp_path):
    other = made(tmp_path, "gi", options={"bands": ("g", "i")})
    with pytest.raises(ContractError, match="bands are missing") as error:
        predict(model, other, quiet=True)
    words = str(error.value)
    assert "keyword r:" in words and "found: g, i" in words and "expected: g, r" in words


def test_bands_that_differ_by_capitals_alone_ask_whether_they_are_the_same(model, tmp_path):
    with pytest.raises(ContractError, match="bands are missing") as error:
        predict(model, made(tmp_path, "GR", options={"bands": ("G", "R")}), quiet=True)
    assert "if these are the same filters: deepsky ingest SOURCE --bands g,r" in str(error.value)


def test_bands_in_another_order_or_more_of_them_give_the_same_answers(model, tmp_path):
    sample = made_up.blobs(40)
    image = sample.observations["image"]
    flux = torch.stack([torch.full_like(image.flux[:, 0], 7.0), image.flux[:, 1], image.flux[:, 0]], 1)
    scale = torch.tensor([5.0, 1.0, 1.0]).view(1, 3, 1, 1)
    mixed = replace(image, flux=flux, ivar=image.ivar[:, :1] * scale, bands=("z", "r", "g"))
    plain = store.write([sample], tmp_path / "plain")
    other = store.write([replace(sample, observations={"image": mixed})], tmp_path / "other")
    assert other.schema.observations["image"].bands == ("z", "r", "g")
    a, b = predict(model, plain, quiet=True), predict(model, other, quiet=True)
    for name in a.names:
        np.testing.assert_array_equal(a.column(name), b.column(name), err_msg=name)


@pytest.mark.parametrize("ivar", [(3, 6, 6), (3, 1, 1), (1, 1, 1), (1, 6, 6)])
def test_reordering_takes_ivar_and_psf_along_whatever_their_shape(ivar):
    sample = made_up.blobs(5, size=6, bands=("a", "b", "c"))
    image = sample.observations["image"]
    weight = torch.arange(5.0 * np.prod(ivar)).reshape(5, *ivar)
    psf = torch.arange(5.0 * 3 * 4).reshape(5, 3, 2, 2)
    given = replace(sample, observations={"image": replace(image, ivar=weight, psf=psf)})
    found = reordered(given, "image", (2, 0)).observations["image"]
    assert isinstance(found, Image) and found.bands == ("c", "a")
    assert torch.equal(found.flux, image.flux[:, [2, 0]]) and torch.equal(found.psf, psf[:, [2, 0]])
    whole = weight.expand(image.flux.shape)
    assert torch.equal(found.ivar.expand(found.flux.shape), whole[:, [2, 0]])


# -- what a command mends -------------------------------------------------------------------------------------------
CASES = {
    "scale": (
        lambda p: made(p, "s", pixel_scale=torch.full((60,), 0.4)),
        "another pixel scale",
        '0.4"',
        '0.2" (within 2%)',
    ),
    "size": (lambda p: made(p, "s", options={"size": 31}), "another size", "31 x 31 pixels", "24 x 24 pixels"),
    "unit": (lambda p: made(p, "s", unit="uJy"), "another unit", "uJy", "nJy"),
}


@pytest.mark.parametrize("case", CASES)
def test_form_is_refused_with_the_command_that_mends_it(model, case, tmp_path):
    build, problem, found, expected = CASES[case]
    other = build(tmp_path)
    with pytest.raises(ContractError, match=re.escape(problem)) as error:
        predict(model, other, quiet=True)
    words = str(error.value)
    assert f"found: {found}" in words and f"expected: {expected}" in words
    command = shlex.split(re.search(r"fix: (deepsky ingest .*)", words).group(1))
    assert command == ["deepsky", "ingest", str(other.path), "--like", str(model.path), "--to", "NEW"]


@pytest.mark.slow
def test_the_command_in_the_message_mends_all_of_it(model, tmp_path):
    """Half the pixel scale, more pixels, another unit and order, and one band too many: one command, word for word."""
    sample = made_up.blobs(40)
    image = sample.observations["image"]
    fine = image.flux.repeat_interleave(2, -1).repeat_interleave(2, -2) / 4 / 1000
    three = torch.cat([fine[:, :1] * 0 + 1, fine.flip(1)], 1)
    weight = image.ivar.repeat(1, 2, 1, 1)[:, :3] * 4e6
    wide = torch.nn.functional.pad(three, (4, 4, 4, 4))
    scale = torch.full((40,), 0.1)
    image = replace(image, flux=wide, ivar=weight, bands=("z", "r", "g"), unit="uJy", pixel_scale=scale)
    other = store.write([replace(sample, observations={"image": image})], tmp_path / "other", name="other")
    with pytest.raises(ContractError) as error:
        predict(model, other, quiet=True)
    words = str(error.value)
    assert "another unit, images of another size, another pixel scale" in words
    command = shlex.split(re.search(r"fix: (deepsky ingest .*)", words).group(1))
    new = tmp_path / "new"
    run = [sys.executable, "-c", "from deepsky.cli import main; main()", *command[1:-1], str(new), "--workers", "0"]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    mended = Survey.load(new)
    assert mended.schema.observations["image"].bands == ("g", "r") and len(mended) == 40
    plain = store.write([sample], tmp_path / "plain")
    where = {name: i for i, name in enumerate(plain.id)}
    at = [where[i] for i in mended.id]
    torch.testing.assert_close(
        mended.gather(slice(None)).observations["image"].flux, plain.gather(at).observations["image"].flux,
        rtol=1e-4, atol=1e-4,
    )  # fmt: skip
    a, b = predict(model, mended, quiet=True), predict(model, plain, quiet=True)
    assert a.column("id").tolist() == [b.column("id")[i] for i in at]
    # bfloat16 may round the other way
    np.testing.assert_allclose(a.column("p_long"), b.column("p_long")[at], atol=0.05)


def test_like_works_as_a_call_of_the_library_too(model, tmp_path):
    other = made(tmp_path, "size", options={"size": 30})
    mended = ingest(other.path, tmp_path / "new", like=model.path, workers=0, quiet=True)
    assert model.contract.check(mended) is None


def test_scales_that_vary_from_object_to_object_are_all_looked_at(model, tmp_path):
    good = made(tmp_path, "good", pixel_scale=torch.linspace(0.199, 0.201, 60))
    assert good.schema.observations["image"].pixel_scale is None or good.schema.observations["image"].pixel_scale > 0
    assert model.contract.check(good) is None
    bad = made(tmp_path, "bad", pixel_scale=torch.linspace(0.2, 0.3, 60))
    with pytest.raises(ContractError, match="another pixel scale") as error:
        model.contract.check(bad)
    assert '0.2" to 0.3"' in str(error.value)


# -- what nothing mends ---------------------------------------------------------------------------------------------
def test_another_filter_of_the_same_name_is_refused(model, survey):
    sdss = replace(model.contract, schema=replace(model.contract.schema, filters=("SLOAN/SDSS.g", "SLOAN/SDSS.r")))
    des = schema_of(survey, filters=("CTIO/DECam.g", "SLOAN/SDSS.r"))
    with pytest.raises(ContractError, match="the same name for another filter") as error:
        sdss.check(des)
    words = str(error.value)
    assert "keyword g" in words and "CTIO/DECam.g" in words and "SLOAN/SDSS.g" in words
    assert sdss.doubts(schema_of(survey, filters=("SLOAN/SDSS.g", ""))) == ("filters of r: compared by name only",)
    # the filters go along with the bands, whatever their order
    turned = schema_of(survey, bands=("r", "g"), filters=("SLOAN/SDSS.r", "SLOAN/SDSS.g"))
    assert sdss.check(turned) == (1, 0) and not sdss.doubts(turned)


def test_bands_are_one_by_their_filter_whatever_they_are_called(model, survey):
    ids = ("Paranal/OmegaCAM.g_SDSS", "Paranal/OmegaCAM.r_SDSS")
    called_by_id = replace(model.contract, schema=replace(model.contract.schema, bands=ids))
    turned = schema_of(survey, bands=("r", "g"), filters=ids[::-1])
    assert called_by_id.check(turned) == (1, 0) and not called_by_id.doubts(turned)
    short = replace(model.contract, schema=replace(model.contract.schema, filters=ids))
    assert short.check(schema_of(survey, bands=ids)) is None and not short.doubts(schema_of(survey, bands=ids))
    for other in ({"filters": ("CTIO/DECam.g", "CTIO/DECam.r")}, {}):  # a bare name does not say which filter it is
        with pytest.raises(ContractError, match="bands are missing"):
            called_by_id.check(schema_of(survey, **other))


def test_another_quantity_is_refused_and_an_unknown_one_asks_for_its_unit(model, survey):
    physical = replace(model.contract, schema=replace(model.contract.schema, quantity="f_nu", unit="nJy"))
    with pytest.raises(ContractError, match="another quantity") as error:
        physical.check(schema_of(survey, quantity="f_lambda", unit="erg / (s cm2 Angstrom)"))
    assert "no factor turns" in str(error.value)
    with pytest.raises(ContractError, match="another quantity") as error:
        physical.check(schema_of(survey, quantity="relative", unit=""))
    assert "--unit nJy" in str(error.value)
    with pytest.raises(ContractError, match="another unit") as error:
        physical.check(schema_of(survey, quantity="f_nu", unit=""))
    assert "--unit nJy" in str(error.value) and "--like" not in str(error.value)


def test_units_of_one_meaning_fit(model, survey):
    for mine, here in (("nJy", "1e-9 Jy"), ("100 nJy", "0.1 uJy"), ("", "")):
        contract = replace(model.contract, schema=replace(model.contract.schema, unit=mine))
        assert contract.check(schema_of(survey, unit=here)) is None
    with pytest.raises(ContractError, match="another unit"):
        replace(model.contract, schema=replace(model.contract.schema, unit="nJy")).check(
            schema_of(survey, unit="10 nJy")
        )


def test_noise_that_is_not_known_is_a_doubt_and_no_error(model, survey):
    here = schema_of(survey, noise="unknown")
    assert model.contract.check(here) is None
    assert any(d.startswith("noise") for d in model.contract.doubts(here))


def test_another_depth_or_seeing_than_in_training_is_a_doubt(tmp_path):
    def survey(name: str, noise: float = 1.0, width: float = 1.0, n: int = 200) -> Survey:
        sample = made_up.blobs(n, size=12)
        image = sample.observations["image"]
        seeing = np.linspace(2.5, 3.5, n) * width
        psf = np.stack([profile(21, 0.0, lambda r, f=f: np.exp(-4 * np.log(2) * (r / f) ** 2)) for f in seeing])
        both = torch.from_numpy(psf).float()[:, None].expand(-1, 2, -1, -1)
        factor = torch.tensor([1.0, noise])[:, None, None]  # of r alone
        image = replace(image, flux=image.flux * factor, ivar=image.ivar / factor**2, psf=both)
        return store.write([replace(sample, observations={"image": image})], tmp_path / name, name=name)

    here = survey("here")
    contract = Contract.of(here, "image", here.gather(slice(None)), "float32")

    def told(other: Survey) -> list[str]:
        return [d.partition(":")[0] for d in contract.doubts(other)[1:]]  # the first is of the filters' names

    assert told(here) == told(here.select(np.arange(60, 140), "some")) == told(survey("alike", noise=1.02)) == []
    assert told(survey("bright", noise=100.0)) == told(survey("deep", noise=0.1)) == ["sky noise of r"]
    assert told(survey("blurred", width=1.6)) == ["PSF FWHM of g", "PSF FWHM of r"]
    assert "50 nJy here (median), 0.5 to 0.5 nJy in training" in contract.doubts(survey("again", noise=100.0))[1]
    assert told(here.select(np.zeros(0, np.int64), "none")) == []


def test_rows_are_held_against_names_and_units():
    row = Row(torch.ones(50, 3), torch.ones(50, 3), names=("mag", "size", "n"), units=("mag", "arcsec", ""))
    blobs = made_up.blobs(50)

    def survey(path, **changes):
        return store.write([replace(blobs, observations={"row": replace(row, **changes)})], path)

    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        first = survey(Path(folder) / "a")
        contract = Contract.of(first, "row", first.gather(slice(None)), "float32")
        assert contract.check(first) is None and contract.size == ()
        turned = survey(Path(folder) / "b", names=("n", "mag", "size"), units=("", "mag", "arcsec"))
        assert contract.check(turned) == (1, 2, 0)
        with pytest.raises(ContractError, match="another unit") as error:
            contract.check(survey(Path(folder) / "c", units=("mag", "arcmin", "")))
        assert "keyword size" in str(error.value) and "arcmin" in str(error.value)
        with pytest.raises(ContractError, match="columns are missing"):
            contract.check(survey(Path(folder) / "d", names=("mag", "size", "sersic")))
        with pytest.raises(ContractError, match="no such observation"):
            contract.check(made(Path(folder), "images"))


def test_a_contract_is_rebuilt_from_its_json(model):
    import json

    again = Contract.from_json(json.loads(json.dumps(model.contract.json())))
    assert again == model.contract
    assert again.depth["g"] == pytest.approx((made_up.SIGMA,) * 3)


@pytest.mark.parametrize("shape", [(2, 24, 24), (2, 1, 1), (1, 1, 1), (1, 24, 24)])
def test_the_depth_is_that_of_the_measured_pixels_however_ivar_is_stored(shape, tmp_path):
    sample = made_up.blobs(100)
    image = sample.observations["image"]
    ivar = torch.full((100, *shape), 0.25)
    ivar[:50] = 4.0
    ivar[3] = 0
    if shape[-1] > 1:
        ivar[:, :, :9] = 0
    given = replace(image, ivar=ivar.expand(image.flux.shape).clone() if shape == (1, 24, 24) else ivar)
    survey = store.write([replace(sample, observations={"image": given})], tmp_path / "survey")
    depth = Contract.of(survey, "image", survey.gather(slice(None)), "float32").depth
    assert depth == {"g": pytest.approx((0.5, 2.0, 2.0)), "r": pytest.approx((0.5, 2.0, 2.0))}


# -- the PSF --------------------------------------------------------------------------------------------------------
def image_with(psf: np.ndarray, scale: float) -> Image:
    n = len(psf)
    return Image(torch.zeros(n, 1, 4, 4), torch.ones(n, 1, 1, 1), bands=("r",), pixel_scale=torch.full((n,), scale),
                 psf=torch.from_numpy(psf[:, None]).float())  # fmt: skip


def profile(size: int, centre: float, shape) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    made = shape(np.hypot(y - centre, x + 0.7 * centre))
    return made / made.sum()


@pytest.mark.parametrize("size", [24, 31])
@pytest.mark.parametrize("fwhm", [2.2, 3.0, 5.5, 9.0])
@pytest.mark.parametrize("kind", ["gaussian", "moffat 2.5", "moffat 4.765"])
def test_the_width_of_a_psf_is_that_of_its_formula(kind, fwhm, size):
    def shape(r):
        if kind == "gaussian":
            return np.exp(-4 * np.log(2) * (r / fwhm) ** 2)
        beta = float(kind.split()[1])  # Trujillo+2001, eq. 6
        alpha = fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))
        return (1 + (r / alpha) ** 2) ** -beta

    psf = np.stack([profile(size, c, shape) for c in (0.0, 0.25, -0.5)])
    found = psf_fwhm(image_with(psf, 0.27))
    # a profile sampled below its own resolution does not tell its peak
    np.testing.assert_allclose(found[:, 0], fwhm * 0.27, rtol=0.02 if fwhm >= 3 or kind == "gaussian" else 0.09)


def test_a_psf_without_light_has_no_width():
    psf = np.zeros((2, 9, 9))
    psf[1] = profile(9, 0.0, lambda r: np.exp(-(r**2) / 2))
    found = psf_fwhm(image_with(psf, 1.0))[:, 0]
    assert np.isnan(found[0]) and found[1] == pytest.approx(2.3548, rel=0.02)


def test_the_contract_states_the_range_of_the_seeing(tmp_path):
    sample = made_up.blobs(200, size=12, bands=("r",))
    seeing = np.linspace(2.5, 4.0, 200)
    psf = np.stack([profile(15, 0.0, lambda r, f=f: np.exp(-4 * np.log(2) * (r / f) ** 2)) for f in seeing])
    image = replace(sample.observations["image"], psf=torch.from_numpy(psf[:, None]).float())
    survey = store.write([replace(sample, observations={"image": image})], tmp_path / "survey")
    low, middle, high = Contract.of(survey, "image", survey.gather(slice(None)), "float32").psf_fwhm["r"]
    expected = np.quantile(seeing, [0.01, 0.5, 0.99]) * 0.2
    np.testing.assert_allclose([low, middle, high], expected, rtol=0.02)
