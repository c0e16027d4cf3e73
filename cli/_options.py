"""Dotted options (``--model.width``) made from the type annotations of what they configure."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Optional, get_args, get_origin

from cyclopts import Group, Parameter

from ..evaluation.registry import Option


@dataclasses.dataclass(frozen=True)
class OptionGroup:
    """Options under one prefix, with the defaults that hold for the present preset."""

    prefix: str
    title: str
    options: tuple[Option, ...]
    defaults: Mapping[str, Any]


def command_with(base: Callable[..., Any], groups: list[OptionGroup]) -> Callable[..., Any]:
    """``base`` with every dotted option as a keyword; it receives ``{prefix: {name: value}}`` as ``dotted``."""
    own = [p for p in inspect.signature(base, eval_str=True).parameters.values() if p.name != "dotted"]
    dotted = {f"{group.prefix}__{o.name}": (group, o) for group in groups for o in group.options}
    parameters = [_parameter(name, group, option) for name, (group, option) in dotted.items()]

    def command(**values: Any) -> Any:
        chosen: dict[str, dict[str, Any]] = {group.prefix: {} for group in groups}
        for name, (group, option) in dotted.items():
            value = values.pop(name, None)
            if value is not None:
                chosen[group.prefix][option.name] = value
        return base(**values, dotted=chosen)

    command.__signature__ = inspect.Signature([*own, *parameters])  # type: ignore[attr-defined]
    command.__doc__ = base.__doc__
    return command


def _parameter(name: str, group: OptionGroup, option: Option) -> inspect.Parameter:
    default = group.defaults.get(option.name, option.default)
    text = option.help if default is dataclasses.MISSING else f"{option.help} [default: {_show(default)}]".strip()
    flag = f"--{group.prefix}.{option.name.replace('_', '-')}"
    names = [flag] if "_" not in option.name else [flag, f"--{group.prefix}.{option.name}"]
    meta = Parameter(name=names, help=text, group=Group(group.title), show_default=False)
    kind: Any = Optional[_plain(option.type)]  # noqa: UP045 - a union built at run time
    annotation = Annotated[kind, meta]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _plain(kind: Any) -> Any:
    """The type without None, so that an option is either given or not."""
    if get_origin(kind) is not None and type(None) in get_args(kind):
        rest = [a for a in get_args(kind) if a is not type(None)]
        return rest[0] if len(rest) == 1 else kind
    return str if kind is Any else kind


def _show(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def documented(cls: type) -> tuple[Option, ...]:
    """The fields of a dataclass as options, with the lines ``name   explanation`` of its docstring as help."""
    text = inspect.getdoc(cls) or ""
    found = dict(re.findall(r"^ *(\w+) {2,}(\S.*)$", text, flags=re.MULTILINE))
    hints = inspect.get_annotations(cls, eval_str=True)
    return tuple(Option(f.name, hints[f.name], f.default, found.get(f.name, "")) for f in dataclasses.fields(cls))
