"""How a training shows itself: a bar of tqdm, a live curve in a notebook, or nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

Told = Callable[[dict[str, Any]], object]


def observer(progress: bool | None, callback: Told | None) -> Told | None:
    """Whoever is told of a training's events; none where nobody is."""
    shows: list[Told] = []
    if callback is not None:
        shows.append(callback)
    if progress is not False:
        show = live_curve() if in_notebook() else (bar() if progress or sys.stderr.isatty() else None)
        if show is not None:
            shows.append(show)
    if not shows:
        return None

    def told(event: dict[str, Any]) -> None:
        for show in shows:
            show(event)

    return told


def in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def score(row: dict[str, Any]) -> tuple[str, float]:
    """What decides which epoch is the best."""
    for name in ("val_dice", "val_r2", "val_kappa", "val_auc_macro"):
        if row.get(name) is not None:
            return name, row[name]
    return "val_loss", row["val_loss"]


def bar() -> Told | None:
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    shown: dict[str, Any] = {}

    def told(event: dict[str, Any]) -> None:
        if event["event"] == "started":
            shown["epochs"] = event["epochs"]
            shown["bar"] = tqdm(total=event["epochs"] * event["images"], unit="image", initial=event["epochs_done"] * event["images"])
            shown["images"] = event["images"]
        elif event["event"] == "step":
            at = (event["epoch"] - 1) * shown["images"] + event["images"]
            shown["bar"].update(at - shown["bar"].n)
            shown["bar"].set_postfix(loss=f"{event['loss']:.3f}", **shown.get("best", {}))
        elif event["event"] == "epoch":
            name, value = score(event["row"])
            shown["best"] = {name: f"{value:.3f}"}
            if event["row"]["epoch"] == shown["epochs"]:
                shown["bar"].close()

    return told


def curve(rows: list[dict[str, Any]], status: str) -> str:
    """The epochs as a small chart in SVG."""
    width, height = 420, 160

    def path(values: list[float], low: float, high: float) -> str:
        step = (width - 20) / max(len(values) - 1, 1)
        span = (high - low) or 1.0
        points = (f"{10 + i * step:.1f},{height - 10 - (value - low) / span * (height - 20):.1f}" for i, value in enumerate(values))
        return " ".join(points)

    losses = [row["train_loss"] for row in rows]
    scores = [score(row)[1] for row in rows]
    name = score(rows[-1])[0] if rows else ""
    lines = "".join(
        f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{path(values, min(values), max(values))}"/>'
        for values, colour in ((losses, "#b5541c"), (scores, "#1c6fb5"))
        if values
    )
    said = f"{name} {scores[-1]:.3f}, loss {losses[-1]:.3f}; " if rows else ""
    svg = f'<svg width="{width}" height="{height}" role="img"><title>{name} and loss by epoch</title>{lines}</svg>'
    legend = '<span style="color:#1c6fb5">validation</span>, <span style="color:#b5541c">training loss</span>'
    return f"<div>{svg}<br><small>{legend}: {said}{status}</small></div>"


def live_curve() -> Told:
    shown: Any = import_module("IPython.display")
    rows: list[dict[str, Any]] = []
    handle: Any = shown.display(shown.HTML(curve(rows, "reading images")), display_id=True)

    def told(event: dict[str, Any]) -> None:
        if event["event"] == "epoch":
            rows.append(event["row"])
            if handle is not None:
                handle.update(shown.HTML(curve(rows, f"epoch {event['row']['epoch']}")))

    return told
