"""In which forms can a plan be shown? As text, as a drawing in two languages, as JSON."""

from __future__ import annotations

from .._base import checks
from .._base.shown import option
from .check import describable
from .describe import text
from .document import as_text, document
from .drawing import dot, mermaid
from .layout import lay_out
from .nodes import Plan

FORMATS = ("text", "mermaid", "dot", "json")


def describe_plan(plan: Plan, format: str) -> str:
    """Return a plan in one of the forms; raise its `PlanError` if it cannot work."""
    if format not in FORMATS:
        rule = f"be {', '.join(map(repr, FORMATS[:-1]))} or {FORMATS[-1]!r}"
        raise checks.refuse(ValueError, "Pipeline.describe", "format", rule, format, show=option)
    if format == "json":
        return as_text(document(plan))
    describable(plan)
    return {"text": text, "mermaid": mermaid, "dot": dot}[format](lay_out(plan))
