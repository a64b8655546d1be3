"""The stages of `heedful retrieve train`: measuring, the bootstrap, trying queries, learning from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from heedful.config import content_hash
from heedful.errors import NothingToLearn
from heedful.policies.language import LanguagePolicy
from heedful.recipes.retrieve_bootstrap import Prompt, Search, bootstrap
from heedful.recipes.retrieve_measure import Measured, local_cost, measure
from heedful.recipes.retrieve_open import Models, open_reader
from heedful.recipes.retrieve_pipeline import Read, Steps, Turn, Write, reward_of, walk
from heedful.recipes.retrieve_train import TRAINS
from heedful.recipes.retrieve_train_data import Asked
from heedful.recipes.retrieve_train_learn import imitate, prefer
from heedful.recipes.retrieve_train_pairs import Chosen, Tried, choose
from heedful.recipes.retrieve_train_sample import Harvest, Trial, add_tokens, drawer, try_queries
from heedful.recipes.retrieve_writers import RULES, local_writer
from heedful.run import Run

if TYPE_CHECKING:
    from heedful.recipes.retrieve_train import Config

PIPELINE = (
    *(
        "model",
        "questions",
        "eval_questions",
        "corpus",
        "retriever",
        "service",
        "reader",
        "reader_model",
        "hops",
    ),
    *(
        "k",
        "merge",
        "repeats",
        "passage_words",
        "limit",
        "eval_share",
        "eval_limit",
        "max_absent",
        "drop_faulty_rows",
    ),
    *("max_new_tokens", "seed", "precision"),
)
"""Options that decide what the start model finds on held-out questions."""
BOOTSTRAP = (
    *(
        "reward",
        "bootstrap_train",
        "bootstrap_dev",
        "bootstrap_hops",
        "bootstrap_rounds",
        "candidates",
        "demos",
    ),
)
"""Options that decide, with those, which prompts there are to choose from."""
TRIED = (*BOOTSTRAP, "diversity", "prompts", "samples", "rules", "temperature", "iterations")
"""Options that decide, with those, what the first part of the questions is tried with."""
HELD_OUT = ("eval_questions", "eval_share", "eval_limit")
"""Of PIPELINE those that tell what is held out: where a file does, and the hops are given, learning does not ask."""


class Stages:
    """What is done in a run folder, each thing once. shared: a run that keeps what several runs have in common; read:
    in place of the reader that the options name."""

    def __init__(
        self,
        cfg: Config,
        policy: LanguagePolicy,
        asked: Asked,
        run: Run,
        shared: Run | None = None,
        read: Read | None = None,
    ) -> None:
        self.cfg, self.policy, self.asked, self.run, self.shared = cfg, policy, asked, run, shared
        self.read = read or open_reader(Models(cfg), cfg, shared or run)
        self.steps = Steps(asked.hops, cfg.k, cfg.merge, cfg.repeats)
        self.reward = reward_of(cfg.reward, self.read)
        self.chosen: list[Chosen] = []
        self.harvests: list[Harvest] = []

    def _place(
        self, name: str, options: Sequence[str], *, start: bool = True, held_out: bool = True
    ) -> tuple[Run, str]:
        """The run and the name under which a stage is kept; start: it depends on the start model alone; held_out: it is
        about held-out questions."""
        if self.shared is None or not start:
            return self.run, name
        depends = {option: getattr(self.cfg, option) for option in (*PIPELINE, *options)}
        if not held_out and self.cfg.eval_questions and self.cfg.hops:
            depends = {option: value for option, value in depends.items() if option not in HELD_OUT}
        return self.shared, f"{name}-{content_hash(depends)[:16]}"

    def _writer(self, demos: Sequence[str], name: str, run: Run, temperature: float = 0.0) -> Write:
        return local_writer(
            self.policy,
            run,
            name,
            passage_words=self.cfg.passage_words,
            demos=demos,
            quiet=self.cfg.quiet,
            temperature=temperature,
            max_new_tokens=self.cfg.max_new_tokens,
            max_rows=self.cfg.max_rows,
        )

    def measured(self, name: str, demos: Sequence[str] = ()) -> Measured:
        """How much the policy as it is finds for the held-out questions, with the most likely tokens."""
        run, stage = self._place(name, BOOTSTRAP if demos else (), start=name in ("before", "few-shot"))
        turns = self._walk(self._writer(demos, stage, run), run, stage)
        cost = local_cost(self.policy, self.asked.hops, run, stage)
        return measure(turns, run, stage, read=self.read, cost=cost)

    def by_rule(self, rule: str) -> Measured:
        """How much a rule finds for the held-out questions."""
        run, stage = self._place(f"rule-{rule}", ())
        return measure(self._walk(RULES[rule], run, stage), run, stage, read=self.read)

    def _walk(self, write: Write, run: Run, stage: str) -> list[Turn]:
        return walk(self.asked.test, write, self.asked.retriever, self.steps, run=run, name=stage)

    def prompts(self) -> list[Prompt]:
        """The prompts that queries are written by: without demonstrations, then the bootstrapped ones, best first."""
        cfg = self.cfg
        if cfg.method == "base" or (cfg.method in TRAINS and cfg.diversity == "temperature"):
            return [Prompt((), float("nan"))]
        train = self.asked.train
        first = min(cfg.bootstrap_train, max(1, len(train) // 2))
        run, stage = self._place("bootstrap", (*BOOTSTRAP, "prompts"), held_out=False)
        return bootstrap(
            train[:first],
            train[first : first + cfg.bootstrap_dev] or train[:first],
            lambda demos, name: self._writer(demos, name, run),
            lambda demos, name: self._writer(demos, name, run, temperature=1.0),
            self.asked.retriever,
            self.reward,
            Search(
                demos=cfg.demos,
                candidates=cfg.candidates,
                rounds=cfg.bootstrap_rounds,
                steps=replace(self.steps, hops=1) if cfg.bootstrap_hops == "first" else self.steps,
                passage_words=cfg.passage_words,
            ),
            max(1, cfg.prompts - 1),
            run,
            stage,
        )

    def learn(self, part: int, prompts: Sequence[Prompt]) -> bool:
        """Try queries for a part of the questions, with the policy as it is, and imitate the best ones, or all of them
        as `sft_all` does; whether there was anything to learn.

        Raises NothingToLearn when, for every question of the first part, all queries are worth the same; `sft_all`
        needs only that there are any.
        """
        cfg, asked = self.cfg, self.asked
        run, stage = self._place(f"tried{part}", TRIED, start=part == 0, held_out=False)
        by_prompt = cfg.diversity == "prompts"
        trial = Trial(
            prompts=[prompt.demos for prompt in prompts] if by_prompt else [()],
            samples=cfg.samples if by_prompt else cfg.samples * cfg.prompts,
            rules=cfg.rules,
            steps=self.steps,
            passage_words=cfg.passage_words,
        )
        draw = drawer(
            self.policy,
            run,
            passage_words=cfg.passage_words,
            quiet=cfg.quiet,
            temperature=cfg.temperature,
            max_new_tokens=cfg.max_new_tokens,
            max_rows=cfg.max_rows,
        )
        questions = asked.train[part :: cfg.iterations]
        harvest = try_queries(questions, draw, asked.retriever, self.reward, trial, run, stage)
        add_tokens(harvest, self.policy, len(trial.prompts), run, stage)
        tried: list[Tried] = [row for rows in harvest.hops for row in rows]
        chosen = choose(tried, cfg.pairs)
        self.harvests.append(harvest)
        self.chosen.append(chosen)
        targets = chosen.every if cfg.method == "sft_all" else chosen.targets
        if not targets and part:
            return False  # what was learned before is kept, and the report says that this part had nothing
        if not targets:
            raise NothingToLearn(
                f"of {chosen.counts['prompts']:,} questions and hops there was none with queries of different worth "
                f"(of {chosen.counts['queries']:,} queries {chosen.counts['repeated']:,} repeat another): take more "
                "--prompts or --samples, a higher --temperature, or more questions"
            )
        imitate(cfg, self.policy, targets, f"part{part}/imitate", self.run)
        return True

    def prefer(self, part: int) -> None:
        """Prefer better queries of a part to worse ones, from the policy as imitation has left it."""
        prefer(self.cfg, self.policy, self.chosen[part].pairs, f"part{part}/prefer", self.run)

    def informative(self) -> dict[str, float]:
        """By training question the share of the hops it was tried at whose queries were not all worth the same."""
        told: dict[str, list[int]] = {}
        for harvest in self.harvests:
            for row in (row for rows in harvest.hops for row in rows):
                told.setdefault(row.id, []).append(choose([row], self.cfg.pairs).counts["informative"])
        return {name: round(sum(flags) / len(flags), 6) for name, flags in told.items()}

    def by_hop(self) -> list[dict[str, Any]]:
        """What was tried and chosen, for the report: one row for each part and hop."""
        return [
            {"part": part + 1, "hop": hop, **choose(rows, self.cfg.pairs).counts}
            for part, harvest in enumerate(self.harvests)
            for hop, rows in enumerate(harvest.hops, start=1)
        ]
