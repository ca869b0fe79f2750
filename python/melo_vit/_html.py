"""How objects show themselves in a notebook."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from . import _melo

#: Images whose answers are shown.
SHOWN = 20


def framed(page: str) -> str:
    """A page of its own inside a notebook's, so that neither's style reaches the other."""
    return f'<iframe srcdoc="{html.escape(page)}" style="width:100%;height:32rem;border:1px solid #8886"></iframe>'


def picture(pixels: NDArray[np.uint8], title: str) -> str:
    data = base64.b64encode(_melo.encode_png(pixels)).decode("ascii")
    title = html.escape(title)
    return f'<img alt="{title}" title="{title}" style="max-height:14rem;margin-right:.5rem" src="data:image/png;base64,{data}">'


def bars(said: _melo.Prediction) -> str:
    """Probabilities, the most probable first."""
    values = said.probabilities
    order = np.argsort(-values, kind="stable")[:8]
    share = said.kind not in ("regression",)
    rows = "".join(
        f"<tr><td>{html.escape(said.classes[place])}</td><td>{values[place]:.3f}</td>"
        + (f'<td><div style="background:#1c6fb5;height:.7rem;width:{max(float(values[place]), 0.0) * 10:.2f}rem"></div></td>' if share else "")
        + "</tr>"
        for place in order
    )
    return f"<table>{rows}</table>"


def prediction(said: _melo.Prediction) -> str:
    """The image, where the answer rests on it, and the probabilities."""
    pictures = ""
    pixels = said.pixels
    if pixels is not None:
        pictures = picture(pixels, said.image)
        if said.kind != "segmentation":
            pictures += picture(said.heatmap(), f"what {said.task} rests on")
    found = said.predicted if said.findings is None else ", ".join(said.findings) or "no finding"
    answer = f": <b>{html.escape(found)}</b>" if found else ""
    if said.set is not None and "classes" in said.set:
        members = ", ".join(said.set["classes"]) or "none"
        answer += f" <small>{100 * said.set['coverage']:g} % set: {html.escape(members)}</small>"
    if said.in_scope is False:
        answer += f" <b>not in scope</b> (score {said.scope_score:.2f}): do not rely on this"
    return f"<div>{html.escape(said.task)}{answer} <small>{html.escape(said.image)}</small><br>{pictures}{bars(said)}</div>"


def predictions(said: Sequence[tuple[_melo.Prediction, ...]]) -> str:
    shown = "".join(prediction(of_task) for of_image in said[:SHOWN] for of_task in of_image)
    rest = f"<p>and {len(said) - SHOWN} further images</p>" if len(said) > SHOWN else ""
    return shown + rest
