"""Features and family as one module: from images to the outputs of a task."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from deepsky.baselines import ClassicalPredictor, extract, families, fit_baseline, fit_on_features, names
from deepsky.errors import ContractError, InputError

QUICK: dict[str, dict[str, Any]] = {
    "random-forest": {"trees": 20, "jobs": 1},
    "extra-trees": {"trees": 20, "jobs": 1},
    "gradient-boosting": {"rounds": 15, "rate": 0.2, "leaves": 4},
    "svm": {"c": 1.0},
    "logistic": {"c": 0.1},
}
g = torch.Generator().manual_seed(0)
SIZE = 2.0 + 2.0 * torch.rand(240, generator=g)  # sigma of a round Gaussian [pixel]
y, x = torch.meshgrid(torch.arange(24) - 11.5, torch.arange(24) - 11.5, indexing="ij")
FLUX = 15 * torch.exp(-(x**2 + y**2) / (2 * SIZE[:, None, None, None] ** 2)) * torch.tensor([1.0, 0.7])[:, None, None]
FLUX = FLUX + torch.randn(240, 2, 24, 24, generator=g)
IVAR = torch.ones(240, 2, 1, 1)
LARGE = (SIZE > 3).long()
TRAIN, TEST = slice(0, 160), slice(160, 240)


@pytest.mark.parametrize("components", [0, 5])
@pytest.mark.parametrize("name", families())
def test_a_family_on_images(name: str, components: int) -> None:
    chosen = QUICK.get(name, {})
    made = fit_baseline(name, "colour+shape", FLUX[TRAIN], IVAR[TRAIN], LARGE[TRAIN], kind="classes",
                        components=components, seed=2, **chosen)  # fmt: skip
    output = made(FLUX[TEST], IVAR[TEST])
    assert output.shape == (80, 2)
    right = (output.argmax(1) == LARGE[TEST]).float().mean()
    assert right > (0.4 if name == "constant" else 0.8)
    assert made.features(FLUX[TEST], IVAR[TEST]).shape == (80, components or made.width)
    assert made.width == len(names("colour+shape", (2, 24, 24)))

    again = ClassicalPredictor.from_config(json.loads(json.dumps(made.config())))
    again.load_state_dict(load(save(made.state_dict())), strict=True)
    assert torch.equal(again(FLUX[TEST], IVAR[TEST]), output)
    assert all(torch.isfinite(v).all() for v in made.state_dict().values())


def test_values_from_images() -> None:
    made = fit_baseline("gradient-boosting", "shape", FLUX[TRAIN], IVAR[TRAIN], SIZE[TRAIN], kind="values", rounds=60)
    value, log_sigma = made(FLUX[TEST], IVAR[TEST]).T
    assert (value - SIZE[TEST]).std() < 0.5 * SIZE[TEST].std()
    assert log_sigma.exp()[0] == pytest.approx(float((value - SIZE[TEST]).square().mean().sqrt()), rel=0.35)


def test_batch_by_batch_is_the_same_as_at_once() -> None:
    at_once = fit_baseline("logistic", "colour", FLUX[TRAIN], IVAR[TRAIN], LARGE[TRAIN], kind="classes", c=0.1)
    found = torch.cat([extract("colour", FLUX[i : i + 50], IVAR[i : i + 50]) for i in (0, 50, 100)])[:160]
    found = torch.cat([found, extract("colour", FLUX[150:160], IVAR[150:160])])
    made = fit_on_features("logistic", "colour", found, LARGE[TRAIN], shape=(2, 24, 24), kind="classes", c=0.1)
    torch.testing.assert_close(made(FLUX[TEST], IVAR[TEST]), at_once(FLUX[TEST], IVAR[TEST]), rtol=1e-4, atol=1e-4)


def test_a_missing_band_and_rubbish_under_the_mask() -> None:
    made = fit_baseline("random-forest", "colour+shape", FLUX[TRAIN], IVAR[TRAIN], LARGE[TRAIN], kind="classes",
                        trees=20, jobs=1)  # fmt: skip
    ivar = IVAR[TEST].clone()
    ivar[:, 1] = 0
    flux = FLUX[TEST].clone()
    output = made(flux, ivar)
    flux[:, 1] = torch.nan
    assert torch.equal(made(flux, ivar), output)
    assert torch.isfinite(made.features(flux, ivar)).all()
    assert (output.argmax(1) == LARGE[TEST]).float().mean() > 0.7


def test_rows() -> None:
    rows = torch.stack([SIZE, torch.randn(240, generator=g)], 1)
    ivar = torch.ones_like(rows)
    ivar[::5, 1] = 0
    made = fit_baseline("svm", "row", rows[TRAIN], ivar[TRAIN], LARGE[TRAIN], kind="classes", c=1.0)
    assert (made(rows[TEST], ivar[TEST]).argmax(1) == LARGE[TEST]).float().mean() > 0.9


def test_observations_of_another_shape_are_refused() -> None:
    made = fit_baseline("constant", "pixels", FLUX[TRAIN], IVAR[TRAIN], LARGE[TRAIN], kind="classes")
    with pytest.raises(ContractError, match="another shape"):
        made(FLUX[TEST, :, :20, :20], IVAR[TEST])
    with pytest.raises(InputError, match="no such feature"):
        fit_baseline("constant", "pixel", FLUX, IVAR, LARGE, kind="classes")


def test_components_are_the_principal_ones() -> None:
    made = fit_baseline("constant", "pixels", FLUX[TRAIN], IVAR[TRAIN], LARGE[TRAIN], kind="classes", components=4)
    seen: Tensor = made.features(FLUX[TRAIN], IVAR[TRAIN])
    found = extract("pixels", FLUX[TRAIN], IVAR[TRAIN])
    z = ((found - found.mean(0)) / found.std(0, correction=0)).numpy()
    expected = np.linalg.svd(z, compute_uv=False)[:4] ** 2 / len(z)
    np.testing.assert_allclose(seen.var(0, correction=0), expected, rtol=1e-3)
    covariance = torch.cov(seen.T)
    assert (covariance - covariance.diag().diag()).abs().max() < 1e-3 * covariance.max()
