"""How the cost of a critic step with action search grows: k, m, T and the size of the ensemble, one at a time.

Each is doubled from a small base while the others stay. The figures go to `parl_cost.json` beside this file, and
`docs/images/parl_cost.svg` is drawn from that file alone (`--draw` draws without measuring).
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

FIGURES = Path(__file__).with_name("parl_cost.json")
IMAGE = Path(__file__).parent.parent / "docs" / "images" / "parl_cost.svg"
BASE = {"k": 8, "m": 2, "T": 2, "members": 2}
TIMES = (1, 2, 4, 8)
BATCH, ROUNDS = 64, 5
NAMES = {
    "k": "candidates k from the cache",
    "fresh": "candidates k drawn anew",
    "m": "kept m",
    "T": "climbing steps T",
    "members": "members of the ensemble",
}


def measure(batch: int = BATCH, rounds: int = ROUNDS) -> dict[str, Any]:
    """CPU milliseconds of a step by what is grown and how often it was doubled; medians of rounds that take turns."""
    import torch

    from benchmarks.parl_update import Setting, cpu, learner, world
    from heedful.judges.action_search import SearchConfig, searched_loss

    torch.set_num_threads(1)
    cells: dict[tuple[str, int], Any] = {}
    for what in NAMES:
        for times in TIMES:
            size = dict(BASE)
            size["k" if what == "fresh" else what] *= times
            # More are kept than there are candidates in the base: as many are drawn as the largest m needs.
            k, m = max(size["k"], BASE["m"] * max(TIMES) if what == "m" else 0), size["m"]
            setting = Setting((k, m, size["T"]), (k, m, size["T"]), size["members"], 128, 4, (128, 2), 0.0)
            here = world(setting, batch)
            how, learn = SearchConfig(k, m, size["T"]), learner(here["critic"].module)
            cells[what, times] = (here, how, learn, [])
    for i in range(rounds + 1):
        for (what, _), (here, how, learn, spent) in cells.items():
            generator = torch.Generator().manual_seed(i)

            def draw(here: Any = here, how: Any = how, generator: Any = generator) -> tuple[Any, Any]:
                act, batch = here["policy"].act, here["batch"]
                return tuple(
                    act(x, how.samples, generator=generator)
                    for x in (batch.observations, batch.next_observations)
                )  # type: ignore[return-value]

            def step(given: Any, here: Any = here, how: Any = how, learn: Any = learn) -> None:
                now, after = given or draw()
                learn(searched_loss(here["critic"], here["batch"], now, after, how)[0])
                here["critic"].after_step(0)

            if "given" not in here and what != "fresh":
                here["given"] = draw()
            seconds, _ = cpu(lambda step=step, here=here: step(here.get("given")))
            if i:
                spent.append(1e3 * seconds)
    return {
        "base": BASE,
        "batch": batch,
        "rounds": rounds,
        "times": list(TIMES),
        "ms": {w: [statistics.median(cells[w, t][3]) for t in TIMES] for w in NAMES},
    }


def plot(figures: dict[str, Any]) -> bytes:
    """The picture of what `measure` gave, as SVG."""
    from heedful.papers.results import Plot, Series
    from heedful.papers.results_plots import draw

    base = ", ".join(f"{name} {value}" for name, value in figures["base"].items())
    series = [Series(NAMES[what], figures["times"], ms) for what, ms in figures["ms"].items()]
    label = f"times the base: {base}"
    return draw(Plot("cost of a critic step", label, "CPU ms of a critic step", series), "parl-cost")


def main() -> None:
    """Measure, unless told not to, and draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parl_cost")
    parser.add_argument("--draw", action="store_true", help="draw from the figures that are there")
    if not parser.parse_args().draw:
        FIGURES.write_text(json.dumps(measure(), indent=1) + "\n")
    IMAGE.write_bytes(plot(json.loads(FIGURES.read_text())))


if __name__ == "__main__":
    main()
