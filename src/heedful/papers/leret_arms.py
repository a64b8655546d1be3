"""The arms of LeReT: what is trained, how much of it, and how one arm is run.

One run of `heedful retrieve train` tells of several writers: LeReT's also measures where it started (base), the best
few-shot prompt of those that it tries queries with (few_shot), and imitation alone (cd). `RUNS` has, for each run, what
it does otherwise than LeReT and the writers that are taken from it. Rules that need no learning are measured beside
them (`RULES_ASKED`). Everything that depends on the start model alone is done once for all runs of a seed.

An arm is a run folder of `heedful retrieve train` beside a JSON of what each writer found, question by question.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import fmean
from typing import Any

from heedful.errors import NotFinite, NothingToLearn
from heedful.papers.leret_rules import rules_measured
from heedful.papers.leret_setups import Data, Files, files, missing, model
from heedful.papers.leret_writer import Writer
from heedful.papers.onpolicy_arms import attempt
from heedful.papers.results import Tier
from heedful.papers.seeds import Done, Result
from heedful.recipes import retrieve_train
from heedful.recipes.retrieve_train import Config
from heedful.run import Run, open_run

NAMES = {
    "base": "base",
    "few_shot": "few-shot (all hops)",
    "few_shot_first": "few-shot (first hop)",
    "cd": "LeReT-CD",
    "leret": "LeReT",
    "sft_all": "SFT on all samples",
    "iterative": "LeReT, two iterations",
    "dpo": "LeReT with DPO",
    "recall": "LeReT on recall",
    "all_pairs": "LeReT, all pairs",
    "answer": "LeReT on answers",
    "temperature": "LeReT by temperature",
    "base_dense": "base, dense",
    "transfer_dense": "LeReT of BM25, dense",
    "leret_dense": "LeReT, dense",
    "with_rules": "LeReT, rules tried too",
    "base_fresh": "base, repeats skipped",
    "few_shot_fresh": "few-shot, repeats skipped",
    "cd_fresh": "imitation, repeats skipped",
    "fresh": "LeReT, repeats skipped",
}


@dataclass(frozen=True)
class Arm:
    """A run: options other than LeReT's, and which writers of it (as values.json calls them) are which arms. of: the
    arm whose model it starts from, the start model unless given."""

    options: Mapping[str, Any] = field(default_factory=dict)
    writers: Mapping[str, str] = field(default_factory=lambda: {"after": ""})
    of: str = ""


RUNS: dict[str, Arm] = {
    "leret": Arm({}, {"before": "base", "few-shot": "few_shot", "imitation": "cd", "after": "leret"}),
    "few_shot_first": Arm({"method": "few_shot"}, {"few-shot": "few_shot_first"}),
    "temperature": Arm({"diversity": "temperature", "temperature": 1.0}),
    "iterative": Arm({"iterations": 2}),
    "leret_dense": Arm({"retriever": "dense"}, {"before": "base_dense", "after": "leret_dense"}),
    "transfer_dense": Arm({"method": "base", "retriever": "dense"}, {"before": "transfer_dense"}, of="leret"),
    "sft_all": Arm({"method": "sft_all"}),
    "dpo": Arm({"loss": "dpo"}),
    "recall": Arm({"reward": "recall"}),
    "all_pairs": Arm({"pairs": "all"}),
    "answer": Arm({"reward": "answer-em"}),
    # not in the paper: for a model whose own queries find less than the question does
    "with_rules": Arm({"rules": ("question", "title")}),
    # not in the paper: a second query much like the first brings something new
    "fresh": Arm(
        {"repeats": "skip"},
        {"before": "base_fresh", "few-shot": "few_shot_fresh", "imitation": "cd_fresh", "after": "fresh"},
    ),
}
"""In the order in which they are run: what the paper claims first, ablations last."""
MEASURED = {"leret": ("few_shot", "cd"), "fresh": ("few_shot", "cd")}
"""What a run measures beside before and after."""


@dataclass(frozen=True)
class Size:
    """How much is trained and measured.

    options: of `heedful retrieve train`, for all runs. runs: names of RUNS; once: further ones, of the first seed
    alone. grids: by run, in this order, the options that are chosen by the dev questions of the first seed, and their
    values; the other runs take what "leret" chose, and a setup without grids the defaults. seeds: the first so many;
    0: all. hours: what it takes, in hours of one free core, as estimated from a trial with 12 questions.
    """

    data: Data
    options: Mapping[str, Any]
    runs: Sequence[str]
    once: Sequence[str] = ()
    grids: Mapping[str, Mapping[str, Sequence[Any]]] = field(default_factory=dict)
    seeds: int = 0
    hours: float = 0.0

    def retriever(self, run: str = "") -> str:
        """What a run asks; "": what all do that name no other."""
        options = {**self.options, **(RUNS[run].options if run else {})}
        return str(options.get("retriever", "bm25"))

    def runs_of(self, seed: int) -> tuple[str, ...]:
        """The runs of a seed."""
        return (*self.runs, *(self.once if seed == 0 else ()))


SMALL: dict[str, Any] = {
    "hops": 2,
    "k": 2,
    "repeats": "keep",
    "prompts": 2,
    "samples": 2,
    "temperature": 1.5,
    "max_new_tokens": 8,
    "candidates": 2,
    "bootstrap_train": 6,
    "bootstrap_dev": 4,
    "bootstrap_rounds": 1,
    "demos": 1,
    "cd_epochs": 1.0,
    "epochs": 1.0,
    "lora_rank": 0,
    "save_every": 0,
    "precision": "fp32",
    "device": "cpu",
}
"""Of the small writer, all whose weights are trained."""
SMOLLM2: dict[str, Any] = {
    "hops": 2,
    "k": 3,
    "repeats": "keep",
    "prompts": 3,
    "samples": 2,
    "temperature": 0.7,
    "max_new_tokens": 24,
    "passage_words": 40,
    "candidates": 4,
    "bootstrap_train": 20,
    "bootstrap_dev": 12,
    "bootstrap_rounds": 1,
    "demos": 2,
    "cd_epochs": 1.0,
    "epochs": 1.0,
}
"""Of SmolLM2, near to `heedful retrieve demo`."""
RATES: dict[str, dict[str, tuple[Any, ...]]] = {
    "leret": {"cd_learning_rate": (2e-4, 5e-4), "learning_rate": (5e-5, 2e-4)},
}
WORLD = Data("world", 48, 54, dev=20, entities=1200, lengths=(2,), practice=300)
REAL = Data("real", 60, 80)

SIZES: dict[Tier, dict[str, Size]] = {
    # A model that has learned next to nothing: every path is run, no claim is decided.
    "smoke": {
        "world": Size(
            Data("world", 16, 8, dev=4, entities=240, writer=Writer()),
            SMALL,
            ("leret", "sft_all"),
            ("temperature",),
            {"leret": {"cd_learning_rate": (3e-4, 1e-3)}},
        ),
    },
    "main": {
        "world": Size(
            WORLD,
            # After practice it is surer of what it writes: at 0.7 two of three queries for a question are the same.
            {**SMOLLM2, "temperature": 1.0, "samples": 4},
            ("leret",),
            ("temperature", "iterative", "leret_dense", "transfer_dense"),
            RATES,
            hours=2.3,
        ),
        "real-bm25": Size(REAL, SMOLLM2, ("leret", "with_rules", "fresh"), seeds=1, hours=0.9),
        "real-dense": Size(REAL, {**SMOLLM2, "retriever": "dense"}, ("leret",), seeds=1, hours=0.45),
        "foldoc": Size(Data("foldoc", 44, 44), SMOLLM2, ("leret",), hours=0.85),
    },
}


def run_arms(tier: Tier, setup: str, seed: int, run: Run, until: float | None = None) -> Done:
    """The arms of a seed in order; only those that can be begun before `until`, and those done earlier.

    An arm that found nothing to learn from, or went to pieces, is {"failed": why}; so is every arm where the data are
    missing.
    """
    size = SIZES[tier][setup]
    why = missing(size.data, size.retriever())
    if why:
        return {(setup, name, seed): {"failed": why} for name in arms_of(size, seed)}
    done: Done = {}
    first = attempt(f"{setup}/seed{seed}/files.json", dict, run, until)
    if first is None:
        return done
    own = files(size.data, setup, seed, run)
    shown = {"passage_words": 60, **size.options}
    searched = {name: shown[name] for name in ("hops", "k", "passage_words", "demos")}
    known = attempt(
        f"{setup}/seed{seed}/rules.json", partial(rules_measured, size, own, setup, seed, run), run, until
    )
    if known is None:
        return done
    done |= {(setup, name, seed): result for name, result in known.items()}
    if (
        attempt(f"{setup}/model.json", lambda: model(size.data, setup, own, run, **searched), run, until)
        is None
    ):
        return done
    # not what was kept: where the run folder was moved, the model lies elsewhere
    name = model(size.data, setup, own, run, **searched)
    chosen = tuned(size, setup, name, run, until)
    if chosen is None:
        return done
    if seed == 0 and chosen["rows"]:
        done[setup, "tuned", 0] = chosen
    for arm in size.runs_of(seed):
        made_of = done.get((setup, RUNS[arm].of, seed)) if RUNS[arm].of else {}
        if made_of is None:
            continue
        why = made_of.get("failed") or missing(size.data, size.retriever(arm))
        if why:
            found: Any = {"failed": why}
        else:
            options = {
                **chosen["options"].get("leret", {}),
                **RUNS[arm].options,
                **chosen["options"].get(arm, {}),
            }
            found = attempt(
                f"{setup}/seed{seed}/{arm}.json",
                partial(trained, size, own, setup, f"seed{seed}", arm, options, seed, name, run),
                run,
                until,
            )
        if found is None:
            continue
        writers = [own_name or arm for own_name in RUNS[arm].writers.values()]
        for writer in writers:
            done[setup, writer, seed] = found if "failed" in found else found[writer]
    return done


def arms_of(size: Size, seed: int = 0) -> list[str]:
    """The names of all writers that the runs of a seed tell of; the first seed has the most."""
    return [own or name for name in size.runs_of(seed) for own in RUNS[name].writers.values()]


def tuned(size: Size, setup: str, start: str, run: Run, until: float | None) -> dict[str, Any] | None:
    """By run the options that the dev questions of the first seed chose, one after the other, and a row of each value
    with its recall; None where time is over. Test questions have no part in it."""
    chosen: dict[str, dict[str, Any]] = {}
    rows: list[list[Any]] = []
    if not size.grids:
        return {"options": chosen, "rows": rows}
    own = files(size.data, setup, 0, run)
    own = replace(own, test=own.dev)
    for arm, grid in size.grids.items():
        picked: dict[str, Any] = {}
        for option, values in grid.items():
            # the rate of imitation is chosen by imitation alone, which the preferences start from
            short = {"method": "cd"} if arm == "leret" and option == "cd_learning_rate" else {}
            found: list[float] = []
            for value in values:
                options = {**chosen.get("leret", {}), **RUNS[arm].options, **picked, **short, option: value}
                place = f"{arm}-{option}-{value:g}"
                make = partial(trained, size, own, setup, "tuned", arm, options, 0, start, run, folder=place)
                one = attempt(f"{setup}/tuned/{place}.json", make, run, until)
                if one is None:
                    return None
                found.append(-1.0 if "failed" in one else fmean(one[arm]["recall"][-1]))
                rows.append([NAMES[arm], option, value, None if found[-1] < 0 else found[-1]])
            picked[option] = values[max(range(len(values)), key=found.__getitem__)]
        chosen[arm] = picked
    return {"options": chosen, "rows": rows}


def trained(
    size: Size,
    own: Files,
    setup: str,
    place: str,
    arm: str,
    options: Mapping[str, Any],
    seed: int,
    start: str,
    run: Run,
    *,
    folder: str = "",
) -> Result:
    """Train as `heedful retrieve train` does. By writer what it found, question by question (`per_question`); of the
    last one also what was tried: counts, and by training question the share of its hops with queries of different
    worth. Where options are tuned, the last writer alone is told of."""
    what = RUNS[arm]
    base = f"{setup}/{place}"
    if what.of:
        start = str(run.path(f"{base}/{what.of}-run"))
    merged: dict[str, Any] = {**size.options, **options}
    cfg = Config(
        questions=own.train,
        eval_questions=own.test,
        corpus=own.corpus,
        out=str(run.path(f"{base}/{folder or arm}-run")),
        model=start,
        reader="a rule" if own.read is not None else "",
        eval_limit=10**6,
        measure=() if place == "tuned" else MEASURED.get(arm, ()),  # type: ignore[arg-type]
        seed=seed,
        quiet=True,
        **merged,
    )
    with (
        open_run(run.path(f"{setup}/seed{seed}/start"), {}, seed=seed, command="reproduce") as shared,
        open_run(cfg.out, cfg, seed=seed, command="reproduce", volatile=retrieve_train.VOLATILE) as opened,
    ):
        try:
            told = retrieve_train.run(cfg, opened, shared=shared, read=own.read)
        except (NotFinite, NothingToLearn) as error:
            return {"failed": str(error)}
        values = json.loads(opened.path("values.json").read_bytes())
    left = {"failed": "no prompt with demonstrations was left, so there is nothing to measure"}
    found: Result = {
        name or arm: values.get(kept, left)
        for kept, name in what.writers.items()
        if place != "tuned" or kept == "after"
    }
    final = list(found)[-1]
    found[final] = {
        **found[final],
        "counts": {key: value for key, value in told.items() if key.startswith(("tried_", "training_"))},
        "informative": list(values.get("informative", {}).values()),
    }
    return found


def numbered(seeds: Sequence[int], size: Size) -> Iterator[int]:
    """The seeds of a setup."""
    yield from seeds[: size.seeds or None]
