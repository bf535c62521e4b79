"""Test random cases against transformers on the same weights: identical ids, scores within 1e-4, on both paths.

200 cases that never change; `--cases 2000` (`make test-cases`) draws as many others.
"""

import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, note, seed
from hypothesis import settings as examples

from composites import CORE_DECODERS, START
from conftest import Pair
from parity.agreement import Batch, Settings, reference, verdicts
from parity.cases import Case, Noise, cases
from speech_runtime.generation.output import GenerateOutput
from speech_runtime.generation.token_scores.maths import LogitsProcessor, Scores, Sequences
from tally import Tally, TallyUp, Verdict

CASES = 200
NOISE = Batch(np.random.default_rng(0).standard_normal((1, 977)).astype(np.float32), None)


def unchanged(_: Sequences, scores: Scores) -> Scores:
    """A processor of one's own, for which the logits of the whole vocabulary are read."""
    return scores


def found(model: Pair, batch: Batch, settings: Settings, *processors: LogitsProcessor) -> GenerateOutput:
    return model.exported.generate(
        batch.inputs, batch.mask, return_dict_in_generate=True, logits_processor=processors, **settings
    )


def likely_tokens(model: Pair) -> list[int]:
    """Return tokens that the model predicts on noise, special ones excluded: searches that end in them end early."""
    said = found(model, Noise((3000,) * 8).batch(), {"num_beams": 3, "num_return_sequences": 3, "max_new_tokens": 12})
    return [int(token) for token in np.unique(said.sequences) if token > 3]


@pytest.mark.parametrize("family", CORE_DECODERS)
def test_any_setting_gives_the_same_tokens(
    pair: Callable[[str], Pair], family: str, pytestconfig: pytest.Config, tally_up: TallyUp
) -> None:
    model, tally, asked_for = pair(family), Tally(), pytestconfig.getoption("--cases")

    @seed(random.getrandbits(64) if asked_for else family)
    @examples(
        max_examples=(asked_for or CASES) // len(CORE_DECODERS),
        database=None,
        deadline=None,
        phases=[Phase.generate],  # shrinking would take minutes
        suppress_health_check=list(HealthCheck),
    )
    @given(cases(likely_tokens(model)))
    def check(case: Case) -> None:
        note(str(case))
        batch = case.noise.batch()
        expected = reference(model, batch, case.settings)
        both = [found(model, batch, case.settings, *own) for own in ([], [unchanged])]
        judged = [each for ours in both for each in verdicts(model, batch, case.settings, expected, ours)]
        tally.add("near tie" if "near tie" in judged else "same")

    check()
    tally_up(tally)


@pytest.mark.parametrize("beams", [1, 3])
def test_a_near_tie_is_told_from_an_error(pair: Callable[[str], Pair], beams: int) -> None:
    model, settings = pair("bert"), {"num_beams": beams, "max_new_tokens": 1}
    logits = model.exported.forward(NOISE.inputs, decoder_input_ids=[[START]]).logits[0, 0]
    *_, second, first = logits.argsort().tolist()
    gap = float(logits[first] - logits[second])

    def judged(bias: float, **others: object) -> Verdict:
        nearly = settings | {"sequence_bias": [[[second], gap - 4e-6]]}
        ours = found(model, NOISE, settings | {"sequence_bias": [[[second], bias]]} | others)
        (judgement,) = verdicts(model, NOISE, nearly, reference(model, NOISE, nearly), ours)
        return judgement

    assert judged(gap - 4e-6) == "same"
    assert judged(gap + 4e-6) == "near tie"
    with pytest.raises(AssertionError, match="utterance 0 is"):
        judged(gap, suppress_tokens=[first, second])
