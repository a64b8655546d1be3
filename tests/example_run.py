"""A made-up but realistic finished run folder, for the tests of the report (no model is needed)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from heedful.evals.language import compare, hacking_signs, heldout_rows, implicit_rewards, pick_samples

QUESTIONS = [
    "How do I keep bread fresh for longer?",
    "Why is the sky blue?",
    "What should I do when my phone battery drains quickly?",
    "How can I fall asleep faster?",
    "What is the difference between a virus and a bacterium?",
    "How do I remove a red wine stain from a shirt?",
    "Why do cats purr?",
    "How much water should I drink in a day?",
]
_LONG = (
    "That is a great question! There are several things to consider here. First, {core}. Second, it is "
    "important to remember that every situation is different: what works for one may fail for another. "
    "In addition, you can also consult an expert if you are unsure. Finally, {core}. I hope this helps."
)
_CORES = [
    "store bread in a cotton bag at room temperature and freeze what you will not eat in two days",
    "air molecules scatter short blue waves of sunlight far more than long red waves",
    "lower the brightness, close apps in the background and check which app uses the most power",
    "keep the room dark and cool, and leave your phone in another room an hour before bed",
    "a bacterium is a living cell that antibiotics can kill, while a virus needs a host cell to multiply",
    "blot the stain, cover it with salt, rinse it with cold water and wash it with detergent",
    "cats purr by vibrating the muscles of the larynx, mostly when content and sometimes to calm themselves",
    "about two litres a day suit most adults, and more when it is hot or you exercise",
]


def make_run(
    folder: Path, *, seed: int = 0, shift: float = 0.0, prompts: int = 32, finished: bool = True
) -> Path:
    """Write the files of a run of `heedful prefer` into `folder`; `shift` changes how well it went."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    asked = [QUESTIONS[i % 8] + ("" if i < 8 else f" (variant {i // 8})") for i in range(prompts)]
    cores = [_CORES[i % 8] + ("" if i < 8 else f", as of case {i // 8}") for i in range(prompts)]
    before = [_LONG.format(core=core) for core in cores]
    after = []
    for i in range(prompts):
        core = cores[i]
        text = core[0].upper() + core[1:] + "."
        if rng.random() < 0.5:
            text += " Ask an expert if you are unsure, because every situation is different."
        after.append(text if rng.random() > 0.06 else "It depends.")
    old = rng.normal(0.2, 0.3, prompts)
    new = old + rng.normal(0.45 + shift, 0.5, prompts)
    new[rng.random(prompts) < 0.08] = old[0]
    h_w, h_l = rng.normal(-1.8, 2.0, prompts), rng.normal(-14, 4, prompts)
    rows = compare(
        asked,
        before,
        after,
        old,
        new,
        directions={"answer length": "lower"},
        logp_after=rng.normal(-40, 4, prompts),
        logp_start=rng.normal(-58, 6, prompts),
    )
    rewards, fell = implicit_rewards(h_w, h_l)
    held = heldout_rows(
        asked, before, after, old, new, None, [f"{len(t.split())} words; names the question" for t in after]
    )
    write(folder / "heldout.jsonl", held)
    write(folder / "metrics.jsonl", _metrics(rng))
    config = [
        "model: smollm2",
        f"seed: {seed}",
        "method: dpo",
        f"beta: {0.1 + shift}",
        "judge: rule:length<40w",
    ]
    config += ["rounds: 2", "n: 4", "fit:", "  lr: 0.0002", "  batch_size: 8", "  epochs: 1"]
    (folder / "config.yaml").write_text("\n".join(config) + "\n")
    command = "heedful prefer --model smollm2 --prompts examples/everyday.jsonl --judge 'rule:length<40w'"
    command += f" --rounds 2 --n 4 --seed {seed} --out {folder.name}"
    manifest = {
        "versions": {"heedful": "0.1.0", "python": "3.11.7", "torch": "2.11.0", "transformers": "5.23.0"},
        "commit": "4f2c9d0a71b3e8",
        "command": command,
        "device": "cpu: x86_64, 2 threads",
        "seed": seed,
        "data": {"examples/everyday.jsonl": "9b1f" * 16},
        "started": [{"time": "2025-03-04T10:12:00+0000"}, {"time": "2025-03-04T10:19:31+0000"}],
    }
    write(folder / "manifest.json", manifest)
    if not finished:
        return folder
    words = next(r for r in rows if r["name"] == "answer length")
    write(
        folder / "result.json",
        {
            "words_before": words["before"],
            "words_after": words["after"],
            "win_rate": rows[1]["after"],
            "rounds": 2,
        },
    )
    old_length, new_length = words["before"], words["after"]
    fall = 1 - new_length / old_length
    report: dict[str, Any] = {
        "title": "SmolLM2 learns to answer briefly",
        "job": "prefer",
        "summary": [
            f"Held-out answers became {fall:.0%} shorter, {old_length:.0f} to {new_length:.0f} words, and",
            f"the new answer won on {rows[1]['after']:.0%} of {prompts} held-out prompts.",
            "Two rounds of on-policy DPO took 7 minutes on two CPU cores.",
        ],
        "warnings": fell + hacking_signs(before, after, prompts=asked)[1],
        "comparisons": rows + rewards,
        "curves": [
            {"title": "Loss", "stage": None, "y": ["loss"]},
            {"title": "Implicit rewards", "stage": "round", "y": ["h_w", "h_l"]},
            {"title": "Preference accuracy", "stage": "round", "y": ["accuracy"]},
            {"title": "KL to the start model", "stage": None, "y": ["kl"]},
        ],
        "samples": pick_samples(held, limit=16),
        "data": {
            "train prompts": 96,
            "held-out prompts": prompts,
            "pairs": {"kept": 231, "dropped as ties": 57},
        },
        "feedback": {"judge": "rule:length<40w", "samples per prompt": 4, "tie rate": 0.198},
        "limits": [
            "The judge is a rule; a score that rises under it does not prove that people like the answers.",
            f"{prompts} held-out prompts resolve a change in win rate of about ±17 points, not less.",
        ],
    }
    write(folder / "report.json", report)
    return folder


def write(path: Path, value: Any) -> None:
    """JSON, or JSON lines for a list."""
    text = "".join(json.dumps(v) + "\n" for v in value) if isinstance(value, list) else json.dumps(value)
    path.write_text(text)


def _metrics(rng: np.random.Generator) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number, stage in enumerate(("round0", "round1")):
        for step in range(1, 91):
            done = number + step / 90
            h_w, h_l = -1.2 * done + rng.normal(0, 0.5), -7 * done + rng.normal(0, 1)
            row = {
                "loss": 0.69 / (1 + 1.5 * done) + rng.normal(0, 0.04),
                "h_w": h_w,
                "h_l": h_l,
                "margin": h_w - h_l,
            }
            row |= {"accuracy": min(1, 0.5 + 0.25 * done + rng.normal(0, 0.06)), "lr": 2e-4 * (1 - step / 90)}
            row |= {"grad_norm": abs(rng.normal(1.2, 0.3)), "tokens_per_s": 900.0, "epoch": step / 90}
            rows.append({"stage": stage, "step": step, "time": 1.0, **row})
            if step % 30 == 0:
                rows.append({"stage": stage, "step": step, "time": 1.0, "kl": 8 * done + rng.normal(0, 0.3)})
    return rows
