"""For the documentation site: reads docstrings and configurations as this code writes them."""

import ast
import re
from typing import Any

import griffe

_TAG = re.compile(r"(?<![`\w])(<[A-Z|][\w|]*>)(?!`)")  # <MASK>, which would be HTML
_TOGETHER = re.compile(r"^( +)(\w+(?:, \w+)+): (.*(?:\n\1    .*)*)", re.MULTILINE)


class OptionHelp(griffe.Extension):
    """The help of a configuration's field becomes its docstring, and its default its value.

    Fields are ``name: type = option(default, "help", …)`` and ``name: Config = nested(Config, …)``. Arguments that a
    docstring describes together (``height, width: …``) are described one by one; tokens in angle brackets are code.
    """

    def on_attribute_instance(self, *, node: ast.AST | griffe.ObjectNode, attr: griffe.Attribute, **_: Any) -> None:
        call = getattr(node, "value", None)
        if not isinstance(call, ast.Call) or not isinstance(attr.value, griffe.ExprCall):
            return
        arguments = attr.value.arguments
        if ast.unparse(call.func) == "option":
            attr.docstring = attr.docstring or griffe.Docstring(ast.literal_eval(call.args[1]), parent=attr)
            attr.value = arguments[0]
        elif ast.unparse(call.func) == "nested":
            changed = [argument for argument in arguments[1:] if isinstance(argument, griffe.ExprKeyword)]
            other = ", ".join(f"`{one.name}={one.value}`" for one in changed)
            text = f"The choices of `{arguments[0]}`" + (f", with {other}." if other else ".")
            attr.docstring = attr.docstring or griffe.Docstring(text, parent=attr)
            attr.value = griffe.ExprCall(arguments[0], [])

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = _TAG.sub(r"`\1`", _TOGETHER.sub(_apart, obj.docstring.value))


def _apart(found: re.Match[str]) -> str:
    return "\n".join(f"{found[1]}{name}: {found[3]}" for name in found[2].split(", "))
