"""Networks of Hugging Face transformers by name, as ``hf:microsoft/resnet-18`` or ``hf:FOLDER``, pretrained or not.

Cost and number of parameters are those of the model (11 M and 300 MFLOP at 4x64x64 for ``microsoft/resnet-18``).
Frozen, with a linear head, such a network is the first thing to try on a few hundred labels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from deepsky.errors import InputError, need
from deepsky.networks import _blocks, _pretrained


def build(
    channels: int,
    size: tuple[int, int],
    *,
    variant: str = "microsoft/resnet-18",
    pretrained: bool = True,
    frozen: bool = False,
    config: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The model called `variant`, its first convolution adapted to `channels`.

    Only safetensors are read, and no code that comes with a model is run.

    Parameters
    ----------
    variant : a name on the hub, or a folder with ``config.json`` and ``model.safetensors``.
    pretrained : start from its weights; else only its architecture is taken.
    frozen : its weights do not move: a fixed description of the images.
    config : the architecture itself, ``{"model_type": ..., ...}``; then nothing is loaded and `variant` is a mere name.

    Raises
    ------
    MissingExtra : transformers is not installed.
    InputError : no such model, weights that are not safetensors, images that it cannot take.
    """
    _blocks.check_image(channels, size)
    _pretrained.guard_torchvision()
    transformers = need("transformers", "hf")
    licensed = ""
    try:
        if config is not None:
            made = transformers.AutoConfig.for_model(**config)
            network = transformers.AutoModel.from_config(made)
        elif pretrained:
            network = transformers.AutoModel.from_pretrained(variant, use_safetensors=True, trust_remote_code=False)
            licensed = licence(variant)
        else:
            made = transformers.AutoConfig.from_pretrained(variant, trust_remote_code=False)
            network = transformers.AutoModel.from_config(made)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError("this model cannot be loaded", found=variant, expected="a name on huggingface.co or a folder",
                         fix=str(error).strip().partition("\n")[0]) from error  # fmt: skip
    described = json.loads(network.config.to_json_string())
    _pretrained.adapt(network, channels)
    if licensed:
        _pretrained.show(variant, licensed)
    settings = {"variant": variant, "pretrained": False, "frozen": frozen, "config": described}
    try:
        return _pretrained.Pretrained(
            network.float(), channels, size, frozen=frozen, settings=settings, licence=licensed
        )
    except (RuntimeError, ValueError, TypeError) as error:
        raise InputError("this model does not take such images", found=f"{channels} channels of {size}: {error}",
                         fix="take another model, or images of the size that it was made for") from error  # fmt: skip


def licence(variant: str) -> str:
    """Licence of the weights called `variant`, as their card states it, or where to look when that cannot be read."""
    card = need("huggingface_hub", "hf").ModelCard
    folder = Path(variant).expanduser()
    try:
        found = card.load(folder / "README.md" if folder.is_dir() else variant).data.get("license")
    except Exception:  # a card is free text from elsewhere, and the hub may be out of reach: neither stops a run
        found = None
    where = folder if folder.is_dir() else f"https://huggingface.co/{variant}"
    return str(found) if found else f"not stated; see {where}"
