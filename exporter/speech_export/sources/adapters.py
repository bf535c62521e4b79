"""Adapters of the peft library beside a checkpoint, or alone."""

from transformers.utils import ADAPTER_CONFIG_NAME, cached_file

from ..errors import ExportError
from .hub import HubOptions


def refuse_adapters(name: str, hub: HubOptions) -> None:
    """Check that a checkpoint is whole: an adapter beside it is trained, and its weights would be left out.

    Args:
        name: directory or Hub id.
        hub: how to reach the Hub.

    Raises:
        ExportError: there is an `adapter_config.json`; says how to merge it.
    """
    try:
        found = cached_file(
            name,
            ADAPTER_CONFIG_NAME,
            **hub.keywords(),
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except OSError:  # loading the configuration will meet it again, and says what it is
        return
    if found is not None:
        raise ExportError(
            f"{name} has an adapter of peft ({ADAPTER_CONFIG_NAME}), which is not taken; merge it: "
            f"PeftModel.from_pretrained(model, {name!r}).merge_and_unload().save_pretrained(DIRECTORY), where model is "
            "the one that it was trained on, and export that directory"
        )
