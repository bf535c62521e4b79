"""Run contenders in turn, A B C A B C …, each in a fresh process, so that all meet the machine in the same state."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from peers.protocol import Answer, Job, ask
from peers.registry import Contender
from speech_runtime.bench.options import Case

Metric = Literal["encoder", "per_token", "utterance"]


@dataclass(frozen=True)
class Outcome:
    """The answers of a contender, one for each round, or the reason why it did not run.

    Attributes:
        absent: why; None where it ran.
        cases: Cases that it ran.
        answers: one a round.
    """

    absent: str | None
    cases: tuple[Case, ...] = ()
    answers: tuple[Answer, ...] = ()

    def rounds(self, case: Case, metric: Metric) -> list[float]:
        """The median of each round, seconds; empty where it does not do that."""
        if case not in self.cases:
            return []
        index = self.cases.index(case)
        times = [[getattr(run, metric) for run in answer.samples[index]] for answer in self.answers]
        return [] if None in sum(times, []) else [float(np.median(runs)) for runs in times]  # noqa: RUF017 - a few

    @property
    def peak_rss_bytes(self) -> list[float]:
        """Peak memory of each round at the end of the first case, bytes."""
        return [float(answer.peak_rss_bytes) for answer in self.answers]

    @property
    def load_seconds(self) -> list[float]:
        """Time to load in each round, seconds."""
        return [answer.load_seconds for answer in self.answers]


Comparison = Mapping[str, Outcome]
"""Outcomes by the contenders' names."""


def compare(
    contenders: Sequence[Contender],
    rounds: int,
    threads: int,
    on_run: Callable[[str], None],
    environment: Mapping[str, str] | None = None,
    audio: Path | None = None,
) -> dict[str, Outcome]:
    """Run all contenders `rounds` times.

    Args:
        contenders: who; those that cannot run are in the result with the reason.
        rounds: Number of times that each loads and runs.
        threads: Number of threads of each.
        on_run: told what runs.
        environment: variables for all of them.
        audio: Audio of the `Job`.
    """
    os.sync()  # what was exported just now goes to the disk before anything is measured, not beside it
    absent = {contender.name: contender.absent for contender in contenders}
    answers: dict[str, list[Answer]] = {contender.name: [] for contender in contenders}
    for number in range(1, rounds + 1):
        for contender in contenders:
            if absent[contender.name]:
                continue
            on_run(f"round {number} of {rounds}: {contender.name}")
            file = None if audio is None else str(audio)
            job = Job(str(contender.model), contender.variant, contender.cases, contender.warmups, file)
            try:
                answers[contender.name].append(ask(contender.module, job, threads, environment or {}))
            except RuntimeError as error:
                absent[contender.name] = str(error).strip().splitlines()[-1]
    return {
        contender.name: Outcome(
            absent[contender.name],
            tuple(planned.case for planned in contender.cases),
            () if absent[contender.name] else tuple(answers[contender.name]),
        )
        for contender in contenders
    }


def ratio(slower: Sequence[float], faster: Sequence[float]) -> float | None:
    """Median over the rounds of `slower` / `faster`; None where one of them is missing."""
    if not slower or not faster:
        return None
    return float(np.median([a / b for a, b in zip(slower, faster, strict=True)]))
