"""Prepares what griffe has read of the source, for the site's reference.

What docstrings have of reStructuredText becomes Markdown: roles, such as :func:`wait`, and the two
colons before a block of code. A setting's value becomes its default.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):`~?(?P<name>[\w.]+)`")


def _link(found: re.Match[str]) -> str:
    name = found["name"]
    target = name if name.startswith("bide.") else f"bide.{name}"
    # Optional: a name that is not in the reference stays without a link.
    return f'<autoref identifier="{target}" optional><code>{name}</code></autoref>'


class Docstrings(griffe.Extension):
    """Makes a link of each role, where the reference has the name, and shortens settings."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change the docstring of an object that was read."""
        if obj.docstring is not None:
            text = ROLE.sub(_link, obj.docstring.value)
            obj.docstring.value = re.sub(r"::$", ":", text, flags=re.MULTILINE)

    def on_attribute_instance(self, *, attr: griffe.Attribute, **kwargs: Any) -> None:
        """Put the default, the second argument, in place of a setting's whole declaration."""
        value = attr.value
        if isinstance(value, griffe.ExprCall) and str(value.function) == "_setting":
            attr.value = value.arguments[1]
