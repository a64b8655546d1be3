"""A model that reads camera images and writes actions: SmolVLM's and PaliGemma's layouts of an image in a prompt.

Both put an image as so many tokens before the text. SmolVLM (and Idefics3) is causal throughout; PaliGemma sees image
and prompt from both sides, and counts positions from 1. Images and prompt are computed once for the N actions of an
observation: the text model is called on embeddings that hold the images' features, laid out as in `packing`.

Letters: B observations, N actions each, L tokens of one image, D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from heedful import hub
from heedful.errors import HeedfulError
from heedful.policies.actions import ActionSpace, Observations
from heedful.policies.actions.language import Encoded, LanguageActionPolicy
from heedful.policies.actions.observe import ImageInput
from heedful.policies.language import LanguagePolicy
from heedful.policies.packing import Group, Pack, UnsupportedModel

SMOLVLM, PALIGEMMA = ("smolvlm", "idefics3"), ("paligemma",)
"""What `model_type` of config.json says of each layout."""
SIGLIP = ((0.5,) * 3, (0.5,) * 3)
"""Mean and std of each colour, where the folder does not say."""


class VisionLanguage(LanguagePolicy):
    """An image-text-to-text model with the parts of a language policy; its text half is the decoder."""

    def __init__(self, module: nn.Module, tokenizer: Any, **options: Any) -> None:
        get: Any = getattr(module, "get_base_model", lambda: module)
        kind = get().config.model_type
        if kind not in (*SMOLVLM, *PALIGEMMA):
            raise HeedfulError(
                f"a model of the type {kind!r} puts images into prompts in its own way; those of "
                f"{', '.join((*SMOLVLM, *PALIGEMMA))} are known"
            )
        super().__init__(module, tokenizer, **options)

    @classmethod
    def load(cls, name: str, **options: Any) -> VisionLanguage:
        """Load a Hub id or a local folder; see `LanguagePolicy.load`."""
        module = hub.load_model(name, kind="image-text", merged=True)
        return cls(module, hub.load_tokenizer(name), source=name, **options)

    @property
    def prefix_is_open(self) -> bool:
        """Whether image and prompt are seen from both sides."""
        return self.transformer.config.model_type in PALIGEMMA  # type: ignore[union-attr]

    @property
    def decoder(self) -> nn.Module:
        """The text model."""
        inner: Any = self.transformer.model
        return inner.language_model if self.prefix_is_open else inner.text_model

    @property
    def context(self) -> int:
        """Longest prompt, images included, plus completion, in tokens."""
        return int(getattr(self.decoder.config, "max_position_embeddings", 1 << 20))  # type: ignore[arg-type]

    @contextmanager
    def attention(self, name: str) -> Iterator[None]:
        """Inside, the text model uses the attention function registered under `name`."""
        config: Any = self.decoder.config
        before = config._attn_implementation
        config._attn_implementation = name
        try:
            yield
        finally:
            config._attn_implementation = before

    def image_features(self, pixels: Tensor) -> Tensor:
        """Pixels (M, 3, side, side), as the vision half wants them, to (M, L, D)."""
        inner: Any = self.transformer.model
        if self.prefix_is_open:
            return inner.get_image_features(pixels).pooler_output
        return inner.connector(inner.vision_model(pixel_values=pixels).last_hidden_state)

    def _probe(self) -> bool:
        """Text alone tells nothing of images: `VisionActionPolicy` finds out with some."""
        return bool(getattr(type(self.transformer), "_supports_attention_backend", False))


class VisionActionPolicy(LanguageActionPolicy):
    """A vision-language model as a policy. cameras: the names of images in an observation, in the order of the prompt.

    Images of any size are scaled to the square that the model knows, one tile each (no splitting into sub-images).
    Whether prompts are computed once is decided by trying: where that does not give what the model gives by itself,
    rows repeat their prompt.
    """

    language: VisionLanguage

    def __init__(
        self, language: VisionLanguage, space: ActionSpace, *, cameras: Sequence[str], **options: Any
    ) -> None:
        if not cameras:
            raise HeedfulError("name the cameras whose images the model sees")
        config: Any = language.transformer.config
        vision = config.vision_config
        folder = hub.config_folder(language.source) if language.source else None
        self.cameras = list(cameras)
        self.look = (
            ImageInput.of(folder, vision, SIGLIP) if folder else ImageInput(int(vision.image_size), *SIGLIP)
        )
        self.image_id = int(config.image_token_id)
        super().__init__(language, space, **options)
        side = int(vision.image_size) // int(vision.patch_size)
        self.image_tokens = side**2 if language.prefix_is_open else int(side**2 / config.scale_factor**2)
        if self.language.shares_prefix:
            self.language.shares_prefix = self._agrees()

    # ---- the prompt

    def prompt_ids(self, text: str) -> list[int]:
        """Images, then text: as each layout's processor writes them."""
        tokenizer = self.language.tokenizer
        image = tokenizer.convert_ids_to_tokens(self.image_id) or ""
        if self.language.prefix_is_open:
            whole = (
                image * (self.image_tokens * len(self.cameras)) + (tokenizer.bos_token or "") + text + "\n"
            )
        else:
            border = "<fake_token_around_image>"
            one = border + "<global-img>" + image * self.image_tokens + border
            whole = one * len(self.cameras) + text
        ids = list(tokenizer(whole, add_special_tokens=not self.language.prefix_is_open)["input_ids"])
        ids = ids[:-1] if ids[-1] == tokenizer.eos_token_id else ids
        found = ids.count(self.image_id)
        if found != self.image_tokens * len(self.cameras):
            raise HeedfulError(
                f"the tokenizer makes {found} image tokens of {self.image_tokens * len(self.cameras)}: it is not the "
                "one that belongs to this model"
            )
        return ids

    def encode(self, observations: Observations) -> Encoded:
        """Prompts and image features of B observations. Raises HeedfulError for a camera that is missing."""
        missing = [name for name in self.cameras if name not in observations]
        if missing:
            raise HeedfulError(
                f"observations lack the images {', '.join(missing)}; they have {', '.join(observations)}"
            )
        text = {name: value for name, value in observations.items() if name in ("task", "state")}
        prompts = super().encode(text).prompts
        images = [observations[name].to(self.language.device).float() / 255 for name in self.cameras]
        pixels = torch.stack([self.look(image) for image in images], 1)
        with self.language.autocast():
            seen = self.language.image_features(pixels.flatten(0, 1))
        return Encoded(prompts, pixels, seen.unflatten(0, pixels.shape[:2]).flatten(1, 2))

    # ---- the model

    def inputs(self, tokens: Tensor, encoded: Encoded) -> dict[str, Tensor]:
        """See `LanguageActionPolicy.inputs`; in place of image tokens stand the images' features."""
        assert encoded.seen is not None
        image = tokens == self.image_id
        table: Any = self.language.transformer.get_input_embeddings()  # type: ignore[operator]
        words = table(tokens.masked_fill(image, 0))
        seen = encoded.seen.flatten(0, 1).to(words.dtype)
        return {"inputs_embeds": words.masked_scatter(image[..., None], seen)}

    def offset(self) -> int:
        """PaliGemma counts from 1."""
        return int(self.language.prefix_is_open)

    def arrange(self, layout: Pack, encoded: Encoded) -> Pack:
        """See `LanguageActionPolicy.arrange`; PaliGemma's prompts are open to both sides."""
        if not self.language.prefix_is_open:
            return layout
        segments = []
        for (start, end, mask), prompt in zip(layout.segments, encoded.prompts, strict=True):
            if mask is None:
                mask = torch.ones(
                    end - start, end - start, dtype=torch.bool, device=layout.tokens.device
                ).tril()
            mask[: len(prompt), : len(prompt)] = True
            segments.append((start, end, mask))
        return replace(layout, segments=segments, positions=layout.positions + self.offset())

    def plain_inputs(
        self, encoded: Encoded, copies: Sequence[int], tokens: Tensor, prompts: Sequence[int]
    ) -> dict[str, Tensor]:
        """See `LanguageActionPolicy.plain_inputs`: each row has its observation's images again."""
        assert encoded.pixels is not None
        times = torch.tensor(list(copies), device=tokens.device)
        pixels = encoded.pixels.repeat_interleave(times, 0)
        if not self.language.prefix_is_open:
            return {"pixel_values": pixels}
        lengths = torch.tensor(list(prompts), device=tokens.device).repeat_interleave(times)
        after = torch.arange(tokens.shape[1], device=tokens.device)[None] >= lengths[:, None]
        return {"pixel_values": pixels.flatten(0, 1), "token_type_ids": after.long()}

    def _agrees(self) -> bool:
        """Whether the shared computation gives what the model itself gives, on two observations of noise."""
        generator = torch.Generator().manual_seed(0)
        shape = (2, 3, self.look.size, self.look.size)
        images = {c: torch.randint(0, 256, shape, generator=generator).to(torch.uint8) for c in self.cameras}
        language = self.language
        # The bounds of a state are not needed to find out, and a longer task than one makes prompts differ.
        with torch.no_grad(), language.eval_mode(), language.autocast():
            encoded = self.encode({"task": ["pick up the cube", "stop"], **images})
            ids = self.ids.tolist()
            groups = [Group(p, [ids[:3], ids[5:7]]) for p in encoded.prompts]
            plain, _ = self.plain_logp(encoded, groups)
            try:
                shared, _ = self.shared_logp(encoded, groups)
            except (UnsupportedModel, TypeError, AttributeError):
                return False
        tolerance = 1e-3 if language.precision == "fp32" else 0.25
        return plain.shape == shared.shape and bool((plain - shared).abs().max() < tolerance)
