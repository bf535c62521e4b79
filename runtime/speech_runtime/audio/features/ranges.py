"""Settings that are out of range."""

from ...errors import BundleError


def check_least(settings: object, **least: float) -> None:
    """Check that attributes of `settings` are not below the given values.

    Raises:
        BundleError: some are; all of them are listed.
    """
    problems = [
        f"{name} is {value}, it must be at least {minimum}"
        for name, minimum in least.items()
        if (value := getattr(settings, name)) < minimum
    ]
    if problems:
        raise BundleError("; ".join(problems))
