"""The ONNX that a user gets by hand: a first-step decoder, a decoder with past, and a search on the host.

Encoder output and caches are expanded over the beams, logits come to the host, and the cache is reordered there.
"""

import time
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from peers.protocol import Job, Sample, Samples, serve, threads_here
from speech_runtime.bench.options import Case

_START, _END = 2, 2
_GRAPHS = ("encoder", "decoder", "decoder_with_past")
Floats = NDArray[np.float32]


class PlainOnnx:
    """See `Peer`. The model is a directory of `prepare.plain_onnx`."""

    def __init__(self, job: Job) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads_here()
        self._sessions = {
            graph: onnxruntime.InferenceSession(str(Path(job.model) / f"{graph}.onnx"), options) for graph in _GRAPHS
        }

    def run(self, case: Case, clips: Samples) -> Sample:
        """See `Peer.run`."""
        begin = time.perf_counter()
        (hidden_states,) = self._sessions["encoder"].run(None, {"input_values": clips})
        encoded = time.perf_counter()
        second = self._search(hidden_states, case)
        end = time.perf_counter()
        return Sample(encoded - begin, (end - second) / (case.tokens - 1), end - begin)

    def _search(self, hidden_states: Floats, case: Case) -> float:
        """Beam search of a fixed length; returns when the second step began."""
        batch, beams, rows = case.batch, case.beams, case.batch * case.beams
        tokens = np.full((rows, 1), _START, dtype=np.int64)
        inputs = {"input_ids": tokens, "encoder_hidden_states": np.repeat(hidden_states, beams, axis=0)}
        logits, *caches = self._sessions["decoder"].run(None, inputs)
        past, cross = caches[: len(caches) // 2], caches[len(caches) // 2 :]
        scores = np.where(np.arange(rows) % beams == 0, 0.0, -1e9).astype(np.float32)
        names = [node.name for node in self._sessions["decoder_with_past"].get_inputs()]
        second = time.perf_counter()
        for step in range(1, case.tokens + 1):
            chosen, parents, scores = _advance(logits[:, -1], scores, batch, beams)
            tokens = np.concatenate([tokens[parents], chosen[:, None]], axis=1)
            if step == case.tokens:
                break
            past = [cache[parents] for cache in past]
            values = [tokens[:, -1:], *past, *cross]
            logits, *past = self._sessions["decoder_with_past"].run(None, dict(zip(names, values, strict=True)))
        return second


def _advance(
    logits: Floats, scores: Floats, batch: int, beams: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """The best continuations: tokens [rows], the rows that they continue, and their scores."""
    vocabulary = logits.shape[1]
    shifted = logits - logits.max(axis=1, keepdims=True)
    logprobs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    logprobs[:, _END] = -np.inf
    totals = (scores[:, None] + logprobs).reshape(batch, beams * vocabulary)
    best = np.argpartition(-totals, beams, axis=1)[:, :beams]
    found = np.take_along_axis(totals, best, axis=1)
    parents = best // vocabulary + np.arange(batch)[:, None] * beams
    return (best % vocabulary).flatten(), parents.flatten(), found.flatten()


if __name__ == "__main__":
    serve(PlainOnnx)
