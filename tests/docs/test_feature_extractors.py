"""The table of feature extractors in docs/production.md is complete, and its differences are true."""

import re

import numpy as np
import transformers

from pages import REPOSITORY
from signals import RATE, speech
from speech_runtime.audio.features import EXTRACTORS

ROW = re.compile(r"^\| `(\w+FeatureExtractor)` \|[^|]+\| ([\de.-]+) \|", re.MULTILINE)


def test_every_extractor_differs_from_transformers_by_what_its_row_says() -> None:
    rows = dict(ROW.findall((REPOSITORY / "docs" / "production.md").read_text(encoding="utf-8")))
    assert list(rows) == sorted(EXTRACTORS)
    for name, difference in rows.items():
        reference, extractor = getattr(transformers, name)(), EXTRACTORS[name]()
        found = 0.0
        for clip in speech():
            expected = reference([clip], sampling_rate=RATE, return_tensors="np")[reference.model_input_names[0]]
            values, _ = extractor([clip])
            frames_first = expected if expected.shape == values.shape else expected.swapaxes(1, 2)
            found = max(found, float(np.abs(values - frames_first).max()))
        assert found <= float(difference), name
