"""A bundle on `speech_runtime`. The variant is the device, with its default options; without one, the CPU."""

import time

from peers.protocol import Job, Sample, Samples, serve, threads_here
from speech_runtime.bench.measure import fixed_length, load
from speech_runtime.bench.options import Case, backend_options
from speech_runtime.bundle.graph_io import DECODER_WITH_PAST, ENCODER
from speech_runtime.bundle.loading import Bundle


class Ours:
    """See `Peer`."""

    def __init__(self, job: Job) -> None:
        options = backend_options(job.variant or "cpu", threads_here())
        self._backend, self._generator = load(Bundle.open(job.model), options)
        self._free = job.audio is not None

    def run(self, case: Case, clips: Samples) -> Sample:
        """See `Peer.run`."""
        self._backend.runs.clear()
        begin = time.perf_counter()
        settings = {"num_beams": case.beams} if self._free else fixed_length(case)
        self._generator.generate(clips, **settings)
        end = time.perf_counter()
        encoder = sum(run.end - run.begin for run in self._backend.runs if run.graph == ENCODER)
        first, *others = [run.begin for run in self._backend.runs if run.graph == DECODER_WITH_PAST]
        per_token = (end - others[0]) / len(others) if others else end - first
        return Sample(encoder, per_token, end - begin)


if __name__ == "__main__":
    serve(Ours)
