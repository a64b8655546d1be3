"""From the sentence to its scope: parsed, shown, confirmed or edited; and who revises and judges."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedful.data.scopes import Scope, Sizes, read_scope, write_scope
from heedful.data.scopes.grammar import make_scope
from heedful.data.scopes.sentences import split_sentence
from heedful.errors import HeedfulError
from heedful.judges.effects import edit, infer_effects
from heedful.run import Run

if TYPE_CHECKING:
    from heedful.recipes.tell import Config
    from heedful.recipes.tell_data import Revise


def sizes(cfg: Config) -> Sizes:
    """How many prompts of each kind and part; `trimmed` then takes what is wanted of each."""
    return Sizes(train=max(cfg.prompts, cfg.near_prompts), test_near=cfg.test_near)


def trimmed(scope: Scope, cfg: Config) -> Scope:
    """The scope with as many training prompts of each kind as asked for."""
    counts = {"in": cfg.prompts, "near": cfg.near_prompts, "general": cfg.prompts}
    return replace(scope, train={kind: scope.train[kind][:count] for kind, count in counts.items()})


def prepare(cfg: Config, run: Run) -> Scope | None:
    """The scope of this run, from scope.yaml of its folder once that exists.

    Made by the teacher or by grammars, or read from --scope; shown, and confirmed or edited where someone is there to
    do so. None when the user wants to stop here. Raises HeedfulError for what cannot be inferred, saying which option
    gives it.
    """
    path = run.path("scope.yaml")
    if not path.exists():
        scope = read_scope(Path(cfg.scope)) if cfg.scope else trimmed(build(cfg, run), cfg)
        if run.rank == 0:
            write_scope(scope, path)
            if not cfg.quiet:
                print(describe(scope))
            if cfg.edit:
                if not let_edit(path):
                    return None
            elif not cfg.yes and not cfg.quiet and not confirmed(path):
                return None
    scope = read_scope(path)
    check(scope, cfg)
    return scope


def build(cfg: Config, run: Run) -> Scope:
    """A new scope from the sentence. Raises HeedfulError for what cannot be inferred."""
    if not cfg.teacher:
        return preview(cfg)
    from heedful.recipes.scope_model import make_scope_with

    # What the sentence says plainly is not left to the model.
    try:
        domain, effect = parts(cfg)
    except HeedfulError:
        domain, effect = cfg.domain, cfg.effect
    effects = tuple(infer_effects(effect)) if effect else ()
    say = None if cfg.quiet else print
    how: dict[str, Any] = {
        "say": say,
        "domain": domain,
        "effect": effect,
        "effects": effects,
        "sizes": sizes(cfg),
        "seed": cfg.seed,
    }
    return make_scope_with(teacher(cfg), cfg.sentence, run=run, **how)


def parts(cfg: Config) -> tuple[str, str]:
    """Domain and effect: what was given, else what the sentence says. Raises HeedfulError saying what is missing."""
    if cfg.domain and cfg.effect:
        return cfg.domain, cfg.effect
    try:
        domain, effect = split_sentence(cfg.sentence)
    except HeedfulError:
        if cfg.domain:
            return cfg.domain, cfg.sentence  # all of it may be the effect; where it is not, that is said next
        raise
    return cfg.domain or domain, cfg.effect or effect


def preview(cfg: Config) -> Scope:
    """The scope that grammars make of the sentence. Raises HeedfulError for what cannot be inferred."""
    domain, effect = parts(cfg)
    effects = tuple(infer_effects(effect))
    if not effects:
        raise HeedfulError(
            f"I cannot infer how to check {effect!r}. Say it as one of: end with '...', start with '...', "
            "include '...', never use '...', use '...' instead of '...', add emoji, no emoji, at most N words, "
            "shorter, bullet points, numbered list, three headed parts, code only, lower case, end with a question, "
            "in French; or give --effect '...'; or let a language model judge: --teacher URL"
        )
    return make_scope(
        cfg.sentence, domain=domain, effect=effect, effects=effects, sizes=sizes(cfg), seed=cfg.seed
    )


def check(scope: Scope, cfg: Config) -> None:
    """Refuse what cannot work. Raises HeedfulError with the way out."""
    if not scope.effects and not cfg.teacher:
        raise HeedfulError("the scope names no effects to check by rule: give --teacher, which then judges")
    if cfg.reviser == "editor" and not editable(scope):
        kinds = ", ".join(e.kind for e in scope.effects) or "an effect without a rule"
        raise HeedfulError(f"no editor can write {kinds} into an answer: use --reviser model, or --teacher")


def describe(scope: Scope) -> str:
    """What was understood, for the terminal."""
    lines = [
        f"feedback   {scope.content}",
        f"applies    {scope.domain}",
        f"effect     {scope.effect}",
        f"check      {'; '.join(e.about for e in scope.effects) or 'a language model judges'}",
    ]
    for kind, name in (("in", "in scope"), ("near", "near it"), ("general", "general")):
        shown = scope.train[kind][:2]
        lines.append(f"{name:<10} " + f"{len(scope.train[kind])} prompts, such as " + " | ".join(shown))
    return "\n".join(lines)


def confirmed(path: Path) -> bool:
    """Ask whether this is what was meant, where someone is there to answer; yes where nobody is."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return True
    answer = input("Is that what you mean? [Y]es, [e]dit, [n]o: ").strip().lower()
    if answer.startswith("e"):
        return let_edit(path)
    if answer.startswith("n"):
        path.unlink()
        print("nothing was kept; say it differently, or give --domain and --effect")
        return False
    return True


def let_edit(path: Path) -> bool:
    """Open the scope in $VISUAL or $EDITOR, or wait for Enter; False where nobody is there: the run stops here."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if sys.stdin.isatty():
        if editor:
            subprocess.run([*shlex.split(editor), str(path)], check=False)
        else:
            input(f"change {path} now, and press Enter when it is done ")
        read_scope(path)  # what is wrong is said before anything is trained
        return True
    print(f"the scope is in {path}: change it, and give the same command without --edit to train with it")
    return False


def teacher(cfg: Config) -> Any:
    """The language model that writes scopes, revises and judges. Raises HeedfulError when it cannot be had."""
    if cfg.teacher.startswith(("http://", "https://")):
        from heedful.policies.remote import RemotePolicy

        if not cfg.teacher_model:
            raise HeedfulError("--teacher is a server: give --teacher-model, the name of the model on it")
        return RemotePolicy(cfg.teacher, cfg.teacher_model)
    from heedful.policies.language import LanguagePolicy

    return LanguagePolicy.load(cfg.teacher, precision=cfg.precision, device=cfg.device)


def reviser(cfg: Config, scope: Scope, policy: Any, run: Run) -> Revise | None:
    """Who revises plain answers: None for the editor alone."""
    if cfg.reviser == "editor" or (cfg.reviser == "auto" and not cfg.teacher and editable(scope)):
        return None
    from heedful.recipes.scope_model import revise_with

    def revise(prompts: Any, answers: Any) -> dict[str, Any]:
        by = teacher(cfg) if cfg.teacher else policy
        given = revise_with(by, prompts, answers, scope.effect, seed=run.seed_for("revise"))
        return {"texts": list(given), "counts": dict(given.counts)}

    return revise


def editable(scope: Scope) -> bool:
    """Whether the effect's editor can write it into an answer."""
    # A text can only be edited where there is something to replace.
    named = "".join(f" This has {e.options['old']} in it." for e in scope.effects if "old" in e.options)
    sample = f"Here is a first sentence of an answer. Here is a second one, which says a little more.{named}"
    return bool(scope.effects) and edit(scope.effects, sample) is not None
