"""The contract of every network in the folder, found by name: a new file is tested without being named here."""

from __future__ import annotations

import importlib.util
import re
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deepsky import registry
from deepsky.errors import InputError
from deepsky.networks import _blocks

# What a network of another package needs to be made small and without a download.
SETTINGS: dict[str, dict[str, Any]] = {
    "hf": {"config": {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}},
    "timm": {"variant": "resnet10t", "pretrained": False},
}
EXTRAS = {"hf": "transformers", "timm": "timm"}
NAMES = registry.names("networks")


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    package = EXTRAS.get(request.param)
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    return str(request.param)


def make(name: str, channels: int, size: tuple[int, ...], **more: Any) -> nn.Module:
    torch.manual_seed(7)
    module: nn.Module = registry.find("networks", name).build(channels, size, **SETTINGS.get(name, {}), **more)
    return module


def images(n: int, channels: int, pixels: int) -> Tensor:
    return torch.randn(n, channels, pixels, pixels, generator=torch.Generator().manual_seed(3))


def warmed(name: str, channels: int, pixels: int) -> nn.Module:
    """In evaluation, after a training pass, so that batch norms have something to remember."""
    network = make(name, channels, (pixels, pixels))
    network.train()(3 * images(4, channels, pixels) + 1)
    return network.eval()


@pytest.mark.parametrize(("channels", "pixels"), [(1, 16), (3, 32), (1, 45), (5, 64), (3, 101)])
def test_any_size_and_channels(name: str, channels: int, pixels: int) -> None:
    network = make(name, channels, (pixels, pixels)).eval()
    with torch.no_grad():
        features = network(images(2, channels, pixels))
    assert isinstance(network.features, int)
    assert features.shape == (2, network.features)
    assert features.isfinite().all()
    assert not torch.equal(features[0], features[1])


def test_every_parameter_has_a_gradient(name: str) -> None:
    network = make(name, 3, (32, 32)).train()
    with torch.no_grad():  # a scale that starts at zero hides what lies behind it
        for p in network.parameters():
            p.add_(0.1 * torch.randn(p.shape) if p.ndim == 1 else 0.0)
    seen = network(images(4, 3, 32))
    (seen * torch.randn(seen.shape)).sum().backward()
    without = [
        n for n, p in network.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.isfinite().all())
    ]
    assert not without
    # Biases and offsets before a norm have a gradient of zero by construction; weights must not.
    still = [n for n, p in network.named_parameters() if p.ndim > 1 and p.grad is not None and not p.grad.any()]
    assert not still


def test_batch_size_changes_nothing(name: str) -> None:
    network, x = warmed(name, 3, 32), images(5, 3, 32)
    with torch.no_grad():
        whole, single = network(x), torch.cat([network(x[i : i + 1]) for i in range(5)])
        other = network(torch.cat([100 * x[:2], x[2:]]))
    scale = whole.abs().max()
    assert (whole - single).abs().max() <= 1e-5 * scale
    assert (whole - other)[2:].abs().max() <= 1e-5 * scale


def test_channels_last_and_bf16_agree(name: str) -> None:
    network, x = warmed(name, 3, 32), images(4, 3, 32)
    with torch.no_grad():
        plain = network(x)
        last = network.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
        with torch.autocast("cpu", torch.bfloat16):
            half = network(x).float()
    assert torch.allclose(plain, last, rtol=1e-4, atol=1e-4 * float(plain.abs().max()))
    assert (plain - half).abs().max() < 0.05 * plain.abs().max()


def test_weights_travel(name: str) -> None:
    network, x = warmed(name, 3, 32), images(2, 3, 32)
    torch.manual_seed(99)
    again = registry.find("networks", name).build(3, (32, 32), **SETTINGS.get(name, {})).eval()
    with torch.no_grad():
        expected = network(x)
        assert not torch.equal(again(x), expected)
        again.load_state_dict(network.state_dict())
        assert torch.equal(again(x), expected)


def test_seed_decides_the_weights(name: str) -> None:
    first, second = (make(name, 3, (32, 32)).state_dict() for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_no_channel_is_refused(name: str) -> None:
    with pytest.raises(InputError):
        make(name, 0, (32, 32))


@pytest.mark.parametrize("name", [n for n in NAMES if n != "mlp"])
def test_small_images_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"too small.*\n.*found: 8 x 8\n.*16 x 16"):
        make(name, 2, (8, 8))


@pytest.mark.parametrize("name", [n for n in NAMES if n not in EXTRAS])
def test_docstring_states_the_cost(name: str) -> None:
    """Parameters and MFLOP at 4x64x64 in the module's docstring are those of its default."""
    network = make(name, 4, (64, 64))
    parameters, mflop = _blocks.cost(network, 4, (64, 64))
    if name == "dihedral":  # states its cost as a multiple of the network inside
        inside = _blocks.cost(make("resnet", 4, (64, 64)), 4, (64, 64))
        assert (parameters, mflop) == (inside[0], pytest.approx(8 * inside[1]))
        return
    text = sys.modules[f"deepsky.networks.{name}"].__doc__ or ""
    stated = [float(v) for v in re.findall(r"\d+(?:\.\d+)?", text)]
    assert any(v == pytest.approx(parameters / 1e6, rel=0.03) for v in stated), parameters
    assert any(v == pytest.approx(mflop, rel=0.03) for v in stated), mflop
