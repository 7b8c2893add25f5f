"""What single networks promise beyond the contract."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from deepsky.errors import InputError
from deepsky.networks import _blocks, asymmetry, convnet, convnext, dihedral, equivariant, mlp, resnet


@pytest.mark.parametrize("build", [dihedral.build, equivariant.build])
@pytest.mark.parametrize("pixels", [32, 45])
def test_invariant_to_turns_and_flips(build: Any, pixels: int) -> None:
    network = build(3, (pixels, pixels))
    x = torch.randn(3, 3, pixels, pixels)
    network.train()(x)
    network.eval()
    with torch.no_grad():
        plain = network(x)
        views = [torch.rot90(side, turns, (2, 3)) for side in (x, x.flip(2)) for turns in range(4)]
        turned = torch.stack([network(v) for v in views])
        shuffled = network(x.flatten(2)[:, :, torch.randperm(pixels**2)].reshape(x.shape))
    assert (turned - plain).abs().max() <= 1e-5 * plain.abs().max()
    assert (shuffled - plain).abs().max() > 1e-3 * plain.abs().max()  # it is not blind


def test_plain_resnet_is_not_invariant() -> None:
    network, x = resnet.build(1, (32, 32)).eval(), torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        assert (network(x.flip(3)) - network(x)).abs().max() > 1e-3


def test_dihedral_without_flips_knows_left_from_right() -> None:
    torch.manual_seed(0)
    network = dihedral.build(2, (32, 32), flips=False).eval()
    x = torch.randn(3, 2, 32, 32)
    views = [torch.rot90(x, turns, (2, 3)) for turns in range(4)]
    with torch.no_grad():
        mean = network(x)
        torch.testing.assert_close(mean, torch.stack([network.network(v) for v in views]).mean(0))
        for view in views:
            torch.testing.assert_close(network(view), mean)
        assert not torch.allclose(network(x.flip(3)), mean, atol=1e-3)


def test_asymmetry_shows_what_a_half_turn_changes() -> None:
    torch.manual_seed(0)
    network = asymmetry.build(2, (33, 33)).eval()
    at = torch.arange(33) - 16.0
    galaxy = torch.exp(-(at[:, None] ** 2 + 0.5 * at**2 + 0.3 * at[:, None] * at) / 50).expand(1, 2, 33, 33).clone()
    seen: list[torch.Tensor] = []
    network.network.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    companion = galaxy.clone()
    companion[..., 5, 9] += 1.0
    with torch.no_grad():
        network(galaxy), network(companion)
    assert seen[0].shape == (1, 4, 33, 33) and torch.equal(seen[0][:, :2], galaxy)
    torch.testing.assert_close(seen[0][:, 2:], torch.zeros(1, 2, 33, 33))
    left = seen[1][0, 2]
    assert left[5, 9] == pytest.approx(1) and left[27, 23] == pytest.approx(-1)
    assert (left.abs() > 1e-6).sum() == 2
    whole = dihedral.build(2, (32, 32), variant="asymmetry:resnet", settings={"settings": {"width": 16}}).eval()
    x = torch.randn(2, 2, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(whole(x), whole(torch.rot90(x, 1, (2, 3))), rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="cannot hold another"):
        asymmetry.build(2, (32, 32), variant="asymmetry:resnet")
    with pytest.raises(InputError, match="no such setting"):
        asymmetry.build(2, (32, 32), settings={"widht": 8})


def test_dihedral_takes_any_network_by_name() -> None:
    network = dihedral.build(2, (32, 32), variant="convnet:alexnet", settings={"width": 8})
    assert isinstance(network, dihedral.Dihedral)
    inside = convnet.build(2, (32, 32), variant="alexnet", width=8)
    assert network.features == inside.features
    assert _blocks.cost(network, 2, (32, 32))[0] == _blocks.cost(inside, 2, (32, 32))[0]
    with pytest.raises(InputError, match="no such setting"):
        dihedral.build(2, (32, 32), settings={"widht": 8})
    with pytest.raises(InputError, match="square"):
        dihedral.build(2, (32, 48))
    with pytest.raises(InputError, match="cannot hold another"):
        dihedral.build(2, (32, 32), variant="dihedral:resnet")


def test_lanusse_has_the_layers_of_the_paper() -> None:
    network = resnet.build(4, (101, 101), depth="lanusse")
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    stem = convolutions[0]
    blocks = [m for m in network.modules() if isinstance(m, resnet.Block)]
    assert (stem.kernel_size, stem.out_channels, stem.stride) == ((7, 7), 32, (1, 1))
    assert [b.path[-1].out_channels for b in blocks] == [w for w in (32, 64, 128, 256, 512) for _ in range(3)]
    assert sum(m.kernel_size == (3, 3) for m in convolutions) == 15
    assert len([m for m in convolutions if m.kernel_size == (1, 1)]) == 30 + 4  # two a block, four shortcuts
    assert {type(m) for m in network.modules()} >= {nn.ELU, nn.BatchNorm2d}
    assert _blocks.cost(network, 4, (101, 101))[1] == pytest.approx(1300, rel=0.1)  # MFLOP


@pytest.mark.parametrize(
    ("depth", "mflop", "parameters"), [("small", 53, 0.69), ("medium", 279, 2.8), ("lanusse", 469, 3.5)]
)
def test_resnet_table(depth: Any, mflop: float, parameters: float) -> None:
    found = _blocks.cost(resnet.build(4, (64, 64), depth=depth), 4, (64, 64))
    assert found == (pytest.approx(parameters * 1e6, rel=0.02), pytest.approx(mflop, rel=0.01))
    line = next(s for s in (resnet.__doc__ or "").splitlines() if s.startswith(depth))
    assert str(mflop) in line and f"{parameters} M" in line


def test_default_is_light() -> None:
    assert _blocks.cost(resnet.build(4, (64, 64)), 4, (64, 64))[1] <= 60


def test_images_need_not_be_square() -> None:
    for build in (resnet.build, convnet.build, convnext.build):
        network = build(2, (32, 48)).eval()
        assert network(torch.zeros(2, 2, 32, 48)).shape == (2, network.features)


def test_rows_and_flattened_images() -> None:
    row = mlp.build(10, ()).eval()
    assert row(torch.randn(3, 10)).shape == (3, row.features) == (3, 64)
    image = mlp.build(2, (5, 7), hidden=(8,)).eval()
    x = torch.randn(3, 2, 5, 7)
    assert torch.equal(image(x), image(x.flatten(1)))
    for bad in ({"hidden": ()}, {"hidden": (4, 0)}, {"dropout": 1.0}, {"activation": "swish"}):
        with pytest.raises(InputError):
            mlp.build(4, (), **bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", _blocks.ACTIVATIONS)
def test_every_activation_fits_every_family(name: str) -> None:
    x = torch.randn(2, 2, 16, 16)
    built = [b(2, (16, 16), activation=name) for b in (resnet.build, convnet.build, convnext.build, mlp.build)]  # type: ignore[operator]
    for network in [*built, resnet.build(2, (16, 16), depth="lanusse", stages=(1, 1), activation=name)]:
        assert network(x).shape == (2, network.features)


def test_activation_values() -> None:
    x = torch.linspace(-3, 3, 13)
    expected = {
        "relu": x.clamp(min=0), "leaky": torch.where(x > 0, x, 0.1 * x), "elu": torch.where(x > 0, x, x.exp() - 1),
        "tanh": (2 / (1 + (-2 * x).exp())) - 1, "sigmoid": 1 / (1 + (-x).exp()), "softplus": (1 + x.exp()).log(),
        "silu": x / (1 + (-x).exp()), "gelu": x * 0.5 * (1 + torch.erf(x / math.sqrt(2))), "identity": x,
    }  # fmt: skip
    assert set(expected) | {"maxout"} == set(_blocks.ACTIVATIONS)
    for name, value in expected.items():
        assert torch.allclose(_blocks.activation(name)(x), value, atol=1e-6), name
    pairs = torch.tensor([[1.0, 5.0, -2.0, -3.0]])
    assert _blocks.activation("maxout")(pairs).tolist() == [[5.0, -2.0]]
    with pytest.raises(InputError, match=r"unknown activation\n  found: rellu\n  known: relu"):
        _blocks.activation("rellu")


def test_initialisations() -> None:
    layer = nn.Linear(400, 300)
    spread = {"he": math.sqrt(2 / 400), "xavier": math.sqrt(2 / 700), "lecun": math.sqrt(1 / 400)}
    spread |= {"small": 1e-3, "large": 1.0, "truncated": 0.02}
    for name, sigma in spread.items():
        _blocks.initialise(layer, name)
        assert layer.weight.std().item() == pytest.approx(sigma, rel=0.02), name
        assert layer.bias.abs().max() == 0
    w = _blocks.initialise(nn.Linear(40, 40), "orthogonal").weight
    assert isinstance(w, torch.Tensor)
    assert torch.allclose(w @ w.T, torch.eye(40), atol=1e-5)
    with pytest.raises(InputError, match="unknown initialisation"):
        _blocks.initialise(layer, "hee")


def test_squeeze_excite_scales_channels() -> None:
    x = torch.randn(3, 8, 5, 5)
    y = _blocks.SqueezeExcite(8)(x)
    ratio = y / x
    assert torch.allclose(ratio, ratio[:, :, :1, :1].expand_as(x), atol=1e-5)
    assert ((ratio > 0) & (ratio < 1)).all()
    network = resnet.build(2, (16, 16), squeeze=True, norm="group", dropout=0.1, stages=(1, 1))
    assert network(torch.randn(1, 2, 16, 16)).shape == (1, network.features)


@pytest.mark.parametrize(
    "call",
    [
        lambda: resnet.build(1, (32, 32), depth="deep"),  # type: ignore[arg-type]
        lambda: resnet.build(1, (32, 32), width=7),
        lambda: resnet.build(1, (32, 32), norm="layer"),
        lambda: resnet.build(1, (32, 32), dropout=-1),
        lambda: convnet.build(1, (32, 32), variant="googlenet"),  # type: ignore[arg-type]
        lambda: convnet.build(1, (32, 32), width=3),
        lambda: convnet.build(1, (32, 32), dropout=2),
        lambda: convnext.build(1, (32, 32), kernel=4),
        lambda: convnext.build(1, (16, 16), stages=(1, 1, 1, 1)),
        lambda: equivariant.build(1, (32, 32), activation="maxout"),
        lambda: equivariant.build(1, (32, 40)),
    ],
)
def test_bad_settings_are_refused(call: Any) -> None:
    with pytest.raises(InputError):
        call()
