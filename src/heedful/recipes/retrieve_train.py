"""`heedful retrieve train`: a language model learns, by trying, what to search for.

LeReT (Hsu et al. 2024, "Grounding by Trying: LLMs with Reinforcement Learning-Enhanced Retrieval", arXiv 2410.23214) is
the paper behind this job. Departures from it, each on purpose:

1. The bootstrap of few-shot prompts is our own, after DSPy's; retrieve_bootstrap says where it differs. By default its
   demonstrations are of all hops, since a small model does not carry over what it saw of the first hop alone.
2. A gold title counts once, where it stands first. (The official code counts every passage of that title.)
3. Of "chosen" and "rejected" the cleaned first lines are learned, which is what was searched for.
4. LoRA and AdamW by default. (The official code trains all weights with RMSprop; --lora-rank 0 trains all weights.)
5. Preferences use summed log-probabilities, as the paper; `ipo_per_token` is what TRL computes under the same name.
6. With --rules, queries that a rule writes are tried beside the model's own (the paper has none), for models that are
   too small to come upon a good query.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from heedful.errors import HeedfulError

if TYPE_CHECKING:
    from heedful.recipes.retrieve_pipeline import Read
    from heedful.recipes.retrieve_train_data import Asked
    from heedful.run import Run

TRAINS = ("leret", "cd", "sft_all")
"""Methods that train; the others measure the model as it is."""
VOLATILE = (
    *("json", "quiet", "dry_run", "save_every", "keep", "log_every", "micro_tokens", "max_rows", "index"),
)


@dataclass(frozen=True)
class Config:
    """Train a writer of queries on your corpus, your questions and your retriever; the result is an adapter."""

    questions: str = ""
    """Training questions: question, gold_titles (or answer, for --reward answer-...). JSONL, Parquet or CSV."""
    corpus: str = ""
    """Passages: text, title and id. JSONL (also .gz), Parquet, CSV or hub:owner/name."""
    index: str = ""
    """A folder that `heedful retrieve index` made; else the corpus is indexed in the cache, once."""
    retriever: Literal["bm25", "dense", "hybrid", "http"] = "bm25"
    """How passages are found; http asks a service (--service)."""
    service: str = ""
    """A YAML or JSON file that says how a search service is asked and its answer read."""
    eval_questions: str = ""
    """Held-out questions, measured before and after; without them a share of --questions is held out."""
    out: str = "runs/retrieve"
    """The run folder. The same command again resumes it."""
    model: str = "smollm2"
    """Where to start: a Hub id, a model folder, a run folder, or `smollm2`."""

    method: Literal["leret", "cd", "sft_all", "few_shot", "few_shot_all", "base"] = "leret"
    """leret: imitate the best queries, then prefer better to worse. cd: imitate alone. sft_all: imitate all queries
    that were tried, whatever they found. few_shot, few_shot_all: train nothing, write with the best bootstrapped
    prompt, of the first hop or of all hops. base: only measure the model."""
    reward: Literal["ap", "recall", "answer-em", "answer-f1"] = "ap"
    """What a context is worth: average precision or recall of gold passages, or whether --reader answers right."""
    reader: str = ""
    """A model or server that answers from what was found: for rewards by answer, and for exact match and F1."""
    reader_model: str = ""
    """The model to ask for where --reader is a server."""
    diversity: Literal["prompts", "temperature"] = "prompts"
    """Where different queries come from: few-shot prompts, or one prompt without demonstrations at a temperature."""
    prompts: int = 4
    """Prompts that write a query for each question and hop, the one without demonstrations among them; with --diversity
    temperature so many queries of that one."""
    samples: int = 1
    """Queries that each prompt writes."""
    rules: tuple[Literal["question", "passage", "title"], ...] = ()
    """Rules whose queries are tried too, for a small model whose own find little: the question at every hop; from the
    second hop on the question with the beginning of the best passage, or that passage's title."""
    temperature: float = -1.0
    """Of sampling queries to learn from; below 0: 0.1 with prompts, 1 with temperature."""
    pairs: Literal["adjacent", "all", "best_worst"] = "adjacent"
    """Which queries become pairs: of neighbouring levels of the reward, of any two, or the best and the worst."""
    loss: Literal["ipo", "ipo_per_token", "dpo"] = "ipo"
    """Of preferences: IPO on summed log-probabilities, IPO per token (TRL's), or DPO."""
    beta: float = 0.05
    """IPO: 1 / (2 beta) nats is the margin that is aimed at (the paper's tau). DPO: strength of the reference."""
    iterations: int = 1
    """Parts that the questions are split into; each is tried with the newest model, and learned from."""

    bootstrap_train: int = 50
    """Training questions that demonstrations come from."""
    bootstrap_dev: int = 50
    """The next training questions, by which few-shot prompts are chosen."""
    bootstrap_hops: Literal["first", "all"] = "all"
    """Hops that demonstrations are taken from, and that prompts are chosen by."""
    bootstrap_rounds: int = 0
    """Further tries, at temperature 1, for questions of which no query found anything."""
    candidates: int = 12
    """Few-shot prompts drawn at random, to choose from."""
    demos: int = 3
    """Most demonstrations of a prompt."""

    hops: int = 0
    """Searches for each question; 0: as many as some question has gold passages, at most four."""
    k: int = 3
    """Passages that each search brings."""
    merge: Literal["score", "rrf", "hop"] = "score"
    """How hops are merged: by the retriever's scores, by rank fusion, or hop after hop."""
    repeats: Literal["skip", "keep"] = "skip"
    """Passages that an earlier hop found: skip brings the next best in their place, keep counts them among the k again
    (the paper's way)."""
    passage_words: int = 60
    """Words of each passage that writer and reader see."""
    limit: int = 0
    """Questions to take from the file's beginning; 0 takes all."""
    eval_share: float = 0.2
    """Share of the questions that is held out where no held-out file is given."""
    eval_limit: int = 200
    """Most held-out questions that are measured."""
    measure: tuple[Literal["few_shot", "cd", "question", "passage", "title"], ...] = (
        *("few_shot", "cd", "question", "title"),
    )
    """What to measure beside before and after: the best few-shot prompt, the model after imitation, and rules."""
    max_absent: float = 0.05
    """Largest share of gold titles that the corpus may lack."""
    drop_faulty_rows: bool = False
    """Leave out passages that have errors, and count them, instead of stopping."""
    max_new_tokens: int = 32
    """Longest query."""
    max_rows: int = 64
    """Queries written at the same time; lower it when memory runs out."""

    lora_rank: int = 16
    """Rank of the adapter; 0 trains all weights."""
    lora_alpha: float = 32.0
    """Scale of the adapter."""
    cd_learning_rate: float = 2e-4
    """Peak learning rate of imitation."""
    cd_epochs: float = 2.0
    """Passes of imitation."""
    cd_batch_size: int = 8
    """Queries per step of imitation."""
    learning_rate: float = 5e-5
    """Peak learning rate of preferences."""
    epochs: float = 2.0
    """Passes over the pairs."""
    batch_size: int = 4
    """Pairs per step."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """How the learning rates fall."""
    warmup: float = 0.1
    """Steps of warm-up, or a share when below 1."""
    clip_norm: float = 1.0
    """Largest gradient norm."""
    micro_tokens: float = 2048.0
    """Token positions per forward pass; lower it when memory runs out, the result is the same."""
    save_every: int = 20
    """Steps between checkpoints."""
    keep: int = 2
    """Checkpoints kept."""
    log_every: int = 1
    """Steps between metric rows."""
    merged: bool = False
    """Save the adapter merged into the weights."""
    seed: int = 0
    """Of everything."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the forward pass."""
    preset: Literal["laptop", "paper"] = "laptop"
    """laptop: SmolLM2 with an adapter. paper: Llama-3-8B-Instruct, all weights, with the paper's settings."""
    dry_run: bool = False
    """Print the plan, the memory and the cost, and stop."""
    json: bool = False
    """Print result.json on standard output."""
    quiet: bool = False
    """No progress display."""


def preset(name: str) -> Config:
    """The defaults of a preset. Raises HeedfulError for an unknown name."""
    if name == "laptop":
        return Config()
    if name == "paper":
        # the official code: single-hop bootstrap, lr 1e-7, batches of 8 and 4, 150 steps of warm-up, clip 10
        return replace(
            Config(),
            preset="paper",
            model="meta-llama/Meta-Llama-3-8B-Instruct",
            retriever="dense",
            bootstrap_hops="first",
            lora_rank=0,
            cd_learning_rate=1e-7,
            cd_epochs=1.0,
            learning_rate=1e-7,
            schedule="constant",
            warmup=150.0,
            clip_norm=10.0,
            repeats="keep",
            passage_words=200,
            max_new_tokens=64,
            eval_limit=1000,
            limit=22_612,
            micro_tokens=8192.0,
            save_every=200,
        )
    raise HeedfulError(f"preset {name!r} is neither laptop nor paper")


def main(cfg: Config) -> int:
    """What `heedful retrieve train` does; the exit status."""
    from heedful.recipes import retrieve_train_plan
    from heedful.recipes.retrieve_eval import tell
    from heedful.recipes.retrieve_train_data import read_asked
    from heedful.run import open_run

    cfg = retrieve_train_plan.settle(cfg)
    if cfg.dry_run:
        print(retrieve_train_plan.describe(cfg))
        return 0
    # what is wrong with the files is found before there is a run folder that would hold on to them
    asked = read_asked(cfg)
    files = [f for f in (cfg.questions, cfg.eval_questions, cfg.corpus, cfg.service) if f and "hub:" not in f]
    with open_run(cfg.out, cfg, seed=cfg.seed, data=files, volatile=VOLATILE) as opened:
        cfg = replace(cfg, quiet=True, json=False) if opened.rank else cfg
        result = run(cfg, opened, asked)
    tell(cfg, result)
    return 0


def run(
    cfg: Config,
    run: Run,
    asked: Asked | None = None,
    *,
    shared: Run | None = None,
    read: Read | None = None,
) -> dict[str, Any]:
    """Measure, bootstrap, try, learn, measure again, save the model and the report; returns result.json.

    Every stage is kept in the run folder: a second call goes on where the first one stopped. shared: a run of the same
    seed that keeps what several runs have in common (the start model's queries, the bootstrap, what the first part of
    the questions was tried with), each under a name made of the options that it depends on, when methods are compared.
    read: who answers from what was found, in place of the model that `cfg.reader` names; the name still tells readers
    apart.
    """
    from heedful.policies.backbone import Lora
    from heedful.policies.language import LanguagePolicy
    from heedful.recipes import retrieve_train_plan
    from heedful.recipes.retrieve_train_data import keep_retriever, read_asked
    from heedful.recipes.retrieve_train_report import finish
    from heedful.recipes.retrieve_train_stages import Stages
    from heedful.recipes.retrieve_writers import RULES
    from heedful.sessions import session

    cfg = retrieve_train_plan.settle(cfg)
    asked = keep_retriever(cfg, asked or read_asked(cfg), run)
    trains = cfg.method in TRAINS
    policy = LanguagePolicy.load(
        cfg.model,
        lora=Lora(cfg.lora_rank, cfg.lora_alpha) if cfg.lora_rank and trains else None,
        precision=cfg.precision,
        device=cfg.device,
        seed=run.seed_for("adapter"),
    )
    with session(run):
        stages = Stages(cfg, policy, asked, run, shared, read)
        measured = {name: stages.by_rule(name) for name in RULES if name in cfg.measure}
        measured["before"] = stages.measured("before")
        prompts = stages.prompts()
        if prompts[1:] and (not trains or "few_shot" in cfg.measure):
            measured["few-shot"] = stages.measured("few-shot", prompts[1].demos)
        if trains:
            for part in range(cfg.iterations):
                if not stages.learn(part, prompts):
                    continue
                if part == cfg.iterations - 1 and cfg.method == "leret" and "cd" in cfg.measure:
                    measured["imitation"] = stages.measured("imitation")
                if cfg.method == "leret":
                    stages.prefer(part)
            measured["after"] = stages.measured("after")
        return finish(cfg, policy, asked, stages, prompts, measured, run)
