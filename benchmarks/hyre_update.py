"""A label of one person, by reweighting 100 heads and by fine-tuning one head or a small network on the same labels.

The world is E1 of the HyRe reproduction, where reweighting should win: what a person wants is half outside of what
training pairs vary in. It is turned into 384 features, as many as a small sentence encoder has, which changes nothing
but the cost. Labels come one by one; after each, every arm gives the rewards of 10,000 pool items and the 20 best.

ours        adapt, weights, rewards, and the next pair to ask about (BALD over 10,000 pairs)
tuned       one linear head in torch: Adam, five folds over three learning rates and up to 100 steps, then all labels
full        the same for every weight of a network with one hidden layer, trained on the same pairs beforehand
fast        our own fine-tuning of one head (`judges.head_tuning`), folds and rates in one product

The clock covers what a label costs once features are there. Accuracy is on 2,000 pairs drawn apart, mean over persons.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Result, alternate, line, main, median

MODULE = "benchmarks.hyre_update"
FEATURES, ITEMS, BEST, LABELS, LATER, PERSONS = 384, 10_000, 20, 5, 20, 8
RATES, STEPS, FOLDS, HIDDEN = (1e-3, 1e-2, 1e-1), (1, 3, 10, 30, 100), 5, 256
LIMIT = 1.0
"""Milliseconds that a label may take."""


def world(seed: int) -> dict[str, Any]:
    """Heads, pool and persons; everything turned into FEATURES dimensions."""
    from heedful.judges.personal import PersonalReward
    from heedful.papers import hyre_linear

    setting = hyre_linear.World()
    rng = np.random.default_rng([seed, 50])
    turn = np.linalg.qr(rng.normal(size=(FEATURES, hyre_linear.SPANNED + setting.missing)))[0].T
    pairs, common = hyre_linear.training_pairs(setting, seed)
    difference = pairs @ turn
    reward = PersonalReward(heads=setting.heads, prior_scale=setting.prior_scale, seed=seed)
    reward.fit(difference, np.zeros_like(difference))
    items = rng.normal(size=(2, ITEMS, turn.shape[0])) @ turn
    reward.set_pool(*items)
    people = [hyre_linear.person_of(setting, common, seed, i) for i in range(PERSONS)]
    return {"reward": reward, "items": items, "people": people, "turn": turn, "training": difference}


def run_ours(here: dict[str, Any]) -> tuple[list[float], dict[int, list[float]]]:
    """Milliseconds of every label, and accuracies after LABELS and LATER of them."""
    reward, (first, second) = here["reward"], here["items"]
    pool = reward.query_pool(first, second)
    scores = reward.head_scores(first).astype(np.float32)
    spent: list[float] = []
    right: dict[int, list[float]] = {LABELS: [], LATER: []}
    for person in here["people"]:
        x, test = person.first @ here["turn"], person.test_first @ here["turn"]
        nothing = np.zeros_like(x)
        reward.undo(len(reward.labels_))
        for n in range(LATER):
            began = time.perf_counter()
            reward.adapt(x[n : n + 1], nothing[n : n + 1], person.labels[n : n + 1])
            weights = reward.weights_
            rewards = scores @ weights.astype(np.float32)
            np.argpartition(-rewards, BEST)
            reward.query(pool)
            spent.append(1e3 * (time.perf_counter() - began))
            if n + 1 in right:
                margin = reward.predict(test, "reweighting")
                right[n + 1].append(float(((margin > 0) == person.right).mean()))
    return spent, right


def run_fast(here: dict[str, Any]) -> tuple[list[float], dict[int, list[float]]]:
    """The same for our own fine-tuning of one head."""
    from heedful.judges import head_tuning

    reward, first = here["reward"], here["items"][0]
    head = reward.single_
    spent: list[float] = []
    right: dict[int, list[float]] = {LABELS: [], LATER: []}
    for person in here["people"]:
        x, test = person.first @ here["turn"], person.test_first @ here["turn"]
        for n in [*range(1, LABELS + 1), LATER]:
            began = time.perf_counter()
            some = x[:n]
            tuned = head + some.T @ head_tuning.tune(some @ head, some @ some.T, person.labels[:n]).parts
            np.argpartition(-(first @ tuned), BEST)
            spent.append(1e3 * (time.perf_counter() - began))
            if n in right:
                right[n].append(float(((test @ tuned > 0) == person.right).mean()))
    return spent, right


def run_torch(here: dict[str, Any], full: bool) -> tuple[list[float], dict[int, list[float]]]:
    """The same for a head, or a small network, fine-tuned by torch."""
    import copy

    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    softplus = torch.nn.functional.softplus
    if full:
        start: Any = torch.nn.Sequential(
            torch.nn.Linear(FEATURES, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, 1, bias=False)
        )
        points = torch.from_numpy(here["training"]).float()
        optimiser = torch.optim.Adam(start.parameters(), lr=1e-3)
        for step in range(400):
            some = points[
                torch.randint(0, len(points), (256,), generator=torch.Generator().manual_seed(step))
            ]
            optimiser.zero_grad()
            softplus(start(torch.zeros_like(some)) - start(some)).mean().backward()
            optimiser.step()
    else:
        start = torch.nn.Linear(FEATURES, 1, bias=False)
        with torch.no_grad():
            start.weight.copy_(torch.from_numpy(here["reward"].single_)[None])

    def margin(model: Any, x: Any) -> Any:
        return (model(x) - model(torch.zeros_like(x)))[:, 0]

    def loss(model: Any, x: Any, y: Any) -> Any:
        m = margin(model, x)
        return (softplus(m) - y * m).mean()

    def train(x: Any, y: Any, rate: float, steps: int, outside: Any) -> tuple[Any, list[float]]:
        """The model after these steps, and the held-out loss at every one of STEPS."""
        model = copy.deepcopy(start)
        optimiser, held = torch.optim.Adam(model.parameters(), lr=rate), []
        for step in range(1, steps + 1):
            optimiser.zero_grad()
            loss(model, x, y).backward()
            optimiser.step()
            if outside is not None and step in STEPS:
                with torch.no_grad():
                    held.append(float(loss(model, *outside)) * len(outside[1]))
        return model, held

    items = torch.from_numpy(here["items"][0]).float()
    spent: list[float] = []
    right: dict[int, list[float]] = {LABELS: [], LATER: []}
    for person in here["people"]:
        all_x = torch.from_numpy(person.first @ here["turn"]).float()
        all_y = torch.from_numpy(person.labels).float()
        test = torch.from_numpy(person.test_first @ here["turn"]).float()
        for n in [*range(1, LABELS + 1), LATER]:
            began = time.perf_counter()
            x, y, model = all_x[:n], all_y[:n], start
            if n > 1:
                fold = torch.arange(n) % min(n, FOLDS)
                found = np.zeros((len(RATES), len(STEPS)))
                with torch.no_grad():
                    stay = float(loss(start, x, y)) * n
                for i, rate in enumerate(RATES):
                    for f in range(min(n, FOLDS)):
                        inside = fold != f
                        _, held = train(x[inside], y[inside], rate, STEPS[-1], (x[~inside], y[~inside]))
                        found[i] += held
                i, j = np.unravel_index(int(found.argmin()), found.shape)
                if found[i, j] < stay:
                    model, _ = train(x, y, RATES[i], STEPS[j], None)
            with torch.no_grad():
                rewards = model(items)[:, 0].numpy()
            np.argpartition(-rewards, BEST)
            spent.append(1e3 * (time.perf_counter() - began))
            if n in right:
                with torch.no_grad():
                    right[n].append(float(((margin(model, test).numpy() > 0) == person.right).mean()))
    return spent, right


def run_child(arm: str, seed: int) -> Result:
    """One run of one arm over all persons."""
    here = world(seed)
    if arm == "ours":
        spent, right = run_ours(here)
    elif arm == "fast":
        spent, right = run_fast(here)
    else:
        spent, right = run_torch(here, arm == "full")
    return {
        "ms": float(np.median(spent)),
        "ms_worst": float(np.max(spent)),
        f"right_{LABELS}": float(np.mean(right[LABELS])),
        f"right_{LATER}": float(np.mean(right[LATER])),
    }


def run(pairs: int, keep: Path | None, count: int, extra: int) -> list[str]:
    """All runs, one world for each, and the lines."""
    arms = ("ours", "tuned", "full", "fast")
    done: dict[str, list[Result]] = {arm: [] for arm in arms}
    for seed in range(pairs):
        for arm, results in alternate(
            MODULE, {arm: {"arm": arm, "seed": seed} for arm in arms}, 1, keep
        ).items():
            done[arm] += results

    def told(arm: str) -> str:
        values = [np.mean([r[f"right_{n}"] for r in done[arm]]) for n in (LABELS, LATER)]
        return f"{values[0]:.3f} at {LABELS} and {values[1]:.3f} at {LATER}"

    ms = {arm: median(done[arm], "ms") for arm in arms}
    about = (
        f"100 heads, {ITEMS} pool items, {FEATURES} features, {pairs} worlds of {PERSONS} persons, 1 thread, median of "
        f"labels; accuracy: ours {told('ours')} labels"
    )
    notes = {
        "tuned": "one head in torch, Adam, rate and steps by cross-validation",
        "full": f"every weight of a network of {HIDDEN} hidden units, rate and steps by cross-validation",
        "fast": "our own fine-tuning of one head, all folds and rates in one product",
    }
    lines = [
        line(
            f"hyre_update{'' if arm == 'tuned' else f'_{arm}'}",
            ms["ours"],
            ms[arm],
            "ms per label",
            f"{about}; {notes[arm]}: {told(arm)}",
        )
        for arm in notes
    ]
    worst = max(r["ms_worst"] for r in done["ours"])
    limit = f"{about}; the limit in place of a peer; worst label {worst:.2f} ms"
    return [*lines, line("hyre_update_limit", ms["ours"], LIMIT, "ms per label", limit)]


if __name__ == "__main__":
    main(MODULE, run_child, run)
