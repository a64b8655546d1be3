"""`heedful tell compose --joint`: one adapter trained on the answers of several sentences at once.

Each sentence keeps its own effect and its own test prompts; what its run learned from is read back from its folder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from heedful.config import from_plain, load_yaml, to_plain
from heedful.data.scopes import KINDS, Scope
from heedful.errors import HeedfulError
from heedful.evals.intervals import Interval
from heedful.policies.scoped import Item
from heedful.recipes import tell_eval, tell_methods, tell_plan, tell_report
from heedful.recipes.tell import VOLATILE, Config, lambdas, learn
from heedful.recipes.tell_commands import Compose
from heedful.recipes.tell_data import Completions
from heedful.recipes.tell_store import check_free, find, joint_scopes, parts_of
from heedful.run import Run, open_run
from heedful.sessions import session


def main(options: Compose) -> int:
    """What `heedful tell compose --joint` does; the exit status."""
    store = Path(options.store)
    scopes = joint_scopes(store, options.names)
    members = list(dict.fromkeys(part for name in options.names for part in parts_of(find(store, name))))
    first = from_plain(Config, load_yaml(store / members[0] / "config.yaml"), f"{members[0]}/config.yaml")
    cfg = replace(
        first,
        name=options.out,
        store=options.store,
        scope="",
        domain="",
        effect="",
        quiet=options.json,
        sentence=" + ".join(scope.sentence for scope in scopes),
    )
    cfg = tell_plan.settle(cfg)
    if tell_methods.method(cfg.method).weights is None:
        raise HeedfulError(
            f"{members[0]} was made with {cfg.method}, which trains nothing; there is nothing to train jointly"
        )
    judged = [member for member, scope in zip(members, scopes, strict=True) if not scope.effects]
    if judged and not cfg.teacher:
        raise HeedfulError(
            f"no rule says what {judged[0]} does, and {members[0]}, whose settings are taken, has no --teacher to "
            f"judge it; name {judged[0]} first"
        )
    check_free(store / options.out)
    settings = {"joint": members, "config": to_plain(cfg)}
    volatile = tuple(f"config.{name}" for name in VOLATILE)
    data = [store / member / "plain" / "rows.jsonl" for member in members]
    opening = open_run(store / options.out, settings, seed=cfg.seed, data=data, volatile=volatile)
    with opening as opened, session(opened):
        result = run(cfg, dict(zip(members, scopes, strict=True)), opened)
    print(
        json.dumps(result, ensure_ascii=False)
        if options.json
        else tell_plan.closing(store / options.out, result, cfg)
    )
    return 0


def run(cfg: Config, scopes: dict[str, Scope], run: Run) -> dict[str, Any]:
    """Train on the items of all members, measure each by its own effect, and report the whole; returns result.json."""
    from heedful.policies.backbone import Lora
    from heedful.policies.language import LanguagePolicy

    lora = Lora(cfg.lora_rank, cfg.lora_alpha, cfg.lora_dropout)
    policy = LanguagePolicy.load(
        cfg.model, lora=lora, precision=cfg.precision, device=cfg.device, seed=run.seed_for("adapter")
    )
    store = Path(cfg.store)
    before = {m: tell_eval.answers(cfg, policy, scope, f"{m}/before", run) for m, scope in scopes.items()}
    completions = read_items(store, list(scopes))
    weights = tell_methods.weights_of(cfg.method, *lambdas(cfg))
    learn(cfg, policy, completions, weights, run)
    held: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    parts: dict[str, Any] = {}
    # Shares of one report must mean one thing: where a judge compares for one member, they compare for all.
    judged = not all(scope.effects for scope in scopes.values())
    for member, scope in scopes.items():
        after = tell_eval.answers(cfg, policy, scope, f"{member}/after", run)
        rows = {
            kind: tell_eval.held_rows(
                replace(scope, effects=()) if judged else scope,
                kind,
                before[member][kind],
                after[kind],
                tell_eval.changes(
                    cfg, scope, kind, before[member][kind], after[kind], run, name=f"{member}/judged"
                ),
            )
            for kind in KINDS
        }
        alone = tell_eval.scored(rows, Interval(0.0, 0.0, 0.0), run.seed).numbers
        parts[member] = {name: alone[name] for name in ("s_in", "s_near", "s_general", "s_out", "s_overall")}
        for kind in KINDS:
            held[kind] += rows[kind]
    nan = float("nan")
    measured = tell_eval.scored(held, Interval(nan, nan, nan), run.seed, judged=judged)
    measured.numbers = {name: v for name, v in measured.numbers.items() if not name.startswith("noise_floor")}
    measured.warnings = tell_eval.leak_warnings(cfg, measured.scores)
    return tell_report.finish(cfg, policy, together(cfg, scopes, parts), completions, measured, run)


def read_items(store: Path, members: Sequence[str]) -> Completions:
    """What the members' runs learned from. Raises HeedfulError when a run has not kept it."""
    made = Completions({kind: [] for kind in KINDS})
    for member in members:
        path = store / member / "plain" / "rows.jsonl"
        if not path.exists():
            raise HeedfulError(f"{path} is missing: run the `heedful tell` command of {member} again")
        # As bytes: in a text, marks that a model may write, such as U+2028, would end a line too.
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            try:
                row = json.loads(line)
                kind = row.pop("kind")
                made.items[kind].append(Item(**row))
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise HeedfulError(
                    f"{path}:{number}: no answer of a run ({error}); delete the file and run the `heedful tell` "
                    f"command of {member} again"
                ) from error
            made.count(f"{kind}_kept")
    return made


def together(cfg: Config, scopes: dict[str, Scope], parts: dict[str, Any]) -> Scope:
    """The scopes as one, for the report."""
    first = next(iter(scopes.values()))

    def joined(part: str) -> dict[str, list[str]]:
        return {kind: [p for scope in scopes.values() for p in getattr(scope, part)[kind]] for kind in KINDS}

    return replace(
        first,
        sentence=cfg.sentence,
        content=cfg.sentence,
        domain="; ".join(scope.domain for scope in scopes.values()),
        effect="; ".join(scope.effect for scope in scopes.values()),
        effects=tuple(effect for scope in scopes.values() for effect in scope.effects),
        categories=tuple(dict.fromkeys(c for scope in scopes.values() for c in scope.categories)),
        train=joined("train"),
        test=joined("test"),
        dev=joined("dev"),
        notes={
            f"{member} {name}": round(value, 4) for member, of in parts.items() for name, value in of.items()
        },
    )
