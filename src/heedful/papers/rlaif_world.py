"""The simulated world of the RLAIF reproduction: what can be graded exactly, and models small enough to train here.

An instruction names a task and five slots, `back c 7 a 2 j 0 b 5 e 1 : `. The whole answer names every slot with its
value, in the order given (`list`) or reversed (`back`), and nothing else. An oracle grades the fields that are right,
their order, and how little is said besides. A generator has a quality: an answer of quality u opens with filler words,
stops after a share u of the fields, and gets the order right only where u is high. So the answers of a weak generator
are not good ones with noise; the good ones are answers that it does not give, as in the paper's bandit.

Critic and evaluators are oracles that weigh these three otherwise and err as in the model of Bradley and Terry.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from heedful.run import Run, derive_seed

if TYPE_CHECKING:
    from heedful.judges.comparing import Comparer, Comparison

NAMES = tuple("abcdefghij")
DIGITS = tuple("0123456789")
TASKS = ("list", "back")
FILLERS = ("well", "so", "um")
WORDS = ("<pad>", "<end>", "<start>", "<unknown>", ":", ",", ".", *NAMES, *DIGITS, *TASKS, *FILLERS)
SLOTS = 5
SPREAD = 0.12
"""Standard deviation of a generator's quality from answer to answer."""
KNOWS_ORDER = 0.65
"""Quality from which an answer has the order that the task asks for."""
LONGEST = 26
"""Tokens of the longest sensible answer, and a few more."""

QUALITIES = {0.4: 0.35, 0.5: 0.46, 0.6: 0.555, 0.7: 0.65, 0.8: 0.75}
"""Quality of the generator whose answers the critic's oracle grades so on average, to within .02."""
WEIGHTS = {"critic": (0.5, 0.3, 0.2), "evaluator": (0.35, 0.3, 0.35), "second": (0.2, 0.2, 0.6)}
"""What each oracle makes of right fields, right order and nothing else said."""
SHARPNESS = {"critic": 10.0, "evaluator": 8.0, "second": 8.0}
"""How much a difference of grades counts in a verdict: p = 1 / (1 + exp(-sharpness * difference))."""


def instruction(draw: Random) -> str:
    """A random instruction; the space at its end keeps prompt and answer apart as tokens."""
    names = draw.sample(NAMES, SLOTS)
    return f"{draw.choice(TASKS)} {' '.join(f'{name} {draw.choice(DIGITS)}' for name in names)} : "


def instructions(count: int, *seed: int | str) -> list[str]:
    """So many different instructions; others for another seed."""
    draw, found = Random(derive_seed(0, *seed)), {}
    while len(found) < count:
        found[instruction(draw)] = None
    return list(found)


def wanted(prompt: str) -> list[tuple[str, str]]:
    """The fields of the whole answer, in order."""
    task, *words = prompt.replace(":", "").split()
    slots = list(zip(words[0::2], words[1::2], strict=True))
    return slots if task == "list" else slots[::-1]


def answer(prompt: str, quality: float, draw: Random) -> str:
    """An answer of a generator of that quality."""
    u = min(1.0, max(0.0, draw.gauss(quality, SPREAD)))
    fields = wanted(prompt)
    if u < KNOWS_ORDER and prompt.startswith("back"):
        fields = fields[::-1]
    said = " , ".join(f"{name} {value}" for name, value in fields[: round(u * SLOTS)])
    fillers = " ".join(FILLERS[i % len(FILLERS)] for i in range(round((1 - u) * 3)))
    return " ".join(part for part in (fillers, said, ".") if part)


def parts(prompt: str, text: str) -> tuple[float, float, float]:
    """What an answer has, from 0 to 1 each: right fields, names in their place (of those said), little else."""
    fields, words, said, other, i = wanted(prompt), text.split(), [], 0, 0
    while i < len(words):
        if words[i] in NAMES and i + 1 < len(words) and words[i + 1] in DIGITS:
            said.append((words[i], words[i + 1]))
            i += 2
            continue
        other += words[i] not in (",", ".")
        i += 1
    right = len({field for field in said if field in fields})
    other += len(said) - right
    placed = sum(name == whole[0] for (name, _), whole in zip(said, fields, strict=False))
    return right / SLOTS, placed / len(said) if said else 0.0, max(0.0, 1 - other / 3)


def grade(prompt: str, text: str, who: str = "critic") -> float:
    """The grade of an answer, from 0 to 1, as the oracle of this judge sees it."""
    return sum(w * part for w, part in zip(WEIGHTS[who], parts(prompt, text), strict=True))


# ---- roles


def writer(quality: float, seed: int, name: str) -> Callable[[Sequence[Any]], list[str]]:
    """A generator: its answer to a prompt is a function of prompt, seed and name."""
    return lambda prompts: [answer(p, quality, Random(derive_seed(seed, name, p))) for p in prompts]


def judge(who: str, seed: int) -> Comparer:
    """The noisy oracle of that name; its verdict on a pair is a function of the pair and the seed, whichever comes
    first."""

    def prefers_second(prompt: str, first: str, second: str) -> float:
        if first.split() == second.split():
            return 0.5
        low, high = sorted((first, second))
        margin = grade(prompt, high, who) - grade(prompt, low, who)
        digest = hashlib.sha256(repr((who, seed, prompt, low, high)).encode()).digest()
        chance = int.from_bytes(digest[:8], "big") / 2**64
        high_wins = chance < 1 / (1 + math.exp(-SHARPNESS[who] * margin))
        return float(high_wins == (second == high))

    def compare(prompts: Sequence[Any], first: Sequence[str], second: Sequence[str]) -> Comparison:
        import torch

        from heedful.judges.comparing import Comparison

        p = [prefers_second(*pair) for pair in zip(prompts, first, second, strict=True)]
        return Comparison(torch.tensor(p, dtype=torch.float32), counts={"ties": p.count(0.5)})

    return compare


# ---- base models


def tokenizer() -> Any:
    """One token for each word of the world."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unknown>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<start>",
        eos_token="<end>",
        pad_token="<pad>",
        unk_token="<unknown>",
    )


def base_model(name: str, width: int, layers: int, steps: int, seed: int, run: Run) -> Path:
    """The folder of a small Llama that has read answers of every quality, equally often; made once per run folder."""
    import torch

    from heedful import hub
    from heedful.fit import FitConfig, fit
    from heedful.policies import objectives
    from heedful.policies.decoder import small_llama
    from heedful.policies.language import LanguagePolicy

    stage = f"world/seed{seed}/{name}-base"
    folder = run.path(f"{stage}/model")
    if (folder / "config.json").exists():
        return folder
    made = tokenizer()
    torch.manual_seed(derive_seed(seed, name))
    module = small_llama(made, hidden=width, inner=2 * width, layers=layers, context=64)
    policy = LanguagePolicy(module, made, template="none", precision="fp32", device="cpu")
    draw = Random(derive_seed(seed, "reading"))
    rows = []
    for prompt in instructions(min(32 * steps, 8192), seed, "reading"):
        rows.append({"group": policy.group(prompt, [answer(prompt, draw.random(), draw)])})
    settings = FitConfig(
        lr=3e-3,
        batch_size=32,
        max_steps=steps,
        schedule="cosine",
        warmup=0.1,
        precision="fp32",
        quiet=True,
        log_every=50,
        save_every=200,
    )
    fit(
        f"{stage}/fit",
        objectives.objective(policy, "best"),
        policy.module,
        rows,
        settings,
        run,
        collate=objectives.collate(policy),
        cost=objectives.row_cost(policy),
        weight=objectives.row_weight("best"),
    )
    return hub.save_model(
        policy.module, made, folder, card={"title": f"A {name} base of the simulated world"}
    )
