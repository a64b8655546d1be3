"""Several LoRA adapters on one model, and the caches that must tell them apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from heedful import hub
from heedful.errors import HeedfulError
from heedful.feedback import Samples
from heedful.policies.backbone import Lora
from heedful.policies.language import LanguagePolicy
from heedful.run import open_run

ASKED = Samples(["What is the capital of France?", "Hi"], ["Paris.", "Hello there."], 1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A start model and two different adapters on it."""
    root = tmp_path_factory.mktemp("adapters")
    made = {"start": tiny.save(root / "start")}
    for seed, name in enumerate(("a", "b")):
        policy = LanguagePolicy.load(str(made["start"]), lora=Lora(rank=2), precision="fp32", seed=seed)
        shift(policy, seed)
        made[name] = hub.save_model(policy.module, policy.tokenizer, root / name, card="x")
    return made


def shift(policy: LanguagePolicy, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in policy.module.named_parameters():
            if "lora_B" in name:
                p.copy_(torch.randn(p.shape, generator=generator) * 0.2)


def logps(policy: LanguagePolicy) -> torch.Tensor:
    with torch.no_grad():
        logp, mask = policy.logp(ASKED)
    return (logp * mask).sum(-1).cpu()


def start(folders: dict[str, Path]) -> LanguagePolicy:
    return LanguagePolicy.load(str(folders["start"]), precision="fp32")


def test_adapters_are_loaded_switched_and_removed(folders: dict[str, Path]) -> None:
    alone = {name: logps(LanguagePolicy.load(str(folders[name]), precision="fp32")) for name in folders}
    policy = start(folders)
    torch.testing.assert_close(logps(policy), alone["start"])
    for name in ("a", "b"):
        policy.load_adapter(name, folders[name])
        torch.testing.assert_close(logps(policy), alone[name], atol=1e-4, rtol=0)
    policy.use_adapter("a")
    torch.testing.assert_close(logps(policy), alone["a"], atol=1e-4, rtol=0)
    with policy.reference():
        torch.testing.assert_close(logps(policy), alone["start"], atol=1e-4, rtol=0)
    policy.remove_adapter("a")
    torch.testing.assert_close(logps(policy), alone["b"], atol=1e-4, rtol=0)
    with pytest.raises(HeedfulError, match="no adapter 'a'; known: b"):
        policy.use_adapter("a")
    with pytest.raises(HeedfulError, match="the only adapter"):
        policy.remove_adapter("b")
    assert (alone["a"] - alone["b"]).abs().min() > 0.01


def test_adapters_add_up_with_weights(folders: dict[str, Path]) -> None:
    policy = start(folders)
    plain = {name: p.detach().clone() for name, p in policy.module.named_parameters()}
    for name in ("a", "b"):
        policy.load_adapter(name, folders[name])
    policy.add_adapters("same", {"a": 1.0})
    policy.use_adapter("a")
    wanted = logps(policy)
    policy.use_adapter("same")
    torch.testing.assert_close(logps(policy), wanted, atol=1e-4, rtol=0)
    policy.add_adapters("mixed", {"a": 0.5, "b": -2.0})
    mixed = logps(policy)
    changed = dict(start(folders).module.named_parameters())
    with torch.no_grad():
        for name, weight in (("a", 0.5), ("b", -2.0)):
            whole = LanguagePolicy.load(str(folders[name]), precision="fp32").module.named_parameters()
            for key, p in whole:
                changed[key].add_((p - plain[key]) * weight)
        by_hand = start(folders)
        by_hand.module.load_state_dict({k: p.detach() for k, p in changed.items()}, strict=False)
    torch.testing.assert_close(mixed, logps(by_hand), atol=2e-3, rtol=0)
    with pytest.raises(HeedfulError, match="there is an adapter 'mixed' already"):
        policy.add_adapters("mixed", {"a": 1.0})


def test_what_is_no_adapter_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    policy = start(folders)
    with pytest.raises(HeedfulError, match="holds no adapter"):
        policy.load_adapter("x", folders["start"])
    (tmp_path / "adapter_config.json").write_text((folders["a"] / "adapter_config.json").read_text())
    (tmp_path / "adapter_model.bin").write_bytes(b"pickled")
    with pytest.raises(HeedfulError, match="safetensors"):
        policy.load_adapter("x", tmp_path)


def test_cached_log_probabilities_tell_adapters_and_reference_apart(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    policy = start(folders)
    for name in ("a", "b"):
        policy.load_adapter(name, folders[name])
    groups = [policy.group(x, [y]) for x, y in zip(ASKED.inputs, ASKED.outputs, strict=True)]
    with open_run(tmp_path / "run", {}, seed=0) as run:

        def cached() -> torch.Tensor:
            return torch.tensor(policy.cached_logps(groups, run))[:, 0]

        for name in ("a", "b"):
            policy.use_adapter(name)
            torch.testing.assert_close(cached(), logps(policy), atol=1e-4, rtol=0)
            with policy.reference():
                torch.testing.assert_close(cached(), logps(policy), atol=1e-4, rtol=0)
        files = list((tmp_path / "run/logps").iterdir())
        assert len(files) == 3, "two adapters and one reference, which does not depend on the adapter"
        shift(policy, 7)
        torch.testing.assert_close(cached(), logps(policy), atol=1e-4, rtol=0)
        assert len(list((tmp_path / "run/logps").iterdir())) == 4


def test_long_lists_are_cached_in_parts(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from heedful.policies import language

    monkeypatch.setattr(language, "LOGPS_PART", 3)
    policy = start(folders)
    groups = [policy.group("Hi", [f"answer {i}"]) for i in range(8)]
    seen: list[int] = []
    compute = policy.sequence_logps

    def counted(part: list, **how: object) -> list[list[float]]:
        seen.append(len(part))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return compute(part)

    monkeypatch.setattr(policy, "sequence_logps", counted)
    with open_run(tmp_path / "run", {}, seed=0) as run:
        with pytest.raises(KeyboardInterrupt):
            policy.cached_logps(groups, run)
        values = policy.cached_logps(groups, run)
    assert seen == [3, 3, 3, 2]
    assert torch.allclose(torch.tensor(values), torch.tensor(compute(groups)), atol=1e-4)


def test_dropout_of_the_model_is_off_and_that_of_the_adapter_is_as_asked() -> None:
    from transformers import GPT2Config

    config = GPT2Config(vocab_size=420, n_embd=32, n_layer=2, n_head=4, n_positions=256, eos_token_id=2)
    for lora in (None, Lora(rank=2)):
        policy = LanguagePolicy(tiny.model(config=config), tiny.tokenizer(), lora=lora, precision="fp32")
        policy.module.train()
        torch.testing.assert_close(logps(policy), logps(policy), atol=0, rtol=0)
    policy = LanguagePolicy(tiny.model(), tiny.tokenizer(), lora=Lora(rank=2, dropout=0.5), precision="fp32")
    shift(policy, 1)
    policy.module.train()
    assert not torch.equal(logps(policy), logps(policy))


def test_sampling_folds_the_adapter_and_gives_the_weights_back(folders: dict[str, Path]) -> None:
    policy = start(folders)
    policy.load_adapter("a", folders["a"])
    before = {name: p.data.clone() for name, p in policy.module.named_parameters()}
    places = {name: p.data_ptr() for name, p in policy.module.named_parameters()}
    seen = logps(policy)
    with policy.folded():
        changed = [n for n, p in policy.module.named_parameters() if not torch.equal(p.data, before[n])]
        assert changed
        torch.testing.assert_close(logps(policy), seen, atol=1e-4, rtol=0)  # off, and yet the same function
    for name, p in policy.module.named_parameters():
        assert p.data_ptr() == places[name]
        assert torch.equal(p.data, before[name])
    with pytest.raises(ZeroDivisionError), policy.folded():
        raise ZeroDivisionError
    assert all(torch.equal(p.data, before[name]) for name, p in policy.module.named_parameters())
    torch.testing.assert_close(logps(policy), seen)


def test_what_folding_could_not_do_exactly_is_left_alone(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import LoraConfig, get_peft_model

    def touched(policy: LanguagePolicy) -> bool:
        before = {name: p.data.clone() for name, p in policy.module.named_parameters()}
        with policy.folded():
            return any(not torch.equal(p.data, before[n]) for n, p in policy.module.named_parameters())

    policy = start(folders)
    assert not touched(policy)  # no adapter
    policy.load_adapter("a", folders["a"])
    with policy.reference():
        assert not touched(policy)  # the adapter is off
    assert touched(policy)
    monkeypatch.setattr("heedful.policies.backbone.FOLD_BYTES", 0)
    assert not touched(policy)
    monkeypatch.undo()
    extras: list[dict[str, Any]] = [{"use_dora": True}, {"lora_bias": True}]
    for more in extras:
        module = hub.load_model(str(folders["start"]), merged=True)
        config = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", **more)
        adapted = get_peft_model(module, config)  # type: ignore[arg-type]
        other = LanguagePolicy(adapted, hub.load_tokenizer(str(folders["start"])), precision="fp32")
        shift(other, 3)
        assert not touched(other), more
