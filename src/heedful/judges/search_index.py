"""An index folder: passages, and what BM25 and dense retrieval need of them. Built once, resumed after a kill.

index/
  passages/   see data/passages
  bm25/       in bm25s's format, with options.json
  dense/      vectors.npy, with options.json

A part is there when its folder is. The same command again builds what is missing; another corpus, or other options, are
refused unless the index is to be rebuilt.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from heedful.atomic import make_folder, write_file, writing
from heedful.config import content_hash, difference
from heedful.data.formats import cannot_open
from heedful.data.passages import Passages, changed, stamp_of, write_passages
from heedful.data.problems import printable
from heedful.errors import HeedfulError
from heedful.judges.search import Hybrid, Retriever
from heedful.progress import Progress

Kind = Literal["bm25", "dense", "hybrid"]
PARTS: dict[Kind, tuple[Literal["bm25", "dense"], ...]] = {
    "bm25": ("bm25",),
    "dense": ("dense",),
    "hybrid": ("bm25", "dense"),
}
BM25_OPTIONS: dict[str, Any] = {"language": "english", "k1": 0.9, "b": 0.4}
DENSE_OPTIONS: dict[str, Any] = {"model": "minilm"}


def build_index(
    source: str | Path,
    folder: str | Path,
    kind: Kind,
    *,
    bm25: dict[str, Any] | None = None,
    dense: dict[str, Any] | None = None,
    device: str = "cpu",
    drop_faulty: bool = False,
    rebuild: bool = False,
    quiet: bool = True,
) -> Passages:
    """Make the index of a corpus file in `folder`, or what is missing of it; returns its passages.

    bm25: language, k1, b. dense: model (`minilm`, or an encoder in a folder or on the Hub). rebuild: throw away what is
    there for another corpus or with other options.
    Raises HeedfulError listing what is wrong in the file, and saying what differs where the index is of another corpus
    or has other options.
    """
    place = Path(folder).expanduser()
    wanted: dict[str, dict[str, Any]] = {
        "bm25": BM25_OPTIONS | (bm25 or {}),
        "dense": DENSE_OPTIONS | (dense or {}),
    }
    if fault := cannot_open(str(source)):
        raise HeedfulError(printable(f"{source}: {fault}"))
    with _alone(place):
        passages = _passages(str(source), place, drop_faulty, rebuild)
        for part in PARTS[kind]:
            _build_part(part, passages, place / part, wanted[part], device, rebuild, quiet)
    return passages


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """One process at a time builds in a folder; another waits, and then finds the work done."""
    make_folder(place)
    with writing(place / ".lock"), (place / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _passages(source: str, place: Path, drop_faulty: bool, rebuild: bool) -> Passages:
    folder = place / "passages"
    if (folder / "facts.json").is_file():
        passages = Passages(folder)
        wrong = ""
        if changed(passages.facts, source):
            wrong = (
                f"{source} has other passages than the {len(passages):,} that the index {place} was made of, from "
                f"{passages.facts['source']}: give --rebuild to make the index anew, or another folder"
            )
        elif passages.facts["left_out"] and not drop_faulty:
            wrong = (
                f"the index {place} lacks {passages.facts['left_out']:,} faulty passages of {source}: give "
                "--drop-faulty-rows again"
            )
        if not wrong:
            return passages
        if not rebuild:
            raise HeedfulError(printable(wrong))
        # the passages last: as long as they stand, so does the check
        for name in ("bm25", "dense", "passages"):
            for old in (place / name, place / f"{name}.parts"):
                _remove(old)
    return write_passages(source, folder, drop_faulty=drop_faulty)


def _remove(folder: Path) -> None:
    with writing(folder):
        if folder.exists():
            shutil.rmtree(folder)


def _build_part(
    part: Literal["bm25", "dense"],
    passages: Passages,
    folder: Path,
    options: dict[str, Any],
    device: str,
    rebuild: bool,
    quiet: bool,
) -> None:
    from heedful.judges import search_dense, search_words

    parts = folder.with_name(f"{folder.name}.parts")
    plan = parts / "options.json"
    options = {**options, "passages": passages.content}
    if part == "dense":
        options = {**options, "weights": search_dense.weights_of(options["model"])}
    for kept in (folder / "options.json", plan):
        if kept.is_file():
            old = json.loads(kept.read_bytes())
            lines = difference(old, options)
            if lines and not rebuild and old.get("passages") == options["passages"]:
                listed = "\n  ".join(lines)
                raise HeedfulError(
                    f"{folder} was made with other options:\n  {listed}\n"
                    "Give --rebuild to make it anew, or another folder."
                )
            if lines:
                _remove(kept.parent)
    if folder.is_dir():
        _remove(parts)
        return
    write_file(plan, json.dumps(options).encode())
    with Progress(f"{part} index", len(passages), unit="passages", quiet=quiet) as bar:

        def told(count: int) -> None:
            bar.show(count, "passages")

        if part == "bm25":
            search_words.build(passages, folder, options, told)
        else:
            search_dense.build(
                passages, folder, options, lambda: search_dense.encoder_of(options["model"], device), told
            )
    _remove(parts)


def open_index(
    folder: str | Path, kind: Kind, *, source: str | Path = "", device: str = "cpu"
) -> tuple[Passages, Retriever]:
    """The passages and the retriever of an index that was built.

    source: the corpus file that it must have been made of. Raises HeedfulError when the folder holds no such index, and
    when the corpus has changed since.
    """
    from heedful.judges import search_dense, search_words

    place = Path(folder).expanduser()
    missing = [part for part in ("passages", *PARTS[kind]) if not (place / part).is_dir()]
    if missing:
        raise HeedfulError(
            f"{place} holds no finished {kind} index ({', '.join(missing)} missing); make it with "
            f"heedful retrieve index CORPUS --retriever {kind} --out {place}"
        )
    passages = Passages(place / "passages")
    if source and changed(passages.facts, source):
        raise HeedfulError(
            printable(
                f"{source} has changed since the index {place} was made; make it again with heedful retrieve index "
                f"{source} --retriever {kind} --out {place} --rebuild"
            )
        )
    made: list[Retriever] = []
    for part in PARTS[kind]:
        options = _options(place / part)
        if options.get("passages") != passages.content:
            raise HeedfulError(
                f"{place / part} is of other passages than {passages.folder}; make the index again with --rebuild"
            )
        if part == "bm25":
            made.append(search_words.Bm25(passages, place / part, options))
        else:
            made.append(search_dense.Dense(passages, place / part, options, device=device))
    return passages, made[0] if len(made) == 1 else Hybrid(made)


def _options(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "options.json").read_bytes())
    except (OSError, ValueError) as error:
        raise HeedfulError(
            f"{folder / 'options.json'} cannot be read ({error}); make the index again"
        ) from error


def cached_index(
    source: str | Path,
    kind: Kind,
    *,
    drop_faulty: bool = False,
    device: str = "cpu",
    quiet: bool = True,
    **options: Any,
) -> tuple[Passages, Retriever]:
    """The index of a corpus file, made on first use and kept by the file's content and the options in the cache folder
    ($HEEDFUL_CACHE, or ~/.cache/heedful), in `indexes`. options: bm25, dense, of `build_index`."""
    from heedful.smollm2 import cache_folder

    stamp = stamp_of(str(source))
    key = content_hash(
        [stamp.get("sha256", str(source)), drop_faulty, {k: v for k, v in options.items() if v}]
    )
    folder = cache_folder() / "indexes" / key[:32]
    build_index(source, folder, kind, drop_faulty=drop_faulty, device=device, quiet=quiet, **options)
    return open_index(folder, kind, device=device)
