"""Problems of the user's own as a world of `heedful search`: rows to imitate, prompts to solve, a verifier."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from heedful.data.countdown.tokenizer import byte_tokenizer
from heedful.data.rows import Rows, open_rows, prompt_key, split_by_prompt
from heedful.errors import HeedfulError
from heedful.feedback import Feedback, Judge, Samples
from heedful.judges.rules import parse_judge
from heedful.policies.decoder import TokenRows, token_rows, word_tokenizer
from heedful.policies.encode import Encoder
from heedful.policies.packing import Group
from heedful.recipes.search_world import Settings, World

VALIDATION_SHARE, MOST_VALIDATION = 0.1, 1024


def files_world(settings: Settings, tokenizer: Any = None) -> World:
    """See `World`. Its one test set are the held-out prompts: those of --eval-prompts, or a share of the others.

    Rows of --data whose prompt is held out are not trained on; they are counted in the facts.
    Raises HeedfulError when the files are faulty, when nothing is left to learn on, and when --eval-prompts has prompts
    of the others. A world without --judge can be trained on, but it is asked for when something is to be scored.
    """
    examples = open_rows(settings.data, "prompt_completion") if settings.data else None
    asked = open_rows(settings.prompts, "prompt") if settings.prompts else examples
    assert asked is not None
    columns: dict[bytes, tuple[Rows, int]] = {}
    if settings.eval_prompts:
        others = open_rows(settings.eval_prompts, "prompt")
        apart: dict[bytes, tuple[Rows, int]] = {}
        train = _prompts(asked, range(len(asked)), columns)
        held = _prompts(others, range(len(others)), apart)
        known = {prompt_key(prompt) for prompt in train}
        both = [prompt for prompt in held if prompt_key(prompt) in known]
        columns |= apart
        if both:
            raise HeedfulError(
                f"{settings.eval_prompts}: {len(both)} prompts are also in {asked.path} (the first is {both[0]!r:.80})"
            )
    else:
        chosen, kept = split_by_prompt(asked, settings.eval_share, settings.seed)
        train, held = _prompts(asked, chosen, columns), _prompts(asked, kept, columns)
    if len(train) < 2 or not held:
        raise HeedfulError(
            f"{asked.path} has {len(train)} different prompts to learn on and {len(held)} held out: give more, or "
            "another --eval-share"
        )
    kept_out = {prompt_key(prompt) for prompt in held}
    pairs = [(i, row) for i, row in enumerate(examples or ()) if prompt_key(row["prompt"]) not in kept_out]
    taught = [row for _, row in pairs]
    if tokenizer is not None:
        asking = [*train, *held]
        _check_words(tokenizer, asking, [columns[prompt_key(prompt)] for prompt in asking])
        _check_words(tokenizer, [row["completion"] for row in taught], [(examples, i) for i, _ in pairs])
    made = tokenizer or _tokenizer(settings, train + held, taught)
    random.Random(settings.seed).shuffle(train)
    aside = min(MOST_VALIDATION, max(1, round(len(train) * VALIDATION_SHARE)))
    validation, learned = train[:aside], train[aside:]

    def in_turn(start: int, count: int) -> list[str]:
        """Shuffled passes over the prompts, numbered without end."""
        taken = []
        for at in range(start, start + count):
            lap, place = divmod(at, len(learned))
            taken.append(learned[_order(len(learned), settings.seed, lap)[place]])
        return taken

    def rows(on: str, count: int, context: int) -> TokenRows:
        if not taught:
            raise HeedfulError("there is nothing to imitate: give rows of prompt and completion with --data")
        encoder, groups = Encoder(made, "none"), []
        for i, row in pairs[: count or None]:
            prompt = encoder.prompt(row["prompt"])
            if len(prompt) >= context:
                raise HeedfulError(
                    f"{examples.where(i)}: the prompt has {len(prompt)} tokens, and a row holds {context}: "  # type: ignore[union-attr]
                    "leave it out, or give a larger --context"
                )
            groups.append(Group(prompt, [encoder.completion(row["prompt"], row["completion"])]))
        return token_rows(groups, context)

    facts: dict[str, Any] = {"problems": len(learned), "problems for decisions": aside}
    if examples is not None:
        facts |= {
            "rows to imitate": len(taught),
            "rows left out, being held out": len(examples) - len(taught),
        }
    return World(
        tokenizer=made,
        judge=_judge(settings.judge, columns),
        train=in_turn,
        validation=lambda count: validation[:count],
        tests={"heldout": lambda count: held[:count]},
        rows=rows,
        census=lambda prompt, completion: {},
        trim=list,
        facts={**facts, "held-out prompts": len(held)},
    )


_ORDERS: dict[tuple[int, int, int], list[int]] = {}


def _order(count: int, seed: int, lap: int) -> list[int]:
    key = (count, seed, lap)
    if key not in _ORDERS:
        _ORDERS.clear()
        _ORDERS[key] = random.Random(f"{seed} {lap}").sample(range(count), count)
    return _ORDERS[key]


def _prompts(rows: Rows, chosen: Sequence[int], columns: dict[bytes, tuple[Rows, int]]) -> list[str]:
    """The different prompts of some rows, in order; where each came from goes into `columns`."""
    found: list[str] = []
    for i in chosen:
        prompt = rows[i]["prompt"]
        if not isinstance(prompt, str):
            raise HeedfulError(
                f"{rows.where(i)}: 'prompt' is a list of messages; heedful search takes plain text"
            )
        if columns.setdefault(prompt_key(prompt), (rows, i)) == (rows, i):
            found.append(prompt)
    return found


def _check_words(made: Any, texts: Sequence[str], places: Sequence[tuple[Any, int]]) -> None:
    """Raises HeedfulError for a word that the model has no token for: it would not tell it from any other.

    places: (rows, number) of each text.
    """
    unknown = getattr(made, "unk_token_id", None)
    if unknown is None or not texts:
        return
    every = made(list(texts), add_special_tokens=False)["input_ids"]
    for text, ids, (rows, i) in zip(texts, every, places, strict=True):
        if unknown in ids:
            odd = [w for w in text.split() if unknown in made(w, add_special_tokens=False)["input_ids"]]
            raise HeedfulError(
                f"{rows.where(i)}: the model has no token for {(odd or [text])[0]!r:.60}; leave the row out, or train "
                "a model anew with such rows among its --data (or with --tokenizer bytes)"
            )


def _judge(spec: str, columns: Mapping[bytes, tuple[Rows, int]]) -> Judge:
    if not spec:
        return _missing

    def of(prompt: Any) -> Mapping[str, Any]:
        rows, i = columns[prompt_key(prompt)]
        return {k: v for k, v in rows[i].items() if k not in ("prompt", "completion")}

    return parse_judge(spec, columns=of)


def _missing(samples: Samples) -> Feedback:
    raise HeedfulError("nobody says what is solved: give a verifier with --judge path.py:function")


def _tokenizer(settings: Settings, prompts: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Any:
    if settings.tokenizer == "bytes":
        return byte_tokenizer()
    return word_tokenizer([*prompts, *(row["completion"] for row in rows)])
