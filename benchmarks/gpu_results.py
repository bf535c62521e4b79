"""Write what `run_gpu.py` found: a table and a JSON file, both named after the GPU."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from compare import Comparison, Outcome
from floors import absences
from operators import Operator
from speech_runtime.bench.options import Case
from speech_runtime.bench.report import table
from speech_runtime.system import Machine
from tables import operators_table, short

_TIMES = "Milliseconds, medians: utterance / encoder / step, for exactly 40 tokens of each utterance."

_OPERATORS = """Times with `CUDA_LAUNCH_BLOCKING=1`: each includes its kernel, and the launch, which otherwise overlaps
with other kernels. Steps are not recorded here."""


def write_results(
    directory: Path,
    machine: Machine,
    measured: str,
    found: Comparison,
    cases: Sequence[Case],
    operators: Mapping[str, Sequence[Operator]],
) -> str:
    """Write `NAME.md` and `NAME.json` into `directory`, for the name of the GPU, and return the former.

    Args:
        directory: Directory for both files.
        machine: Machine with the GPU; without one, the files are named after the processor.
        measured: Model and precision of the bundle.
        found: Times of all contenders.
        cases: Rows of the table.
        operators: Profiles by graph.
    """
    name = slug(machine.gpu or machine.processor)
    lines = [f"# {machine.gpu or machine.processor}", "", f"{measured}. {machine.describe()}", "", _TIMES, ""]
    lines += latency_table(found, cases)
    if absent := absences({"here": found}):
        lines += ["", *absent]
    for graph, of_graph in operators.items():
        nodes = sum(operator.count for operator in of_graph)
        lines += ["", f"## {graph}: {nodes} nodes", "", _OPERATORS, "", *operators_table({"one run": of_graph})]
    text = "\n".join(lines) + "\n"
    content = {
        "machine": asdict(machine),
        "measured": measured,
        "contenders": {contender: asdict(outcome) for contender, outcome in found.items()},
        "operators": {graph: [asdict(operator) for operator in of_graph] for graph, of_graph in operators.items()},
    }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (directory / f"{name}.md").write_text(text, encoding="utf-8")
    return text


def latency_table(found: Comparison, cases: Sequence[Case]) -> list[str]:
    """Return one row for each case, and one column for each contender that ran."""
    ran = {name: outcome for name, outcome in found.items() if not outcome.absent}
    rows = [
        [f"{case.seconds:g} × {case.batch}, {_beams(case)}", *(_cell(outcome, case) for outcome in ran.values())]
        for case in cases
    ]
    return table(("seconds × batch, beams", *ran), rows)


def slug(name: str) -> str:
    """Return the name of a GPU as that of a file: "NVIDIA H200" becomes "nvidia-h200"."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _beams(case: Case) -> str:
    return "greedy" if case.beams == 1 else f"{case.beams}"


def _cell(outcome: Outcome, case: Case) -> str:
    seconds = [outcome.rounds(case, metric) for metric in ("utterance", "encoder", "per_token")]
    return " / ".join(short(1000 * float(np.median(rounds))) if rounds else "–" for rounds in seconds)
