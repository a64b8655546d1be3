"""What is measured of an arm of Stream of Search, problem by problem, and what the symbolic strategies do there.

Test sets are those of `heedful search`: held-out inputs and held-out targets. Two more are found among the held-out
inputs: problems that the strategy drawn for them does not solve ("unsolved"), and that none of the twelve solves
("difficult"). Solved means a rating above 0, as the paper counts: under the strict verifier, unless it says legacy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from heedful.papers.seeds import Result
from heedful.run import Run, open_run

if TYPE_CHECKING:
    from heedful.recipes.search_measure import Measured
    from heedful.recipes.search_world import Settings

INPUTS, TARGETS = "heldout-inputs", "heldout-targets"
SETS = (INPUTS, TARGETS)
WORDS = {INPUTS: "held-out inputs", TARGETS: "held-out targets"}
HARD = ("unsolved", "difficult")


def symbolic(settings: Settings, test: int, pool: int) -> Result:
    """What the twelve strategies solve. sets: by test set {"solved": by strategy, a 0 or 1 a problem}; weights: of each
    in the mixture; pool: how many held-out problems were looked at, and the prompts of the unsolved and difficult ones.
    """
    from heedful.data.countdown import codec
    from heedful.data.countdown.game import STRATEGIES, tree_size
    from heedful.data.countdown.instances import draw
    from heedful.data.countdown.streams import survey
    from heedful.recipes.search_countdown import instances_of

    instances = instances_of(settings)
    most = tree_size(settings.numbers)

    def solves(drawn: Any) -> np.ndarray:
        _, explored = survey(drawn.problems, drawn.seeds, cap=settings.cap)
        return (explored > 0) & (explored + 1 < most)

    sets = {}
    for side in SETS:
        right = solves(draw(instances, side, 0, test)).T.astype(int).tolist()
        sets[side] = {"solved": dict(zip(STRATEGIES, right, strict=True))}
    drawn = draw(instances, INPUTS, 0, pool)
    right = solves(drawn)
    failed = {
        "unsolved": ~right[np.arange(pool), drawn.strategies],
        "difficult": ~right.any(1),
    }
    prompts = [codec.prompt(row[0], row[2 : 2 + row[1]]) for row in drawn.problems.tolist()]
    return {
        "sets": sets,
        "weights": {name: weight(name, settings.beams) for name in STRATEGIES},
        "pool": {
            "problems": pool,
            **{name: [prompts[i] for i in np.flatnonzero(flags)] for name, flags in failed.items()},
        },
    }


def weight(strategy: str, beams: int) -> float:
    """How often a strategy is drawn: a coin for the kind, one for the heuristic, a beam from 1 to `beams`."""
    kind, *_, beam = strategy.split("-")
    if kind == "dfs":
        return 0.25
    return 0.25 / beams if int(beam) <= beams else 0.0


def mixture(symbolic: Result, side: str) -> float:
    """The accuracy of the mixture on a test set, exactly: every strategy's, by its weight."""
    solved = symbolic["sets"][side]["solved"]
    return sum(share * fmean(solved[name]) for name, share in symbolic["weights"].items() if share)


def measured(
    model: str,
    settings: Settings,
    hard: Mapping[str, Sequence[str]],
    run: Run,
    *,
    test: int,
    tries: int,
    seed: int,
) -> dict[str, Any]:
    """By test set, and by set of `hard` prompts that is not empty: lists with an entry a problem, and means.

    solved, legacy: 0 or 1; tokens, explored, and errors by kind. Of test sets also pass: by k the chance that one of k
    streams solves it, and tries_tokens, the mean length of those; of held-out inputs also states: how alike the states
    are that it visits and that each strategy visits. Everything that is drawn lies in the folder MODEL-eval.
    """
    from heedful.policies.language import LanguagePolicy
    from heedful.recipes import search_eval, search_measure
    from heedful.recipes.search_world import open_world

    name = f"{model}-eval"
    cfg = search_eval.Config(
        out=str(run.path(name)), model=str(run.path(model)), problems=test, n=tries, seed=seed, quiet=True
    )
    found: dict[str, Any] = {}
    with open_run(cfg.out, cfg, seed=seed, command="reproduce") as own:
        search_eval.run(cfg, settings, own)
        policy = LanguagePolicy.load(
            cfg.model, template="none", small=True, precision=cfg.precision, device=cfg.device
        )
        world = open_world(settings, policy.tokenizer)
        for side, prompts in world.tests.items():
            asked = prompts(test)
            found[side] = told(search_measure.greedy(policy, world, asked, side, own, cfg))
            drawn = search_measure.measure(
                policy, world, asked, tries, f"{side}/tries", own, cfg, temperature=cfg.temperature
            )
            found[side]["pass"] = {
                str(k): [round(p, 6) for p in drawn.pass_at(k).tolist()] for k in range(1, tries + 1)
            }
            found[side]["tries_tokens"] = float(drawn.tokens.mean())
        for group, asked in hard.items():
            if asked:
                found[group] = told(
                    search_measure.greedy(policy, world, asked, f"{INPUTS}/{group}", own, cfg)
                )
        alike = own.once("alignment.json", dict)
        found[INPUTS]["states"] = dict(zip(alike["names"][1:], alike["states"][0][1:], strict=True))
    return found


def told(one: Measured) -> dict[str, Any]:
    """Of each greedy stream what claims and tables ask for."""
    return {
        "solved": one.solved[:, 0].astype(int).tolist(),
        "legacy": [
            int(legacy(prompt, texts[0])) for prompt, texts in zip(one.prompts, one.texts, strict=True)
        ],
        "tokens": one.tokens[:, 0].tolist(),
        "ended": one.finished[:, 0].astype(int).tolist(),
        **{name: values.tolist() for name, values in one.counts.items()},
    }


def legacy(prompt: str, text: str) -> bool:
    """Whether the paper's own code would count a stream in the compact language as solved."""
    from heedful.data.countdown import codec
    from heedful.data.countdown.paper_verdict import paper_verdict

    return paper_verdict(codec.decode(f"{prompt} {text}", lenient=True)).rating > 0


# ---- numbers of one result


def solved(result: Result, side: str) -> float:
    """Share of problems of a set that the greedy stream solves; NaN where the set is empty."""
    one = result["sets"].get(side)
    return fmean(one["solved"]) if one else float("nan")


def passed(result: Result, side: str, k: int = 0) -> float:
    """Pass@k of a test set; 0: with all the streams there are."""
    by_k = result["sets"][side]["pass"]
    return fmean(by_k[str(k or len(by_k))])


def mean(result: Result, side: str, name: str) -> float:
    """Mean of a count by stream: tokens, explored, arithmetic and the other kinds of errors, ended."""
    return fmean(result["sets"][side][name])


def wrong_operations(result: Result, side: str = INPUTS) -> float:
    """Errors of arithmetic by operation; NaN where none is explored."""
    one = result["sets"][side]
    explored = sum(one["explored"])
    return sum(one["arithmetic"]) / explored if explored else float("nan")


def equal_tries(single: Result, several: Result, side: str) -> int:
    """How many streams of one model cost the tokens of one greedy stream of another: at least 1, at most all drawn."""
    n = len(several["sets"][side]["pass"])
    return min(n, max(1, int(mean(single, side, "tokens") / several["sets"][side]["tries_tokens"])))


def correlations(result: Result, symbolic: Result) -> dict[str, float]:
    """By strategy the correlation (phi) of what is solved, over both test sets; NaN where one solves all or none."""
    from heedful.evals.streams import correctness_alignment

    own = [flag for side in SETS for flag in result["sets"][side]["solved"]]
    names = list(symbolic["weights"])
    theirs = [[flag for side in SETS for flag in symbolic["sets"][side]["solved"][name]] for name in names]
    phi = correctness_alignment([own, *theirs])[0, 1:]
    return dict(zip(names, phi.tolist(), strict=True))
