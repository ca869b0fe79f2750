"""What is raised, with the facts of each error as attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class MeloError(Exception):
    """Any refusal of melo.

    ``kind`` names the cause (``"BackboneMismatch"``, ``"Unreadable"``); what else is known of it are attributes
    (``path``, ``line``, ``setting``, ``expected``, ``found``, ``broken``), all of them in ``facts``.
    """

    kind: str
    facts: Mapping[str, Any]

    def __init__(self, message: str, kind: str = "", facts: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.facts = dict(facts or {})

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["facts"][name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} of kind {self.__dict__.get('kind')!r} has no {name!r}") from None

    def __reduce__(self) -> tuple[type[MeloError], tuple[str, str, Mapping[str, Any]]]:
        return type(self), (str(self), self.kind, self.facts)


class BackboneError(MeloError):
    """Weights that cannot be read, or are no backbone."""


class PluginError(MeloError):
    """A plug-in that is damaged, belongs to another backbone, or cannot be exchanged."""


class ImageError(MeloError, ValueError):
    """An image, or an array, that cannot be read."""


class DataError(MeloError, ValueError):
    """Labelled images that contradict themselves, or cannot be read."""


class SettingError(MeloError, ValueError):
    """A setting outside its range, or of another method."""


class TrainingError(MeloError):
    """A training that cannot go on."""


class InternalError(MeloError):
    """A defect of melo itself."""


class MeloWarning(UserWarning):
    """Something about data or figures that a person should know."""
