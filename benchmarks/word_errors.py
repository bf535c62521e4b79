"""Word error rates of bundles of the bundled model, on recordings that it was not trained on."""

from pathlib import Path

import numpy as np

from corpus import test_strings
from scoring import word_error_rate
from speech_runtime import OnnxSpeechSeq2Seq

STRINGS, SEED, BEAMS = 504, 2024, 4
ARCHIVE = Path(__file__).resolve().parents[2] / "shared" / "data" / "fsdd.tar.gz"


def word_error_rates(bundles: dict[str, Path], archive: Path = ARCHIVE, strings: int = STRINGS) -> dict[str, float]:
    """Return the word error rate (0.01 is one in a hundred) of each bundle at 4 beams, all on the same strings.

    Clips are transcribed one by one, shortest first, as a service would get them.

    Raises:
        FileNotFoundError: the archive of recordings is not there.
    """
    if not archive.exists():
        raise FileNotFoundError(f"the recordings are not there: {archive}")
    spoken = test_strings(archive, strings, SEED)
    order = np.argsort([samples.size for samples, _ in spoken])
    rates = {}
    for name, bundle in bundles.items():
        model = OnnxSpeechSeq2Seq.from_pretrained(bundle)
        heard = [model.transcribe(spoken[i][0], num_beams=BEAMS) for i in order]
        rates[name] = word_error_rate([spoken[i][1] for i in order], heard)
    return rates
