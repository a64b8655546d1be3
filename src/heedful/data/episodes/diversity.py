"""How varied demonstrations are, by DROID's measures (Khazatsky et al. 2024, section 4 and appendix): verbs, objects,
scenes once those counted twice are joined, viewpoints, and where the gripper first closes.

Verbs and objects are read from the instructions by rules: the first word that is no filler is the verb, with its
particle; the object is the last word of the first noun phrase after it. The paper asked a language model.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heedful.data.episodes import Episodes
from heedful.errors import HeedfulError

Array = NDArray[Any]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FILLERS = _words(
    "please now then and first next robot the a an you can could should to just carefully slowly"
)
PARTICLES = _words("up down out off on over away back in apart open together")
BEFORE_NOUN = _words("the a an all both one two three some this that these those each every any your of")
ENDS = _words(
    "from to in into on onto inside with at by under over next behind near towards toward through around off out "
    "and then beside between above below up down away so that which until before after for left right front"
)
NOT_PLURAL = _words("glass grass dress press cross bus gas scissors pants glasses tongs")
POSES = ("observation.state.cartesian_position", "observation.cartesian_position")
GRIPPERS = ("observation.state.gripper_position", "observation.gripper_position")
SAME_PLACE, SAME_TURN = 0.01, np.radians(2.0)
"""Metres and radians within which two camera poses are one viewpoint."""
LABELS = ("verbs", "objects", "scenes", "viewpoints")
CLOSED = 0.5
"""Share of the gripper's range at which it counts as closed; DROID: 0 open, 1 closed."""


@dataclass
class Diversity:
    """What was counted. labels: of each episode, its verbs, objects, scenes (those that look the same under one name)
    and viewpoints, a set each; growth: how many there were after so many episodes, for viewpoints by camera; problems:
    what could not be counted, and why."""

    episodes: int = 0
    instructions: Counter[str] = field(default_factory=Counter)
    verbs: Counter[str] = field(default_factory=Counter)
    objects: Counter[str] = field(default_factory=Counter)
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    scenes: dict[str, str] = field(default_factory=dict)
    viewpoints: dict[str, int] = field(default_factory=dict)
    contacts: Array = field(default_factory=lambda: np.zeros((0, 3)))
    labels: dict[str, list[set[Any]]] = field(default_factory=dict)
    growth: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    viewpoint_growth: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def distinct_scenes(self) -> int:
        """Scenes, those that look the same counted once."""
        return len(set(self.scenes.values()))


def verb_and_object(instruction: str) -> tuple[str, str]:
    """(verb, object) of an instruction, "" where there is none: "Pick up the red cups" is ("pick up", "cup")."""
    words = re.findall(r"[a-z][a-z'-]*", instruction.lower())
    while words and words[0] in FILLERS:
        words.pop(0)
    if not words:
        return "", ""
    verb = stem_verb(words.pop(0))
    if words and words[0] in PARTICLES:
        verb += f" {words.pop(0)}"
    phrase: list[str] = []
    for word in words:
        if word in BEFORE_NOUN and not phrase:
            continue
        if word in ENDS or (word in BEFORE_NOUN and phrase):
            break
        phrase.append(word)
    return verb, singular(phrase[-1]) if phrase else ""


def stem_verb(word: str) -> str:
    """The plain form of a verb: picks and picking are pick."""
    if word.endswith("ing") and len(word) > 5:
        stem = word[:-3]
        if len(stem) > 2 and stem[-1] == stem[-2] and stem[-1] not in "lsz":
            return stem[:-1]
        return stem + "e" if re.search(r"[aeiou][cgmsuvz]$|[^aeiou]l$", stem) else stem
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word


def singular(word: str) -> str:
    """A noun in the singular, by rule."""
    if word in NOT_PLURAL or len(word) < 4 or not word.endswith("s") or word.endswith("ss"):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if re.search(r"(sh|ch|x|ss|zz)es$", word):
        return word[:-2]
    return word[:-1]


def diversity(episodes: Episodes, *, pictures: bool = True) -> Diversity:
    """Count. pictures: also join scenes that look alike, which decodes a few frames of each episode."""
    found = Diversity(len(episodes))
    poses: dict[str, dict[int, Array]] = {}
    contacts: list[Array] = []
    labels = {name: [set[Any]() for _ in range(len(episodes))] for name in LABELS}
    for i in range(len(episodes)):
        try:
            episode = episodes.episode(i)
            for task in episode.tasks:
                verb, thing = verb_and_object(task)
                found.instructions[" ".join(task.lower().split())] += 1
                found.verbs[verb] += bool(verb)
                found.objects[thing] += bool(thing)
                found.pairs[verb, thing] += bool(verb and thing)
                labels["verbs"][i] |= {verb} - {""}
                labels["objects"][i] |= {thing} - {""}
            scene = episode.meta.get("scene_id")
            if scene is not None:
                found.scenes.setdefault(str(scene), str(scene))
                labels["scenes"][i].add(str(scene))
            for camera, pose in _poses(episodes, i).items():
                poses.setdefault(camera, {})[i] = pose
            contact = first_contact(episodes, i)
            if contact is not None and not np.isfinite(contact).all():
                found.problems.append(f"episode {i}: the place where the gripper first closes is not finite")
            elif contact is not None:
                contacts.append(contact)
        except HeedfulError as error:
            found.problems.append(str(error))
    for counter in (found.verbs, found.objects):
        del counter[""]
    for camera, many in poses.items():
        alone = [set[Any]() for _ in range(len(episodes))]
        for i, view in zip(many, pose_groups(list(many.values())), strict=True):
            alone[i] = {(camera, view)}
            labels["viewpoints"][i] |= alone[i]
        found.viewpoint_growth[camera] = growth(alone)
        found.viewpoints[camera] = found.viewpoint_growth[camera][-1][1]
    found.contacts = np.array(contacts).reshape(-1, 3)
    if pictures and found.scenes:
        from heedful.data.episodes.check_pictures import scene_groups

        groups, problems = scene_groups(episodes)
        found.scenes |= groups
        found.problems += [told for _, _, told in problems]
    labels["scenes"] = [{found.scenes[scene] for scene in scenes} for scenes in labels["scenes"]]
    found.labels = labels
    found.growth = {name: growth(labels[name]) for name in LABELS if name != "viewpoints"}
    if not found.scenes:
        found.problems.append("scenes are not counted: episodes have no scene_id")
    if not poses:
        found.problems.append(
            "viewpoints are not counted: there are no camera_extrinsics.* of cameras outside"
        )
    if not contacts:
        found.problems.append(
            "first contacts are not found: gripper_position and cartesian_position are needed"
        )
    return found


def _poses(episodes: Episodes, i: int) -> dict[str, Array]:
    names = [n for n in episodes.info.columns if n.startswith("camera_extrinsics.") and "wrist" not in n]
    if not names or not episodes.episode(i).length:
        return {}
    return {n.split(".", 1)[1]: v[0] for n, v in episodes.columns(i, names, 0, 1).items()}


def growth(labels: Sequence[set[Any]]) -> list[tuple[int, int]]:
    """(episodes so far, different labels among them) after each episode."""
    seen: set[Any] = set()
    found: list[tuple[int, int]] = []
    for count, more in enumerate(labels, start=1):
        seen |= more
        found.append((count, len(seen)))
    return found


def only_here(labels: Sequence[set[Any]]) -> list[float]:
    """Of each episode: 1 where it has a label that no other has, 0 where not, NaN where it has no labels.

    The mean estimates the chance that one more episode brings something new (Good 1953).
    """
    counts = Counter(label for some in labels for label in some)
    return [float(any(counts[label] == 1 for label in some)) if some else float("nan") for some in labels]


def distinct_poses(poses: Sequence[Array]) -> int:
    """How many different camera poses there are: x y z and Euler angles, alike within a centimetre and two degrees."""
    return len(set(pose_groups(poses)))


def pose_groups(poses: Sequence[Array]) -> list[int]:
    """Which of the different poses each one is, numbered in order of appearance."""
    kept: list[Array] = []
    groups: list[int] = []
    for pose in poses:
        for k, other in enumerate(kept):
            turn = np.abs((pose[3:] - other[3:] + np.pi) % (2 * np.pi) - np.pi)
            if np.abs(pose[:3] - other[:3]).max() < SAME_PLACE and turn.max() < SAME_TURN:
                groups.append(k)
                break
        else:
            groups.append(len(kept))
            kept.append(pose)
    return groups


def first_contact(episodes: Episodes, i: int) -> Array | None:
    """The gripper's position, (3,) metres, where it first closes in episode `i`; None where it does not."""
    pose = next((n for n in POSES if n in episodes.info.columns), None)
    grip = next((n for n in GRIPPERS if n in episodes.info.columns), None)
    if pose is None or grip is None:
        return None
    columns = episodes.columns(i, [pose, grip])
    closed = columns[grip].reshape(len(columns[pose]), -1)[:, 0] > CLOSED
    starts = np.flatnonzero(closed[1:] & ~closed[:-1])
    return columns[pose][int(starts[0]) + 1, :3] if len(starts) else None


def histogram(values: Array, bins: int = 24) -> list[tuple[float, int]]:
    """(middle, count) of each bin."""
    counts, edges = np.histogram(values, bins=bins)
    return [(float((a + b) / 2), int(c)) for a, b, c in zip(edges, edges[1:], counts, strict=False)]
