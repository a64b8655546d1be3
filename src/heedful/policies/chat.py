"""`heedful sample`: one prompt, a file of prompts, or a chat, with any model or run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, TextIO

import torch

from heedful.atomic import write_file
from heedful.errors import HeedfulError
from heedful.policies.language import LanguagePolicy


def sample_from(options: Any) -> int:
    """Do what the options of `heedful sample` (cli.Sample) ask; returns the exit status.

    Raises HeedfulError for a prompt together with a file of prompts, for options that have no meaning in a chat, for
    a chat with a model that has no chat template, and for what loading and sampling raise.
    """
    if options.prompt and options.prompts:
        raise HeedfulError("give one prompt or --prompts FILE, not both")
    prompts = _prompts(options)  # a bad file is found before a model is loaded
    if prompts is None and (options.n != 1 or options.out or options.template == "none"):
        raise HeedfulError(
            "--n, --out and --template none have no meaning in a chat; give a prompt, or --prompts FILE"
        )
    policy = LanguagePolicy.load(
        options.model, template=options.template, device=options.device, precision=options.precision
    )
    how = {
        "temperature": options.temperature,
        "top_p": options.top_p,
        "top_k": options.top_k,
        "max_new_tokens": options.max_new_tokens,
        "stop": options.stop,
    }
    generator = torch.Generator().manual_seed(options.seed)
    if prompts is None:
        if not getattr(policy.tokenizer, "chat_template", None):
            raise HeedfulError(
                f"{options.model} has no chat template, so there is no chat with it; give a prompt, or --prompts FILE"
            )
        return chat(policy, generator, how, sys.stdin, sys.stdout)
    samples = policy.sample(prompts, options.n, generator=generator, **how)
    rows = [
        {
            "prompt": samples.inputs[i // samples.n],
            "completion": o.text,
            "finished": o.finished,
            "logp": o.logp,
        }
        for i, o in enumerate(samples.outputs)
    ]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if options.out:
        write_file(Path(options.out), text.encode())
        print(f"{len(rows)} samples in {options.out}", file=sys.stderr)
    elif options.prompts:
        sys.stdout.write(text)
    else:
        print("\n\n".join(row["completion"] for row in rows))
    return 0


def _prompts(options: Any) -> list[Any] | None:
    if options.prompts:
        from heedful.data.rows import open_rows

        return [row["prompt"] for row in open_rows(options.prompts, kind="prompt")]
    return [options.prompt] if options.prompt else None


def chat(
    policy: LanguagePolicy, generator: torch.Generator, how: dict[str, Any], lines: TextIO, out: TextIO
) -> int:
    """Answer each line of `lines`, keeping the conversation; an empty line or the end of input ends it.

    The oldest turns are forgotten when the conversation outgrows the model's context.
    """
    messages: list[dict[str, str]] = []
    while True:
        out.write("you: ")
        out.flush()
        line = lines.readline()
        if not line.strip():
            out.write("\n")
            return 0
        messages.append({"role": "user", "content": line.strip()})
        room = policy.context - how["max_new_tokens"]
        while len(messages) > 1 and len(policy.encoder.prompt(messages)) > room:
            messages = messages[2:]
        answer = policy.sample([messages], 1, generator=generator, **how).outputs[0]
        messages.append({"role": "assistant", "content": answer.text})
        out.write(f"model: {answer.text}\n")
