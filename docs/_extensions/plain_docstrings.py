"""Let docstrings be plain text: formulas as they are typed, and names between single backticks.

In a docstring, `name` is a link where the reference has that name, else code. An indented paragraph is a
formula. Stars, bars and trailing underscores mean themselves. On pages, code such as `zoo.minimize` is a link
as well.
"""

# ruff: noqa: ARG001, ARG002 - Sphinx prescribes what its handlers are given

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxRole

import zoo

SECTION = re.compile(r"(Args|Attributes|Examples?|Notes?|Raises|References|Returns|Warns|Yields):$")
NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")
OURS = re.compile(r"(zoo(?:\.\w+)+)(?:\(.*\))?$", re.DOTALL)
SPECIAL = re.compile(r"(?<!^)(?<!\n)[*|]|^[*|](?! )|(?<=\w)_(?!\w)", re.MULTILINE)


def prepare(lines: list[str]) -> list[str]:
    """Return a docstring's lines as reStructuredText."""
    return [line for block in blocks(lines) for line in block]


def blocks(lines: list[str]) -> Iterator[list[str]]:
    """Yield the paragraphs of a docstring, made ready, and the blank lines between them."""
    block: list[str] = []
    in_section, after_blank = False, False
    for line in [*lines, ""]:
        if line.strip():
            block.append(line)
            continue
        if block:
            in_section = bool(SECTION.match(block[0])) or (in_section and block[0].startswith(" "))
            prompts = (number for number, text in enumerate(block) if text.lstrip().startswith(">>>"))
            first = next(prompts, len(block))
            text, code = block[:first], block[first:]
            if not in_section and after_blank and block[0].startswith("    ") and not code:
                yield [".. code-block:: text", "", *text]
            else:
                yield [*escaped("\n".join(text)).split("\n"), *code] if text else code
            block = []
        after_blank = True
        yield [line]


def escaped(text: str) -> str:
    """Return text in which only backticks, and stars that begin a line of a list, are special."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(part if part.startswith("`") else SPECIAL.sub(r"\\\g<0>", part) for part in parts)


def on_docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Prepare a docstring, before its sections are looked for."""
    # Napoleon takes what stands before a colon for a type if it is on the first line of an attribute.
    comment = ["..", ""] if what in ("attribute", "data", "property") else []
    lines[:] = comment + prepare(lines)


def reference(text: str, target: str, env: BuildEnvironment) -> addnodes.pending_xref:
    """Return what becomes a link if there is such a name, else stays code."""
    return addnodes.pending_xref(
        "",
        nodes.literal(text, text, classes=["xref", "py"]),
        refdoc=env.docname,
        refdomain="py",
        reftype="obj",
        reftarget=target,
        refexplicit=False,
        optional=True,
        **{name: env.ref_context.get(name) for name in ("py:module", "py:class")},
    )


class NameRole(SphinxRole):
    """What stands between single backticks."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return a link to come, or code."""
        if not NAME.match(self.text):
            return [nodes.literal(self.rawtext, self.text)], []
        return [reference(self.text, self.text, self.env)], []


class Links(SphinxTransform):
    """Make links of code on pages that names something of ours."""

    default_priority = 400

    def apply(self, **kwargs: Any) -> None:
        for literal in list(self.document.findall(nodes.literal)):
            found = OURS.match(literal.astext())
            if found and not isinstance(literal.parent, addnodes.pending_xref | nodes.reference):
                literal.replace_self(reference(literal.astext(), found[1], self.env))


def resolve(app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, contnode: nodes.Node) -> Any:
    """Find names that are written shorter than they are, and leave as code those that are no names."""
    if node.get("refdomain") != "py":
        return None
    domain, target = env.domains.python_domain, node["reftarget"]
    *_, owner, member = ["", *target.split(".")]
    if target in zoo.__all__:
        target = f"zoo.{target}"
    elif owner in zoo.__all__:
        target = f"zoo.{owner}.{member}"  # which has a home of its own, and is documented where users find it
    elif target[:1].islower() and not target.startswith("zoo."):
        return contnode if node.get("optional") else None
    matches = domain.find_obj(env, None, None, target, None, 1)
    if len(matches) == 1 and matches[0][0] != node["reftarget"]:
        made = domain.resolve_xref(env, node["refdoc"], app.builder, "obj", matches[0][0], node, contnode)
        if made is not None:
            return made
    return contnode if node.get("optional") else None


def on_page(app: Sphinx, page: str, source: list[str]) -> None:
    """Lead links to files outside of the documentation, which other readers of a page follow, to pages."""
    for path, name in (("README", "index"), ("benchmarks/README", "benchmarks"), ("CHANGELOG", "changelog")):
        source[0] = source[0].replace(f"](../{path}.md", f"]({name}.md")


def skip(app: Sphinx, what: str, name: str, item: Any, skipped: bool, options: Any) -> bool | None:
    """Leave out fields of named tuples, of which Python says no more than which they are."""
    says_nothing = str(getattr(item, "__doc__", "")).startswith("Alias for field number")
    return True if says_nothing else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Register all of it."""
    app.add_role("name", NameRole())
    app.add_transform(Links)
    app.connect("autodoc-process-docstring", on_docstring, priority=100)
    app.connect("autodoc-skip-member", skip)
    app.connect("source-read", on_page)
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
