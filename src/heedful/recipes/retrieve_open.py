"""From options to parts: the retriever, the writer of queries and the reader that `heedful retrieve` was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from heedful.recipes.retrieve_pipeline import Read, Write
from heedful.recipes.retrieve_readers import model_reader
from heedful.recipes.retrieve_writers import RULES, direct_writer, local_writer, served_writer

if TYPE_CHECKING:
    from heedful.data.passages import Passages
    from heedful.judges.search import Retriever
    from heedful.run import Run

RetrieverName = Literal["bm25", "dense", "hybrid", "http"]
SERVERS = ("http://", "https://")


def search_problems(cfg: Any) -> list[str]:
    """What is wrong with the options that say what is searched; each a sentence."""
    wrong = []
    if cfg.k < 1:
        wrong.append("--k must be at least 1")
    if cfg.hops < 0:
        wrong.append("--hops must be 0 or more")
    if cfg.passage_words < 1 or cfg.max_new_tokens < 1:
        wrong.append("--passage-words and --max-new-tokens must be at least 1")
    if cfg.retriever == "http" and not cfg.service:
        wrong.append("--retriever http needs --service, a file that says how the service is asked")
    if cfg.retriever != "http" and cfg.service:
        wrong.append("--service goes with --retriever http")
    if cfg.retriever != "http" and not (cfg.corpus or cfg.index):
        wrong.append("name what is searched: --corpus FILE, or --index FOLDER")
    if cfg.retriever == "http" and cfg.index:
        wrong.append("--index has no part in --retriever http")
    return wrong


def open_search(cfg: Any, run: Run | None = None) -> tuple[Passages | None, Retriever]:
    """The passages, where they are known here, and the retriever.

    With an index folder that one is opened, and must be of the corpus file where one is named; without, the corpus
    file's index is made in the cache.
    Raises HeedfulError for a corpus that is faulty or has changed, and for a service that cannot be asked.
    """
    from heedful.judges.search_index import cached_index, open_index

    if cfg.retriever == "http":
        from heedful.judges.search_http import HttpSearch, read_service

        cache = run.path("searches") if run is not None else None
        passages = None
        if cfg.corpus:
            passages, _ = cached_index(cfg.corpus, "bm25", drop_faulty=cfg.drop_faulty_rows)
        return passages, HttpSearch(read_service(Path(cfg.service).expanduser()), cache=cache)
    if cfg.index:
        return open_index(cfg.index, cfg.retriever, source=cfg.corpus, device=_plain_device(cfg.device))
    return cached_index(
        cfg.corpus,
        cfg.retriever,
        drop_faulty=cfg.drop_faulty_rows,
        device=_plain_device(cfg.device),
        quiet=cfg.quiet,
    )


def _plain_device(name: str) -> str:
    from heedful.device import pick_device

    return pick_device(name)


def is_server(spec: str) -> bool:
    """Whether a writer or reader is an OpenAI-compatible server."""
    return spec.startswith(SERVERS)


def model_problems(pairs: Sequence[tuple[str, str, str]]) -> list[str]:
    """(option, what it names, model of a server): servers without a model, models without a server, rules that should
    read. RUN is the place of the writer."""
    wrong = []
    for option, spec, model in pairs:
        flag = "--writer-model" if option == "RUN" else f"{option}-model"
        if is_server(spec) and not model:
            wrong.append(f"{option} is a server: name the model to ask there with {flag}")
        if model and not is_server(spec):
            wrong.append(f"{flag} goes with a server as {option}")
        if option == "--reader" and spec in RULES:
            wrong.append(f"--reader {spec}: a rule cannot read; name a model")
    return wrong


class Models:
    """The models behind writers and readers, each loaded once, when it is first asked for."""

    def __init__(self, cfg: Any) -> None:
        self._cfg = cfg
        self._loaded: dict[tuple[str, str], Any] = {}

    def get(self, spec: str, model: str = "") -> Any:
        """The model of that name. Raises HeedfulError when it cannot be loaded."""
        key = (spec, model)
        if key not in self._loaded:
            self._loaded[key] = self._load(spec, model)
        return self._loaded[key]

    def _load(self, spec: str, model: str) -> Any:
        if is_server(spec):
            from heedful.policies.remote import RemotePolicy

            return RemotePolicy(spec, model)
        from heedful.policies.language import LanguagePolicy

        return LanguagePolicy.load(spec, device=self._cfg.device, precision=self._cfg.precision)


def open_writer(spec: str, model: str, models: Models, cfg: Any, run: Run | None, name: str) -> Write:
    """The writer of that name: a rule, a model here, or one behind a server. name: its stage in the run folder."""
    if spec in RULES:
        return RULES[spec]
    loaded = models.get(spec, model)
    if is_server(spec):
        return served_writer(
            loaded,
            run,
            name,
            passage_words=cfg.passage_words,
            seed=cfg.seed,
            max_new_tokens=cfg.max_new_tokens,
            temperature=0.0,
            quiet=cfg.quiet,
        )
    how: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": cfg.max_new_tokens}
    if run is None:
        return direct_writer(loaded, passage_words=cfg.passage_words, seed=cfg.seed, **how)
    return local_writer(
        loaded,
        run,
        name,
        passage_words=cfg.passage_words,
        quiet=cfg.quiet,
        max_rows=cfg.max_rows,
        **how,
    )


def open_reader(models: Models, cfg: Any, run: Run | None) -> Read | None:
    """The reader that the options name, if any."""
    if not cfg.reader:
        return None
    return model_reader(
        models.get(cfg.reader, cfg.reader_model),
        run,
        passage_words=cfg.passage_words,
        seed=cfg.seed,
        quiet=cfg.quiet,
    )
