"""The directive `registered-methods`: every method of the registry, with its options."""

from __future__ import annotations

import inspect

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from zoo.registry import Method, list_methods


def section(method: Method) -> str:
    """Return the section of a method, as reStructuredText."""
    kind = "autoclass" if inspect.isclass(method.factory) else "autofunction"
    variables = f"{method.dims[0]:,} to {method.dims[1]:,}" if method.dims[1] < 10**8 else "any number of"
    facts = [
        method.paper,
        f"{variables} variables",
        f"{method.batch} evaluations a step",
        f"good for: {', '.join(method.traits)}",
        f"extra ``{method.extra}``" if method.extra else "",
    ]
    return "\n".join(
        [
            f".. _method-{method.name}:",
            "",
            method.name,
            "-" * len(method.name),
            "",
            f"{method.summary[:1].upper()}{method.summary[1:]}.",
            "",
            ".. rst-class:: facts",
            "",
            " · ".join(fact for fact in facts if fact),
            "",
            f".. {kind}:: {method.target.replace(':', '.')}",
            "",
        ]
    )


class RegisteredMethods(SphinxDirective):
    """Show all methods, in the order of the registry."""

    def run(self) -> list[nodes.Node]:
        """Return a section for each."""
        text = "\n".join(section(method) for method in list_methods().values())
        sections = self.parse_text_to_nodes(text, allow_section_headings=True)
        for node in sections:
            for shown in node.findall(addnodes.desc):
                shown["no-contents-entry"] = True  # the section above it has the same name
        return sections


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("registered-methods", RegisteredMethods)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
