"""Measure the families of docs/support.md and docs/half_precision.md, and write what was found into both tables.

`make matrix` measures all, `make half` half precision only. With names of rows only those are measured, and the other
rows stay as they are. The pages are written after each row: what was measured before an interruption is kept.
"""

import argparse
import logging
import warnings
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context

import torch
from rich.progress import track
from transformers.utils import logging as transformers_logging

import half_table
import support_table
from markdown_table import Cells
from matrix import DECODER_ROWS, ENCODER_ROWS, NATIVE_ROWS, Pairing

ROWS = {row.name: row for row in (*ENCODER_ROWS, *DECODER_ROWS, *NATIVE_ROWS)}
TABLES: dict[str, Callable[[Pairing], Cells]] = {"half": half_table.measured, "support": support_table.measured}
_ROWS_OF_A_PROCESS = 8
"""torch keeps memory of all that it has traced."""


def measure(tables: tuple[str, ...], row: Pairing) -> dict[str, Cells]:
    """Return the cells of a row in each of `tables`; that of half precision has no whole models."""
    return {table: TABLES[table](row) for table in tables if table == "support" or not row.whole}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", metavar="ROW", help="its name in a table: 'wav2vec2, adapter'; default: all"
    )
    parser.add_argument("--only", choices=TABLES, help="measure for one of the tables only")
    parser.add_argument("--processes", type=int, default=2, help="rows at a time, a core each; default: 2")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - ROWS.keys():
        parser.error(f"no rows: {', '.join(sorted(unknown))}; there are {'; '.join(ROWS)}")
    rows = [ROWS[name] for name in arguments.names] or list(ROWS.values())
    tables = (arguments.only,) if arguments.only else tuple(TABLES)
    with get_context("spawn").Pool(arguments.processes, _set_up, maxtasksperchild=_ROWS_OF_A_PROCESS) as pool:
        found = track(pool.imap(partial(measure, tables), rows), description="measuring", total=len(rows))
        for row, cells in zip(rows, found, strict=True):
            if "half" in cells:
                half_table.write({row.name: cells["half"]})
            # Its engines are those of the other table.
            support_table.write({row.name: cells["support"]} if "support" in cells else {}, half_table.read())


def _set_up() -> None:
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    transformers_logging.set_verbosity_error()
    warnings.simplefilter("ignore")


if __name__ == "__main__":
    main()
