"""CTranslate2 on the same decoder. It has no such speech encoder: a text encoder of one layer takes its place."""

import time

import ctranslate2

from peers.protocol import Job, Sample, Samples, serve, threads_here
from speech_runtime.bench.options import Case

_SOURCE_TOKEN = "t5"  # noqa: S105 - any word of the vocabulary
_STRIDE = 320 * 2**3
"""Samples that a frame of the reference encoder stands for: those of Wav2Vec2, and three adapter layers."""


class CTranslate2:
    """See `Peer`. The model is a directory of `prepare.ctranslate2_model`; the variant is its compute type.

    The source has as many tokens as the speech encoder would have frames, so that cross-attention costs the same.
    """

    def __init__(self, job: Job) -> None:
        self._translator = ctranslate2.Translator(
            job.model, device="cpu", compute_type=job.variant, inter_threads=1, intra_threads=threads_here()
        )

    def run(self, case: Case, clips: Samples) -> Sample:
        """See `Peer.run`. A step is what a longer search takes more than a shorter one."""
        source = [[_SOURCE_TOKEN] * -(-clips.shape[1] // _STRIDE)] * case.batch
        short = max(1, case.tokens // 4)
        seconds = {}
        for tokens in (short, case.tokens):
            begin = time.perf_counter()
            self._translator.translate_batch(
                source, beam_size=case.beams, min_decoding_length=tokens, max_decoding_length=tokens
            )
            seconds[tokens] = time.perf_counter() - begin
        return Sample(per_token=(seconds[case.tokens] - seconds[short]) / (case.tokens - short))


if __name__ == "__main__":
    serve(CTranslate2)
