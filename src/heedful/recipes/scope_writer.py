"""Topics, in-scope and near-scope prompts, asked for until there are enough or the rounds are used up."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from heedful.data.scopes import PARTS
from heedful.errors import HeedfulError
from heedful.policies.asking import EXAMPLES, Replies, Sampler, ask
from heedful.recipes import scope_prompts
from heedful.recipes.scope_parse import (
    Parsed,
    Problem,
    Seen,
    parse_list,
    parse_prompt,
    parse_yes_no,
    prompt_problem,
    topic_problem,
)
from heedful.run import derive_seed

if TYPE_CHECKING:
    from heedful.run import Run

NAMED = {"in": "in-scope", "near": "near-scope"}

PER_QUESTION = 12
"""Prompts asked for at once; longer lists get worse towards their end."""
SPARE = 2
"""Prompts asked for beyond the missing ones, since some repeat others."""
SHOWN = 20
"""Prompts of a topic that a question for more of them shows, the latest ones."""


@dataclass
class Maker:
    """What the steps share. notes: the counts that end up in the scope. say: gets a line after each step."""

    policy: Sampler
    run: Run | None
    seed: int
    retries: int
    temperature: float
    max_new_tokens: int
    say: Callable[[str], None]
    domain: str = ""
    effect: str = ""
    notes: dict[str, Any] = field(default_factory=dict)
    seen: Seen = field(default_factory=Seen)

    def ask(
        self,
        questions: Sequence[str],
        parse: Callable[[str], Any],
        name: str,
        kind: str,
        *,
        once: bool = False,
        greedy_first: bool = False,
    ) -> Replies[Any]:
        """`policies.asking.ask` with these settings, unparsable replies counted as `kind`.

        once: without retries, because the caller asks again for what is missing.
        """
        replies = ask(
            self.policy,
            questions,
            parse,
            seed=self.seed,
            name=f"scope/{name}",
            run=self.run,
            retries=0 if once else self.retries,
            temperature=self.temperature,
            greedy_first=greedy_first,
            max_new_tokens=self.max_new_tokens,
        )
        self.unparsable(kind, replies.unparsable, replies.examples)
        return replies

    def unparsable(self, kind: str, count: int, examples: Sequence[str]) -> None:
        """Count items that could not be read, and keep up to five of each kind."""
        if count:
            self.count("unparsable", kind, count)
            kept = self.notes["unparsable_examples"].setdefault(kind, [])
            kept += examples[: EXAMPLES - len(kept)]

    def count(self, what: str, kind: str, by: int = 1) -> None:
        """Add to one of the counters of the notes."""
        self.notes[what][kind] = self.notes[what].get(kind, 0) + by


def list_topics(maker: Maker, count: int) -> list[str]:
    """At most `count` topics, each listed and then revised."""
    topics: list[str] = []
    seen = Seen()
    for again in range(maker.retries + 1):
        missing = count - len(topics)
        if not missing:
            break
        name = "categories" if not again else f"categories.more-{again}"
        question = scope_prompts.list_topics(maker.domain, maker.effect, missing, topics)
        (listed,) = _lists(maker, [question], [missing], topic_problem, name, "categories")
        if not listed:
            continue
        question = scope_prompts.revise_topics(maker.domain, maker.effect, listed)
        (revised,) = _lists(maker, [question], [len(listed)], topic_problem, f"{name}.revised", "categories")
        maker.count("topics", "listed", len(listed))
        maker.count("topics", "left unrevised", 0 if revised else len(listed))
        fresh = [topic for topic in revised or listed if seen.take("categories", topic)]
        maker.count("duplicates", "categories", len(revised or listed) - len(fresh))
        topics += fresh
    if not topics:
        raise HeedfulError(
            f"the model named none of the {count} topics that are asked for, in {maker.retries + 1} tries"
            f"{first_of(maker.notes['unparsable_examples'].get('categories', []))}; use a larger model, or let the "
            "grammars write the scope, which need none"
        )
    maker.say(f"topics: {len(topics)} of {count}")
    return topics


def split_topics(topics: Sequence[str], need: Mapping[str, int], seed: int) -> dict[str, list[str]]:
    """Topics for each split that needs prompts, shared out at random in proportion to `need`, at least one each.

    Where there are fewer topics than such splits, every split gets all of them.
    """
    wanted = [split for split, size in need.items() if size]
    if len(topics) < len(wanted):
        return {split: list(topics) for split in wanted}
    shuffled = list(topics)
    random.Random(derive_seed(seed, "topics of the splits")).shuffle(shuffled)
    own = dict.fromkeys(wanted, 1)
    for _ in range(len(topics) - len(wanted) if wanted else 0):
        # the split whose topics would each have to give the most prompts
        own[max(wanted, key=lambda split: need[split] / own[split])] += 1
    out: dict[str, list[str]] = {}
    for split in wanted:
        out[split], shuffled = shuffled[: own[split]], shuffled[own[split] :]
    return out


# ---- in-scope and near-scope prompts


def write_prompts(
    maker: Maker, kind: str, need: Mapping[str, int], topics_of: Mapping[str, list[str]]
) -> dict[str, list[str]]:
    """The prompts of a kind, for every split, those of its topics in turn.

    A topic is asked for its share in as many questions as that takes; then, at most `retries` times, all topics of a
    split that lacks prompts are asked for what is missing, so that one barren topic does not end it.
    Raises HeedfulError with what came, what is needed and where the rest was lost.
    """
    shared = len({topic for own in topics_of.values() for topic in own}) < sum(map(len, topics_of.values()))
    pools = dict(topics_of)
    wanted = {pool: need[pool] for pool in pools}
    if shared:
        pools, wanted = {"all": next(iter(topics_of.values()))}, {"all": sum(need.values())}
    quota = {topic: math.ceil(wanted[pool] / len(own)) for pool, own in pools.items() for topic in own}
    got: dict[str, list[str]] = {topic: [] for topic in quota}
    came = dict.fromkeys(pools, 0)
    rounds = math.ceil(max(quota.values(), default=0) / PER_QUESTION)
    for number in range(rounds + maker.retries):
        missing = {topic: quota[topic] - len(got[topic]) for topic in quota}
        for pool, own in pools.items():
            lacking = wanted[pool] - came[pool]
            if lacking <= 0:
                missing |= dict.fromkeys(own, 0)
            elif number >= rounds:
                missing |= dict.fromkeys(own, math.ceil(lacking / len(own)))
        missing = {topic: count for topic, count in missing.items() if count > 0}
        if not missing:
            break
        for topic, prompt in _round(maker, kind, missing, got, number):
            got[topic].append(prompt)
        came = {pool: sum(len(got[topic]) for topic in own) for pool, own in pools.items()}
        done = sum(min(came[pool], wanted[pool]) for pool in pools)
        maker.say(f"{NAMED[kind]} prompts: {done} of {sum(wanted.values())}")
    if any(came[pool] < wanted[pool] for pool in pools):
        raise HeedfulError(_too_few(maker, kind, came, wanted))
    in_turn = {pool: _in_turn([got[topic] for topic in own]) for pool, own in pools.items()}
    left = in_turn.get("all", [])
    out: dict[str, list[str]] = {}
    for split in PARTS:
        if shared:
            out[split], left = left[: need[split]], left[need[split] :]
        else:
            out[split] = in_turn.get(split, [])[: need[split]]
    return out


def _round(
    maker: Maker, kind: str, missing: Mapping[str, int], got: Mapping[str, list[str]], number: int
) -> list[tuple[str, str]]:
    """(topic, prompt) of one question for each topic that misses prompts."""
    write = scope_prompts.write_in_scope if kind == "in" else scope_prompts.write_near_scope
    counts = [min(PER_QUESTION, count + SPARE) for count in missing.values()]
    questions = [
        write(maker.domain, maker.effect, topic, count, got[topic][-SHOWN:])
        for topic, count in zip(missing, counts, strict=True)
    ]
    name = f"{kind}.round-{number}"
    lists = _lists(maker, questions, counts, prompt_problem(maker.effect), name, kind)
    fresh = _new(maker, kind, [(topic, item) for topic, items in zip(missing, lists) for item in items])
    return _outside(maker, fresh, name) if kind == "near" else fresh


def _outside(maker: Maker, written: list[tuple[str, str]], name: str) -> list[tuple[str, str]]:
    """The near-scope prompts that the check finds outside the domain; those inside are rewritten once, in place."""
    inside = _inside(maker, [prompt for _, prompt in written], f"{name}.check", "near_check")
    kept = {i: written[i] for i, found in enumerate(inside) if found is False}
    failed = [i for i, found in enumerate(inside) if found]
    for i in failed:
        maker.seen.forget("near", written[i][1])  # its rewritten form is meant to be much like it
    questions = [scope_prompts.rewrite_near_scope(maker.domain, maker.effect, *written[i]) for i in failed]
    problem = prompt_problem(maker.effect)

    def parse(reply: str) -> str | None:
        return parse_prompt(reply, problem)

    replies = maker.ask(questions, parse, f"{name}.rewritten", "rewritten prompts")
    rewritten = [(i, text) for i, text in zip(failed, replies.values, strict=True) if text is not None]
    fresh = [(i, text) for i, text in rewritten if maker.seen.take("near", text)]
    maker.count("duplicates", "near", len(rewritten) - len(fresh))
    again = _inside(maker, [text for _, text in fresh], f"{name}.check-rewritten", "near_check")
    saved = {
        i: (written[i][0], text) for (i, text), found in zip(fresh, again, strict=True) if found is False
    }
    maker.count("near_check", "inside at first", len(failed))
    maker.count("near_check", "kept after rewriting", len(saved))
    maker.count("near_check", "inside after rewriting", again.count(True))
    return [prompt for _, prompt in sorted((kept | saved).items())]


def general_outside(maker: Maker, prompts: Sequence[str], count: int) -> list[str]:
    """The first `count` general prompts that the model finds outside the domain; fewer where there are no more."""
    kept: list[str] = []
    first = 0
    while len(kept) < count and first < len(prompts):
        batch = list(prompts[first : first + count - len(kept)])
        inside = _inside(maker, batch, f"general.check-{first}", "general_check")
        maker.count("general_check", "inside", inside.count(True))
        kept += [prompt for prompt, found in zip(batch, inside, strict=True) if found is False]
        first += len(batch)
    return kept


def _inside(maker: Maker, prompts: Sequence[str], name: str, what: str) -> list[bool | None]:
    """Whether each prompt lies inside the domain; None, counted, where the model gave no verdict."""
    questions = [scope_prompts.check_outside(maker.domain, maker.effect, prompt) for prompt in prompts]
    verdicts = maker.ask(questions, parse_yes_no, name, "checks", greedy_first=True).values
    maker.count(what, "checked", len(prompts))
    maker.count(what, "without a verdict", verdicts.count(None))
    return verdicts


def _new(maker: Maker, kind: str, prompts: list[tuple[str, str]]) -> list[tuple[str, str]]:
    fresh = [(topic, prompt) for topic, prompt in prompts if maker.seen.take(kind, prompt)]
    maker.count("duplicates", kind, len(prompts) - len(fresh))
    return fresh


def _lists(
    maker: Maker, questions: Sequence[str], counts: Sequence[int], problem: Problem, name: str, kind: str
) -> list[list[str]]:
    """The items of each reply, at most as many as were asked for; the others are counted."""

    def parse(reply: str) -> Parsed:
        return parse_list(reply, problem)

    replies: list[Any] = maker.ask(questions, parse, name, kind, once=True).values
    lists: list[list[str]] = []
    for parsed, count in zip(replies, counts, strict=True):
        maker.unparsable(kind, len(parsed.bad), parsed.bad)
        maker.count("surplus", kind, max(0, len(parsed.items) - count))
        lists.append(parsed.items[:count])
    return lists


def _in_turn(lists: Sequence[Sequence[str]]) -> list[str]:
    """The first of every list, then the second of every list, ..."""
    longest = max(map(len, lists), default=0)
    return [items[i] for i in range(longest) for items in lists if i < len(items)]


def _too_few(maker: Maker, kind: str, came: Mapping[str, int], wanted: Mapping[str, int]) -> str:
    each = ", ".join(f"{pool} {came[pool]} of {wanted[pool]}" for pool in wanted)
    total = f"{sum(min(came[pool], wanted[pool]) for pool in wanted)} {NAMED[kind]} prompts came"
    lost = {
        "could not be read": maker.notes["unparsable"].get(kind, 0),
        "repeated others": maker.notes["duplicates"].get(kind, 0),
    }
    if kind == "near":
        checks = maker.notes["near_check"]
        lost["lay inside the domain"] = checks["inside at first"] - checks["kept after rewriting"]
        lost["got no verdict"] = checks["without a verdict"]
    because = ", ".join(f"{count} {why}" for why, count in lost.items() if count)
    return (
        f"{total}, but {sum(wanted.values())} are needed ({each}){f'; {because}' if because else ''}"
        f"{first_of(maker.notes['unparsable_examples'].get(kind, []))}. Use a larger model, ask for fewer prompts, or "
        "let the grammars write the scope, which need no model"
    )


def first_of(examples: Sequence[str]) -> str:
    """The first example in brackets, for an error message; "" without one."""
    return f" (the first that could not be read: {examples[0]!r})" if examples else ""
