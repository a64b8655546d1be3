"""From what was seen to what is to be done next: a policy that speaks, the high level of Yell At Your Robot (arXiv
2403.12910).

The newest frames of all cameras become tokens, a transformer reads them, and the last token's vector z is compared
with the embedding of every command of a bank: softmax over cos(z, e) / temperature, learned by cross-entropy.

Where this departs from the paper's code:

1. The temperature begins at 0.07 and stays above `FLOOR` (theirs: 1 and 1e-8, where near-collinear commands are not
   told apart for long).
2. Candidates' probabilities are those that were learned (theirs are divided by the temperature twice).
3. Numbers, such as the robot's state or another policy's features, may be seen beside images.
4. Each token has a learned position of its own beside the sinusoidal one of its place in the row.
5. Of CLIP the vision model's own vector is read (768 numbers of ViT-B/32), not its projection to the texts' 512.

Letters: B observations, To frames, E numbers of an embedded command, M commands of the bank, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from heedful.errors import HeedfulError
from heedful.feedback import Samples
from heedful.losses import Result, choice_loss
from heedful.policies.actions import Observations, evaluating, stack
from heedful.policies.actions.act import line_positions
from heedful.policies.actions.observe import FrozenVision, ObservationSpace
from heedful.policies.augment import Jitter, cropped, jittered
from heedful.policies.sentences import WORDS, Pooling, Sentences, distinct
from heedful.policies.trunks import Trunk

FLOOR = 0.01
"""The temperature never gets below this."""


@dataclass(frozen=True)
class SpeakerMaking:
    """What a `Speaker` is made of.

    images "conv" trains a small network for each camera; "frozen" only reads the pretrained vision model `pretrained`
    (CLIP in the paper). Another policy's features, such as `TaskEncoder.features` of the one that acts, are numbers
    of the observations. head "cosine" compares with embeddings; "onehot" has a row of weights for each command (an
    ablation). A history of 1 frame is the other.
    """

    observations: ObservationSpace
    bank: tuple[str, ...]
    head: Literal["cosine", "onehot"] = "cosine"
    sentences: str = WORDS
    pooling: Pooling = "mean"
    images: Literal["conv", "frozen"] = "conv"
    pretrained: str = ""
    hidden: int = 128
    layers: int = 2
    heads: int = 4
    feedforward: int = 256
    dropout: float = 0.1
    temperature: float = 0.07
    crop: float = 1.0
    jitter: Mapping[str, float] | None = None


PAPER: dict[str, Any] = {
    "images": "frozen",
    "pooling": "cls",
    "hidden": 512,
    "layers": 6,
    "heads": 8,
    "feedforward": 512,
}
"""The paper's size: with CLIP ViT-B/32 as `pretrained`, DistilBERT as `sentences`, 4 frames of 4 cameras."""


@dataclass(frozen=True)
class Candidate:
    """A command and how likely it is."""

    command: str
    probability: float


class SpeakerNet(nn.Module):
    """Observations to z (B, E), or to logits of the commands where the head is "onehot"."""

    row: Tensor

    def __init__(self, making: SpeakerMaking, embedding: int) -> None:
        super().__init__()
        self.space = making.observations
        self.crop = making.crop
        self.jitter = None if making.jitter is None else Jitter(**making.jitter)
        shapes = self.space.shapes
        self.names = list(shapes)
        self.cameras = [name for name in self.names if len(shapes[name]) == 3]
        self.frozen = FrozenVision(making.pretrained) if self.cameras and making.images == "frozen" else None
        self.trunks = nn.ModuleList(
            Trunk("conv", shapes[name][0]) for name in (() if self.frozen else self.cameras)
        )
        sizes = []
        for i, name in enumerate(self.names):
            if name not in self.cameras:
                count = shapes[name][0]
                self.register_buffer(f"mean_{i}", torch.tensor(self.space.mean.get(name, (0.0,) * count)))
                std = torch.tensor(self.space.std.get(name, (1.0,) * count))
                self.register_buffer(f"std_{i}", std.clamp(min=1e-6))
                sizes.append(count)
            elif self.frozen:
                sizes.append(self.frozen.size)
            else:
                c, h, w = self.trunks[self.cameras.index(name)].shape(shapes[name][0], *self._cut(name))  # type: ignore[operator]
                sizes.append(c * h * w)
        hidden, count = making.hidden, len(self.names) * self.space.history
        self.tokens = nn.ModuleList(nn.Linear(size, hidden) for size in sizes)
        self.places = nn.Parameter(torch.randn(count, hidden) * 0.02)
        self.register_buffer("row", line_positions(count, hidden), persistent=False)
        layer = nn.TransformerEncoderLayer(
            hidden, making.heads, making.feedforward, making.dropout, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(
            layer, making.layers, norm=nn.LayerNorm(hidden), enable_nested_tensor=False
        )
        self.out = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, embedding))
        above = max(making.temperature - FLOOR, 1e-6)
        self.log_temperature = nn.Parameter(torch.tensor(above).log(), requires_grad=making.head == "cosine")

    @property
    def temperature(self) -> Tensor:
        """(), above `FLOOR`."""
        return FLOOR + self.log_temperature.exp()

    def forward(self, observations: Observations) -> Tensor:
        """Raises HeedfulError for what `ObservationSpace.check` refuses."""
        self.space.check(observations)
        rows = []
        for i, name in enumerate(self.names):
            frames = self.space.frames(observations, name).to(self.places.device)
            rows.append(self.tokens[i](self._seen(i, name, frames)))
        # (time, camera): the last token is the newest frame's, of the last name
        x = torch.stack(rows, 2).flatten(1, 2) + self.row + self.places
        return self.out(self.layers(x)[:, -1])

    def _seen(self, i: int, name: str, frames: Tensor) -> Tensor:
        """Frames (B, To, ...) to vectors (B, To, .)."""
        if name not in self.cameras:
            return (frames.to(self.places) - getattr(self, f"mean_{i}")) / getattr(self, f"std_{i}")
        frames = cropped(frames, *self._cut(name), random=self.training).div(255).float()
        if self.training and self.jitter:
            frames = jittered(frames, self.jitter)
        eye = self.frozen or self.trunks[self.cameras.index(name)]
        return eye(frames.flatten(0, 1)).flatten(1).unflatten(0, frames.shape[:2])

    def _cut(self, name: str) -> tuple[int, int]:
        _, height, width = self.space.shapes[name]
        return max(1, round(self.crop * height)), max(1, round(self.crop * width))


class Speaker:
    """Says which command of its bank comes next. `module` is what `fit` trains; made by `build`."""

    def __init__(self, making: SpeakerMaking, module: SpeakerNet, embeddings: Tensor) -> None:
        self.making, self.module = making, module
        self.embeddings = torch.nn.functional.normalize(embeddings.float(), dim=-1)
        """(M, E), of unit length; fixed."""
        self._place = {command: i for i, command in enumerate(making.bank)}

    @property
    def bank(self) -> tuple[str, ...]:
        """The M commands."""
        return self.making.bank

    def labels(self, commands: Sequence[str]) -> Tensor:
        """(B,) places of commands in the bank. Raises HeedfulError naming the first that is not in it."""
        for i, command in enumerate(commands):
            if command not in self._place:
                raise HeedfulError(
                    f"command {i} is {command!r}, which is not among the {len(self.bank)} of the bank"
                )
        return torch.tensor([self._place[command] for command in commands], dtype=torch.long)

    def logits(self, observations: Observations) -> Tensor:
        """(B, M)."""
        z = self.module(observations)
        if self.making.head == "onehot":
            return z
        z = torch.nn.functional.normalize(z.float(), dim=-1)
        return z @ self.embeddings.to(z).T / self.module.temperature

    def loss(self, observations: Observations, labels: Tensor, *, weight: Tensor | None = None) -> Result:
        """Cross-entropy of the commands at `labels` (B,); weight (B,) multiplies each term."""
        logits = self.logits(observations)
        value, metrics = choice_loss(logits, labels.to(logits.device), weight=weight)
        return value, {**metrics, "temperature": self.module.temperature.detach().float()}

    def candidates(self, observations: Observations, k: int = 5) -> list[list[Candidate]]:
        """For each of B observations the `k` likeliest commands, most likely first, dropout off."""
        with torch.no_grad(), evaluating(self.module):
            p = self.logits(observations).float().softmax(-1)
        best = p.sort(dim=-1, descending=True, stable=True)
        return [
            [Candidate(self.bank[i], q) for i, q in zip(places[:k], values[:k])]
            for places, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def sample(
        self,
        inputs: Sequence[Observations],
        n: int,
        *,
        temperature: float = 1.0,
        generator: torch.Generator,
    ) -> Samples:
        """N commands for each of single observations; temperature 0 gives the likeliest."""
        with torch.no_grad(), evaluating(self.module):
            logits = self.logits(stack(inputs)).float()
        if temperature == 0:
            drawn = logits.argmax(-1, keepdim=True).expand(-1, n)
        else:
            drawn = torch.multinomial(
                (logits / temperature).softmax(-1).to(generator.device), n, True, generator=generator
            )
        said = [self.bank[i] for i in drawn.flatten().tolist()]
        return Samples(inputs=list(inputs), outputs=said, n=n)

    def logp(self, samples: Samples) -> tuple[Tensor, Tensor]:
        """(B*N, 1) log-probabilities of commands and their mask, dropout off."""
        with evaluating(self.module):
            logp = self.logits(stack(samples.inputs)).float().log_softmax(-1)
        places = self.labels(samples.outputs).to(logp.device).unflatten(0, (-1, samples.n))
        values = logp.gather(-1, places).flatten()[:, None]
        return values, torch.ones_like(values, dtype=torch.bool)

    def with_commands(self, commands: Sequence[str]) -> Speaker:
        """The same policy with these commands too, without repeats, as corrections bring them; what it learned is
        shared.

        The known ones keep their places. A "onehot" head gets a new row for each, equal to the mean of the others.
        """
        bank = distinct((*self.bank, *commands))
        new = bank[len(self.bank) :]
        if not new:
            return self
        making = replace(self.making, bank=tuple(bank))
        embeddings = torch.cat([self.embeddings, _embedded(making, new)])
        if self.making.head == "onehot":
            last: Any = self.module.out[-1]
            wide = nn.Linear(last.in_features, len(bank)).to(last.weight)
            with torch.no_grad():
                for name in ("weight", "bias"):
                    old = getattr(last, name)
                    rows = old.mean(0, keepdim=True).expand(len(new), *old.shape[1:])
                    getattr(wide, name).copy_(torch.cat([old, rows]))
            self.module.out[-1] = wide
        return Speaker(making, self.module, embeddings)


def build(making: SpeakerMaking, *, seed: int = 0, embeddings: Tensor | None = None) -> Speaker:
    """A new speaker; its weights are a function of the seed alone. embeddings (M, E): known ones of the bank.

    Raises HeedfulError for a bank that is empty or has repeats, and for options that do not fit together.
    """
    if not making.bank or len(set(making.bank)) < len(making.bank) or not all(map(str.strip, making.bank)):
        raise HeedfulError("a command bank needs at least one command, each once and none empty")
    if making.head not in ("cosine", "onehot") or not making.temperature > FLOOR:
        raise HeedfulError(
            f"head must be cosine or onehot, and the temperature above {FLOOR}; they are {making.head!r} and "
            f"{making.temperature}"
        )
    vectors = _embedded(making, making.bank) if embeddings is None else embeddings
    size = vectors.shape[1] if making.head == "cosine" else len(making.bank)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            module = SpeakerNet(making, size)
        except (TypeError, ValueError, AssertionError) as error:
            raise HeedfulError(f"a speaker cannot be made with these options: {error}") from error
    return Speaker(making, module, vectors)


def _embedded(making: SpeakerMaking, commands: Sequence[str]) -> Tensor:
    if making.head == "onehot":
        return torch.ones(len(commands), 1)
    return torch.nn.functional.normalize(Sentences(making.sentences, making.pooling)(commands), dim=-1)


# ---- learning


@dataclass(frozen=True)
class InstructionBatch:
    """B observations and the places (B,) of what is to be said, see `Speaker.labels`."""

    observations: Observations
    labels: Tensor
    weight: Tensor | None = None


def speaking_objective(speaker: Speaker) -> Callable[[InstructionBatch], Result]:
    """What `fit` takes as its loss; its `module` is `speaker.module`."""
    return lambda batch: speaker.loss(batch.observations, batch.labels, weight=batch.weight)
