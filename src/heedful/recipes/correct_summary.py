"""What came out of `heedful correct run`: stages and successes, and how often somebody had to step in."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from heedful.atomic import write_file
from heedful.data.corrections import ACCEPTED, LOST, CorrectionLog, recorded
from heedful.data.episodes import open_episodes
from heedful.errors import HeedfulError
from heedful.recipes.correct_eval import measures

NAME = "summary.json"


def write_summary(folder: Path) -> dict[str, Any]:
    """Write the summary of a folder of `correct run`, and return it."""
    found = summary(folder)
    write_file(folder / NAME, (json.dumps(found, indent=1) + "\n").encode())
    return found


def summary(folder: Path) -> dict[str, Any]:
    """episodes; success and stages as `correct_eval.measures`; corrections per episode and by what became of them.

    Of the saved episodes alone; `lost` counts rows of others. Raises HeedfulError where the folder has no such data.
    """
    from heedful.evals.intervals import bootstrap

    log = CorrectionLog(folder / "corrections.jsonl")
    episodes = open_episodes(folder)
    metas = [dict(episodes.episode(i).meta) for i in range(len(episodes))]
    if any("corrected_by" not in meta for meta in metas):
        raise HeedfulError(f"{folder} was not recorded by `heedful correct run`")
    rows = recorded(log.rows(), len(metas))
    per_episode = Counter(row.episode for row in rows if row.status == ACCEPTED)
    found: dict[str, Any] = {
        "episodes": len(metas),
        "frames": episodes.info.total_frames,
        "said": dict(Counter(row.status for row in rows)),
        "lost": len(log.rows(status=LOST)),
    }
    if metas:
        counted = bootstrap([float(per_episode[i]) for i in range(len(metas))])
        found["corrections_per_episode"] = {
            "estimate": counted.estimate, "interval": counted.bounds(), "n": len(metas)
        }  # fmt: skip
        found |= measures([_outcome(meta) for meta in metas])
    return found


def _outcome(meta: dict[str, Any]) -> dict[str, Any]:
    stages = zip(meta.get("stage_name") or (), meta.get("stage_done") or (), strict=True)
    return {"success": bool(meta["is_episode_successful"]), "stages": dict(stages)}


def text(found: dict[str, Any]) -> str:
    """The summary for a terminal."""
    said = ", ".join(f"{count} {status}" for status, count in sorted(found["said"].items())) or "nothing"
    lines = [f"{found['episodes']} episodes, {found['frames']} frames; said: {said}"]
    if found["lost"]:
        lines.append(f"{found['lost']} lines belong to episodes that were never saved")
    for name, value in found.items():
        if isinstance(value, dict) and "estimate" in value:
            shares = name != "corrections_per_episode"
            shown = [_number(v, shares) for v in (value["estimate"], *(value["interval"] or ()))]
            range_ = f"  ({shown[1]} to {shown[2]})" if len(shown) == 3 else ""
            lines.append(f"  {name.replace('_', ' '):<26} {shown[0]:>6}{range_}")
    return "\n".join(lines)


def _number(value: float, is_share: bool) -> str:
    return f"{value:.1%}" if is_share else f"{value:.2f}"
