"""The CLIP text tower: needed once, at conversion, for the embeddings of the fixed prompt and of the empty one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import CLIPTextModel

# "Rotating view of a scene", ViewCrafter's prompt for everything, in CLIP's vocabulary with its start and end marks.
PROMPT = (49406, 32265, 1093, 539, 320, 3562, 49407)
EMPTY_PROMPT = (49406, 49407)


@dataclass(frozen=True)
class TextConfig:
    """Shape of a CLIP text tower; the defaults are OpenCLIP's ViT-H/14.

    Attributes:
        vocab_size: token ids are below this.
        context: tokens of a text, padded with 0.
        width: channels of a token.
        layers: transformer blocks.
        heads: attention heads.
    """

    vocab_size: int = 49408
    context: int = 77
    width: int = 1024
    layers: int = 24
    heads: int = 16

    def to_transformers(self) -> dict[str, Any]:
        """The arguments of ``transformers.CLIPTextConfig``."""
        marks = PROMPT if self.vocab_size > max(PROMPT) else (0,)
        return {
            "bos_token_id": marks[0],
            "eos_token_id": marks[-1],
            "vocab_size": self.vocab_size,
            "max_position_embeddings": self.context,
            "hidden_size": self.width,
            "intermediate_size": self.width * 4,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "hidden_act": "gelu",
        }


def build_text_tower(config: TextConfig) -> CLIPTextModel:
    """The tower without memory for its weights, which are to be assigned."""
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        tower = CLIPTextModel(CLIPTextConfig(**config.to_transformers()))
    positions = torch.arange(config.context)[None]
    tower.embeddings.register_buffer("position_ids", positions, persistent=False)
    return tower.eval()


@torch.no_grad()
def embed_text(config: TextConfig, weights: Mapping[str, Tensor], ids: Tensor) -> Tensor:
    """Embeddings of the last layer but one, normalised, as ViewCrafter takes them.

    Args:
        config: shape of the tower.
        weights: the tower's parameters by name.
        ids: ``[B, context]`` token ids.

    Returns:
        ``[B, context, width]`` float32.
    """
    tower = build_text_tower(config)
    tower.load_state_dict({name: value.float() for name, value in weights.items()}, strict=True, assign=True)
    hidden = tower(input_ids=ids, output_hidden_states=True).hidden_states[-2]
    return tower.final_layer_norm(hidden)


def embed_prompts(config: TextConfig, weights: Mapping[str, Tensor]) -> Tensor:
    """Embeddings of the fixed prompt and of the empty one, ``[2, context, width]`` float32.

    Args:
        config: shape of a tower with CLIP's vocabulary.
        weights: the tower's parameters by name.
    """
    ids = torch.zeros(2, config.context, dtype=torch.long)
    ids[0, : len(PROMPT)] = torch.tensor(PROMPT)
    ids[1, : len(EMPTY_PROMPT)] = torch.tensor(EMPTY_PROMPT)
    return embed_text(config, weights, ids)
