"""The number of threads of one operator, where the options leave it open.

ONNX Runtime counts the cores of the machine. It knows neither the processors that a container may use nor the time that
it may use them for: more threads than that wait for each other.
"""

import logging
import os

from ...system import usable_cpus

logger = logging.getLogger(__name__)

ONNXRUNTIMES_CHOICE = 0


def operator_threads(chosen: int) -> int:
    """Return the number of threads of one operator.

    Args:
        chosen: Number in the options; 0 leaves it open. `OMP_NUM_THREADS` decides then; without it the affinity of
            this process and the quota of its control groups do, if they are below the number of processors.

    Returns:
        The number; `ONNXRUNTIMES_CHOICE`, one thread for each physical core, if nothing limits this process.
    """
    if chosen:
        return chosen
    variable = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if variable.isdecimal() and int(variable):
        logger.info("threads of one operator: %s, as OMP_NUM_THREADS says", variable)
        return int(variable)
    usable, present = usable_cpus(), os.cpu_count() or 1
    if usable >= present:
        return ONNXRUNTIMES_CHOICE
    logger.info("threads of one operator: %d, as this process may use that many of %d processors", usable, present)
    return usable
