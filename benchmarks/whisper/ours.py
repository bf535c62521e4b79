"""A bundle on `speech_runtime`, as its users call it."""

import time

from peers.protocol import threads_here
from speech_runtime import AudioError, OnnxSpeechSeq2Seq, SessionOptions
from whisper.protocol import RATE, Heard, Job, Samples, serve


class Ours:
    """See `Transcriber`."""

    def __init__(self, job: Job) -> None:
        options = SessionOptions(intra_op_threads=threads_here())
        self._model = OnnxSpeechSeq2Seq.from_pretrained(job.model, options=options)
        prompt = self._model.manifest.prompt
        self._before = 1 + len(prompt.by_default or ()) if prompt is not None else 1

    def hear(self, samples: Samples, beams: int) -> Heard:
        """See `Transcriber.hear`."""
        begin = time.perf_counter()
        (found,) = self._model.transcribe_iter([samples], sampling_rate=RATE, num_beams=beams)
        end = time.perf_counter()
        if isinstance(found, AudioError):
            raise found
        return Heard(found.text, end - begin - found.decode_seconds, end - begin, len(found.tokens) - self._before)


if __name__ == "__main__":
    serve(Ours)
