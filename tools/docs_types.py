"""Extension of the API pages (mkdocs.yml): types without the rules that the code declares in them.

`Annotated[int, at_least(1)]` is shown as `int`, and a private alias or an alias of literals as what it stands for.
"""

from dataclasses import fields
from typing import Any

import griffe
from griffe import Expr, ExprName, ExprSubscript


class PlainTypes(griffe.Extension):  # type: ignore[misc]
    """Replace annotations of attributes and parameters once all modules are read."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Replace the annotations of a package."""
        _Plainer(pkg.modules_collection).replace_in(pkg)


class _Plainer:
    def __init__(self, modules: griffe.ModulesCollection) -> None:
        self._modules = modules

    def replace_in(self, owner: griffe.Module | griffe.Class) -> None:
        """Replace the annotations of all members of a module or a class."""
        for member in owner.members.values():
            if isinstance(member, griffe.Attribute):
                member.annotation = self._plain(member.annotation)
            elif isinstance(member, griffe.Function):
                member.returns = self._plain(member.returns)
                for parameter in member.parameters:
                    parameter.annotation = self._plain(parameter.annotation)
            elif isinstance(member, griffe.Module | griffe.Class):
                self.replace_in(member)

    def _plain(self, annotation: Any) -> Any:
        """Return an annotation without rules; anything else as it is."""
        if isinstance(annotation, ExprName):
            value = self._value(annotation)
            return annotation if value is None else self._plain(value)
        if isinstance(annotation, ExprSubscript) and str(annotation.left) == "Annotated":
            return self._plain(annotation.slice.elements[0])
        if isinstance(annotation, Expr) and not str(annotation).startswith("Literal"):
            for field in fields(annotation):
                part = getattr(annotation, field.name)
                if isinstance(part, Expr):
                    setattr(annotation, field.name, self._plain(part))
                elif isinstance(part, list):
                    setattr(annotation, field.name, [self._plain(each) for each in part])
        return annotation

    def _value(self, name: ExprName) -> Any:
        """Return the value of an alias that is to be replaced, None for other names."""
        try:
            found = self._modules[name.canonical_path]
        except KeyError:  # a name of another package, or of Python
            return None
        value = found.value if isinstance(found, griffe.Attribute) else None
        replaced = isinstance(value, ExprSubscript) and str(value.left) in ("Annotated", "Literal")
        return value if replaced or (value is not None and name.name.startswith("_")) else None
