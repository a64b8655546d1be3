"""The high level of `heedful correct`: lessons, that is what was seen and what was to be said, and its training.

A set of lessons keeps what frozen eyes make of each frame once, however many lessons look at it. Sets lie in the run's
folder `lessons`, 0 from the demonstrations and one for each set of corrections, so that a run is all that the next
round needs.

Letters: U frames, F numbers of what is seen of one, L lessons, To frames of a history.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from heedful.data.narrated import Narrated
from heedful.data.segments import Saying, frames_before, sayings, speaking_segments
from heedful.device import pick_device
from heedful.fit import FitConfig, fit
from heedful.policies import instruct
from heedful.policies.actions import NetworkPolicy
from heedful.policies.actions.observe import ObservationSpace
from heedful.policies.instruct import InstructionBatch, Speaker, SpeakerMaking, speaking_objective
from heedful.policies.sentences import distinct
from heedful.progress import Progress
from heedful.recipes.act_steps import Batches
from heedful.recipes.correct_low import Demos
from heedful.recipes.correct_models import STATE, Eyes, TalkerMaking
from heedful.run import Run

if TYPE_CHECKING:
    from heedful.recipes.correct import Config

PART = 8192
"""Frames looked at between two savings."""
BATCH = 64
SEEN = "seen."
HELD_ROWS = 4096
"""Held-out lessons on which accuracy is measured, at most."""


@dataclass(frozen=True)
class Lessons:
    """seen: (U, F) by name; frames: (L, To) places of them, oldest first; labels: (L,) places in `texts`; held: (L,)
    whether they are for measuring alone. about: where they are from."""

    seen: dict[str, Tensor]
    frames: Tensor
    labels: Tensor
    held: Tensor
    texts: list[str]
    about: dict[str, Any]

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, which: Tensor, names: Sequence[str], places: Tensor) -> InstructionBatch:
        """Lessons `which` (B,) as observations of `names`; places: of the texts in a bank."""
        frames = self.frames[which]
        seen = {name: self.seen[name][frames] for name in names}
        if frames.shape[1] == 1:
            seen = {name: value[:, 0] for name, value in seen.items()}
        return InstructionBatch(seen, places[self.labels[which]])


def joined(sets: Sequence[Lessons]) -> Lessons:
    """Sets of lessons one after the other."""
    if len(sets) == 1:
        return sets[0]
    texts = distinct(text for one in sets for text in one.texts)
    place = {text: i for i, text in enumerate(texts)}
    starts = np.cumsum([0, *(len(next(iter(one.seen.values()))) for one in sets)]).tolist()
    return Lessons(
        {name: torch.cat([one.seen[name] for one in sets]) for name in sets[0].seen},
        torch.cat([one.frames + start for one, start in zip(sets, starts)]),
        torch.cat(
            [torch.tensor([place[t] for t in one.texts], dtype=torch.long)[one.labels] for one in sets]
        ),
        torch.cat([one.held for one in sets]),
        texts,
        {},
    )


def talking(cfg: Config, demos: Demos) -> TalkerMaking:
    """How the pair will act, from the options of `correct train` and what the data is."""
    return TalkerMaking(
        fps=demos.narrated.fps,
        cameras=dict(demos.narrated.cameras),
        state="observation.state",
        aliases=demos.narrated.aliases,
        act_steps=cfg.act_steps,
        frame_every=cfg.frame_every,
        ask_every=cfg.ask_every,
        hold=cfg.hold,
        lengths=lengths_of(demos, cfg.hold),
        pre_roll=cfg.pre_roll,
        vision=cfg.vision,
        world=demos.world,
    )


def lengths_of(demos: Demos, most: float) -> dict[str, float]:
    """Seconds in which nine of ten segments of each command end, those that the low level learns; `most` at most."""
    steps: dict[str, list[int]] = {}
    for segments in demos.kept:
        for segment in segments:
            steps.setdefault(demos.narrated.aliases.get(segment.text, segment.text), []).append(segment.steps)
    fps = demos.narrated.fps
    return {text: min(most, float(np.quantile(known, 0.9)) / fps) for text, known in sorted(steps.items())}


def lessons_of(cfg: Config, demos: Demos, making: TalkerMaking, low: NetworkPolicy, run: Run) -> Lessons:
    """Lessons of the demonstrations: at every moment what is said `look_ahead` later, mistakes included."""
    fps = demos.narrated.fps
    learned = [i for i in range(len(demos.narrated.segments)) if i not in demos.held]
    episodes = sorted([*learned[: cfg.high_episodes or None], *demos.held])
    said = [
        saying
        for i in episodes
        for saying in sayings(
            speaking_segments(demos.narrated.segments[i]).segments,
            look_ahead=round(cfg.look_ahead * fps),
            episode=i,
            stride=max(1, round(cfg.lesson_every * fps)),
        )
    ]
    about = {"source": str(demos.narrated.episodes.path), "episodes": len(episodes)}
    return make_lessons(
        "lessons/0",
        demos.narrated,
        said,
        Eyes(low, making.vision),
        run,
        history=cfg.history,
        stride=making.stride,
        held=demos.held,
        about=about,
        quiet=cfg.quiet,
    )


def make_lessons(
    name: str,
    narrated: Narrated,
    said: Sequence[Saying],
    eyes: Eyes,
    run: Run,
    *,
    history: int,
    stride: int,
    held: Sequence[int] = (),
    about: Mapping[str, Any],
    quiet: bool = False,
) -> Lessons:
    """Look at every frame that `said` needs, `PART` at a time, and keep the lessons in the run's folder."""
    steps = [
        (s.episode, step) for s in said for step in frames_before(s.step, history, stride=stride).tolist()
    ]
    places = {place: k for k, place in enumerate(sorted(set(steps)))}
    whole = list(places)

    def look() -> dict[str, Tensor]:
        parts = []
        with Progress(f"{name}: frames", len(whole), unit="frames", quiet=quiet) as bar:
            for first in range(0, len(whole), PART):
                part = f"{name}.part-{first // PART:04d}.safetensors"
                parts.append(
                    run.once(part, lambda first=first: _looked(narrated, whole[first : first + PART], eyes))
                )
                bar.show(min(len(whole), first + PART), "seen")
        texts = {text: k for k, text in enumerate(distinct(s.text for s in said))}
        frames = torch.tensor([places[place] for place in steps], dtype=torch.int32).view(len(said), history)
        return {
            **{SEEN + k: torch.cat([part[k] for part in parts]) for k in parts[0]},
            "frames": frames,
            "labels": torch.tensor([texts[s.text] for s in said], dtype=torch.int32),
            "held": torch.tensor([s.episode in held for s in said]),
        }

    run.once(f"{name}.json", lambda: {"texts": distinct(s.text for s in said), **about})
    run.once(f"{name}.safetensors", look)
    for left in run.path(name).parent.glob(f"{run.path(name).name}.part-*.safetensors"):
        left.unlink()
    return read_lessons(name, run)


def read_lessons(name: str, run: Run) -> Lessons:
    """A set that is in the run's folder."""
    tensors = run.once(f"{name}.safetensors", dict)
    about = run.once(f"{name}.json", dict)
    return Lessons(
        {k.removeprefix(SEEN): v for k, v in tensors.items() if k.startswith(SEEN)},
        tensors["frames"].long(),
        tensors["labels"].long(),
        tensors["held"].bool(),
        about.pop("texts"),
        about,
    )


def _looked(narrated: Narrated, places: Sequence[tuple[int, int]], eyes: Eyes) -> dict[str, Tensor]:
    """What is seen of frames (episode, step), sorted."""
    parts = []
    for first in range(0, len(places), BATCH):
        some = places[first : first + BATCH]
        by_episode: dict[int, list[int]] = {}
        for i, step in some:
            by_episode.setdefault(i, []).append(step)
        frames = {
            name: torch.from_numpy(
                np.concatenate([narrated.pictures(i, name, s) for i, s in by_episode.items()])
            )
            for name in narrated.cameras
        }
        states = np.concatenate([narrated.states[i][steps] for i, steps in by_episode.items()])
        parts.append(eyes({**frames, STATE: torch.from_numpy(states)}))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


# ---- training


def making(cfg: Config, lessons: Lessons) -> SpeakerMaking:
    """What a new high level is made of."""
    names = [name for name in lessons.seen if name != STATE or cfg.see_state]
    state = lessons.seen[STATE]
    numbers = {
        what: ({STATE: tuple(value.tolist())} if cfg.see_state else {})
        for what, value in (("mean", state.mean(0)), ("std", state.std(0, correction=0)))
    }
    space = ObservationSpace(
        {name: (lessons.seen[name].shape[1],) for name in names},
        numbers["mean"],
        numbers["std"],
        cfg.history,
    )
    sizes = {k: v for k, v in instruct.PAPER.items() if k != "images"} if cfg.preset == "paper" else {}
    return SpeakerMaking(space, tuple(lessons.texts), head=cfg.head, sentences=cfg.sentences, **sizes)


def train(
    cfg: Config, lessons: Lessons, aliases: Mapping[str, str], run: Run, *, stage: str = "high"
) -> Speaker:
    """A new high level, learned from the demonstrations' lessons."""
    speaker = instruct.build(making(cfg, lessons), seed=run.seed_for(stage, "weights"))
    learn(cfg, speaker, ((lessons, 1.0),), cfg.high_steps, run, aliases=aliases, stage=stage)
    return speaker


def learn(
    cfg: Any,
    speaker: Speaker,
    shares: Sequence[tuple[Lessons, float]],
    steps: int,
    run: Run,
    *,
    aliases: Mapping[str, str],
    stage: str = "high",
) -> None:
    """Steps of cross-entropy over the bank; each batch takes its share of each set of lessons.

    cfg: high_rate, high_batch, device, and what `fit` is told. Held-out lessons of all sets measure it: how often the
    very words are the likeliest, and how often the command is, wordings summed by `aliases`.
    """
    speaker.module.to(pick_device(cfg.device))
    whole = joined([one for one, _ in shares])
    places = speaker.labels(whole.texts)
    names = list(speaker.making.observations.shapes)
    offsets = np.cumsum([0, *(len(one) for one, _ in shares)]).tolist()
    free = [start + (~one.held).nonzero()[:, 0] for (one, _), start in zip(shares, offsets, strict=False)]
    rows = torch.cat(free)
    held = whole.held.nonzero()[:, 0]
    held = held[:: max(1, math.ceil(len(held) / HELD_ROWS))]

    command_of = [aliases.get(text, text) for text in speaker.bank]
    commands = {command: k for k, command in enumerate(distinct(command_of))}
    of = torch.tensor([commands[command] for command in command_of])

    def evaluate(step: int) -> dict[str, float]:
        words, right, nll = 0.0, 0.0, 0.0
        for some in held.split(256):
            batch = whole.batch(some, names, places)
            logp = speaker.logits(batch.observations).float().log_softmax(-1).cpu()
            summed = torch.zeros(len(some), len(commands)).index_add_(1, of, logp.exp())
            nll -= float(logp.gather(1, batch.labels[:, None]).sum())
            words += float((logp.argmax(-1) == batch.labels).sum())
            right += float((summed.argmax(-1) == of[batch.labels]).sum())
        names_of = ("held_out_loss", "held_out_words_accuracy", "held_out_accuracy")
        return {name: value / len(held) for name, value in zip(names_of, (nll, words, right), strict=True)}

    fit(
        stage,
        speaking_objective(speaker),
        speaker.module,
        Batches(
            [len(part) for part in free],
            [share for _, share in shares],
            steps,
            cfg.high_batch,
            run.seed,
            stage,
        ),
        FitConfig(
            lr=cfg.high_rate,
            batch_size=1,
            max_steps=steps,
            schedule="constant",
            clip_norm=10.0,
            precision=cfg.precision,
            save_every=cfg.save_every,
            keep=cfg.keep,
            log_every=cfg.log_every,
            quiet=cfg.quiet,
        ),
        run,
        collate=lambda drawn: whole.batch(rows[drawn[0]], names, places),
        evaluate=evaluate if len(held) else None,
    )
    speaker.module.eval()
