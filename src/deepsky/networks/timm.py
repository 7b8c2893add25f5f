"""Networks of timm by name, as ``timm:convnext_atto``, pretrained or not.

Cost and number of parameters are those of the model (3.4 M and 90 MFLOP at 4x64x64 for ``convnext_atto``). Frozen, with
a linear head, such a network is the first thing to try on a few hundred labels.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from deepsky.errors import InputError, need
from deepsky.networks import _blocks, _pretrained


def build(
    channels: int,
    size: tuple[int, int],
    *,
    variant: str = "convnext_atto",
    pretrained: bool = True,
    frozen: bool = False,
) -> nn.Module:
    """The model called `variant`, its first convolution adapted to `channels` by timm.

    Parameters
    ----------
    variant : a model of ``timm.list_models()``, with or without the tag of its weights.
    pretrained : start from its weights.
    frozen : its weights do not move: a fixed description of the images.

    Raises
    ------
    MissingExtra : timm is not installed.
    InputError : no such model, or images that it cannot take.
    """
    _blocks.check_image(channels, size)
    timm = _timm()
    if not timm.is_model(variant.partition(".")[0]):
        raise InputError("timm has no such model", found=variant, fix=_near(timm, variant))
    given: dict[str, Any] = {"pretrained": pretrained, "in_chans": channels, "num_classes": 0}
    settings = {"variant": variant, "pretrained": False, "frozen": frozen}
    licensed = licence(variant) if pretrained else ""
    reason: Exception | None = None
    for sized in ({}, {"img_size": size}):  # transformers are made for one size, convolutions refuse to be told one
        try:
            network = timm.create_model(variant, **given, **sized)
            made = _pretrained.Pretrained(network, channels, size, frozen=frozen, settings=settings, licence=licensed)
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            reason = reason or error
        else:
            if licensed:
                _pretrained.show(variant, licensed)
            return made
    raise InputError("this model cannot be made for such images", found=f"{variant}: {reason}",
                     expected=f"{channels} channels of {size[0]} x {size[1]} pixels") from reason  # fmt: skip


def licence(variant: str) -> str:
    """Licence of the weights called `variant`, as timm states it, or where to look when it does not."""
    found = _timm().get_pretrained_cfg(variant)
    stated = found.license if found is not None else None
    where = f"https://huggingface.co/{found.hf_hub_id}" if found is not None and found.hf_hub_id else "the docs of timm"
    return str(stated) if stated else f"not stated; see {where}"


def _timm() -> Any:
    _pretrained.guard_torchvision()
    return need("timm", "timm")


def _near(timm: Any, variant: str) -> str:
    family = variant.partition("_")[0].partition(".")[0]
    near = ", ".join(timm.list_models(f"{family}*")[:8])
    return f"names that begin alike: {near or '(none)'}; all: timm.list_models()"
