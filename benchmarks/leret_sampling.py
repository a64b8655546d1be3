"""Queries written and judged: 4 prompts x `--count` questions at the second hop, against a plain DSPy program.

Both sides have SmolLM2-135M, the same questions of a generated world with what BM25 found for them, the same
demonstrations (none, then three different lists of three), the most likely token, and the same retriever; a query is
judged by the average precision of the context with what it finds. Ours is what `heedful retrieve train` does: prompts
in large batches, and what the prompts of a list share is encoded once.

The peer is a `dspy.Predict` with `demos`, run by `dspy.Parallel` with as many threads as there are cores; its model is
a `dspy.BaseLM` around transformers' `generate`, one prompt at a time, since a DSPy program calls its model so. It runs
with two adapters: one that writes our prompts to the letter, so that the work is the same, and, as DSPy comes, its
ChatAdapter, whose prompts are longer and whose answers carry marks (an answer without the marks is a blank query, as a
small model often gives). Seconds are of the clock; CPU seconds are in the note. Loading and a warm-up are outside.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Result, alternate, line, main, median, peak_mib

MODULE = "benchmarks.leret_sampling"
ENTITIES, K, WORDS, TOKENS, MARKED_TOKENS = 1200, 3, 60, 24, 48
"""Things of the world; passages of a hop; words of a passage; longest query; longest answer with ChatAdapter."""
PROMPTS, DEMOS, WARM = 4, 3, 1
Judge = Callable[[Sequence[Any], Sequence[str]], list[float]]


def asked(folder: Path, count: int) -> tuple[list[Any], list[list[str]], Judge]:
    """Turns before the second hop, the demonstrations of each prompt, and what judges queries for turns."""
    import json

    from heedful.data.hops.world import World
    from heedful.judges.search_index import build_index, open_index
    from heedful.recipes.retrieve_pipeline import Steps, Turn, gold_ap, hop, search
    from heedful.recipes.retrieve_writers import ask_gold, ask_question, case_for

    world, corpus = World(0, ENTITIES, (2,)), folder / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(passage._asdict()) + "\n" for passage in world))
    build_index(corpus, folder / "index", "bm25", quiet=True)
    _, bm25 = open_index(folder / "index", "bm25")
    questions = world.questions("train", count + WARM + (PROMPTS - 1) * DEMOS)
    turns = hop([Turn(question, Steps(k=K)) for question in questions], ask_question, bm25)
    shown, rest = turns[: (PROMPTS - 1) * DEMOS], turns[(PROMPTS - 1) * DEMOS :]
    cases = [
        case_for(turn.question.question, turn.context, WORDS, query)
        for turn, query in zip(shown, ask_gold(shown), strict=True)
    ]
    lists = [[], *(cases[i : i + DEMOS] for i in range(0, len(cases), DEMOS))]

    def judge(some: Sequence[Any], queries: Sequence[str]) -> list[float]:
        hits = search(some, queries, bm25)
        return gold_ap([turn.after(q, found) for turn, q, found in zip(some, queries, hits, strict=True)])

    return rest, lists, judge


def ours(folder: Path, source: str, count: int, threads: int) -> Result:
    """The stages of `heedful retrieve train`."""
    import torch

    from heedful.policies.language import LanguagePolicy
    from heedful.recipes.retrieve_train_sample import drawer
    from heedful.run import open_run

    torch.set_num_threads(threads)
    turns, lists, judge = asked(folder, count)
    policy = LanguagePolicy.load(source, device="cpu")
    with open_run(folder / "run", {}, seed=0) as run:
        how = {"temperature": 0.0, "max_new_tokens": TOKENS, "max_rows": 64}
        draw = drawer(policy, run, passage_words=WORDS, **how)

        def write(some: Sequence[Any], name: str) -> list[list[str]]:
            return [
                [q for (q,) in draw(some, demos, 1, f"{name}/prompt{i}")] for i, demos in enumerate(lists)
            ]

        write(turns[:WARM], "warm")
        before = peak_mib()
        began, cpu = time.monotonic(), time.process_time()
        queries = write(turns[WARM:], "timed")
        worth = [judge(turns[WARM:], some) for some in queries]
    return result(began, cpu, before, queries, worth)


def peer(folder: Path, source: str, count: int, threads: int, chat: bool) -> Result:
    """The DSPy program; chat: with ChatAdapter instead of our prompts."""
    import dspy
    import torch
    from dspy.utils.exceptions import AdapterParseError

    torch.set_num_threads(1 if threads > 1 else threads)  # the program's own threads share the cores
    turns, lists, judge = asked(folder, count)
    model = transformers_lm(source, MARKED_TOKENS if chat else TOKENS)
    adapter = dspy.ChatAdapter(use_json_adapter_fallback=False) if chat else our_prompts()
    program: Any
    dspy.configure(lm=model, adapter=adapter)
    programs: list[Any] = []
    for demos in lists:
        program: Any = dspy.Predict(signature())
        program.demos = [dspy.Example(**fields(demo)) for demo in demos]
        programs.append(program)

    def write(some: Sequence[Any]) -> list[list[str]]:
        def one(program: Any, turn: Any) -> str:
            try:
                return " ".join(program(**fields(case_of(turn))).search_query.split())
            except AdapterParseError:
                return ""

        runner = dspy.Parallel(num_threads=threads, disable_progress_bar=True)
        made = runner([(one, (program, turn)) for program in programs for turn in some])
        return [made[i : i + len(some)] for i in range(0, len(made), len(some))]

    write(turns[:WARM])
    before = peak_mib()
    began, cpu = time.monotonic(), time.process_time()
    queries = write(turns[WARM:])
    worth = [judge(turns[WARM:], some) for some in queries]
    return result(began, cpu, before, queries, worth)


def case_of(turn: Any) -> str:
    """A turn as our prompts have it."""
    from heedful.recipes.retrieve_writers import case_for

    return case_for(turn.question.question, turn.context, WORDS)


def fields(case: str) -> dict[str, str]:
    """A case as the fields of the signature."""
    from heedful.recipes.retrieve_writers import QUERY

    context, _, rest = case.partition("\nQuestion: ")
    question, _, query = rest.partition(f"\n{QUERY}")
    told = {"context": context.removeprefix("Found so far:\n"), "question": question}
    return told | ({"search_query": query.strip()} if query.strip() else {})


def signature() -> Any:
    """What the program is asked for."""
    import dspy

    from heedful.recipes.retrieve_writers import INSTRUCTION

    make: Any = dspy.Signature  # its metaclass takes the fields as a text, which type checkers do not see
    return make("context: str, question: str -> search_query: str", INSTRUCTION)


def our_prompts() -> Any:
    """An adapter that writes the prompts of heedful to the letter."""
    import dspy

    from heedful.recipes.retrieve_writers import INSTRUCTION, QUERY, written_query

    class Adapter(dspy.Adapter):
        def format(self, signature: Any, demos: Any, inputs: Any) -> list[dict[str, Any]]:
            messages: list[dict[str, Any]] = []
            for demo in demos:
                messages.append({"role": "user", "content": self.case(demo)})
                messages.append({"role": "assistant", "content": demo["search_query"]})
            messages.append({"role": "user", "content": self.case(inputs)})
            messages[0]["content"] = f"{INSTRUCTION}\n\n{messages[0]['content']}"
            return messages

        def parse(self, signature: Any, completion: str) -> dict[str, Any]:
            return {"search_query": written_query(completion)}

        @staticmethod
        def case(values: Any) -> str:
            return f"Found so far:\n{values['context']}\nQuestion: {values['question']}\n{QUERY}"

    return Adapter()


def transformers_lm(source: str, tokens: int) -> Any:
    """The model behind the program: one prompt at a time through `generate`, in bfloat16 as ours computes."""
    import dspy
    import torch

    from heedful import hub
    from heedful.device import pick_precision

    model: Any = hub.load_model(source).eval()
    tokenizer: Any = hub.load_tokenizer(source)
    if pick_precision("auto", "cpu") == "bf16":
        model.to(torch.bfloat16)

    class Transformers(dspy.BaseLM):
        forward_contract = "typed_lm"

        def forward(self, request: Any) -> Any:  # type: ignore[override]
            messages = [
                {"role": message.role, "content": "".join(part.text for part in message.parts)}
                for message in request.messages
            ]
            inputs = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            with torch.inference_mode():
                out = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
            made = out[0, inputs["input_ids"].shape[1] :]
            return dspy.LMResponse.from_text(
                tokenizer.decode(made, skip_special_tokens=True), model=request.model
            )

    return Transformers(model=source, cache=False)


def result(
    began: float,
    cpu: float,
    before: float,
    queries: Sequence[Sequence[str]],
    worth: Sequence[Sequence[float]],
) -> Result:
    """Seconds, queries by second, and what was written."""
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    flat = [query for some in queries for query in some]
    values = [value for some in worth for value in some]
    return {
        "rate": len(flat) / seconds,
        "seconds": seconds,
        "cpu_rate": len(flat) / cpu,
        "blank": sum(not query for query in flat) / len(flat),
        "ap": sum(values) / len(values),
        "before_mib": before,
        "peak_mib": peak_mib(),
        "queries": flat,
    }


def run_child(arm: str, **arguments: Any) -> Result:
    """One run of one arm."""
    with tempfile.TemporaryDirectory() as folder:
        return {"ours": ours, "peer": peer}[arm](Path(folder), **arguments)


def run(pairs: int, keep: Path | None, count: int, extra: int) -> list[str]:
    """The benchmark's lines: with our prompts, and with DSPy's own."""
    import os

    shape = {"source": "smollm2", "count": count, "threads": os.cpu_count() or 1}
    arms = {"ours": {"arm": "ours", **shape}, "peer": {"arm": "peer", "chat": False, **shape}}
    found = alternate(MODULE, arms, pairs, keep)
    found |= alternate(MODULE, {"chat": {"arm": "peer", "chat": True, **shape}}, extra, keep)
    same = [a == b for a, b in zip(found["ours"][0]["queries"], found["peer"][0]["queries"], strict=True)]
    lines = []
    for name, side, what in (
        ("leret_sampling/queries", "peer", "DSPy 3.3.0 with our prompts"),
        ("leret_sampling/queries_chat_adapter", "chat", "DSPy 3.3.0 with its ChatAdapter"),
    ):
        if not found[side]:
            continue
        note = (
            f"SmolLM2-135M, {PROMPTS} prompts with up to {DEMOS} demonstrations, {count} questions, {shape['threads']} "
            f"threads; peer: {what}, one prompt a call, {shape['threads']} of its threads; queries a CPU second "
            f"{median(found['ours'], 'cpu_rate'):.2f} and {median(found[side], 'cpu_rate'):.2f}; average precision "
            f"{median(found['ours'], 'ap'):.3f} and {median(found[side], 'ap'):.3f}, blank queries "
            f"{median(found['ours'], 'blank'):.1%} and {median(found[side], 'blank'):.1%}; peak memory "
            f"{median(found['ours'], 'peak_mib'):,.0f} and {median(found[side], 'peak_mib'):,.0f} MiB"
        )
        if side == "peer":
            note += f"; {sum(same) / len(same):.0%} of the queries are the same"
        rates = (median(found["ours"], "rate"), median(found[side], "rate"))
        lines.append(line(name, *rates, "queries/s", note, more_is_better=True))
    return lines


if __name__ == "__main__":
    main(MODULE, run_child, run, count=48)
