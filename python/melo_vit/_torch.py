"""A backbone as a module of timm."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from . import _melo
from ._errors import PluginError


def module(backbone: _melo.Backbone, plugin: _melo.Plugin | None = None) -> Any:
    """A timm model with a plug-in merged in, or with the backbone's own classifier, in evaluation mode."""
    try:
        import timm
    except ImportError as error:
        raise ImportError("to_torch needs timm: pip install 'melo-vit[torch]'") from error
    if plugin is not None and plugin.backbone.digest != backbone.digest:
        raise PluginError(f"{plugin.task} belongs to another backbone", "BackboneMismatch")
    with tempfile.TemporaryDirectory(prefix="melo-") as folder:
        (plugin or _melo.Plugin.own_classifier(backbone)).to_timm(folder)
        model = timm.create_model(f"local-dir:{Path(folder)}", pretrained=True)
    return model.eval()
