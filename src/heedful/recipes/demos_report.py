"""What `heedful demos info` says of a data set, in words and as a page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from heedful.atomic import write_file
from heedful.data.episodes import Episodes, outcome
from heedful.data.episodes.copy import feature_table
from heedful.data.episodes.diversity import Diversity, histogram, only_here
from heedful.evals.intervals import Interval, bootstrap, share
from heedful.report import write_report

MOST = 40
SAMPLES = 2000
"""Bootstrap samples: enough for two digits, and of the 76,000 episodes of DROID still done in a minute."""


def facts_of(episodes: Episodes, found: Diversity) -> dict[str, Any]:
    """The numbers, for the terminal and for JSON."""
    frames = episodes.info.total_frames
    if frames < 0:
        frames = sum(episodes.episode(i).length for i in range(len(episodes)))
    facts: dict[str, Any] = {
        "data": str(episodes.path),
        "layout": episodes.layout,
        "episodes": len(episodes),
        "frames": frames,
        "hours": round(frames / episodes.info.fps / 3600, 3),
        "fps": episodes.info.fps,
        "robot": episodes.info.robot_type or "not said",
        "cameras": list(episodes.info.cameras),
        "instructions": len(found.instructions),
        "verbs": len(found.verbs),
        "objects": len(found.objects),
        "scenes": len(found.scenes),
        "scenes after those that look the same are joined": found.distinct_scenes,
        "viewpoints": found.viewpoints,
        "first contacts": len(found.contacts),
    }
    outcomes = [outcome(episodes.episode(i)) for i in range(len(episodes))]
    if any(told is not None for told in outcomes):
        facts["successes"] = sum(told is True for told in outcomes)
    facts["intervals"] = {
        name: [round(value.estimate, 4), *(round(v, 4) for v in value.bounds() or ())]
        for name, value in intervals(found, outcomes).items()
    }
    if found.problems:
        facts["not counted"] = found.problems
    return facts


def intervals(found: Diversity, outcomes: Sequence[bool | None]) -> dict[str, Interval]:
    """Shares of episodes and spreads in metres with their 95% bootstrap intervals, the episode being the unit.

    Numbers of different things have none: resampled episodes never show what the episodes do not.
    """
    shares = {"share of successes": [float("nan") if told is None else float(told) for told in outcomes]}
    for name, labels in found.labels.items():
        shares[f"share with one of the {name} that no other episode has"] = only_here(labels)
    told = {n: share(v, samples=SAMPLES) for n, v in shares.items() if not np.isnan(v).all()}
    if len(found.contacts) > 1:
        for k, axis in enumerate("xyz"):
            name = f"spread of the first contacts in {axis}, metres"
            told[name] = bootstrap(found.contacts[:, k], statistic=np.std, samples=SAMPLES)
    return told


def write_page(folder: Path, episodes: Episodes, found: Diversity, facts: dict[str, Any]) -> Path:
    """Write report.html of the data set's variety into `folder` and return its path."""
    plain = {n: v for n, v in facts.items() if n not in ("not counted", "intervals")}
    curves: list[dict[str, Any]] = []
    for name, counter in (("Verbs", found.verbs), ("Objects", found.objects)):
        if counter:
            top = counter.most_common(MOST)
            note = ", ".join(f"{word} {count}" for word, count in top[:12])
            curves.append(
                {
                    "title": f"{name}, most common first",
                    "bars": [c for _, c in top],
                    "x": "instructions",
                    "note": note,
                }
            )
    grown = {name: points for name, points in found.growth.items() if points and points[-1][1]}
    if grown:
        note = "a line that still climbs: more episodes would bring more"
        curves.append({"title": "Different ones seen", "x": "episodes", "lines": grown, "note": note})
    if found.viewpoint_growth:
        curves.append(
            {
                "title": "Different viewpoints seen, by camera",
                "x": "episodes",
                "lines": found.viewpoint_growth,
                "note": "poses that differ by a centimetre or two degrees; a flat line: the camera was not moved",
            }
        )
    if len(found.contacts) > 1:
        lines = {axis: histogram(found.contacts[:, k]) for k, axis in enumerate("xyz")}
        curves.append(
            {"title": "Where the gripper first closes", "x": "metres", "lines": lines, "note": "episodes"}
        )
    joined = [(scene, same) for scene, same in found.scenes.items() if scene != same]
    tables = [
        {
            "title": "Columns",
            "columns": ["column", "dtype", "shape"],
            "rows": feature_table(episodes.info.features),
            "text": True,
        },
        {
            "title": "Verb and object",
            "columns": ["verb", "object", "instructions"],
            "rows": [(v, o, n) for (v, o), n in found.pairs.most_common(MOST) if v and o],
        },
    ]
    if facts["intervals"]:
        tables.append(
            {
                "title": "How far these may differ by chance: 95% bootstrap intervals over episodes",
                "columns": ["measure", "estimate", "low", "high"],
                "rows": [(n, *(*v, "", "")[:3]) for n, v in facts["intervals"].items()],
            }
        )
    if joined:
        tables.append(
            {"title": "Scenes that look the same", "columns": ["scene", "is"], "rows": joined, "text": True}
        )
    summary = [
        f"{facts['episodes']:,} episodes, {facts['frames']:,} frames, {facts['hours']:g} hours at {facts['fps']:g} Hz.",
        f"{facts['verbs']} verbs, {facts['objects']} objects, {found.distinct_scenes} scenes.",
    ]
    told = {
        "title": f"Demonstrations: {episodes.path.name}",
        "job": "demos info",
        "summary": summary,
        "curves": curves,
        "tables": tables,
        "data": plain | {"cameras": ", ".join(facts["cameras"]), "viewpoints": str(facts["viewpoints"])},
        "warnings": found.problems[:20],
        "limits": [
            "Verbs and objects are read by rules; unusual sentences are read wrongly.",
            "Scenes are joined by the look of their background, which other light or objects can hide.",
            "Numbers of different things are what these episodes show; what none of them shows is not counted.",
        ],
    }
    write_file(folder / "report.json", json.dumps(told, ensure_ascii=False).encode("utf-8", "replace"))
    return write_report(folder)
