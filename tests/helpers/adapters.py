"""Adapters of peft with random weights, spread wide enough to change every answer."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "LoRA": ("LoraConfig", {}),
    "rsLoRA": ("LoraConfig", {"use_rslora": True}),
    "DoRA": ("LoraConfig", {"use_dora": True}),
    "LoRA and whole modules": ("LoraConfig", {"modules_to_save": ["enc_to_dec_proj", "crossattention"]}),
    "LoRA and biases": ("LoraConfig", {"bias": "all"}),
    "LoRA of tied embeddings": ("LoraConfig", {"target_modules": ["query", "word_embeddings"]}),
    "LoRA and new tokens": ("LoraConfig", {"trainable_token_indices": {"word_embeddings": [5, 6]}}),
    "AdaLoRA": ("AdaLoraConfig", {"total_step": 10}),
    "LoHa": ("LoHaConfig", {}),
    "LoKr": ("LoKrConfig", {}),
    "IA3": ("IA3Config", {"feedforward_modules": ["intermediate_dense"]}),
    "VeRA": ("VeraConfig", {"target_modules": ["query", "value"]}),
    "OFT": ("OFTConfig", {"oft_block_size": 4}),
    "HRA": ("HRAConfig", {}),
    "FourierFT": ("FourierFTConfig", {"n_frequency": 20}),
    "layer norms": ("LNTuningConfig", {"target_modules": ["LayerNorm"]}),
    "tokens": ("TrainableTokensConfig", {"target_modules": ["word_embeddings"], "token_indices": [5, 6]}),
}
"""Name → configuration class of peft, and what its configuration has of its own."""
_TARGETS = ["q_proj", "v_proj", "query", "value", "intermediate_dense"]


def adapted(model: nn.Module, kind: str = "LoRA", **settings: Any) -> Any:
    """A `PeftModel` around `model`, which it changes, with random weights in its adapter."""
    import peft  # it takes seconds, and few tests need it

    name, own = KINDS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = peft.get_peft_model(model, getattr(peft, name)(**{"target_modules": _TARGETS} | own | settings))
        for _, parameter in sorted(found.named_parameters()):
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.randn_like(parameter)
    return found.eval()


def save_adapter(model: nn.Module, directory: Path, kind: str = "LoRA", base: str | Path = "", **settings: Any) -> Any:
    """Save an adapter of `model`, which it changes, as one that was trained on `base`; return the `PeftModel`."""
    found = adapted(model, kind, **settings)
    found.peft_config["default"].base_model_name_or_path = str(base) or None
    found.save_pretrained(directory, save_embedding_layers=False)
    return found
