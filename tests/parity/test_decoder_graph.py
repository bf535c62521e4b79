"""Test `decoder_with_past` alone against torch: an empty past, several tokens at once, reordered beams.

As it is on a GPU, where its cache grows.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from composites import VOCABULARY, composite
from conftest import ExportOnce
from speech_export.precision.options import PrecisionOptions
from speech_runtime.bundle.graph_io import cache_names

FAMILIES = ["bert", pytest.param("mbart", marks=pytest.mark.full)]
BATCH, BEAMS, FRAMES, WIDTH = 2, 3, 17, 24
LAYERS, HEADS, HEAD_DIM = 2, {"bert": 3, "mbart": 4}, {"bert": 8, "mbart": 6}


class Graphs:
    """The two decoder graphs, run step by step; remembers the tokens of every beam."""

    def __init__(self, family: str, directory: Path) -> None:
        self.reference = composite(family)
        random = np.random.default_rng(0)
        self.encoded = random.standard_normal((BATCH, FRAMES, WIDTH)).astype(np.float32)
        self.mask = np.ones((BATCH, FRAMES), np.int64)
        self.mask[1, 11:] = 0
        init, self.step_graph = (
            onnxruntime.InferenceSession(directory / f"{name}.onnx") for name in ("decoder_init", "decoder_with_past")
        )
        names = cache_names("cross", LAYERS)
        self.cross = dict(zip(names, init.run(names, {"encoder_hidden_states": self.encoded}), strict=True))
        empty = np.zeros((BATCH, 1, HEADS[family], 0, HEAD_DIM[family]), np.float32)
        self.past = dict.fromkeys(cache_names("past", LAYERS), empty)
        self.sequences = np.zeros((BATCH, 1, 0), np.int64)

    def step(self, tokens: NDArray[np.int64], beam_idx: NDArray[np.int64]) -> list[NDArray[np.float32]]:
        outputs = self.step_graph.run(
            None,
            {
                "input_ids": tokens,
                "beam_idx": beam_idx,
                "encoder_attention_mask": self.mask,
                **self.past,
                **self.cross,
            },
        )
        self.past = dict(zip(self.past, outputs[3:], strict=True))
        kept = np.take_along_axis(self.sequences, beam_idx[:, :, None], axis=1)
        self.sequences = np.concatenate([kept, tokens], axis=2)
        return outputs[:3]

    def expected(self, tokens: int) -> torch.Tensor:
        """The torch decoder's logits for the last tokens, from the whole sequences, without a cache."""
        beams = self.sequences.shape[1]
        with torch.no_grad():
            logits = self.reference.decoder(
                input_ids=torch.from_numpy(self.sequences).flatten(0, 1),
                encoder_hidden_states=torch.from_numpy(self.encoded).repeat_interleave(beams, 0),
                encoder_attention_mask=torch.from_numpy(self.mask).repeat_interleave(beams, 0),
            ).logits
        return logits.unflatten(0, (BATCH, beams))[:, :, -tokens:]


@pytest.fixture(scope="session")
def graphs_of(export_once: ExportOnce) -> Callable[[str], Graphs]:
    """Decoder graphs of a tiny random composite, nothing decoded yet."""

    def make(family: str) -> Graphs:
        options = PrecisionOptions(target="tensorrt")
        return Graphs(family, export_once(f"{family}-growing", composite(family), precision=options))

    return make


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_steps_and_reorders(graphs_of: Callable[[str], Graphs], family: str) -> None:
    graphs, random = graphs_of(family), np.random.default_rng(1)
    past_beams = 1
    for tokens in (3, 1, 1, 2, 1, 1):  # the first one: a prompt of three tokens on a 0-long past, fanned out to beams
        beam_idx = random.integers(0, past_beams, (BATCH, BEAMS))
        logits, top_logprobs, top_ids = graphs.step(random.integers(4, VOCABULARY, (BATCH, BEAMS, tokens)), beam_idx)
        past_beams = BEAMS
        expected = graphs.expected(tokens)
        torch.testing.assert_close(torch.from_numpy(logits), expected, atol=1e-4, rtol=0)
        best, ids = torch.log_softmax(expected, dim=-1).topk(top_ids.shape[-1])
        torch.testing.assert_close(torch.from_numpy(top_logprobs), best, atol=1e-4, rtol=0)
        clear = (best[..., :5] - best[..., 1:6]) > 1e-4  # not a tie with the next one
        clear &= torch.cat([torch.ones_like(clear[..., :1]), clear[..., :-1]], dim=-1)
        assert clear.float().mean() > 0.9
        assert (torch.from_numpy(top_ids)[..., :5] == ids[..., :5])[clear].all()
    assert graphs.past["past.0.key"].shape == (BATCH, BEAMS, HEADS[family], 9, HEAD_DIM[family])


def test_a_prompt_at_once_is_the_prompt_in_steps(graphs_of: Callable[[str], Graphs]) -> None:
    prompt = np.random.default_rng(2).integers(4, VOCABULARY, (BATCH, 1, 3))
    alone = np.zeros((BATCH, 1), np.int64)
    at_once, in_steps = graphs_of("bert"), graphs_of("bert")
    whole = at_once.step(prompt, alone)[0]
    parts = [in_steps.step(prompt[:, :, i : i + 1], alone)[0] for i in range(3)]
    np.testing.assert_allclose(whole, np.concatenate(parts, axis=2), atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_cross_cache_is_not_expanded_over_beams(graphs_of: Callable[[str], Graphs], family: str) -> None:
    assert graphs_of(family).cross["cross.0.key"].shape == (BATCH, HEADS[family], FRAMES, HEAD_DIM[family])
