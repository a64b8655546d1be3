"""The bandit worlds of Tajwar et al. 2024 (arXiv 2404.14367): one action, or ten tokens, for a prompt.

1. pi_data is a histogram of tanh(Cauchy(-0.7, 0.4)): a hump around bins 16 to 20, heavy ends, and .2% in bin 70. A
   reward peaks at bin 70 (`optimal`: what pays lies where pi_data hardly goes) or at bin 20 (`mode`).
2. `context`: a prompt is a point of [0, 1]^100, an output is one of 100 actions, and the policy is a small MLP.
   `tokens`: a prompt is one token, an output nine more, and the policy is a causal transformer (3 layers, 3 heads, 48
   wide, dropout .1).
3. pi_ref is such a network after 100 steps of Adam towards pi_data.

Departures from faults of the paper's code: a token is scored by the logits that have *not* seen it, the prompt is
neither scored nor rewarded, and pi_ref has no dropout. Departures by choice: dropout is on while pi_ref is learned
and never after, because it would make noise of PPO's ratios; the transformer learns pi_data on batches of 100 prompts
(there, on one); the first samples come from pi_ref in both worlds (there, in `context`, from pi_data).

Letters: B prompts, N outputs for each, T tokens of an output (1 or 9), A actions.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from heedful.run import derive_seed

if TYPE_CHECKING:
    from heedful.run import Run

Name = Literal["context", "tokens"]

ACTIONS = 100
TOKENS = 9
CONTEXT = 100
DRAWS = 10_000
POOL = 1000
"""Prompts to learn on, of each seed; a setting takes the first so many."""
TEST = 100
"""Prompts that every result is measured on."""
PRETRAINING = {"steps": 100, "prompts": 100, "lr": 0.01}
TEST_OUTPUTS = 2
"""Outputs sampled for each test prompt to measure a policy of many tokens."""
REWARDS = {
    "optimal": (70.0, 10.0),
    "mode": (20.0, 10.0),
    "optimal-20": (70.0, 20.0),
    "optimal-30": (70.0, 30.0),
}
"""Centre and width of each reward."""


def generator(seed: int, *parts: str | int) -> Generator:
    """A stream of random numbers that is a pure function of the seed and what it is for."""
    return torch.Generator().manual_seed(derive_seed(seed, *parts))


def data_distribution(seed: int, *, draws: int = DRAWS) -> Tensor:
    """pi_data, (A,): the share of each of 100 bins over [-1, 1] among draws of tanh(Cauchy(-0.7, 0.4))."""
    uniform = torch.rand(draws, generator=generator(seed, "pi_data"), dtype=torch.float64)
    values = torch.tanh(-0.7 + 0.4 * torch.tan(torch.pi * (uniform - 0.5)))
    bins = ((values + 1) * (ACTIONS / 2)).long().clamp(0, ACTIONS - 1)
    return (torch.bincount(bins, minlength=ACTIONS).double() / draws).float()


def action_rewards(name: str) -> Tensor:
    """The reward of each action, (A,): exp(-((a - centre) / width)^2). An output's is the mean over its tokens."""
    centre, width = REWARDS[name]
    return torch.exp(-(((torch.arange(ACTIONS, dtype=torch.float64) - centre) / width) ** 2)).float()


class Policy(nn.Module, ABC):
    """What both policies share: `log_probs`, `logp` and `sample`."""

    tokens: int
    """T, tokens of an output."""

    @abstractmethod
    def log_probs(self, prompts: Tensor, outputs: Tensor) -> Tensor:
        """(B, N, T, A): the log-probability of every action at each place of an output, given what stands before."""

    def logp(self, prompts: Tensor, outputs: Tensor) -> Tensor:
        """(B, N, T): log-probabilities of the tokens of outputs (B, N, T), each given what stands before it."""
        return self.log_probs(prompts, outputs).gather(-1, outputs[..., None])[..., 0]

    @abstractmethod
    def sample(self, prompts: Tensor, n: int, *, generator: Generator) -> Tensor:
        """(B, n, T) outputs drawn at temperature 1."""


class ContextPolicy(Policy):
    """One action for a context: 100 -> 50 (LayerNorm, ReLU) -> 256 -> 256 -> 100, Xavier-uniform with gain .01."""

    tokens = 1

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(derive_seed(seed, "context", "weights"))
            self.net = nn.Sequential(
                nn.Linear(CONTEXT, 50),
                nn.LayerNorm(50),
                nn.ReLU(),
                nn.Linear(50, 256),
                nn.ReLU(),
                nn.Linear(256, 256),
                nn.ReLU(),
                nn.Linear(256, ACTIONS),
            )
            for layer in self.net:
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_uniform_(layer.weight, gain=0.01)
                    nn.init.zeros_(layer.bias)

    def forward(self, prompts: Tensor) -> Tensor:
        """(B, A) log-probabilities."""
        return self.net(prompts).log_softmax(-1)

    def log_probs(self, prompts: Tensor, outputs: Tensor) -> Tensor:
        """See `Policy`; the outputs give the shape alone."""
        return self(prompts)[:, None, None].expand(*outputs.shape, ACTIONS)

    def logp(self, prompts: Tensor, outputs: Tensor) -> Tensor:
        """See `Policy`."""
        # The network runs once for each prompt, whatever N is.
        return self(prompts).gather(-1, outputs[..., 0])[..., None]

    @torch.no_grad()
    def sample(self, prompts: Tensor, n: int, *, generator: Generator) -> Tensor:
        """See `Policy`."""
        return self(prompts).exp().multinomial(n, replacement=True, generator=generator)[..., None]


class TokenPolicy(Policy):
    """Nine tokens after a prompt token: minGPT's gpt-nano, 3 layers, 3 heads, 48 wide, dropout .1."""

    tokens = TOKENS
    layers, heads, width, dropout = 3, 3, 48, 0.1

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(derive_seed(seed, "tokens", "weights"))
            self.embed = nn.Embedding(ACTIONS, self.width)
            self.place = nn.Embedding(TOKENS + 1, self.width)
            self.blocks = nn.ModuleList(
                Block(self.width, self.heads, self.dropout) for _ in range(self.layers)
            )
            self.norm = nn.LayerNorm(self.width)
            self.head = nn.Linear(self.width, ACTIONS, bias=False)
            for name, weight in self.named_parameters():
                if weight.ndim == 2:
                    into_stream = name.endswith(("mix.weight", "down.weight"))
                    nn.init.normal_(weight, std=0.02 / (2 * self.layers) ** 0.5 if into_stream else 0.02)
                elif name.endswith("bias"):
                    nn.init.zeros_(weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """(R, L) tokens -> (R, L, A): at each place, the log-probabilities of the token that comes *next*."""
        places = torch.arange(tokens.shape[1])
        x = F.dropout(self.embed(tokens) + self.place(places), self.dropout, self.training)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)).log_softmax(-1)

    def log_probs(self, prompts: Tensor, outputs: Tensor) -> Tensor:
        """See `Policy`."""
        # Shifted: the last token is predicted and never read, the prompt is read and never predicted.
        read = torch.cat([prompts[:, None, None].expand(*outputs.shape[:2], 1), outputs[..., :-1]], -1)
        return self(read.flatten(0, 1)).unflatten(0, outputs.shape[:2])

    @torch.no_grad()
    def sample(self, prompts: Tensor, n: int, *, generator: Generator) -> Tensor:
        """See `Policy`."""
        tokens = prompts.repeat_interleave(n)[:, None]
        for _ in range(TOKENS):
            following = self(tokens)[:, -1].exp().multinomial(1, generator=generator)
            tokens = torch.cat([tokens, following], 1)
        return tokens[:, 1:].unflatten(0, (len(prompts), n))


class Block(nn.Module):
    """Causal self-attention and an MLP, both after a LayerNorm and added to the stream."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(R, L, width) -> the same."""
        split = self.attend(self.before_attention(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4)
        held = F.scaled_dot_product_attention(
            query, key, value, is_causal=True, dropout_p=self.dropout if self.training else 0.0
        )
        x = x + F.dropout(self.mix(held.transpose(1, 2).flatten(2)), self.dropout, self.training)
        inner = F.gelu(self.up(self.before_mlp(x)), approximate="tanh")
        return x + F.dropout(self.down(inner), self.dropout, self.training)


POLICIES: dict[Name, type[ContextPolicy] | type[TokenPolicy]] = {
    "context": ContextPolicy,
    "tokens": TokenPolicy,
}


@dataclass(frozen=True)
class World:
    """Everything of a seed that is the same for all methods."""

    name: Name
    seed: int
    pi_data: Tensor
    """(A,)."""
    prompts: Tensor
    """POOL prompts to learn on: (POOL, 100) or (POOL,)."""
    test: Tensor
    """TEST prompts to measure on. In `tokens` there are but 100 prompts, so they are among those learned on."""
    reference: Policy
    """pi_ref: in evaluation mode, so without dropout, and without gradients."""
    test_outputs: Tensor
    """(TEST, TEST_OUTPUTS, T) outputs of pi_ref for the test prompts."""
    test_log_probs: Tensor
    """(TEST, TEST_OUTPUTS, T, A): what pi_ref gives every action there."""


def make_world(name: Name, seed: int, run: Run | None = None) -> World:
    """The world of a seed. With a run, pi_ref is trained once and kept (bandit/NAME/seedSEED.safetensors)."""
    draws = generator(seed, name, "prompts")
    if name == "context":
        prompts = torch.rand(POOL + TEST, CONTEXT, generator=draws)
    else:
        prompts = torch.randint(ACTIONS, (POOL + TEST,), generator=draws)
    pi_data = data_distribution(seed)
    reference = POLICIES[name](seed)

    def make() -> Mapping[str, Tensor]:
        return pretrained(reference, pi_data, prompts[: PRETRAINING["prompts"]], seed).state_dict()

    kept = make() if run is None else run.once(f"bandit/{name}/seed{seed}.safetensors", make)
    reference.load_state_dict(kept)
    reference.eval().requires_grad_(False)
    outputs = reference.sample(
        prompts[POOL:], TEST_OUTPUTS, generator=generator(seed, name, "reference outputs")
    )
    there = reference.log_probs(prompts[POOL:], outputs)
    return World(name, seed, pi_data, prompts[:POOL], prompts[POOL:], reference, outputs, there)


def pretrained(start: Policy, pi_data: Tensor, prompts: Tensor, seed: int) -> Policy:
    """A copy of `start` after 100 steps of Adam (.01) on KL(pi || pi_data), the mean over places, with dropout.

    What stands before a place is drawn from pi_data itself, which is what pi writes once it has learned it.
    """
    policy = copy.deepcopy(start).train()
    optimizer = torch.optim.Adam(policy.parameters(), lr=PRETRAINING["lr"], fused=True)
    log_data = pi_data.clamp(min=1e-6).log()
    draws = generator(seed, "pretraining")
    with torch.random.fork_rng([]):
        torch.manual_seed(derive_seed(seed, "pretraining", "dropout"))
        for _ in range(int(PRETRAINING["steps"])):
            count = len(prompts) * policy.tokens
            outputs = pi_data.multinomial(count, replacement=True, generator=draws)
            log_probs = policy.log_probs(prompts, outputs.view(len(prompts), 1, policy.tokens))
            loss = (log_probs.exp() * (log_probs - log_data)).sum(-1).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    return policy


@torch.no_grad()
def measure(policy: Policy, world: World, rewards: Tensor, sampler: Policy, seed: int) -> dict[str, float]:
    """Expected reward, distances and entropy of a policy on the test prompts.

    reward, and in nats for each output: kl = KL(pi || pi_ref), kl_forward = KL(pi_ref || pi), kl_sampler = KL(pi ||
    the policy that drew the samples it last learned from), entropy. Exact for one action. With many tokens each
    place is summed over all actions, and only what stands before it is sampled, 2 outputs for each prompt.
    """
    outputs = policy.sample(world.test, TEST_OUTPUTS, generator=generator(seed, world.name, "measure"))
    own = policy.log_probs(world.test, outputs)
    share = own.exp()
    reward = (share @ rewards).mean()
    entropy = _over_outputs(share, -own)
    kl = _over_outputs(share, own - world.reference.log_probs(world.test, outputs))
    kl_sampler = _over_outputs(share, own - sampler.log_probs(world.test, outputs))
    there = policy.log_probs(world.test, world.test_outputs)
    kl_forward = _over_outputs(world.test_log_probs.exp(), world.test_log_probs - there)
    values = {
        "reward": reward,
        "kl": kl,
        "kl_forward": kl_forward,
        "kl_sampler": kl_sampler,
        "entropy": entropy,
    }
    return {name: float(value) for name, value in values.items()}


def _over_outputs(share: Tensor, values: Tensor) -> Tensor:
    return (share * values).sum(-1).sum(-1).mean()
