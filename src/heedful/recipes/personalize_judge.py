"""The judge `personalize:RUN`: the reward of the person in a run folder of `heedful personalize`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from heedful.errors import HeedfulError
from heedful.feedback import Feedback, Judge, Samples
from heedful.recipes.personalize_store import ARRAYS_OF_STATE, Person, open_person

PREFIX = "personalize:"


def is_personal(spec: str) -> bool:
    """Whether an option names a person as the judge."""
    return spec.startswith(PREFIX)


def folder_of(spec: str) -> Path:
    """The run folder in `personalize:RUN`. Raises HeedfulError when there is none."""
    folder = spec.removeprefix(PREFIX).strip()
    if not folder:
        raise HeedfulError(f"the judge {spec!r} names no run folder: write personalize:RUN")
    return Path(folder).expanduser()


def state_files(*specs: str) -> list[str]:
    """The files that decide what these judges say: a run that uses them must not go on with others.

    Other judges have none.
    """
    return [str(folder_of(spec) / name) for spec in specs if is_personal(spec) for name in ARRAYS_OF_STATE]


def personal_judge(spec: str, *, device: str = "auto") -> Judge:
    """The judge that `personalize:RUN` names: score (B, N) is the personal reward, notes are empty.

    The labels are those of now; what is added later plays no part. Raises HeedfulError as `open_person` does, and
    where the heads are saved scores, which new text has none of.
    """
    return as_judge(open_person(folder_of(spec), device=device))


def as_judge(person: Person) -> Callable[[Samples], Feedback]:
    """A person as a judge."""
    features = person.features()
    if features.how.name == "scores":
        raise HeedfulError(
            f"the heads of {person.run} are saved scores of other reward models, which new answers have none of: it "
            "cannot judge samples"
        )

    def judge(samples: Samples) -> Feedback:
        answers = [(samples.inputs[i // samples.n], str(output)) for i, output in enumerate(samples.outputs)]
        scores = person.reward.predict(features.of_answers(answers))
        return Feedback(score=torch.from_numpy(scores).float().view(len(samples.inputs), samples.n))

    return judge
