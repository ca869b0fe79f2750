"""How objects come to be again in another process. A backbone is its file, read once a process; packed weights that are kept are mapped,
so that processes of one machine share their memory."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from . import _melo
from ._errors import BackboneError


@lru_cache(maxsize=4)
def backbone(source: Path, precision: Any, threads: int, weights_key: str | None, digest: str) -> _melo.Backbone:
    loaded = _melo.Backbone.load(source, precision=precision, threads=threads, weights_key=weights_key)
    if loaded.digest != digest:
        raise BackboneError(f"{source}: its weights are others than those that were pickled", "Changed", {"path": str(source)})
    return loaded


def plugin(data: bytes, backbone: _melo.Backbone) -> _melo.Plugin:
    return _melo.Plugin.from_bytes(data, backbone)
