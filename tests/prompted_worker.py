"""A run that asks a served critic and a served teacher; tests kill it. Usage: FOLDER URL COUNT."""

from __future__ import annotations

import sys
from pathlib import Path

from heedful.judges.prompted import comparer, teacher
from heedful.policies.remote import RemotePolicy
from heedful.run import Run, open_run


def ask(run: Run, url: str, count: int) -> dict[str, object]:
    """What a critic says of `count` pairs of a teacher's answers."""
    with RemotePolicy(url, "tiny", concurrency=2, retries=0) as remote:
        prompts = [f"prompt {i}" for i in range(count)]
        answers = [str(a) for a in teacher(remote, run=run, seed=3, quiet=True)(prompts)]
        critic = comparer(remote, run=run, seed=3, quiet=True)
        out = critic(prompts, answers, [f"another answer {i}" for i in range(count)])
    return {"answers": answers, "p": out.p.tolist()}


if __name__ == "__main__":
    with open_run(Path(sys.argv[1]), {}, seed=3) as opened:
        made = opened.once("out.json", lambda: ask(opened, sys.argv[2], int(sys.argv[3])))
    print(made["p"])
