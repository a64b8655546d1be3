"""Models by name: a Hub id, a folder, a run folder, or `smollm2`; loaded and saved in Hugging Face layout.

Weights are read from safetensors only, and no code of a model's folder is run (see model_folder).
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import huggingface_hub
import torch
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError

from heedful import smollm2
from heedful.atomic import write_folder
from heedful.errors import HeedfulError
from heedful.model_card import card_text
from heedful.model_folder import check_configs, check_weights, is_adapter, is_model, read_json
from heedful.progress import transformers_quiet

Kind = Literal["language", "reward", "vision", "image-text"]
AUTO: dict[Kind, str] = {
    "language": "AutoModelForCausalLM",
    "reward": "AutoModelForSequenceClassification",
    "vision": "AutoModel",
    "image-text": "AutoModelForImageTextToText",
}
"""The class of transformers that loads each kind."""
CONFIGS = ("*.json",)
TOKENIZER = (*CONFIGS, "*.jinja", "*.txt", "*.model")
EVERYTHING = (*TOKENIZER, "*.safetensors")
NOT_FETCHED = ["*/*", "consolidated*"]


def resolve(name: str | Path) -> Path | str:
    """Where a model is: the absolute folder of a local one, of a run's, of `smollm2`; else the Hub id itself.

    Raises HeedfulError when the name is a folder without a model, or neither a folder nor a possible Hub id.
    """
    text = str(name)
    if text == smollm2.NAME:
        return smollm2.converted()
    folder = Path(text).expanduser()
    if folder.is_dir():
        if is_model(folder):
            return folder.resolve()
        if is_model(folder / "model"):
            return (folder / "model").resolve()
        if (folder / "manifest.json").is_file():
            raise HeedfulError(
                f"the run in {text} has saved no model yet; run its command again to finish it"
            )
        raise HeedfulError(f"{text} holds no model: neither config.json nor adapter_config.json is in it")
    if folder.exists():
        raise HeedfulError(f"{text} is a file; a model is a folder with config.json and model.safetensors")
    if smollm2.is_converted_path(text):
        return smollm2.converted()  # an adapter made with another cache folder, or on another machine
    if not re.fullmatch(r"\w[\w.\-]*(/\w[\w.\-]*)?", text):
        raise HeedfulError(f"there is no folder {text}, and it is no Hub id (owner/name) either")
    return text


def _folder(name: str | Path, fetch: tuple[str, ...]) -> Path:
    """The checked local folder of a model; files of a Hub model are fetched, never its pickles or code."""
    place = resolve(name)
    if isinstance(place, str):
        try:
            place = Path(
                huggingface_hub.snapshot_download(
                    place, allow_patterns=list(fetch), ignore_patterns=NOT_FETCHED
                )
            )
        except (OSError, ValueError, HfHubHTTPError) as error:
            raise HeedfulError(
                f"there is no folder {name}, and the Hub gave no model of that name ({_first_line(error)})"
            ) from error
    check_configs(place)
    if fetch is EVERYTHING:
        check_weights(place, str(name))
    return place


def config_folder(name: str | Path) -> Path:
    """A folder with the model's configuration, fetched from the Hub where it is not here; see `resolve` for errors."""
    return _folder(name, CONFIGS)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


@contextmanager
def loading(name: str | Path) -> Iterator[None]:
    """Turn what transformers and safetensors raise for a damaged folder into one line that names it."""
    try:
        with transformers_quiet():
            yield
    except HeedfulError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError, SafetensorError) as error:
        raise HeedfulError(f"cannot load {name}: {type(error).__name__}: {_first_line(error)}") from error


def load_tokenizer(name: str | Path) -> Any:
    """The tokenizer of a model; an adapter saved without one has that of its base.

    Raises HeedfulError when there is none, or when it needs code from its folder.
    """
    from transformers import AutoTokenizer

    folder = _folder(name, TOKENIZER)
    if not any((folder / f).is_file() for f in ("tokenizer.json", "tokenizer_config.json")) and is_adapter(
        folder
    ):
        return load_tokenizer(base_of(folder))
    with loading(f"the tokenizer of {name}"):
        return AutoTokenizer.from_pretrained(folder)


def base_of(adapter: Path) -> str:
    """What an adapter was trained on. Raises HeedfulError when its configuration does not say."""
    base = read_json(adapter / "adapter_config.json").get("base_model_name_or_path")
    if not base:
        raise HeedfulError(f"{adapter / 'adapter_config.json'} names no base model (base_model_name_or_path)")
    return str(base)


def load_model(
    name: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    attn_implementation: str | None = None,
    kind: Kind = "language",
    merged: bool = False,
) -> Any:
    """A transformers model in eval mode; for an adapter the `PeftModel` on its base, adapter frozen.

    kind "reward" gives a sequence-classification model with one score; on a language model its head is new
    and zero. "vision" gives the bare model under an image encoder, "image-text" one that reads images and writes
    text. merged: fold an adapter into its base, which is what further training starts from.
    Raises HeedfulError for pickled weights, weights that are missing or do not fit, code in the folder, an
    adapter whose base is not there, a classifier with more than one label.
    """
    import transformers
    from transformers import AutoConfig

    folder = _folder(name, EVERYTHING)
    if is_adapter(folder):
        return _load_adapter(folder, name, merged, dtype, device, attn_implementation, kind)
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "output_loading_info": True}
    if attn_implementation:
        options["attn_implementation"] = attn_implementation
    auto: Any = getattr(transformers, AUTO[kind])
    if kind == "reward":
        labels = AutoConfig.from_pretrained(folder).num_labels
        if is_reward_model(folder) and labels != 1:
            raise HeedfulError(f"{name} is a classifier with {labels} labels; a reward model has one")
        options["num_labels"] = 1
    with loading(name):
        model, info = auto.from_pretrained(folder, **options)
    missing = set(info["missing_keys"])
    if kind == "reward" and missing == {"score.weight"}:
        model.score.weight.data.zero_()
        missing = set()
    if missing:
        what = "no score head fits this architecture" if kind == "reward" else "the weights are incomplete"
        raise HeedfulError(f"cannot load {name}: {what}; missing {', '.join(sorted(missing)[:3])}")
    if kind == "reward":
        _tell_padding_from_the_end(model.config)
    if isinstance(resolve(name), str):
        model.name_or_path = model.config._name_or_path = str(
            name
        )  # the id means the same elsewhere, a path does not
    return model.to(device).eval()


def _load_adapter(
    folder: Path,
    name: str | Path,
    merged: bool,
    dtype: torch.dtype,
    device: str | torch.device,
    attn_implementation: str | None,
    kind: Kind,
) -> Any:
    from peft import PeftModel

    base_name = base_of(folder)
    try:
        if is_adapter(base_folder := _folder(base_name, CONFIGS)):
            raise HeedfulError(f"its base {base_folder} is an adapter itself; save that one merged")
        base = load_model(
            base_name, dtype=dtype, device=device, attn_implementation=attn_implementation, kind=kind
        )
    except HeedfulError as error:
        raise HeedfulError(
            f"{name} is an adapter for {base_name}, which cannot be loaded: {error}"
        ) from error
    with loading(name):
        model = PeftModel.from_pretrained(base, str(folder), torch_device=str(device), is_trainable=False)
    # peft takes the name of the folder it finds, which may differ from the one the adapter was made with
    model.peft_config["default"].base_model_name_or_path = base.name_or_path
    return _without_home(model.merge_and_unload()) if merged else model.eval()


def _without_home(model: Any) -> Any:
    """Mark weights that are in no folder, so that an adapter on them is never saved alone."""
    model.name_or_path = model.config._name_or_path = ""
    return model.eval()


def _tell_padding_from_the_end(config: Any) -> None:
    # transformers reads the score at the last token that is no padding: it must be the end token, as trained
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    if config.pad_token_id is None or config.pad_token_id in ends:
        others = (getattr(config, f, None) for f in ("unk_token_id", "bos_token_id"))
        config.pad_token_id = next((i for i in others if i is not None and i not in ends), ends[0])


def is_reward_model(name: str | Path) -> bool:
    """Whether a name is that of a sequence classifier rather than a language model; reads its config only.

    Raises HeedfulError as `resolve` does.
    """
    folder = _folder(name, CONFIGS)
    if is_adapter(folder):
        return read_json(folder / "adapter_config.json").get("task_type") == "SEQ_CLS"
    architectures = read_json(folder / "config.json").get("architectures") or []
    return any(str(a).endswith("ForSequenceClassification") for a in architectures)


# ---- saving


def save_model(
    model: Any,
    tokenizer: Any,
    folder: str | Path,
    *,
    card: Mapping[str, Any] | str,
    merged: bool = False,
) -> Path:
    """Write a model that transformers (and peft, for an adapter) loads without heedful; returns the folder.

    An adapter is saved as one, or folded into its base when `merged`. It is folded in too when its base
    is in no folder of its own, or when it is a reward model, whose head and padding belong to its config.
    card: text of README.md, or the facts `card_text` takes. A folder that is there is replaced.
    Raises HeedfulError naming the folder when it cannot be written.
    """
    from peft import PeftModel

    target = Path(folder)
    reward = _is_classifier(model)
    tokenizer = copy.deepcopy(tokenizer)
    alone = isinstance(model, PeftModel) and not merged and not reward and bool(_home(model))
    whole = model if alone or not isinstance(model, PeftModel) else _merge(model, reward)
    if reward:
        tokenizer.pad_token_id = whole.config.pad_token_id
    text = card if isinstance(card, str) else card_text(card, adapter=alone, base=_home(model), reward=reward)

    def fill(beside: Path) -> None:
        with _as_os_error(beside), transformers_quiet():
            if alone:
                _save_adapter(model, beside)
            else:
                whole.save_pretrained(str(beside))
        tokenizer.save_pretrained(str(beside), save_jinja_files=not isinstance(tokenizer.chat_template, dict))
        (beside / "README.md").write_text(text, encoding="utf-8")
        for file in beside.iterdir():
            os.chmod(file, 0o644)  # safetensors makes its files private to the user

    write_folder(target, fill)
    return target


def _is_classifier(model: Any) -> bool:
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return type(inner).__name__.endswith("ForSequenceClassification")


def _home(model: Any) -> str:
    """The name an adapter's base can be loaded by, or empty. Of a whole model, its own name."""
    configs = getattr(model, "peft_config", None)
    if not configs:
        return str(getattr(model, "name_or_path", "") or "")
    name = str(next(iter(configs.values())).base_model_name_or_path or "")
    try:
        resolve(name)
    except HeedfulError:
        return ""
    return name


def _save_adapter(model: Any, folder: Path) -> None:
    active = model.active_adapter
    model.save_pretrained(str(folder), selected_adapters=[active])
    inner = folder / active  # peft puts every adapter but "default" one folder down
    if inner.is_dir():
        for file in list(inner.iterdir()):
            os.replace(file, folder / file.name)
        inner.rmdir()


def _merge(model: Any, reward: bool) -> Any:
    """A merged copy in float32; `model` stays as it is."""
    from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict

    if all(p.dtype == torch.float32 for p in model.parameters()) or not _home(model):
        return _without_home(copy.deepcopy(model).float().merge_and_unload())
    # frozen layers in bfloat16 have lost bits, and a merge would make that permanent: start from the file
    active = model.active_adapter
    sees = hasattr(model.get_base_model().config, "vision_config")
    base = load_model(_home(model), kind="reward" if reward else "image-text" if sees else "language")
    fresh = PeftModel(base, copy.deepcopy(model.peft_config[active]), adapter_name=active)
    set_peft_model_state_dict(
        fresh, get_peft_model_state_dict(model, adapter_name=active), adapter_name=active
    )
    return _without_home(fresh.merge_and_unload())


@contextmanager
def _as_os_error(path: Path) -> Iterator[None]:
    """A full disk inside safetensors comes as its own error type; let it come as in every other write."""
    try:
        yield
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error
