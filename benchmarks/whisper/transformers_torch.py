"""transformers' own `generate`. The variant is the dtype."""

import time
from typing import Any

import torch
from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration

from peers.protocol import threads_here
from whisper.protocol import RATE, Heard, Job, Samples, serve


class Transformers:
    """See `Transcriber`."""

    def __init__(self, job: Job) -> None:
        torch.set_num_threads(threads_here())
        self._dtype: torch.dtype = getattr(torch, job.variant)
        self._model = WhisperForConditionalGeneration.from_pretrained(job.model, dtype=self._dtype).eval()
        self._extractor = WhisperFeatureExtractor.from_pretrained(job.model)
        self._tokenizer = AutoTokenizer.from_pretrained(job.model)
        self._encoded = 0.0
        self._model.get_encoder().register_forward_hook(self._note)

    def hear(self, samples: Samples, beams: int) -> Heard:
        """See `Transcriber.hear`."""
        with torch.inference_mode():
            begin = time.perf_counter()
            features = self._extractor(samples, sampling_rate=RATE, return_tensors="pt").input_features
            tokens = self._model.generate(features.to(self._dtype), num_beams=beams, do_sample=False)[0].tolist()
            text = self._tokenizer.decode(tokens, skip_special_tokens=True)
            end = time.perf_counter()
        return Heard(text, self._encoded - begin, end - begin, len(tokens) + 1)  # the end token is cut off

    def _note(self, *_: Any) -> None:
        self._encoded = time.perf_counter()


if __name__ == "__main__":
    serve(Transformers)
