"""Names that people look for on a model of transformers, and what there is instead."""

from collections.abc import Mapping

_NO_TRAINING = "a bundle is never trained; leave that call out"
_DEVICE = "choose it when you load the bundle: from_pretrained(bundle, device=...)"
_WEIGHTS = "the weights are in the graphs of the bundle"
_PRECISION = "choose it when you export: speech-export --precision"

INSTEAD: Mapping[str, str] = {
    **dict.fromkeys(("eval", "train", "training", "requires_grad_", "gradient_checkpointing_enable"), _NO_TRAINING),
    **dict.fromkeys(("to", "cuda", "cpu", "device"), _DEVICE),
    **dict.fromkeys(("half", "float", "bfloat16", "dtype"), _PRECISION),
    **dict.fromkeys(("parameters", "named_parameters", "state_dict", "load_state_dict", "num_parameters"), _WEIGHTS),
    "config": "see manifest.encoder and manifest.decoder; config.json is in the bundle",
    "encoder": "encode() runs it",
    "decoder": "forward() returns its logits",
    "save_pretrained": "copy the directory of the bundle, or upload it with push_to_hub",
}
"""What to do, by the name of an attribute or a method."""


def missing(kind: str, name: str, instead: Mapping[str, str] = INSTEAD) -> AttributeError:
    """Return the error for a name that is not there, with what to do if it is one of transformers'."""
    return AttributeError(f"{kind} has no {name!r}{f': {instead[name]}' if name in instead else ''}")
