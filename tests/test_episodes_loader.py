"""Samples for training: right frames, exact resume, mixtures, workers, proxies, streaming."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from episode_sets import INFO, frame, picture, write_episodes

from heedful.data.episodes import open_episodes
from heedful.data.episodes.loader import Batches, Frames, Mixture, Source, Window, load_batches
from heedful.data.episodes.proxy import with_proxy
from heedful.errors import HeedfulError

TOP = "observation.images.top"
SMALL = replace(INFO, features={n: INFO.features[n] for n in ("action", "observation.state", TOP)})
WINDOW = Window(cameras=(TOP,), history=3, every=2, horizon=4)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("sets")
    return [write_episodes(root / "a", (6, 9, 5), info=SMALL), write_episodes(root / "b", (7,), info=SMALL)]


def seen_frame(image: np.ndarray, episode: int, length: int) -> int:
    return int(np.argmin([np.abs(image.astype(int) - picture(episode, t)).mean() for t in range(length)]))


def test_a_sample_holds_its_window(sets: list[Path]) -> None:
    frames = Frames(open_episodes(sets[0]), WINDOW)
    assert len(frames) == 20 and [frames.place(k) for k in (0, 5, 6, 14, 15, 19)] == [
        (0, 0),
        (0, 5),
        (1, 0),
        (1, 8),
        (2, 0),
        (2, 4),
    ]
    sample = frames[6 + 7]
    assert (sample["episode"], sample["frame"]) == (1, 7)
    assert np.array_equal(
        sample["observation.state"], [frame(1, t, 9)["observation.state"] for t in (3, 5, 7)]
    )
    assert np.array_equal(sample["action"], [frame(1, t, 9)["action"] for t in (7, 8, 8, 8)])
    assert sample["action_is_pad"].tolist() == [False, False, True, True]
    assert [seen_frame(p, 1, 9) for p in sample[TOP]] == [3, 5, 7]
    assert [seen_frame(p, 0, 6) for p in frames[1][TOP]] == [0, 0, 1]


def test_actions_may_begin_before_the_newest_frame(sets: list[Path]) -> None:
    frames = Frames(open_episodes(sets[0]), replace(WINDOW, past=2))
    for k, steps, pads in ((6 + 7, (5, 6, 7, 8), [False] * 4), (6 + 1, (0, 0, 1, 2), [True] + [False] * 3)):
        sample = frames[k]
        assert np.array_equal(sample["action"], [frame(1, t, 9)["action"] for t in steps])
        assert sample["action_is_pad"].tolist() == pads
    with pytest.raises(HeedfulError, match="past"):
        Frames(open_episodes(sets[0]), replace(WINDOW, past=-1))


def test_columns_are_the_same_held_and_read(sets: list[Path]) -> None:
    held = Frames(open_episodes(sets[0]), WINDOW)
    read = Frames(open_episodes(sets[0]), WINDOW, keep_bytes=0)
    for k in range(0, 20, 3):
        assert all(np.array_equal(v, read[k][n]) for n, v in held[k].items())


def test_only_kept_ranges_are_drawn(sets: list[Path]) -> None:
    frames = Frames(open_episodes(sets[0]), WINDOW, {0: [(1, 3), (4, 6)], 2: [(0, 1)]})
    assert [frames.place(k) for k in range(len(frames))] == [(0, 1), (0, 2), (0, 4), (0, 5), (2, 0)]


@pytest.mark.parametrize("shuffle", [True, False])
def test_each_epoch_sees_every_frame_once(shuffle: bool) -> None:
    mixture = Mixture([17], seed=3, shuffle=shuffle)
    draws = [mixture.draw(k)[1] for k in range(17 * 3)]
    epochs = [draws[e * 17 : e * 17 + 17] for e in range(3)]
    assert all(sorted(epoch) == list(range(17)) for epoch in epochs)
    assert (epochs[0] != epochs[1]) == shuffle


def test_a_mixture_keeps_its_weights_and_loses_no_frame() -> None:
    mixture = Mixture([100, 7, 50], [0.5, 0.2, 0.3], seed=1)
    draws = [mixture.draw(k) for k in range(5000)]
    assert np.bincount([n for n, _ in draws]).tolist() == [2500, 1000, 1500]
    for number, size in enumerate(mixture.sizes):
        turns = [s for n, s in draws if n == number]
        for e in range(len(turns) // size):
            assert sorted(turns[e * size : (e + 1) * size]) == list(range(size))
    # a pure function of the draw's number, in whatever order it is asked
    again = Mixture([100, 7, 50], [0.5, 0.2, 0.3], seed=1)
    assert [again.draw(k) for k in (4321, 17, 3999)] == [draws[k] for k in (4321, 17, 3999)]
    assert [Mixture([100, 7, 50], [5, 2, 3], seed=2).draw(k) for k in range(50)] != draws[:50]


@pytest.mark.parametrize("weights", [[1.0], [0, 0], [1, -1]])
def test_wrong_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(HeedfulError, match="weights"):
        Mixture([3, 4], weights)


def test_it_resumes_at_the_exact_sample(sets: list[Path]) -> None:
    sources = [Source(str(sets[0]), 0.75), Source(str(sets[1]), 0.25)]
    whole = list(load_batches(Batches(sources, WINDOW, 4, seed=5), 0, 6))
    rest = list(load_batches(Batches(sources, WINDOW, 4, seed=5), 3, 6))
    for a, b in zip(whole[3:], rest, strict=True):
        assert all(np.array_equal(a[name], b[name]) for name in a)
    assert len({tuple(b["frame"].tolist() + b["episode"].tolist()) for b in whole}) == 6


def test_workers_of_a_parent_that_has_decoded(sets: list[Path]) -> None:
    """What crashes a forked worker: its parent has decoded a video before."""
    batches = Batches([Source(str(sets[0]))], WINDOW, 4, seed=2)
    alone = list(load_batches(batches, 1, 4))
    together = list(load_batches(batches, 1, 4, workers=1))
    for a, b in zip(alone, together, strict=True):
        assert all(np.array_equal(a[name], np.asarray(b[name])) for name in a)


@pytest.mark.parametrize("kind", ["jpeg", "raw"])
def test_a_proxy_shows_the_same_pictures(sets: list[Path], tmp_path: Path, kind: str) -> None:
    source = open_episodes(sets[0])
    proxy = with_proxy(source, tmp_path / "proxy", kind)  # type: ignore[arg-type]
    for i, order in ((1, [4, 0, 8]), (2, [4])):
        a, b = source.frames(i, TOP, order), proxy.frames(i, TOP, order)
        assert np.array_equal(a, b) if kind == "raw" else np.abs(a.astype(int) - b).mean() < 2
    assert proxy.bytes_per_frame == 64 * 64 * 3 if kind == "raw" else proxy.bytes_per_frame < 3000
    made = (tmp_path / "proxy" / f"{TOP}.pictures").stat().st_mtime_ns
    with_proxy(source, tmp_path / "proxy", kind)  # type: ignore[arg-type]
    assert (tmp_path / "proxy" / f"{TOP}.pictures").stat().st_mtime_ns == made
    small = with_proxy(source, tmp_path / "proxy", kind, size=(24, 32))  # type: ignore[arg-type]
    assert small.frames(0, TOP, [2]).shape == (1, 24, 32, 3) and small.info.features[TOP].shape == (24, 32, 3)


def test_a_proxy_of_changed_files_is_made_anew(tmp_path: Path) -> None:
    folder = write_episodes(tmp_path / "set", (4,), info=SMALL)
    with_proxy(open_episodes(folder), tmp_path / "proxy", "raw")
    write_episodes(folder, (5,), info=SMALL)
    proxy = with_proxy(open_episodes(folder), tmp_path / "proxy", "raw")
    assert seen_frame(proxy.frames(1, TOP, [4])[0], 1, 5) == 4


def test_a_cut_off_proxy_is_named(sets: list[Path], tmp_path: Path) -> None:
    with_proxy(open_episodes(sets[0]), tmp_path / "proxy", "raw")
    place = tmp_path / "proxy" / f"{TOP}.pictures"
    place.write_bytes(place.read_bytes()[:-1])
    with pytest.raises(HeedfulError, match="is not whole; remove"):
        with_proxy(open_episodes(sets[0]), tmp_path / "proxy", "raw").frames(0, TOP, [0])


def test_unknown_columns_and_cameras(sets: list[Path]) -> None:
    with pytest.raises(HeedfulError, match="no column 'torque'"):
        Frames(open_episodes(sets[0]), Window(states=("torque",)))
    with pytest.raises(HeedfulError, match="no camera 'front'"):
        Frames(open_episodes(sets[0]), Window(cameras=("front",)))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve episodes in a file each."""
    folder = tmp_path_factory.mktemp("many") / "set"
    return write_episodes(folder, (5,) * 12, info=SMALL, finalize=False)


def test_streaming_holds_no_more_than_its_cache(many: Path, tmp_path: Path) -> None:
    largest = max(
        p.stat().st_size for part in ("data", "videos") for p in (many / part).rglob("*") if p.is_file()
    )
    limit = 5 * largest / 2**20
    source = Source(str(many), cache=str(tmp_path / "cache"), cache_mb=limit)
    batches, plain = Batches([source], WINDOW, 5, seed=1), Batches([Source(str(many))], WINDOW, 5, seed=1)
    seen = set()
    for b in range(12):
        batch = batches[b]
        streamed = batches._parts()[0][0].episodes
        assert streamed.bytes_held <= limit * 2**20  # type: ignore[attr-defined]
        on_disk = [p for p in (tmp_path / "cache").rglob("*") if p.is_file() and "meta" not in p.parts]
        assert sum(p.stat().st_size for p in on_disk) <= limit * 2**20
        for k in range(5):
            i, t = int(batch["episode"][k]), int(batch["frame"][k])
            seen.add((i, t))
            assert np.array_equal(batch["action"][k][0], frame(i, t, 5)["action"])
            assert seen_frame(batch[TOP][k][-1], i, 5) == t
    assert len(seen) == 60  # one epoch: every frame once, in batches of mixed episodes
    assert batches._parts()[0][0].episodes.fetched <= 24 + 4  # type: ignore[attr-defined]
    assert plain[0]["episode"].tolist() != batches[0]["episode"].tolist()


def test_streaming_names_what_cannot_be_brought(many: Path, tmp_path: Path) -> None:
    from heedful.data.episodes.stream import stream_folder

    episodes = stream_folder(many, tmp_path / "cache", 0.0001)
    with pytest.raises(HeedfulError, match=r"file-000.parquet has .* bytes, more than the cache"):
        episodes.columns(0)
    with pytest.raises(HeedfulError, match=r"no meta/info.json"):
        stream_folder(tmp_path, tmp_path / "cache", 1)


def test_two_streams_share_a_cache(many: Path, tmp_path: Path) -> None:
    from heedful.data.episodes.stream import stream_folder

    other = write_episodes(tmp_path / "other", (4,) * 3, info=SMALL)
    first, second = (stream_folder(folder, tmp_path / "cache", 100) for folder in (many, other))
    assert (len(first), len(second)) == (12, 3)
    for i in range(3):
        for episodes, source in ((first, many), (second, other)):
            read = open_episodes(source)
            assert np.array_equal(episodes.columns(i)["index"], read.columns(i)["index"])
            assert np.array_equal(episodes.frames(i, TOP, [0, 3]), read.frames(i, TOP, [0, 3]))
    assert first.path != second.path and first.path.is_dir()


def test_only_abandoned_folders_of_ours_leave_the_cache(many: Path, tmp_path: Path) -> None:
    from heedful.data.episodes.stream import LOCK, stream_folder

    cache = tmp_path / "cache"
    live = stream_folder(many, cache, 100)
    stem = live.path.name.rsplit("-", 2)[0]
    kept = [
        cache / "20240131",
        cache / f"{stem}-1-a",
        cache / f"{stem}x-1-a",
        cache / "heedful-elsewhere-1-a",
    ]
    for folder in kept:
        folder.mkdir(parents=True)
        (folder / "notes.txt").write_text("mine")
        if folder.name.startswith("heedful-") and folder != kept[1]:
            (folder / LOCK).touch()
    pid = os.fork()
    if pid == 0:
        # Ends as a killed process does: nothing is tidied up.
        episodes = stream_folder(many, cache, 100)
        os._exit(0 if episodes.path != live.path else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    dead = next(iter(cache.glob(f"{stem}-{pid}-*")))
    again = stream_folder(many, cache, 100)
    assert not dead.exists() and live.path.is_dir() and again.path.is_dir()
    assert all((folder / "notes.txt").read_text() == "mine" for folder in kept)
    assert len(live.frames(0, TOP, [0])) == 1
    old = live.path
    del live
    stream_folder(many, cache, 100)
    assert not old.exists()
