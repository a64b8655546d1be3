"""A Hugging Face transformer with a tokenizer: what language policies and reward models have in common.

Letters: B inputs, N samples per input, M predicted tokens, D hidden size.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from heedful.device import pick_device, pick_precision
from heedful.errors import HeedfulError
from heedful.policies import packing
from heedful.policies.encode import Encoder, Prompt
from heedful.policies.packing import Group

TOKEN_BUDGET = 2048  # positions in one packed forward pass where no gradient is kept
FOLD_BYTES = (
    2 << 30
)  # folding keeps a second copy of the adapted weights; above this it costs more than it saves


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters on every linear layer but the output layer (Hu et al. 2021; peft's `all-linear`)."""

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: str | tuple[str, ...] = "all-linear"


class Backbone:
    """The transformer under a language policy or a reward model.

    module: the transformers model, or the peft model round it. precision "bf16" computes under autocast and keeps
    frozen linear layers in bfloat16; trained weights always stay float32. `shares_prefix` says whether prompts are
    encoded once for all their completions; it is off for architectures where that is not exact. small is for models of
    some million parameters and prompts of some tokens: rows are refilled while sampling (see `refill`), and attention
    stays in float32 on a CPU, which is faster over short rows there.
    """

    task = "CAUSAL_LM"

    def __init__(
        self,
        module: nn.Module,
        tokenizer: Any,
        *,
        source: str = "",
        template: str = "auto",
        precision: str = "auto",
        device: str = "auto",
        seed: int = 0,
        lora: Lora | None = None,
        small: bool = False,
    ) -> None:
        self.source = source
        self.small = small
        self.device = torch.device(pick_device(device))
        self.precision: Literal["bf16", "fp32"] = pick_precision(precision, self.device.type)
        self.encoder = Encoder(tokenizer, template)
        self.tokenizer = tokenizer
        _without_dropout(module)
        self.module = _with_lora(module, lora, self.task, seed) if lora is not None else module
        self.module.to(self.device)
        self._reference: nn.Module | None = None
        if self.precision == "bf16":
            _halve_frozen_linear(self.module, self.head)
        _own_memory(self.module)
        self.shares_prefix = False
        self.shares_prefix = self._probe()

    # ---- the parts of the model

    @property
    def transformer(self) -> nn.Module:
        """The transformers model without peft's wrapper."""
        get = getattr(self.module, "get_base_model", None)
        return get() if get is not None else self.module

    @property
    def decoder(self) -> nn.Module:
        """The model under the output layer."""
        return getattr(self.transformer, self.transformer.base_model_prefix)  # type: ignore[arg-type]

    @property
    def head(self) -> nn.Module:
        """The output layer."""
        return self.transformer.get_output_embeddings()  # type: ignore[operator]

    @property
    def context(self) -> int:
        """Longest prompt plus completion the model accepts, in tokens."""
        return int(getattr(self.transformer.config, "max_position_embeddings", 1 << 20))

    def autocast(self) -> Any:
        """The context in which this model computes."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    @contextmanager
    def attention(self, name: str) -> Iterator[None]:
        """Inside, the model uses the attention function registered under `name`."""
        config: Any = self.transformer.config
        before = config._attn_implementation
        config._attn_implementation = name
        try:
            yield
        finally:
            config._attn_implementation = before

    @contextmanager
    def eval_mode(self) -> Iterator[None]:
        """Inside, dropout is off."""
        training = self.module.training
        self.module.eval()
        try:
            yield
        finally:
            self.module.train(training)

    # ---- encoding

    def cost(self, group: Group) -> int:
        """Positions the group takes in a forward pass."""
        if self.shares_prefix:
            return group.cost
        return len(group.scored) * (len(group.prompt) + max(len(c) for c in group.completions))

    def group(self, prompt: Prompt, completions: Sequence[Any]) -> Group:
        """Token ids of one prompt and its completions; a completion with `ids` keeps the very tokens drawn.

        Raises HeedfulError when prompt and completion together exceed the model's context.
        """
        ids = [
            list(c.ids) if hasattr(c, "ids") else self.encoder.completion(prompt, str(c)) for c in completions
        ]
        group = Group(self.encoder.prompt(prompt), ids)
        longest = len(group.prompt) + max((len(c) for c in ids), default=0)
        if longest > self.context:
            raise HeedfulError(
                f"a prompt and its completion have {longest} tokens; the model's context is {self.context}"
            )
        return group

    def hidden(self, groups: Sequence[Group]) -> tuple[Tensor, packing.Pack]:
        """Hidden states (M, D) that predict each completion token, and the layout that says which is which."""
        floats = self.small and self.device.type == "cpu"
        layout = packing.rounded(packing.pack(groups, self.device, float_attention=floats))
        with self.attention(packing.ATTENTION):
            out = self.decoder(
                input_ids=layout.tokens,
                position_ids=layout.positions,
                use_cache=False,
                heedful_layout=layout,
            )
        return out.last_hidden_state[0, layout.read], layout

    def padded(self, groups: Sequence[Group]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The same completions as right-padded rows that repeat their prompt: tokens and mask (rows, width), and
        for every completion token the position that predicts it, the token, and whether it is real (rows, T)."""
        rows = []
        for g in groups:
            head = list(g.prompt[: len(g.prompt) - g.stem])
            rows += [(head, list(g.prompt[len(head) :]))] if g.stem else []
            rows += [(list(g.prompt), list(c)) for c in g.completions]
        width = max(len(p) + len(c) for p, c in rows)
        longest = max(len(c) for _, c in rows)
        tokens = torch.zeros(len(rows), width, dtype=torch.long)
        mask = torch.zeros(len(rows), width, dtype=torch.long)
        read = torch.zeros(len(rows), longest, dtype=torch.long)
        target = torch.zeros(len(rows), longest, dtype=torch.long)
        real = torch.zeros(len(rows), longest, dtype=torch.bool)
        for i, (p, c) in enumerate(rows):
            tokens[i, : len(p) + len(c)] = torch.tensor(p + c)
            mask[i, : len(p) + len(c)] = 1
            read[i, : len(c)] = torch.arange(len(p) - 1, len(p) + len(c) - 1)
            target[i, : len(c)] = torch.tensor(c)
            real[i, : len(c)] = True
        tokens, mask, read, target, real = (x.to(self.device) for x in (tokens, mask, read, target, real))
        return tokens, mask, read, target, real

    def plain(self, groups: Sequence[Group]) -> Tensor:
        """What this model says of each completion, by the plain padded computation."""
        raise TypeError(f"{type(self).__name__} has no plain computation")

    def shared(self, groups: Sequence[Group]) -> Tensor:
        """The same by the packed computation."""
        raise TypeError(f"{type(self).__name__} has no packed computation")

    def _probe(self) -> bool:
        """Whether the packed computation gives the plain result on this architecture."""
        if not getattr(type(self.transformer), "_supports_attention_backend", False):
            return False
        config: Any = self.transformer.config
        size = int(config.get_text_config().vocab_size)
        ids = [x % size for x in (11, 29, 3, 47, 5, 61, 7, 83, 19)]
        groups = [Group(ids[:4], [ids[4:7], ids[7:9]]), Group(ids[2:5], [ids[5:8]])]
        with torch.no_grad(), self.eval_mode(), self.autocast():
            plain = self.plain(groups)
            try:
                shared = self.shared(groups)
            except (packing.UnsupportedModel, TypeError, AttributeError):
                return False
        tolerance = 1e-3 if self.precision == "fp32" else 0.25
        return plain.shape == shared.shape and bool((plain - shared).abs().max() < tolerance)

    def in_batches(
        self, groups: Sequence[Group], compute: Callable[[list[Group]], Tensor], progress: Any = None
    ) -> list[list[float]]:
        """One number for every completion of every group, packed to a token budget, without gradients."""
        out: list[list[float]] = [[] for _ in groups]
        order = sorted(range(len(groups)), key=lambda i: -self.cost(groups[i]))
        with torch.no_grad(), self.eval_mode(), self.autocast():
            for batch in _packed_batches(order, [self.cost(g) for g in groups], TOKEN_BUDGET):
                values = compute([groups[i] for i in batch]).tolist()
                for i in batch:
                    count = len(groups[i].scored)
                    out[i], values = values[:count], values[count:]
                if progress is not None:
                    progress(len(batch))
        return out

    # ---- the reference

    def keep_reference(self) -> None:
        """Remember the weights as they are now as the reference. Needless (and free) with an adapter."""
        if not hasattr(self.module, "disable_adapter"):
            self._reference = copy.deepcopy(self.module).eval().requires_grad_(False)

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Inside, the adapter is off, or the frozen copy stands in for the module.

        Raises HeedfulError when all weights are trained and `keep_reference` was not called.
        """
        if hasattr(self.module, "disable_adapter"):
            with self.module.disable_adapter():  # type: ignore[operator]
                yield
            return
        if self._reference is None:
            raise HeedfulError("no reference: call keep_reference() before training all weights")
        self.module, current = self._reference, self.module
        try:
            yield
        finally:
            self.module = current

    @contextmanager
    def folded(self) -> Iterator[None]:
        """Inside, adapters that are in use are added into the weights they adapt, and the adapters are off.

        One product per layer instead of three, for decoding. The weights come back as the very same tensors. Layers
        that are more than a product (DoRA, biases), or weights above `FOLD_BYTES`, are left as they are.
        """
        layers = [m for m in self.module.modules() if isinstance(m, BaseTunerLayer)]
        weights = [getattr(layer.get_base_layer(), "weight", None) for layer in layers]
        size = sum(w.numel() * w.element_size() for w in weights if w is not None)
        if not layers or size > FOLD_BYTES or not all(map(_foldable, layers)):
            yield
            return
        kept = [w.data for w in weights if w is not None]
        try:
            with torch.no_grad():
                for layer, weight in zip(layers, weights, strict=True):
                    assert weight is not None
                    change = sum(layer.get_delta_weight(name).float() for name in layer.active_adapters)  # type: ignore[operator]
                    weight.data = (weight.data.float() + change).to(weight.dtype)
            with self.module.disable_adapter():  # type: ignore[operator]
                yield
        finally:
            for weight, data in zip(weights, kept, strict=True):
                assert weight is not None
                weight.data = data

    def fingerprint(self) -> str:
        """A content hash of the weights in use, cheap enough to take before every cached computation.

        With the adapter off (`reference`), adapter weights are not in use and do not count.
        """
        adapters = [m for m in self.module.modules() if isinstance(m, BaseTunerLayer)]
        off = any(layer.disable_adapters for layer in adapters)
        active = "" if off or not adapters else ",".join(adapters[0].active_adapters)
        digest = hashlib.sha256(f"{self.precision} {active}".encode())
        for name, p in sorted(self.module.named_parameters()):
            if off and ("lora_" in name or "modules_to_save" in name):
                continue
            flat = p.detach().flatten()
            sample = flat[:: max(1, flat.numel() // 64)].float().cpu().numpy()
            digest.update(f"{name}{tuple(p.shape)}".encode() + sample.tobytes())
            total = flat.cpu().double() if flat.device.type == "mps" else flat  # Apple GPUs have no float64
            digest.update(np.float64(total.sum(dtype=torch.float64).item()).tobytes())
        return digest.hexdigest()


def _foldable(layer: BaseTunerLayer) -> bool:
    """A LoRA round a linear layer, in use, with no part that is not a product."""
    from peft.tuners.lora import Linear

    names = layer.active_adapters
    return (
        isinstance(layer, Linear)
        and type(layer.get_base_layer()) is nn.Linear
        and not layer.disable_adapters
        and not layer.merged
        and all(name in layer.lora_A for name in names)
        and not any(name in layer.lora_variant or layer.lora_bias[name] for name in names)
    )


def _without_dropout(module: nn.Module) -> None:
    """Policy and reference must be one function of the weights; TRL's `disable_dropout` does the same. A dropout of
    the adapter's own is asked for, and stays."""
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        if isinstance(getattr(part, "attention_dropout", None), float):
            part.attention_dropout = 0.0  # type: ignore[assignment]


def _with_lora(module: nn.Module, lora: Lora, task: str, seed: int) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=targets,
        task_type=task,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the adapter's first weights are a function of the seed alone
        # peft switches dropout on; whether it is on is for `fit` to say
        return get_peft_model(module, config).train(module.training)  # type: ignore[arg-type]


def _halve_frozen_linear(module: nn.Module, head: nn.Module) -> None:
    """Autocast rounds these weights to bfloat16 at every call anyway; once is enough. Embeddings and norms stay."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear) and layer is not head and not layer.weight.requires_grad:
            layer.to(torch.bfloat16)


def _own_memory(module: nn.Module) -> None:
    """Copy what is still a view of the mapped weights file, which is resident as a whole while one view is left."""
    for p in module.parameters():
        if p.device.type == "cpu":
            p.data = p.data.clone()


def _packed_batches(order: Sequence[int], costs: Sequence[int], budget: int) -> Iterator[list[int]]:
    batch: list[int] = []
    total = 0
    for i in order:
        if batch and total + costs[i] > budget:
            yield batch
            batch, total = [], 0
        batch.append(i)
        total += costs[i]
    if batch:
        yield batch
