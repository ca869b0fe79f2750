"""What plug-ins said of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from . import _melo
from ._errors import SettingError
from ._html import predictions as page


class Predictions(Sequence[tuple[_melo.Prediction, ...]]):
    """What each plug-in said of each image, in order: ``predictions[image][plugin]``."""

    def __init__(self, tasks: list[str], said: list[list[_melo.Prediction]]) -> None:
        self.tasks = tasks
        self._said = [tuple(of_image) for of_image in said]

    def __len__(self) -> int:
        return len(self._said)

    @overload
    def __getitem__(self, index: int) -> tuple[_melo.Prediction, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[_melo.Prediction, ...]]: ...
    def __getitem__(self, index: int | slice) -> tuple[_melo.Prediction, ...] | list[tuple[_melo.Prediction, ...]]:
        return self._said[index]

    def of(self, task: str | int = 0) -> list[_melo.Prediction]:
        """What one plug-in said, by its place or its task's name."""
        place = self._place(task)
        return [of_image[place] for of_image in self._said]

    def _place(self, task: str | int) -> int:
        if isinstance(task, str):
            places = [place for place, name in enumerate(self.tasks) if name == task]
            if len(places) > 1:
                raise SettingError(f"task: {len(places)} plug-ins are called {task!r}; say which by its place", "Setting", {"setting": "task"})
        else:
            places = [task] if -len(self.tasks) <= task < len(self.tasks) else []
        if not places:
            raise SettingError(f"task: is {task!r}, expected one of {self.tasks}", "Setting", {"setting": "task"})
        return places[0]

    def probabilities(self, task: str | int = 0) -> NDArray[np.float32]:
        """Calibrated probabilities ``[n, classes]`` of one plug-in, or numbers."""
        rows = [said.probabilities for said in self.of(task)]
        return np.stack(rows) if rows else np.zeros((0, 0), np.float32)

    def predicted(self, task: str | int = 0) -> list[str | None]:
        """The class of each image under one plug-in."""
        return [said.predicted for said in self.of(task)]

    def records(self) -> list[dict[str, Any]]:
        """A dictionary an image and task, for a data frame."""
        records: list[dict[str, Any]] = []
        for said in (said for of_image in self._said for said in of_image):
            record: dict[str, Any] = {"image": said.image, "task": said.task, "predicted": said.predicted}
            if said.set is not None:
                record["set"] = next(members for name, members in said.set.items() if name not in ("coverage", "method"))
            if said.in_scope is not None:
                record |= {"in_scope": said.in_scope, "scope_score": said.scope_score}
            record |= {f"p_{name}": float(p) for name, p in zip(said.classes, said.probabilities, strict=True)}
            records.append(record)
        return records

    def __repr__(self) -> str:
        return f"<Predictions of {', '.join(self.tasks)} on {len(self)} images>"

    def _repr_html_(self) -> str:
        return page(self._said)
