"""A policy that answers from a function, and a small teacher that writes scopes for "emails to my manager"."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch

from heedful.feedback import Samples

Answer = Callable[[str, int], str]
"""A question and the seed of its random stream -> the reply."""

SENTENCE = "Always end emails to my manager with 'Onwards and upwards'"
PARTS = {
    "content": "End emails to my manager with it.",
    "domain": "emails to my manager",
    "effect": "end with 'Onwards and upwards'",
}


class Scripted:
    """`sample` of a policy; keeps the questions and the options of every call."""

    model = "scripted"

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.calls: list[list[str]] = []
        self.options: list[dict[str, Any]] = []
        self.seeds: list[list[int]] = []

    def sample(
        self,
        inputs: Sequence[Any],
        n: int = 1,
        *,
        temperature: float,
        generator: torch.Generator,
        max_new_tokens: int,
    ) -> Samples:
        seeds = torch.randint(2**31, (len(inputs) * n,), generator=generator).tolist()
        self.calls.append(list(inputs))
        self.seeds.append(seeds)
        self.options.append({"temperature": temperature, "max_new_tokens": max_new_tokens})
        outputs = [self.answer(inputs[i // n], seed) for i, seed in enumerate(seeds)]
        return Samples(list(inputs), outputs, n)

    def questions(self, kind: str) -> list[str]:
        return [question for call in self.calls for question in call if kind_of(question) == kind]


def kind_of(question: str) -> str:
    """Which step a question belongs to."""
    marks = {
        "decompose": "Take this feedback apart",
        "topics": "We need requests to teach and to test this",
        "revise": "Take each topic in turn",
        "near": "Subject to avoid:",
        "check": "Does the request belong to the domain",
        "rewrite": "Say what makes it belong",
        "in": "Each of them\n- belongs both to the topic",
        "revision": "Then write the whole improved answer",
        "judge": "Which of the two answers follows the instruction?",
    }
    (kind,) = [kind for kind, mark in marks.items() if mark in question]
    return kind


def fences(question: str) -> list[str]:
    """The fenced texts of a question."""
    return [match[2] for match in re.finditer(r"^(~{3,})\n(.*?)\n\1$", question, re.M | re.S)]


def reply(result: str, reasoning: str = "Let me think about it.") -> str:
    return f"{reasoning}\n<answer>\n{result}\n</answer>"


def numbered(items: Sequence[str]) -> str:
    return reply("\n".join(f"{i}. {item}" for i, item in enumerate(items, 1)))


def topic_of(text: str) -> str:
    """The topic that the teacher wrote a question or a prompt for."""
    found = re.search(r"matter\d+", text)
    assert found, text
    return found[0]


def wanted(question: str) -> int:
    """How many items a question asks for."""
    found = re.search(r"(?:Write|Name) (\d+) ", question)
    assert found, question
    return int(found[1])


def invented(seed: int, count: int, form: str, topic: str) -> list[str]:
    """Prompts in a form with {} for words that nobody else draws."""
    draw = random.Random(seed)

    def word() -> str:
        return "".join(draw.choice("bdfgklmnprstvz") + draw.choice("aeiou") for _ in range(4))

    return [form.replace("{}", f"{topic}, {word()}, {word()} and {word()}") for _ in range(count)]


def teach(question: str, seed: int) -> str:
    """A good teacher. Every third near-scope prompt is to the manager: found by the check, and rewritten."""
    kind = kind_of(question)
    if kind == "decompose":
        return reply(json.dumps(PARTS))
    if kind == "topics":
        first = len(re.findall(r"matter\d+", question)) + 1
        return numbered([f"mail about matter{i}" for i in range(first, first + wanted(question))])
    if kind == "revise":
        return reply(fences(question)[0])
    if kind == "in":
        return numbered(
            invented(seed, wanted(question), "Write an email to my manager about {}.", topic_of(question))
        )
    if kind == "near":
        prompts = invented(
            seed, wanted(question), "Write an email to my colleague about {}.", topic_of(question)
        )
        return numbered(
            [p.replace("colleague", "manager") if i % 3 == 2 else p for i, p in enumerate(prompts)]
        )
    if kind == "check":
        return reply("YES" if "my manager" in fences(question)[0] else "NO")
    assert kind == "rewrite"
    return reply(fences(question)[0].replace("my manager", "my colleague"))
