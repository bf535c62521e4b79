"""Test what a name of transformers that is not here is answered with, and that names that nobody has stay unknown."""

import numpy as np
import pytest

from conftest import Pair


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("eval", "a bundle is never trained; leave that call out"),
        ("to", r"from_pretrained\(bundle, device=...\)"),
        ("half", "speech-export --precision"),
        ("config", "see manifest.encoder"),
        ("state_dict", "the weights are in the graphs"),
        ("save_pretrained", "push_to_hub"),
        ("nonsense", "an OnnxSpeechSeq2Seq has no 'nonsense'$"),
    ],
)
def test_names_of_transformers_are_answered(name: str, instead: str, digits: Pair) -> None:
    assert not hasattr(digits.exported, name)
    with pytest.raises(AttributeError, match=instead):
        getattr(digits.exported, name)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("save_pretrained", "its files are in the bundle"),
        ("pad", "with padding=True"),
        ("get_decoder_prompt_ids", "language= and task="),
        ("sampling_rate", "see feature_extractor.sampling_rate"),
        ("pad_token_id", "see model.generation_config"),
        ("nonsense", "a SpeechProcessor has no 'nonsense'$"),
    ],
)
def test_names_of_processors_are_answered(name: str, instead: str, digits: Pair) -> None:
    processor = digits.exported.processor
    assert not hasattr(processor, name)
    with pytest.raises(AttributeError, match=instead):
        getattr(processor, name)


def test_the_model_input_goes_nowhere(digits: Pair) -> None:
    inputs = digits.exported.processor(np.sin(np.arange(16000, dtype=np.float32)), sampling_rate=16000)
    assert inputs.to("cuda") is inputs
    with pytest.raises(Exception, match=r"texts are not taken here; model.tokenizer.encode\(text\).ids"):
        digits.exported.processor(text="one two")
