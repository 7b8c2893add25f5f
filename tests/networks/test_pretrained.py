"""Networks of other packages: freezing, channels, licences, rebuilding without the weights."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import made_up
from torch import nn

from deepsky.errors import InputError, MissingExtra
from deepsky.networks import _pretrained, hf, timm
from deepsky.tasks.classify import Classify
from deepsky.training import train

RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
VIT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "image_size": 32,
       "patch_size": 8}  # fmt: skip
needs_hf = pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
needs_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")


class Small(nn.Module):
    """A network of three colours with a parameter that serves nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.token = nn.Parameter(torch.zeros(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layers(x)
        return y


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_equal_channels_keep_the_response(channels: int) -> None:
    torch.manual_seed(1)
    network = Small().eval()
    x = torch.randn(2, 1, 16, 16)
    expected = network(x.expand(-1, 3, -1, -1))
    _pretrained.adapt(network, channels)
    assert torch.allclose(network(x.expand(-1, channels, -1, -1)), expected, atol=1e-6)


def test_nothing_to_adapt_is_said() -> None:
    with pytest.raises(InputError, match="no first convolution"):
        _pretrained.adapt(nn.Sequential(nn.Linear(3, 3)), 4)


def test_frozen_never_moves() -> None:
    network = _pretrained.Pretrained(Small(), 3, (16, 16), frozen=True, settings={}, licence="")
    head = nn.Linear(network.features, 1)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    network.train()
    loss = head(network(torch.randn(8, 3, 16, 16))).square().sum()
    loss.backward()
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())  # batch norm statistics included
    assert not [p for p in network.parameters() if p.requires_grad]
    assert head.weight.grad is not None
    free = _pretrained.Pretrained(Small(), 3, (16, 16), frozen=False, settings={}, licence="")
    assert [n for n, p in free.named_parameters() if not p.requires_grad] == ["network.token"]


def test_the_licence_of_the_weights_is_shown_and_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _pretrained.show("some/thing", "cc-by-nc-4.0")  # at a level that Python prints where nobody has set one
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("WARNING", "weights of some/thing: licence cc-by-nc-4.0")
    ]
    _pretrained.adapt(small := Small(), 2)
    network = _pretrained.Pretrained(
        small, 2, (24, 24), frozen=True, settings={"variant": "some/thing"}, licence="cc-by-nc-4.0"
    )
    survey = made_up.survey(tmp_path / "s", n=60)
    options = {"steps": 2, "batch": 16, "baseline": None, "quiet": True}
    model = train(Classify("shape"), survey, network=network, to=tmp_path / "model", **options)
    assert model.provenance["weights"] == "some/thing: licence cc-by-nc-4.0"
    assert (
        "| began with the weights of | some/thing: licence cc-by-nc-4.0 |" in (tmp_path / "model/CARD.md").read_text()
    )
    plain = train(Classify("shape"), survey, network="mlp", **options)
    assert "weights" not in plain.provenance


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, *_: object) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    for build, extra in ((hf.build, "hf"), (timm.build, "timm")):
        with pytest.raises(MissingExtra, match=rf"deepsky\[{extra}\]"):
            build(3, (32, 32))


@needs_hf
@pytest.mark.parametrize(
    "config",
    [
        RESNET,
        {"model_type": "vit", **VIT},
        {"model_type": "dinov2", **VIT},
        {"model_type": "convnextv2", "hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
    ],
)
def test_hf_rebuilds_from_its_settings(config: dict[str, Any]) -> None:
    network = hf.build(5, (45, 45), config=config).eval()
    again = hf.build(5, (45, 45), **network.settings).eval()  # type: ignore[arg-type]
    again.load_state_dict(network.state_dict())
    x = torch.randn(2, 5, 45, 45)
    assert torch.equal(network(x), again(x))


@needs_hf
def test_hf_folder_with_weights(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    original = AutoModel.from_config(AutoConfig.for_model(**RESNET)).eval()
    original.save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# weights\n")
    network = hf.build(3, (32, 32), variant=str(tmp_path), frozen=True)
    x = torch.randn(2, 3, 32, 32)
    assert torch.allclose(network(x), original(x).pooler_output.flatten(1), atol=1e-6)
    assert hf.licence(str(tmp_path)) == network.licence == "cc-by-4.0"
    other = hf.build(3, (32, 32), variant=str(tmp_path), pretrained=False)
    assert not torch.allclose(other(x), network(x))
    (tmp_path / "README.md").unlink()
    assert "not stated" in hf.licence(str(tmp_path))
    with pytest.raises(InputError, match="cannot be loaded"):
        hf.build(3, (32, 32), variant=str(tmp_path / "absent"))


@needs_timm
def test_timm_names_sizes_and_licence() -> None:
    network = timm.build(4, (48, 48), variant="vit_tiny_patch16_224", pretrained=False, frozen=True)
    assert network(torch.zeros(2, 4, 48, 48)).shape == (2, network.features)
    assert timm.licence("vit_tiny_patch16_224")
    with pytest.raises(InputError, match="no such model"):
        timm.build(4, (48, 48), variant="resnet_of_nobody", pretrained=False)
