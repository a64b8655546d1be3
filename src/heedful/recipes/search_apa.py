"""apa of `heedful search improve`: advantage-induced policy alignment (Zhu et al. 2023) as Gandhi et al. 2024 use it.

The loss is the squared difference of the log-ratio to the reference and of the advantage over lambda, by token, plus
the critic's squared error. Departures from the paper's code, each on purpose:

1. Advantages are whitened over the tokens that count (the code takes the padding in).
2. The reference becomes the policy by rule: after `patience` looks, at problems set apart, without a better moving
   average of their score. (The authors restarted by hand at two chosen steps.) The critic goes on.
3. The critic learns alone first, from streams of the start model and the score at their end.
4. No term for the KL in the reward; the code computes one and multiplies it by 0.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from heedful import losses, returns
from heedful.errors import NothingToLearn
from heedful.feedback import Feedback, Samples
from heedful.fit import Chain, fit
from heedful.policies import objectives, packing
from heedful.policies.language import LanguagePolicy
from heedful.policies.packing import Group
from heedful.policies.stages import sample_and_judge
from heedful.recipes.search_measure import room
from heedful.recipes.search_world import World
from heedful.recipes.settings import fit_config
from heedful.run import Run
from heedful.stage import finished

if TYPE_CHECKING:
    from heedful.recipes.search_improve import Config

DECAY = 0.7
"""What the moving average of the score keeps of itself at a look: about the last three count."""
GAIN = 1e-3
"""The least by which a moving average must be better to count as better."""
Batch = dict[str, Any]


class Critic(nn.Module):
    """The value before each token: a copy of the language model, and a head of two layers on its hidden states."""

    def __init__(self, policy: LanguagePolicy, seed: int) -> None:
        super().__init__()
        self.backbone: nn.Module = copy.deepcopy(policy.module)
        width = int(policy.head.weight.shape[1])  # type: ignore[union-attr, arg-type]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, 1))
        last: Any = self.head[2]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        own: Any = self.backbone
        own.get_output_embeddings().requires_grad_(False)
        self.policy = [_stand_in(policy, self.backbone)]  # in a list, so that it is no submodule
        self.to(policy.device)

    def forward(self, groups: Sequence[Group]) -> tuple[Tensor, Tensor]:
        """Values (completions, T) before every completion token, and the mask."""
        with self.policy[0].autocast():
            hidden, layout = self.policy[0].hidden(groups)
        return packing.scatter_rows(self.head(hidden.float()).squeeze(-1), layout)


def _stand_in(policy: LanguagePolicy, module: nn.Module) -> LanguagePolicy:
    """The policy with another module of the same architecture."""
    other: Any = copy.copy(
        policy
    )  # its annotation says peft's, which any module of the architecture stands in for
    other.module = module
    other._head_copy = None
    return other


def learn(cfg: Config, policy: LanguagePolicy, world: World, run: Run) -> dict[str, Any]:
    """All rounds; returns what happened: rounds, looks at the problems set apart, refreshes of the reference."""
    from heedful.recipes.search_improve import draw

    reference = _stand_in(policy, copy.deepcopy(policy.module).eval().requires_grad_(False))
    critic = Critic(policy, run.seed_for("critic"))
    module = nn.ModuleDict({"policy": policy.module, "critic": critic})
    settings = fit_config(cfg, policy.precision)
    done = 0
    while done < cfg.rounds and finished(f"round{done}", run):
        done += 1
    if cfg.critic_rounds:
        _warm_up(cfg, policy, critic, world, run, skip=bool(done))
    look = _Look(cfg, policy, world, run)
    history: list[dict[str, Any]] = []
    for r in range(cfg.rounds):
        rows: Sequence[Batch] = []
        record: dict[str, Any] = {}
        if r >= done:
            samples, feedback = draw(cfg, policy, world, r, run)
            rows, record = round_rows(cfg, policy, reference, critic, samples, feedback, r, run)
        record = run.once(f"round{r}/round.json", lambda record=record: record)
        run.log(r + 1, record, stage="rounds")
        history.append(record)
        if r >= done - 1:  # weights of earlier rounds went into those of the last finished one
            fit(
                f"round{r}",
                objective(policy, critic, lam=cfg.lam, value_coef=cfg.value_coef),
                module,
                rows,
                settings,
                run,
                collate=objectives.collate(policy),
                cost=objectives.row_cost(policy),
                weight=tokens_of,
                chain=Chain(f"round{r - 1}" if r else "", r, cfg.rounds),
            )
        if (r + 1) % cfg.check_every == 0 and look.at(r + 1):
            weights = run.once(
                f"reference{r + 1}.safetensors",
                lambda: {name: p.clone() for name, p in policy.module.state_dict().items()},
            )
            reference.module.load_state_dict(weights)
    return {"rounds": history, "looks": look.history, "refreshed": look.refreshed}


class _Look:
    """Looks at problems set apart, and the rule that says when the policy becomes the reference."""

    def __init__(self, cfg: Config, policy: LanguagePolicy, world: World, run: Run) -> None:
        self.cfg, self.policy, self.world, self.run = cfg, policy, world, run
        self.prompts = world.validation(cfg.check_problems)
        self.history: list[dict[str, float]] = []
        self.refreshed: list[int] = []
        self.plateau = Plateau(cfg.patience)

    def at(self, done: int) -> bool:
        """Look after `done` rounds; whether the reference is to be refreshed."""
        name = f"looks/round{done}"

        def make() -> dict[str, float]:
            _, feedback = sample_and_judge(
                self.policy,
                self.prompts,
                1,
                self.world.judge,
                (f"{name}-samples", f"{name}-feedback"),
                self.run,
                stream="look",
                quiet=True,
                temperature=self.cfg.temperature,
                max_new_tokens=room(self.policy, self.prompts, self.cfg.max_new_tokens),
                max_rows=self.cfg.max_rows,
            )
            score = feedback.score.nan_to_num()
            return {"score": float(score.mean()), "solved": float((score > 0).double().mean())}

        told = self.run.once(f"{name}.json", make)
        refresh = self.plateau.take(told["score"])
        told = {**told, "average": self.plateau.average, "refreshed": float(refresh)}
        self.run.log(done, told, stage="looks")
        self.history.append({"round": done, **told})
        if refresh:
            self.refreshed.append(done)
        return refresh


class Plateau:
    """A moving average that has not become better for `patience` looks in a row."""

    def __init__(self, patience: int) -> None:
        self.patience, self.average, self.best, self.waited = patience, math.nan, -math.inf, 0

    def take(self, score: float) -> bool:
        """Take in a score. True on a plateau, from which the count then starts anew."""
        first = math.isnan(self.average)
        self.average = score if first else DECAY * self.average + (1 - DECAY) * score
        if self.average > self.best + GAIN:
            self.best, self.waited = self.average, 0
            return False
        self.waited += 1
        if self.waited < self.patience:
            return False
        self.best, self.waited = self.average, 0
        return True


def _warm_up(
    cfg: Config, policy: LanguagePolicy, critic: Critic, world: World, run: Run, *, skip: bool
) -> None:
    """The critic alone learns the score at the end of streams of the start model. skip: it is in later weights."""
    rows: list[Batch] = []
    if not skip and not finished("critic", run):
        count = cfg.critic_rounds * cfg.problems
        prompts = world.train(cfg.rounds * cfg.problems, count)
        samples, feedback = sample_and_judge(
            policy,
            prompts,
            cfg.n,
            world.judge,
            ("critic/samples", "critic/feedback"),
            run,
            quiet=cfg.quiet,
            temperature=cfg.temperature,
            max_new_tokens=room(policy, prompts, cfg.max_new_tokens),
            max_rows=cfg.max_rows,
        )
        pairs = _groups(policy, samples, feedback)
        _check_judged(pairs, samples, "the critic's own streams")
        for group, score in pairs:
            rows.append({"group": group, "target": [[score] * len(group.completions[0])]})
    if skip:
        return

    def loss(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        value, mask = critic(batch["groups"])
        return losses.value_loss(value, value, mask, batch["target"], clip=None)

    fit(
        "critic",
        loss,
        critic,
        rows,
        fit_config(cfg, policy.precision),
        run,
        collate=objectives.collate(policy),
        cost=objectives.row_cost(policy),
        weight=tokens_of,
    )


def _groups(policy: LanguagePolicy, samples: Samples, feedback: Feedback) -> list[tuple[Group, float]]:
    """Each stream with its score; no opinion is left out."""
    made = []
    for i, prompt in enumerate(samples.inputs):
        for out, score in zip(samples.group(i), feedback.score[i].tolist(), strict=True):
            if score == score:
                made.append((policy.group(prompt, [out]), score))
    return made


def _check_judged(pairs: Sequence[Any], samples: Samples, where: str) -> None:
    if not pairs:
        raise NothingToLearn(
            f"{where}: the verifier gave no opinion on any of {len(samples.outputs)} streams; look at what it returns"
        )


def round_rows(
    cfg: Config,
    policy: LanguagePolicy,
    reference: LanguagePolicy,
    critic: Critic,
    samples: Samples,
    feedback: Feedback,
    r: int,
    run: Run,
) -> tuple[list[Batch], dict[str, Any]]:
    """Rows of a round, one a stream, and its record. A row is {"group", "old": the reference's log-probabilities,
    "advantage", "target"}, by token. Where all streams are worth the same, advantages are 0: those of the critic alone
    would be noise.

    Raises NothingToLearn where no stream is judged.
    """
    pairs = _groups(policy, samples, feedback)
    _check_judged(pairs, samples, f"round {r}")
    alike = len({score for _, score in pairs}) == 1
    groups = [group for group, _ in pairs]
    lengths = [len(group.completions[0]) for group in groups]

    def make() -> dict[str, Tensor]:
        ref, value = by_token(policy, groups, reference.logp_groups), by_token(policy, groups, critic)
        return {"ref": torch.cat(ref), "value": torch.cat(value)}

    kept = run.once(f"round{r}/numbers.safetensors", make)
    shape = (len(groups), max(lengths))
    mask = torch.arange(shape[1])[None] < torch.tensor(lengths)[:, None]
    reward, value = torch.zeros(shape), torch.zeros(shape).masked_scatter(mask, kept["value"])
    reward[torch.arange(len(groups)), torch.tensor(lengths) - 1] = torch.tensor([score for _, score in pairs])
    advantage, target = returns.gae(reward, value, mask, gamma=1.0, lam=cfg.gae_lambda)
    advantage = torch.zeros(shape) if alike else returns.whiten(advantage, mask)
    refs = kept["ref"].split(lengths)
    rows = [
        {
            "group": group,
            "old": [refs[i].tolist()],
            "advantage": [advantage[i, : lengths[i]].tolist()],
            "target": [target[i, : lengths[i]].tolist()],
        }
        for i, group in enumerate(groups)
    ]
    scores = torch.tensor([score for _, score in pairs], dtype=torch.float64)
    outputs = samples.outputs
    drawn = sum(out.logp for out in outputs)
    tokens = sum(len(out.ids) for out in outputs)
    return rows, {
        "score": float(scores.mean()),
        "solved": float((scores > 0).double().mean()),
        "tokens": tokens / len(outputs),
        "unfinished": sum(not out.finished for out in outputs) / len(outputs),
        "entropy": -drawn / tokens,
        "kl": (drawn - float(kept["ref"].double().sum())) / len(outputs)
        if len(groups) == len(outputs)
        else None,
    }


def by_token(
    policy: LanguagePolicy, groups: Sequence[Group], compute: Callable[[list[Group]], tuple[Tensor, Tensor]]
) -> list[Tensor]:
    """What `compute` gives for every token of each group's one completion, without gradients, some groups at a time."""
    out: list[Tensor] = []
    budget = 8 * 1024
    at = 0
    with torch.no_grad(), policy.eval_mode():
        while at < len(groups):
            batch, size = [groups[at]], groups[at].cost
            while at + len(batch) < len(groups) and size + groups[at + len(batch)].cost <= budget:
                size += groups[at + len(batch)].cost
                batch.append(groups[at + len(batch)])
            values, mask = compute(batch)
            out += [row[real].float().cpu() for row, real in zip(values, mask, strict=True)]
            at += len(batch)
    return out


def tokens_of(row: Mapping[str, Any]) -> float:
    """What a row counts in a step: its tokens, since the losses are means over tokens."""
    return float(len(row["group"].completions[0]))


def objective(
    policy: LanguagePolicy, critic: Critic, *, lam: float, value_coef: float
) -> Callable[[Batch], tuple[Tensor, dict[str, Tensor]]]:
    """APA's loss of a collated batch, plus value_coef times half the critic's squared error."""

    def loss(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        logp, mask = policy.logp_groups(batch["groups"])
        apa, told = losses.apa_loss(logp, batch["old"], mask, batch["advantage"], lam=lam)
        value, _ = critic(batch["groups"])
        wrong, more = losses.value_loss(value, value, mask, batch["target"], clip=None)
        ratio = torch.where(mask, (logp - batch["old"]).detach().square(), 0.0).sum() / mask.sum()
        told = {**told, "apa": apa.detach(), "value_loss": wrong.detach(), "log_ratio_squared": ratio}
        return apa + value_coef * wrong, {**told, "value": more["value"], "target": more["target"]}

    return loss
