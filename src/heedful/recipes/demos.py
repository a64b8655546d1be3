"""`heedful demos check | info | trim | split | merge | convert | view`: options, and what the terminal shows.

The job is DROID's (Khazatsky et al. 2024, arXiv 2403.12945): to have demonstrations that can be trusted. All commands
read any layout that `heedful.data.episodes` knows; those that write make a LeRobotDataset v3 and go on where they were
stopped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedful.errors import HeedfulError
from heedful.recipes.demos_options import Check, Convert, Info, Merge, Split, Trim, View

if TYPE_CHECKING:
    from heedful.data.episodes import Episodes
    from heedful.data.episodes.copy import Piece

SHOWN = 40


def check(options: Check) -> int:
    """Run `heedful demos check`."""
    from heedful.data.episodes import lerobot, open_episodes
    from heedful.data.episodes.check import CHECKS, check_action, summary
    from heedful.data.episodes.check_pictures import PICTURE_CHECKS
    from heedful.data.episodes.check_survey import Finding, survey

    every = {**CHECKS, **PICTURE_CHECKS}
    unknown = [name for name in options.only if name not in every]
    said = {name: words for name, _, words in (entry.partition("=") for entry in options.documented)}
    if unknown:
        raise HeedfulError(f"there is no check {unknown[0]!r}; there are {', '.join(every)}")
    if not all(said.values()):
        raise HeedfulError("--documented is COLUMN=WORDS")
    place = Path(options.data).expanduser()
    # One damaged file of meta/episodes is a finding here; all else that opens a data set refuses it.
    lenient = lerobot.recognises(place)
    episodes = lerobot.open_folder(place, strict=False) if lenient else open_episodes(place)
    seen = survey(episodes)
    findings: list[Finding] = list(seen.findings)
    for name, run in every.items():
        if options.only and name not in options.only:
            continue
        if name == "frozen" and not (options.frames or options.only):
            continue
        try:
            findings += check_action(seen, said) if name == "action" else run(seen)
        except HeedfulError as error:
            findings.append(Finding(name, "error", f"this check could not be made: {error}"))
    rows = [finding.as_dict() for finding in findings]
    if options.out:
        from heedful.atomic import write_file

        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_file(Path(options.out), lines.encode())
    errors = sum(finding.severity == "error" for finding in findings)
    if options.json:
        print(json.dumps({"data": options.data, "errors": errors, "findings": rows}, ensure_ascii=False))
        return 1 if errors else 0
    print(f"{options.data}: {episodes.layout}, {len(episodes):,} episodes")
    for finding in sorted(findings, key=lambda f: ("error", "warning", "note").index(f.severity))[:SHOWN]:
        print("  " + one_line(finding.text()))
    if len(findings) > SHOWN:
        print(f"  and {len(findings) - SHOWN:,} more; --out FILE keeps them all")
    counts = ", ".join(f"{name} {count:,}" for name, count in summary(findings).most_common())
    print(f"{errors:,} errors, {len(findings) - errors:,} others{': ' if counts else ''}{counts}")
    return 1 if errors else 0


def one_line(words: str) -> str:
    """Text that others wrote, fit for a terminal: no control characters, one line."""
    return "".join(c if c.isprintable() else " " for c in words)


def info(options: Info) -> int:
    """Run `heedful demos info`."""
    from heedful.data.episodes import open_episodes
    from heedful.data.episodes.diversity import diversity
    from heedful.recipes.demos_report import facts_of, write_page

    episodes = open_episodes(options.data)
    found = diversity(episodes, pictures=options.pictures)
    facts = facts_of(episodes, found)
    if options.out:
        print(write_page(Path(options.out), episodes, found, facts), file=sys.stderr)
    if options.json:
        print(json.dumps(facts, ensure_ascii=False))
        return 0
    for name, (estimate, *ends) in facts.pop("intervals").items():
        facts[name] = f"{estimate:g}" + (" ({:g} to {:g})".format(*ends) if ends else "")
    for name, value in facts.items():
        told = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        print(one_line(f"{name}: {told if not isinstance(told, list) else '; '.join(map(str, told))}"))
    return 0


def trim(options: Trim) -> int:
    """Run `heedful demos trim`."""
    from heedful.data.episodes import open_episodes
    from heedful.data.episodes.copy import Piece
    from heedful.data.episodes.ranges import ranges_to_keep, read_ranges, write_ranges

    if not options.out and not options.ranges:
        raise HeedfulError("give --out for a new data set, or --ranges for a file of ranges")
    if min(options.min_idle, options.min_keep) < 1 or options.drop_last < 0:
        raise HeedfulError("--min-idle and --min-keep must be at least 1, --drop-last at least 0")
    episodes = open_episodes(options.data)
    if options.keep:
        kept = read_ranges(Path(options.keep), episodes)
    else:
        kept = ranges_to_keep(
            episodes,
            options.rule,
            options.threshold,
            options.signal,
            min_idle=options.min_idle,
            min_keep=options.min_keep,
            drop_last=options.drop_last,
        )
    if options.ranges:
        write_ranges(Path(options.ranges), kept, episodes)
    frames = sum(episodes.episode(i).length for i in kept)
    left = sum(b - a for ranges in kept.values() for a, b in ranges)
    empty = [i for i, ranges in kept.items() if not ranges]
    facts: dict[str, Any] = {"frames before": frames, "frames kept": left, "episodes without a range": empty}
    if options.out:
        pieces = []
        for i, ranges in kept.items():
            groups = [tuple(ranges)] if options.join else [(r,) for r in ranges]
            for group in groups if ranges else []:
                meta = {"source_episode": i, "source_start": group[0][0], "source_stop": group[-1][1]}
                pieces.append(Piece(0, i, group, meta))
        facts |= _write([episodes], pieces, Path(options.out), "trim", options)
    return _tell(facts, options.json)


def split(options: Split) -> int:
    """Run `heedful demos split`."""
    from heedful.data.episodes import open_episodes
    from heedful.data.episodes.copy import Piece

    shares = _shares(options.parts)
    episodes = open_episodes(options.data)
    facts: dict[str, Any] = {}
    for name, chosen in divide(episodes, shares, options.by, options.seed).items():
        if not chosen:
            raise HeedfulError(f"part {name!r} would have no episodes; there are {len(episodes)}")
        pieces = [Piece(0, i, None, {"source_episode": i}) for i in chosen]
        made = _write([episodes], pieces, Path(options.out) / name, f"split {name}", options)
        facts[name] = f"{len(chosen)} episodes, {made.get('frames', 0)} frames"
    return _tell(facts, options.json)


def _shares(parts: Sequence[str]) -> dict[str, float]:
    shares: dict[str, float] = {}
    for part in parts:
        name, _, share = part.partition("=")
        try:
            shares[name] = float(share)
        except ValueError:
            raise HeedfulError(f"--parts {part!r} must be NAME=SHARE, such as train=0.9") from None
        if not name or Path(name).name != name or shares[name] <= 0:
            raise HeedfulError(f"--parts {part!r} needs a plain name and a share above 0")
    if not shares or abs(sum(shares.values()) - 1) > 1e-6:
        raise HeedfulError(f"the shares of --parts must sum to 1, not {sum(shares.values()):g}")
    return shares


def divide(episodes: Episodes, shares: dict[str, float], by: str, seed: int) -> dict[str, list[int]]:
    """Episodes of each part: groups in random order, each into the part that lacks most of its share."""
    import random

    groups: dict[str, list[int]] = {}
    for i in range(len(episodes)):
        value = episodes.episode(i).meta.get(by) if by else i
        if value is None:
            raise HeedfulError(f"episode {i} has no {by!r}; leave --by out, or name what all have")
        groups.setdefault(str(value), []).append(i)
    order = sorted(groups)
    random.Random(f"split {seed}").shuffle(order)
    parts: dict[str, list[int]] = {name: [] for name in shares}
    for group in order:
        lacking = {n: share * len(episodes) - len(parts[n]) for n, share in shares.items()}
        parts[max(lacking, key=lambda n: lacking[n])] += groups[group]
    return {name: sorted(chosen) for name, chosen in parts.items()}


def merge(options: Merge) -> int:
    """Run `heedful demos merge`."""
    from heedful.data.episodes import open_episodes
    from heedful.data.episodes.copy import Piece

    if len(options.data) < 2:
        raise HeedfulError("name two data sets or more")
    sources = [open_episodes(path) for path in options.data]
    pieces = [
        Piece(k, i, None, {"source": str(source.path), "source_episode": i})
        for k, source in enumerate(sources)
        for i in range(len(source))
    ]
    return _tell(_write(sources, pieces, Path(options.out), "merge", options), options.json)


def convert(options: Convert) -> int:
    """Run `heedful demos convert`."""
    from heedful.data.episodes import open_episodes
    from heedful.data.episodes.copy import Piece

    if (options.size[0] > 0) != (options.size[1] > 0) or min(options.size) < 0 or options.fps < 0:
        raise HeedfulError("--size is HEIGHT WIDTH, both above 0; --fps must be above 0")
    source = open_episodes(options.data)
    pieces = [Piece(0, i) for i in (options.episodes or range(len(source)))]
    size = options.size if options.size[0] else None
    more = {"fps": options.fps, "task": options.task, "size": size}
    return _tell(_write([source], pieces, Path(options.out), "convert", options, **more), options.json)


def _write(
    sources: Sequence[Episodes], pieces: Sequence[Piece], out: Path, made_by: str, options: Any, **more: Any
) -> dict[str, Any]:
    from heedful.data.episodes.copy import copy_pieces

    def show(done: int, total: int) -> None:
        if not options.quiet and sys.stderr.isatty():
            print(
                f"\r{made_by}: {done:,} of {total:,} episodes",
                end="\n" if done == total else "",
                file=sys.stderr,
            )

    encode = {"codec": options.codec, "crf": options.crf, "gop": options.gop}
    if not pieces:
        raise HeedfulError("nothing would be left")
    counts = copy_pieces(sources, pieces, out, made_by=made_by, progress=show, encode=encode, **more)
    return {"out": str(out), **{name: count for name, count in counts.items() if count}}


def _tell(facts: dict[str, Any], as_json: bool) -> int:
    print(json.dumps(facts) if as_json else "\n".join(f"{name}: {value}" for name, value in facts.items()))
    return 0


def view(options: View) -> int:
    """Run `heedful demos view`."""
    from heedful.data.episodes import open_episodes
    from heedful.recipes.demos_view import write_recording, write_view

    if not options.out.endswith((".html", ".rrd")):
        raise HeedfulError(f"--out {options.out} must end in .html or .rrd")
    if options.width < 16:
        raise HeedfulError("--width must be at least 16")
    episodes = open_episodes(options.data)
    write = write_view if options.out.endswith(".html") else write_recording
    print(write(episodes, options.episode, Path(options.out), options.columns, options.width))
    return 0


COMMANDS: dict[str, tuple[type, Callable[[Any], int]]] = {
    "check": (Check, check),
    "info": (Info, info),
    "trim": (Trim, trim),
    "split": (Split, split),
    "merge": (Merge, merge),
    "convert": (Convert, convert),
    "view": (View, view),
}
