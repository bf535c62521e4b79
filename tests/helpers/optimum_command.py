"""Code that runs `optimum-cli`, in a child process."""

from conftest import REPOSITORY

RUN_OPTIMUM_CLI = f"""
import sys
from pathlib import Path

# Another checkout may be installed, and Optimum would load the command of both.
own = {str(REPOSITORY / "exporter")!r}
sys.path[:] = [path for path in sys.path if path == own or not Path(path, "speech_export").is_dir()]
from optimum.commands.optimum_cli import main

main()
"""
