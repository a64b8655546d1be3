"""A Hugging Face causal language model as a policy: sample, score, adapt.

Shared prefixes and packed batches follow the measurements in docs/benchmarks.md. The reference policy of direct
preference optimisation is the same model with its adapter off, or a frozen copy when all weights are trained.

Letters: B inputs, N samples per input, T tokens of the longest completion.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from heedful import hub
from heedful.errors import HeedfulError
from heedful.feedback import Samples
from heedful.model_folder import check_weights, is_adapter
from heedful.policies import packing, refill, sampling
from heedful.policies.adapter_sum import why_not
from heedful.policies.backbone import Backbone
from heedful.policies.encode import Prompt
from heedful.policies.packing import Group
from heedful.progress import Progress
from heedful.run import Run

LOGPS_PART = 1024
"""Groups whose log-probabilities share a file of the cache."""


@dataclass(frozen=True)
class Completion:
    """One sampled answer. `ids` ends with the end token when `finished`; `logp` is its log-probability (nats)
    under the policy that sampled it, at temperature 1."""

    text: str
    ids: tuple[int, ...]
    finished: bool
    logp: float

    def __str__(self) -> str:
        return self.text

    def as_row(self) -> dict[str, Any]:
        """A JSON object; `from_row` restores it exactly."""
        return {"text": self.text, "ids": list(self.ids), "finished": self.finished, "logp": self.logp}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Completion:
        """The inverse of `as_row`."""
        return cls(row["text"], tuple(row["ids"]), row["finished"], row["logp"])


class LanguagePolicy(Backbone):
    """A causal language model with a tokenizer; see `load`."""

    def __init__(self, module: nn.Module, tokenizer: Any, **options: Any) -> None:
        self._head_copy: tuple[int, Tensor] | None = None
        super().__init__(module, tokenizer, **options)

    @classmethod
    def load(cls, name: str, **options: Any) -> LanguagePolicy:
        """Load a Hub id, a local folder, a run folder, or `smollm2`; options are those of `Backbone`.

        A saved adapter is folded into its base first, so that tuning can go on from it.
        Raises HeedfulError when the weights are missing, are pickles, or need code from the model's folder.
        """
        return cls(hub.load_model(name, merged=True), hub.load_tokenizer(name), source=name, **options)

    # ---- adapters

    def load_adapter(self, name: str, folder: str | Path) -> None:
        """Load a saved LoRA adapter under `name` beside the ones there are, and use it.

        Raises HeedfulError when the folder holds no safetensors adapter, or one of another architecture.
        """
        from peft import PeftModel

        path = hub.resolve(folder)
        if isinstance(path, str) or not is_adapter(path):
            raise HeedfulError(f"{folder} holds no adapter (adapter_config.json)")
        check_weights(path, str(folder))
        try:
            if isinstance(self.module, PeftModel):
                self.module.load_adapter(str(path), adapter_name=name)
            else:
                self.module = PeftModel.from_pretrained(self.module, str(path), adapter_name=name)  # type: ignore[arg-type]
        except (RuntimeError, ValueError, KeyError) as error:
            raise HeedfulError(f"{path} does not fit {self.source or 'this model'}: {error}") from error
        self.module.to(self.device)
        self.use_adapter(name)

    def use_adapter(self, name: str) -> None:
        """Switch to the adapter `name`. Raises HeedfulError with the known names."""
        self._adapters(name)
        self.module.set_adapter(name)  # type: ignore[operator]

    def add_adapters(self, name: str, weights: Mapping[str, float]) -> None:
        """A new adapter whose change of the weights is exactly sum_i weights[i] * change_i; it is then in use.

        Raises HeedfulError for a name that is taken, and for an adapter whose change cannot be added (rsLoRA, DoRA,
        biases and what else `adapter_sum.why_not` lists): peft would add up something else without a word.
        """
        known = self._adapters(*weights)
        if name in known:
            raise HeedfulError(f"there is an adapter {name!r} already")
        if not weights:
            raise HeedfulError("name at least one adapter to add up")
        for member in weights:
            reason = why_not(self.module.peft_config[member].to_dict())  # type: ignore[index, union-attr]
            if reason:
                raise HeedfulError(f"the adapter {member!r} cannot be added up: {reason}")
        self.module.add_weighted_adapter(  # type: ignore[operator]
            list(weights), list(weights.values()), name, combination_type="cat"
        )
        self.use_adapter(name)

    def remove_adapter(self, name: str) -> None:
        """Forget an adapter. Raises HeedfulError for the last one: load the model without it instead."""
        known = self._adapters(name)
        if len(known) == 1:
            raise HeedfulError(f"{name!r} is the only adapter; load the base model instead")
        if self.module.active_adapter == name:
            self.use_adapter(next(other for other in known if other != name))
        self.module.delete_adapter(name)  # type: ignore[operator]

    def _adapters(self, *wanted: str) -> list[str]:
        known = list(getattr(self.module, "peft_config", {}))
        for name in wanted:
            if name not in known:
                raise HeedfulError(f"there is no adapter {name!r}; known: {', '.join(known) or 'none'}")
        return known

    # ---- scoring

    def head_weight(self) -> Tensor | None:
        """The output matrix in the compute type; kept while it is frozen."""
        weight = getattr(self.head, "weight", None)
        if self.precision == "fp32" or weight is None or weight.requires_grad:
            return None
        if self._head_copy is None or self._head_copy[0] != id(weight):
            self._head_copy = (id(weight), weight.detach().to(torch.bfloat16))
        return self._head_copy[1]

    def logp_groups(self, groups: Sequence[Group]) -> tuple[Tensor, Tensor]:
        """(completions, T) log-probabilities in float32 and their mask, completions numbered group by group; a
        group's stem counts as a completion before the others.

        One forward pass over all groups, with gradients where they are enabled. Each prompt is encoded once.
        """
        with self.autocast():
            if not self.shares_prefix:
                return self._padded_logp(groups)
            hidden, layout = self.hidden(groups)
            values = packing.token_logp(hidden, self.head, layout.target, self.head_weight())
        return packing.scatter_rows(values, layout)

    def kl_groups(self, groups: Sequence[Group]) -> tuple[Tensor, Tensor]:
        """(completions, T) KL(reference || policy) at every completion token in float32, and the mask.

        The reference is the model with its adapter off. Raises HeedfulError where prompts cannot be shared or the
        output layer is trained too.
        """
        if not self.shares_prefix or not hasattr(self.module, "disable_adapter"):
            raise HeedfulError(
                "the KL of whole distributions needs an adapter, on an architecture that shares prompts"
            )
        with self.autocast():
            hidden, layout = self.hidden(groups)
            with torch.no_grad(), self.reference():
                start, _ = self.hidden(groups)
            values = packing.token_kl(hidden, start, self.head)
        return packing.scatter_rows(values, layout)

    def _padded_logp(self, groups: Sequence[Group]) -> tuple[Tensor, Tensor]:
        tokens, mask, read, target, real = self.padded(groups)
        logits = self.transformer(input_ids=tokens, attention_mask=mask, use_cache=False).logits
        picked = logits.gather(1, read[..., None].expand(-1, -1, logits.shape[-1])).float().log_softmax(-1)
        return picked.gather(-1, target[..., None]).squeeze(-1) * real, real

    def plain(self, groups: Sequence[Group]) -> Tensor:
        """Summed log-probabilities by a padded batch that repeats each prompt."""
        return self._padded_logp(groups)[0].sum(-1)

    def shared(self, groups: Sequence[Group]) -> Tensor:
        """Summed log-probabilities by the packed computation."""
        hidden, layout = self.hidden(groups)
        values = packing.token_logp(hidden, self.head, layout.target, self.head_weight())
        return packing.scatter_rows(values, layout)[0].sum(-1)

    def logp(self, samples: Samples) -> tuple[Tensor, Tensor]:
        """(B*N, T) log-probabilities of the samples and their mask; each input is encoded once."""
        n = samples.n
        groups = [self.group(p, samples.outputs[i * n : (i + 1) * n]) for i, p in enumerate(samples.inputs)]
        return self.logp_groups(groups)

    def sequence_logps(
        self, groups: Sequence[Group], *, progress: Callable[[int], None] | None = None
    ) -> list[list[float]]:
        """Summed log-probability (nats) of every completion of every group, without gradients."""

        def sums(batch: list[Group]) -> Tensor:
            logp, mask = self.logp_groups(batch)
            return (logp * mask).cpu().double().sum(-1)  # Apple GPUs have no float64

        return self.in_batches(groups, sums, progress)

    def cached_logps(self, groups: Sequence[Group], run: Run, *, shown: str = "") -> list[list[float]]:
        """`sequence_logps`, computed once per run folder and content: the weights and every token id.

        The cache is `logps/<hash>.json` in the run folder, one file for every 1024 groups, so that a kill costs
        one of them at most; a second call with equal content reads them. shown: a name for a progress display.
        """
        weights = self.fingerprint()
        out: list[list[float]] = []
        with Progress(shown, len(groups), unit="rows", quiet=not shown or run.rank != 0) as bar:
            for first in range(0, len(groups), LOGPS_PART):
                part = [groups[i] for i in range(first, min(first + LOGPS_PART, len(groups)))]
                digest = hashlib.sha256(weights.encode())
                for group in part:
                    content: list[Any] = [list(group.prompt), [list(c) for c in group.completions]]
                    if group.stem:
                        content.append(group.stem)
                    digest.update(json.dumps(content).encode())

                def make(part: list[Group] = part, first: int = first) -> list[list[float]]:
                    done = first

                    def tick(count: int) -> None:
                        nonlocal done
                        done += count
                        bar.show(done, "scored")

                    return self.sequence_logps(part, progress=tick)

                out += run.once(f"logps/{digest.hexdigest()[:32]}.json", make)
        return out

    def cached_token_logps(self, groups: Sequence[Group], run: Run, name: str) -> list[list[list[float]]]:
        """Log-probability of every token of every completion, made once and kept as `name` (.json)."""

        def make() -> list[list[list[float]]]:
            out = []
            for group in groups:
                with torch.no_grad(), self.eval_mode():
                    logp, mask = self.logp_groups([group])
                out.append([row[m].tolist() for row, m in zip(logp, mask, strict=True)])
            return out

        return run.once(name, make)

    # ---- sampling

    def sample(
        self,
        inputs: Sequence[Prompt],
        n: int = 1,
        *,
        temperature: float = 1.0,
        generator: torch.Generator,
        max_new_tokens: int = 128,
        top_p: float = 1.0,
        top_k: int = 0,
        stop: Sequence[str] = (),
        max_rows: int = 256,
        progress: Callable[[int], None] | None = None,
    ) -> Samples:
        """n completions for each of B inputs, at most `max_new_tokens` tokens each.

        generator: the only source of randomness; it gives each sample a stream of its own, so batching does not
        change what is drawn. stop: strings that end a completion and are cut from its text. progress: called with
        the number of tokens drawn at each step.
        Raises HeedfulError for options out of their range, and when a prompt leaves no room for the completion in the
        model's context.
        """
        if n < 1 or max_new_tokens < 1 or max_rows < 1:
            raise HeedfulError("n, max_new_tokens and max_rows must be at least 1")
        if not temperature >= 0 or not 0 < top_p <= 1 or top_k < 0:
            raise HeedfulError("temperature and top_k must be 0 or more, top_p above 0 and at most 1")
        prompts = [self.encoder.prompt(p) for p in inputs]
        for i, ids in enumerate(prompts):
            if len(ids) + max_new_tokens > self.context:
                raise HeedfulError(
                    f"prompt {i + 1} has {len(ids)} tokens; with {max_new_tokens} new ones it exceeds the model's "
                    f"context of {self.context}: shorten it or lower max_new_tokens"
                )
        seeds = torch.randint(2**62, (len(prompts) * n,), generator=generator).numpy().astype(np.uint64)
        end = self._end_tokens()
        weight = self.head_weight()
        head = self.head

        def logits(hidden: Tensor) -> Tensor:
            if type(head) is nn.Linear and weight is not None:
                return nn.functional.linear(hidden.to(weight.dtype), weight, head.bias).float()
            return head(hidden).float()

        options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "end": end, "temperature": temperature}
        options |= {"top_p": top_p, "top_k": top_k, "max_rows": max_rows, "device": self.device}
        if stop:
            options["stopped"] = lambda ids: any(s in self.encoder.decode(ids) for s in stop)
        with self.eval_mode(), self.folded(), self.autocast():
            # Past a sliding window the prompt's keys are no longer the same for all steps, so not shareable.
            window = getattr(self.transformer.config, "sliding_window", None)
            longest = max((len(ids) for ids in prompts), default=0) + max_new_tokens
            if self.shares_prefix and (not window or longest <= window):
                generate = refill.generate if self.small else sampling.generate
                with self.attention(packing.ATTENTION):
                    drawn = generate(self.decoder, logits, prompts, n, seeds, progress=progress, **options)
            else:
                drawn = sampling.generate_padded(
                    self.transformer, prompts, n, seeds, progress=progress, **options
                )
                scored = self.sequence_logps(
                    [Group(p, [d.ids for d in drawn[i * n : i * n + n]]) for i, p in enumerate(prompts)]
                )
                logps = [logp for group in scored for logp in group]
                drawn = [d._replace(logp=logp) for d, logp in zip(drawn, logps, strict=True)]
        outputs = [self._completion(d, stop) for d in drawn]
        return Samples(inputs=list(inputs), outputs=outputs, n=n)

    def _end_tokens(self) -> frozenset[int]:
        config = getattr(self.transformer, "generation_config", None)
        ids = getattr(config, "eos_token_id", None)
        more = ids if isinstance(ids, list) else [] if ids is None else [ids]
        return frozenset([self.encoder.end, *more])

    def _completion(self, drawn: sampling.Drawn, stop: Sequence[str]) -> Completion:
        text = self.encoder.decode(drawn.ids)
        cuts = [at for at in (text.find(s) for s in stop) if at >= 0]
        return Completion(text[: min(cuts)] if cuts else text, tuple(drawn.ids), drawn.finished, drawn.logp)
