"""What the checks of demonstrations have before them: the columns of all episodes, read once, and what could not be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from heedful.data.episodes import LANGUAGE, Episodes
from heedful.errors import HeedfulError

Array = NDArray[Any]
Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. frame: the first of `frames` in a row; columns: the columns or cameras concerned."""

    check: str
    severity: Severity
    message: str
    episode: int | None = None
    frame: int | None = None
    frames: int = 1
    columns: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**self.__dict__, "columns": list(self.columns)}

    def text(self) -> str:
        """One line."""
        where = [] if self.episode is None else [f"episode {self.episode}"]
        if self.frame is not None:
            last = f" to {self.frame + self.frames - 1}" if self.frames > 1 else ""
            where.append(f"frame{'s' if last else ''} {self.frame}{last}")
        return f"{self.severity}: {self.check}: {', '.join(where)}{': ' if where else ''}{self.message}"


@dataclass
class Survey:
    """What the checks have seen of a data set so far: low-dimensional columns of all episodes, by episode."""

    episodes: Episodes
    columns: dict[int, dict[str, Array]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    said: set[tuple[int, str, int]] = field(default_factory=set)
    """(episode, camera, frame) of pictures that a finding names as lost or damaged: each is named once."""

    def each(self, name: str) -> Iterable[tuple[int, Array]]:
        """(episode, values) of one column."""
        return ((i, columns[name]) for i, columns in self.columns.items() if name in columns)

    def all(self, name: str) -> Array:
        """One column of all episodes, (frames, D)."""
        parts = [values.reshape(len(values), -1) for _, values in self.each(name)]
        return np.concatenate(parts) if parts else np.zeros((0, 1))


def survey(episodes: Episodes) -> Survey:
    """Read the columns of all episodes, and what is said in them; those that cannot be read are findings."""
    found = Survey(episodes)
    for i in range(len(episodes)):
        try:
            names = episodes.info.columns
            episodes.episode(i)
        except HeedfulError as error:
            found.findings.append(Finding("unreadable", "error", str(error), i))
            continue
        columns: dict[str, Array] = {}
        # A file that is damaged as a whole is one finding, not one for each of its columns.
        wrong: dict[str, tuple[HeedfulError, list[str]]] = {}
        for name in (*names, *(n for n in LANGUAGE if n in episodes.info.features)):
            try:
                if name in LANGUAGE:
                    _listen(episodes, i, name)
                else:
                    columns[name] = episodes.columns(i, [name])[name]
            except HeedfulError as error:
                wrong.setdefault(str(error), (error, []))[1].append(name)
        found.findings += [
            Finding("unreadable", "error", told, i, getattr(error, "frame", None), columns=tuple(concerned))
            for told, (error, concerned) in wrong.items()
        ]
        found.columns[i] = columns
    return found


def _listen(episodes: Episodes, i: int, name: str) -> None:
    """Read a language column: by itself where the layout can, so that one that is damaged does not hide the other."""
    spoken: Any = getattr(episodes, "spoken", None)
    if spoken:
        spoken(i, name)
    else:
        episodes.language(i)
