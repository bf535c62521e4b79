"""Write the results: one JSON file for each measurement, plots, and `README.md` with all tables."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import plots
import tables
from compare import Comparison
from floors import Evidence, absences, as_table, floors
from limits import Limits
from operators import Operator
from speech_runtime.bench.measure import Measurement
from speech_runtime.bench.report import as_json, as_markdown
from speech_runtime.system import Machine

_PACKAGES = ("speech-export", "onnxruntime", "torch", "transformers", "openvino", "ctranslate2", "numpy")
_HIDDEN = """The peers run once more with `ONEDNN_MAX_CPU_ISA`, `ATEN_CPU_CAPABILITY`, `MKL_ENABLE_INSTRUCTIONS` and
`CT2_FORCE_CPU_ISA` set to AVX2: with all that the processor has → with AVX2 only. ONNX Runtime asks the processor
itself which kernels to take, and has no switch for it: how our own bundles, and plain ONNX, fare without AMX and
AVX-512 can only be shown on a processor that has neither."""


class Results:
    """A directory of results; each is written as soon as it is there."""

    def __init__(self, directory: Path, limits: Limits) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._machine = Machine.here(_PACKAGES)
        self._sections = ["# Benchmark results", "", self._machine.describe(), "", tables.limits_line(limits)]
        self._json("limits", {"limits": asdict(limits)})

    def digits(self, comparison: Comparison, sweep: Sequence[Measurement], rates: Mapping[str, float]) -> None:
        """Write what was found on the bundled model."""
        self._comparison("digits", comparison)
        self._json("digits-sweep", as_json(sweep, self._machine))
        self._json("word-error-rates", {"word_error_rates": dict(rates)})
        said = [f"Word error rate, {name}: {rate:.2%}." for name, rate in rates.items()]
        self._section("The bundled model, a clip of its own at 4 beams", tables.digits_table(comparison), said)
        self._section("The bundled model, noise", as_markdown(sweep, self._machine).splitlines()[2:])

    def reference(self, comparison: Comparison, hidden: Comparison) -> None:
        """Write what was found on the reference shape, and without AMX and AVX-512."""
        self._comparison("reference", comparison)
        self._comparison("hidden", hidden)
        plots.against_peers(comparison, self._directory / "peers.png")
        picture = ["![bars of all contenders](peers.png)"]
        self._section("The reference shape: 10 s, 5 beams, 40 tokens", tables.reference_table(comparison), picture)
        self._section("AMX and AVX-512 hidden", _HIDDEN.splitlines(), tables.hidden_table(comparison, hidden))

    def operators(self, found: Mapping[str, Mapping[str, Sequence[Operator]]]) -> None:
        """Write where the time of each graph goes, by contender."""
        self._json(
            "operators", {graph: {k: [asdict(o) for o in v] for k, v in by.items()} for graph, by in found.items()}
        )
        for graph, columns in found.items():
            self._section(f"Where the time goes: {graph}", tables.operators_table(columns))

    def sweeps(
        self,
        sweeps: Mapping[str, Sequence[Measurement]],
        encoder_limit: Mapping[float, float],
        step_limits: Mapping[str, float],
    ) -> None:
        """Write what was found by length, beams, batch and threads on the reference shape; see `plots`."""
        measurements = [found for sweep in sweeps.values() for found in sweep]
        self._json("reference-sweep", as_json(measurements, self._machine))
        path = self._directory / "length-and-beams.png"
        plots.against_length_and_beams(sweeps, encoder_limit, step_limits, path)
        picture = ["![latency against length and beams](length-and-beams.png)"]
        self._section(
            "The reference shape by length", as_markdown(measurements, self._machine).splitlines()[2:], picture
        )

    def end(self, evidence: Evidence, comparisons: Mapping[str, Comparison]) -> str:
        """Write `README.md`, and return it."""
        found = [floor for floor in floors(evidence) if evidence.reference or floor.measured is not None]
        self._section(f"Floors, of {evidence.ours}", as_table(found), absences(comparisons))
        text = "\n".join(self._sections) + "\n"
        (self._directory / "README.md").write_text(text, encoding="utf-8")
        return text

    def _section(self, title: str, *blocks: Sequence[str]) -> None:
        self._sections += ["", f"## {title}"]
        for block in blocks:
            self._sections += ["", *block] if block else []

    def _comparison(self, name: str, comparison: Comparison) -> None:
        self._json(name, {"contenders": {contender: asdict(outcome) for contender, outcome in comparison.items()}})

    def _json(self, name: str, content: Mapping[str, Any]) -> None:
        whole = {"machine": asdict(self._machine), **content}
        (self._directory / f"{name}.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
