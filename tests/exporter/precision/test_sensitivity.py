"""Test the measurement of the accuracy that each layer costs, and the order that follows from it."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from composites import composite
from speech_export import export
from speech_export.limits import Limits
from speech_export.precision.accuracy_gate import layers, most_harmful_first
from speech_export.precision.conversion import Part
from speech_export.precision.options import PrecisionOptions, Target
from speech_runtime import Bundle


def names(groups: Sequence[object]) -> list[str]:
    return [group.name for group in groups]


def test_parts_of_a_layer_belong_together() -> None:
    found = layers(
        [
            Part("encoder.layers.1.fc1", 8),
            Part("encoder.layers.10.fc1", 8),
            Part("encoder.layers.1.attention.q_proj", 4),
            Part("decoder.lm_head", 100),
        ]
    )
    assert names(found) == ["encoder.layers.1", "encoder.layers.10", "decoder.lm_head"]
    assert found[0].parameters == 12


def test_damage_counts_for_each_weight() -> None:
    candidates = layers([Part("head", 1000), Part("layers.0.fc1", 10), Part("layers.1.fc1", 10)])
    drift = {"head": 0.5, "layers.0": 0.1, "layers.1": 0.001}
    assert names(most_harmful_first(candidates, lambda layer: drift[layer.name])) == ["layers.0", "head", "layers.1"]


@pytest.mark.parametrize("target", ["cpu", pytest.param("tensorrt", marks=pytest.mark.full)])
def test_a_layer_with_an_outlier_stays_float32(
    target: Target, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One activation of 10,000, which nothing looks at, leaves no bits for the others of its tensor."""
    model = composite("mbart")
    layer = model.decoder.model.decoder.layers[1]
    layer.fc1.bias.data[0], layer.fc2.weight.data[:, 0] = 1e4, 0
    options = PrecisionOptions(precision="int8", target=target)
    bundle = export(model, tmp_path / "bundle", precision=options, limits=Limits(float("inf"), 0.99))
    assert isinstance(bundle, Bundle)
    kept = bundle.manifest.quantization.kept_float32
    assert "decoder.model.decoder.layers.1.fc2" in kept
    assert not any(name.startswith(("decoder.model.decoder.layers.0", "encoder")) for name in kept)
    assert bundle.manifest.verification.token_agreement >= 0.99
    assert "which proves little: give --calibration-audio" in caplog.text
    cost = r"\d+ % of the decoder's weights stay in float32, as large and as slow as without int8, because of the"
    assert re.search(rf"{cost} accuracy on generated noise and tones; .*: give --calibration-audio DIR", caplog.text)
    assert "weights that int8 applies to: it will be hardly smaller" in caplog.text
