"""From the sentence to its scope: parsed, shown, confirmed or edited; and who revises and judges."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedful.config import content_hash
from heedful.data.scopes import Scope, Sizes, read_scope, write_scope
from heedful.data.scopes.grammar import make_scope
from heedful.data.scopes.sentences import split_sentence
from heedful.errors import HeedfulError
from heedful.judges.effects import KINDS, as_plain, edit, infer_effects
from heedful.processes import gather
from heedful.run import Run

if TYPE_CHECKING:
    from heedful.recipes.tell import Config
    from heedful.recipes.tell_data import Revise

HELD = "scope_held.json"
"""The hash of the scope from which a run's answers were drawn."""


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
    do so. None, in every process, when the user wants to stop here. Raises HeedfulError for what cannot be inferred,
    saying which option gives it, for what cannot work, and for a scope.yaml that was changed after answers were drawn
    from it.
    """
    path, going_on = run.path("scope.yaml"), True
    if not run.there("scope.yaml"):
        scope = read_scope(Path(cfg.scope)) if cfg.scope else trimmed(build(cfg, run), cfg)
        check(scope, cfg)
        if run.rank == 0:
            going_on = agreed(scope, path, cfg)
    elif run.rank == 0 and cfg.edit and not begun(run.folder):
        going_on = let_edit(path)
    if not gather(going_on, run.world)[0]:
        return None
    scope = read_scope(path)
    check(scope, cfg)
    hold(scope, run)
    return scope


def begun(folder: Path) -> bool:
    """Whether answers were drawn from the scope of a run folder."""
    return (folder / "plain").exists() or any(folder.glob("before*.jsonl"))


def hold(scope: Scope, run: Run) -> None:
    """Keep what scope.yaml says while answers are drawn. Raises HeedfulError when they were drawn from another form
    of it: they would pass for answers to its prompts."""
    if run.rank == 0 and not begun(run.folder):
        run.path(HELD).unlink(missing_ok=True)
    said = {
        name: getattr(scope, name) for name in ("sentence", "content", "domain", "effect", "train", "test")
    }
    now = content_hash({**said, "effects": [as_plain(effect) for effect in scope.effects]})
    if run.once(HELD, lambda: {"scope": now})["scope"] != now:
        path = run.path("scope.yaml")
        raise HeedfulError(
            f"{path} was changed after answers had been drawn from it; put it back as it was, or copy it and begin "
            "anew: --scope COPY --name ANOTHER"
        )


def forget(cfg: Config, run: Run) -> None:
    """Remove a scope that the same options make again, where nothing was drawn from it: a start that failed, on a model
    that is not there, say, leaves no folder that refuses the correction."""
    if run.rank or begun(run.folder) or (cfg.teacher and not cfg.scope):
        return
    path = run.path("scope.yaml")
    made = read_scope(Path(cfg.scope)) if cfg.scope else trimmed(preview(cfg), cfg)
    if path.exists() and read_scope(path) == made:
        path.unlink()
        run.path(HELD).unlink(missing_ok=True)


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


def agreed(scope: Scope, path: Path, cfg: Config) -> bool:
    """Show what was understood, and write it once it is what was meant; False when the user wants to stop here."""
    if not cfg.quiet:
        print(describe(scope))
    answer = "e" if cfg.edit else "y" if cfg.yes or cfg.quiet else confirmed()
    if answer == "n":
        print("nothing was kept; say it differently, or give --domain and --effect")
        return False
    write_scope(scope, path)
    return answer == "y" or let_edit(path)


def confirmed() -> str:
    """Ask whether this is what was meant: "y", "e" (edit) or "n"; "y" where nobody sits at the terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return "y"
    while True:
        try:
            answer = input("Is that what you mean? [Y]es, [e]dit, [n]o: ").strip().lower()[:1] or "y"
        except EOFError:
            return "n"
        if answer in "yen":
            return answer


def let_edit(path: Path) -> bool:
    """Open the scope in $VISUAL or $EDITOR, or wait for Enter; False where nobody is there: the run stops here.

    Raises HeedfulError for an editor that does not start or fails, and for what is wrong with the scope afterwards.
    """
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not sys.stdin.isatty():
        print(f"the scope is in {path}: change it, and give the same command without --edit to train with it")
        return False
    if editor:
        try:
            subprocess.run([*shlex.split(editor), str(path)], check=True)
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            raise HeedfulError(
                f"$VISUAL or $EDITOR ({editor}) failed: {error}; the scope is in {path}: change it, and give the same "
                "command without --edit"
            ) from error
    else:
        input(f"change {path} now, and press Enter when it is done ")
    read_scope(path)  # what is wrong is said before anything is trained
    return True


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
        given = revise_with(by, prompts, answers, scope.effect, seed=run.seed_for("revise"), run=run)
        return {"texts": list(given), "counts": dict(given.counts)}

    return revise


def editable(scope: Scope) -> bool:
    """Whether editors can write the effects into an answer, all of them into the same one."""
    kinds = [KINDS[effect.kind] for effect in scope.effects]
    written = all(kind.edit is not None for kind in kinds)
    bounded = all(effect.kind != "length" or "most" in effect.options for effect in scope.effects)
    if not (kinds and written and bounded) or len(kinds) == 1:
        return bool(kinds) and written and bounded
    # A text can only be edited where there is something to replace.
    named = "".join(f" This has {e.options['old']} in it." for e in scope.effects if "old" in e.options)
    sample = f"Here is a first sentence of an answer. Here is a second one, which says a little more.{named}"
    if any(effect.kind == "code_only" for effect in scope.effects):
        sample += "\n\n```python\nprint(1)\nprint(2)\n```"
    return edit(scope.effects, sample) is not None
