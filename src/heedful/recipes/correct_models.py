"""The pair of policies of `heedful correct`, as a run keeps them: the high level speaks, the low level acts.

The folder `model` of a run of `correct train` or `correct learn` has

    talker.json    what both see, how often they are asked, and where they act
    low/           the policy that acts (`policies.actions_build`)
    high/          the one that speaks (`policies.instruct_files`)

Yell At Your Robot, arXiv 2403.12910. The high level does not see pictures but what frozen eyes make of them: the low
level's own image networks without any sentence, or a pretrained vision model (CLIP in the paper).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heedful.atomic import write_file
from heedful.errors import HeedfulError
from heedful.model_folder import read_json
from heedful.policies.actions import NetworkPolicy, evaluating
from heedful.policies.actions import build as actions_build
from heedful.policies.actions.chunks import executed
from heedful.policies.actions.observe import FrozenVision
from heedful.policies.commands import Snapper
from heedful.policies.history import FrameHistory
from heedful.policies.instruct import Speaker
from heedful.policies.instruct_files import load_speaker, save_speaker
from heedful.policies.override import Timing
from heedful.policies.sentences import WORDS, Sentences, distinct

FORMAT = "heedful-talker"
PAIR = "talker.json"
STATE = "state"
"""What observations call the robot's numbers."""


@dataclass(frozen=True)
class TalkerMaking:
    """What a pair is besides its two policies. Times are seconds.

    cameras: names of pictures, and the columns of the data they came from; state: the column of the robot's numbers.
    """

    fps: float
    cameras: Mapping[str, str]
    state: str
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Wordings, and the command each stands for."""
    act_steps: int = 8
    """Actions of a chunk that are carried out before the low level is asked again."""
    frame_every: float = 1.0
    """Between two frames of the high level's history."""
    ask_every: float = 0.5
    """Between two questions to the high level."""
    hold: float = 4.0
    """How long a correction is followed, at most,"""
    lengths: Mapping[str, float] = field(default_factory=dict)
    """and for how long one that was taken for a command of these."""
    pre_roll: float = 2.0
    """What before a correction belongs to it."""
    vision: str = ""
    """The frozen vision model that is the high level's eyes; "": the low level's own image networks."""
    world: Mapping[str, Any] | None = None
    """Settings of the `PackTable` it acts at; None for other robots."""

    @property
    def timing(self) -> Timing:
        """The same in control steps."""
        timing = Timing.seconds(self.fps, hold=self.hold, pre_roll=self.pre_roll, every=self.ask_every)
        steps = {command: max(1, round(seconds * self.fps)) for command, seconds in self.lengths.items()}
        return replace(timing, lengths=steps)

    @property
    def stride(self) -> int:
        """Control steps between two frames of the high level's history."""
        return max(1, round(self.frame_every * self.fps))

    def observed(self, observation: Mapping[str, Any]) -> dict[str, Tensor]:
        """A robot's observation as the policies take it: pictures (H, W, 3) as (3, H, W), the state in float32.

        Raises HeedfulError naming what is missing.
        """
        missing = [name for name in (*self.cameras, STATE) if name not in observation]
        if missing:
            raise HeedfulError(
                f"the observation lacks {', '.join(missing)}; it has {', '.join(observation) or 'nothing'}"
            )
        seen = {
            name: torch.from_numpy(np.ascontiguousarray(np.asarray(observation[name]).transpose(2, 0, 1)))
            for name in self.cameras
        }
        return {**seen, STATE: torch.as_tensor(np.asarray(observation[STATE], np.float32))}


class Eyes:
    """What the high level sees of frames: (B, F) of each picture in half precision, and the numbers as they are."""

    def __init__(self, low: NetworkPolicy, vision: str = "") -> None:
        self.encoder: Any = low.acting()["encoder"]  # type: ignore[index]
        self.frozen = FrozenVision(vision).to(self.encoder.mean.device) if vision else None

    def __call__(self, frames: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """frames: pictures (B, 3, H, W) and numbers (B, S), by name. On the CPU."""
        with torch.no_grad(), evaluating(self.encoder):
            if self.frozen:
                device = self.encoder.mean.device
                seen = {n: self.frozen(frames[n].to(device).float() / 255) for n in self.encoder.cameras}
            else:
                seen = {name: maps[:, 0] for name, maps in self.encoder.features(frames).items()}
        numbers = {name: frames[name] for name in self.encoder.names}
        return {**{name: value.half().cpu() for name, value in seen.items()}, **numbers}


@dataclass(frozen=True)
class Proposal:
    """What the high level says. candidates: commands and their probabilities, best first; wordings of one command are
    summed."""

    command: str
    candidates: tuple[tuple[str, float], ...]


class Talker:
    """A high level and a low level that go through an episode together.

    Each control step: `see` what there is, `propose` where a command is wanted, `act` on one. `begin` each episode.
    """

    def __init__(
        self, making: TalkerMaking, low: NetworkPolicy, low_making: actions_build.Making, high: Speaker
    ) -> None:
        self.making, self.low, self.low_making, self.high = making, low, low_making, high
        self.fps, self.timing = making.fps, making.timing
        self.eyes = Eyes(low, making.vision)
        self.snapper = snapper_of(high, making.aliases)
        self._temperature = 0.0 if low_making.kind == "act" else 1.0
        self._history = FrameHistory(high.making.observations.history, making.stride)
        self.begin()

    def begin(self) -> None:
        """A new episode: what was seen and planned is forgotten, and chance begins anew."""
        self._history.clear()
        self._plan: list[np.ndarray] = []
        self._generator = torch.Generator().manual_seed(0)

    def see(self, observation: Mapping[str, Any]) -> None:
        """Once a control step, before `propose` and `act`. Raises HeedfulError naming what is missing."""
        self._history.add(self.making.observed(observation))

    def propose(self) -> Proposal:
        """What the high level would say now. Raises HeedfulError before anything was seen."""
        frames = self._history.read()
        if self._history.count == 1:
            frames = {name: value[None] for name, value in frames.items()}
        seen = self.eyes(frames)
        wanted = self.high.making.observations.shapes
        single = {n: (v[None] if self._history.count > 1 else v) for n, v in seen.items() if n in wanted}
        total: dict[str, float] = {}
        for one in self.high.candidates(single, len(self.high.bank))[0]:
            command = self.making.aliases.get(one.command, one.command)
            total[command] = total.get(command, 0.0) + one.probability
        ranked = tuple(sorted(total.items(), key=lambda pair: -pair[1]))
        return Proposal(ranked[0][0], ranked)

    def act(self, observation: Mapping[str, Any], command: str, fresh: bool) -> np.ndarray:
        """(A,): the next action for a command; fresh: what was planned before is dropped."""
        if fresh or not self._plan:
            seen: dict[str, Any] = {n: v[None] for n, v in self.making.observed(observation).items()}
            chunk = self.low.act(
                {**seen, "task": [command]}, 1, temperature=self._temperature, generator=self._generator
            )[0, 0]
            self._plan = list(executed(chunk, steps=self.making.act_steps).cpu().numpy())
        return self._plan.pop(0)


def snapper_of(high: Speaker, aliases: Mapping[str, str]) -> Snapper:
    """Takes free text for the commands of a high level's bank; its other wordings are aliases."""
    bank = distinct(aliases.get(text, text) for text in high.bank)
    known = {text: aliases[text] for text in high.bank if text in aliases}
    making = high.making
    # First tokens' states are all alike: their cosines tell no command from another.
    by_meaning = making.sentences != WORDS and making.pooling == "mean"
    embed = Sentences(making.sentences, making.pooling) if by_meaning else None
    return Snapper(bank, known, None if embed is None else lambda texts: embed(texts).numpy())


# ---- files


def save_talker(talker: Talker, folder: Path) -> None:
    """Write a pair that `open_talker` opens; one that is there is replaced. talker.json comes last, and says it is
    whole."""
    actions_build.save(talker.low, talker.low_making, folder / "low")
    save_speaker(talker.high, folder / "high")
    told = {"format": FORMAT, **asdict(talker.making)}
    write_file(folder / PAIR, (json.dumps(told, ensure_ascii=False, indent=1) + "\n").encode())


def pair_folder(run: str | Path) -> Path | None:
    """The folder of the pair of a run: the run's folder itself, or the folder `model` inside it; None without one."""
    place = Path(run).expanduser()
    return next((folder for folder in (place, place / "model") if (folder / PAIR).is_file()), None)


def open_talker(run: str | Path, *, device: str = "cpu") -> Talker:
    """The pair of a run of `correct train` or `correct learn`: its folder, or the folder `model` inside it.

    Raises HeedfulError where there is none, where the run has not ended, and for damaged files, naming them.
    """
    place = Path(run).expanduser()
    folder = pair_folder(place)
    if folder is None:
        raise HeedfulError(
            f"{place} holds no trained pair (there is no {place / 'model' / PAIR}): "
            f"`heedful correct train --out {place}` makes one, and goes on where it was interrupted"
        )
    making = read_making(folder / PAIR)
    low, low_making = actions_build.load(folder / "low")
    low.module.to(device).eval()
    if low.average:
        low.average.module.to(device)
    high = load_speaker(folder / "high")
    high.module.to(device).eval()
    return Talker(making, low, low_making, high)


def read_making(file: Path) -> TalkerMaking:
    """Of talker.json. Raises HeedfulError where it is not one, or damaged."""
    said = read_json(file)
    if said.pop("format", None) != FORMAT:
        raise HeedfulError(f"{file} is not of `heedful correct` (it has no format {FORMAT!r})")
    try:
        making = TalkerMaking(**said)
        _ = making.timing, making.stride
        if not all(isinstance(part, Mapping) for part in (making.cameras, making.aliases, making.lengths)):
            raise TypeError("cameras, aliases and lengths are objects")
    except (TypeError, ValueError) as error:
        raise HeedfulError(f"{file} is damaged: {error}; restore it, or train again") from error
    return making
