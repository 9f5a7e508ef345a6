"""Settings as options: names, help, defaults and checks come from the settings' fields.

A verb takes settings models as parameters, and their fields are its options. Annotations
are resolved when the verb is called, not for the list of verbs: they may name settings
that the verb's file imports for type checkers only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from types import NoneType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    NamedTuple,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

import typer
from typer.core import TyperCommand

from dpcompress.cli.asked import Asked, Setting, typed

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from dpcompress.settings import Options

T = TypeVar("T")


def add_verb(app: typer.Typer, verb: Callable[..., None], panel: str) -> None:
    """Add a command whose options are made when it is called."""

    class Verb(TyperCommand):
        def make_context(self, *arguments: Any, **more: Any) -> Any:
            alone = typer.Typer(add_completion=False)
            alone.command(verb.__name__, help=_joined(verb))(with_options(verb))
            return typer.main.get_command(alone).make_context(*arguments, **more)

    @app.command(verb.__name__, cls=Verb, help=_joined(verb), rich_help_panel=panel)
    def named() -> None: ...


def _joined(verb: Callable[..., None]) -> str:
    """The docstring with one line per paragraph, so that it fits any width; a paragraph
    that begins with a backspace is left as it is."""
    paragraphs = (inspect.getdoc(verb) or "").split("\n\n")
    return "\n\n".join(
        text if text.startswith("\b") else " ".join(text.split()) for text in paragraphs
    )


def with_options(verb: Callable[..., None]) -> Callable[..., None]:
    """Wrap `verb`: options take the place of the parameters that are settings."""
    import pydantic

    from dpcompress import settings

    known = {**vars(settings), "Field": pydantic.Field}
    hints = get_type_hints(verb, localns=known, include_extras=True)
    context = inspect.Parameter(
        "context_", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context
    )
    parameters, groups = [context], {}
    for name, own in inspect.signature(verb).parameters.items():
        group = group_of(name, hints[name], own.default)
        if group is None:
            parameters.append(own.replace(kind=context.kind, annotation=hints[name]))
        else:
            groups[name] = group
            parameters += group.parameters()

    def call(context_: typer.Context, **values: Any) -> None:
        built = {name: group.value(context_, values) for name, group in groups.items()}
        kept = {p: v for p, v in values.items() if p in hints and p not in groups}
        verb(**kept, **built)

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.annotation for p in parameters}
    return call


class Group(NamedTuple):
    """The options of one parameter of a verb.

    optional: whether the verb gets None where none of them is given.
    asked: whether the verb gets an `Asked`, to build the settings itself.
    single: whether the parameter is one option, whose plain value the verb gets.
    """

    model: Any
    settings: Mapping[str, Setting]
    base: Any = None
    optional: bool = False
    asked: bool = False
    single: bool = False

    def parameters(self) -> list[inspect.Parameter]:
        """The options as typer takes them: parameters of a function."""
        needed = not (self.optional or self.asked)
        return [_parameter(o, s, needed) for o, s in self.settings.items()]

    def value(self, context: typer.Context, values: Mapping[str, Any]) -> Any:
        """The verb's argument."""
        given = {o: values[o] for o in self.settings if _is_given(context, o)}
        asked = Asked[Any](self.model, self.settings, given)
        if self.asked:
            return asked
        if self.optional and not given:
            return None
        built = asked.build(self.base)
        return getattr(built, next(iter(self.settings))) if self.single else built


def group_of(name: str, hint: Any, default: Any) -> Group | None:
    """The options that a parameter stands for; None for one that typer knows."""
    from pydantic import create_model
    from pydantic.fields import FieldInfo

    from dpcompress.settings import Options

    inner, marks = _parted(hint)
    if _mark(marks, FieldInfo):
        value: Any = (hint, ... if default is inspect.Parameter.empty else default)
        model: Any = create_model("Value", **{name: value})
        return Group(model, dict(settings_of(model, Options())), single=True)
    asked = get_origin(inner) is Asked
    model = _plain(get_args(inner)[0] if asked else inner)
    if not _is_model(model):
        return None
    options = _mark(marks, Options) or Options()
    settings = dict(settings_of(model, options, options.base))
    optional = NoneType in get_args(inner)
    return Group(model, settings, options.base, optional, asked)


def settings_of(
    model: Any,
    marks: Options,
    base: Any = None,
    owners: tuple[Any, ...] = (),
    at: tuple[str, ...] = (),
) -> Iterator[tuple[str, Setting]]:
    """Yield option → setting, for every field of `model` that is an option.

    Args:
        base: the model whose values are the defaults; None takes the fields' own.
        owners: the models on the path `at`, which leads to this one.
    """
    from dpcompress.settings import Options, Shown

    fields = _fields(model)
    for option, path in (marks.paths or {name: name for name in fields}).items():
        name, _, rest = path.partition(".")
        field, inner = fields[name], _plain(fields[name].annotation)
        default = getattr(base, name, field.get_default(call_default_factory=True))
        shown = _mark(field.metadata, Shown) or Shown()
        if _is_model(inner):
            nested = _mark(field.metadata, Options) or Options()
            if rest:
                nested = Options(**{option: rest}, panel=marks.panel, lead=marks.lead)
            owner = nested.base if default is None else default
            found = settings_of(inner, nested, owner, (*owners, owner), (*at, name))
            if default is None:  # without these options there is no such model
                found = ((option, s._replace(default=None)) for option, s in found)
            yield from found
        elif not shown.hidden:
            panel, help = marks.panel or shown.panel, field.description or ""
            if marks.lead:
                help = f"{marks.lead}: {help[0].lower()}{help[1:]}"
            yield option, Setting((*at, name), owners, field, default, help, panel, shown)


def _parameter(option: str, setting: Setting, needed: bool) -> inspect.Parameter:
    """The option as typer takes it: as text, which the settings read and check."""
    kind, name = _plain(setting.field.annotation), typed(option)
    required = setting.field.is_required()
    default = None if required else setting.default
    about: dict[str, Any] = {
        "help": setting.help,
        "rich_help_panel": setting.panel,
        "show_default": default not in (None, (), {}),
    }
    if kind is bool:
        hint: Any = bool
        name = f"{name}/--no-{name.removeprefix('--')}"
    else:
        hint = list[str] if get_origin(kind) is dict else str
        about["metavar"] = setting.shown.metavar or _metavar(kind)
        default = str(default) if about["show_default"] else None
    if setting.shown.argument:
        info: Any = typer.Argument(**about)
    else:
        info = typer.Option(name, **about)
    return inspect.Parameter(
        option,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if needed and required else default,
        annotation=Annotated[hint if needed and required else hint | None, info],
    )


def _metavar(kind: Any) -> str | None:
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    return {int: "INTEGER", float: "FLOAT"}.get(kind)


def _fields(model: Any) -> dict[str, FieldInfo]:
    """The fields of a settings model, which may be a plain dataclass too."""
    if inspect.isclass(model) and is_dataclass(model):
        from pydantic.dataclasses import dataclass

        model = dataclass(model, frozen=True)  # a subclass that pydantic has read
        return dict(model.__pydantic_fields__)
    return dict(model.model_fields)


def _is_model(hint: Any) -> bool:
    from pydantic import BaseModel

    is_class = inspect.isclass(hint) and get_origin(hint) is None
    return is_class and (issubclass(hint, BaseModel) or is_dataclass(hint))


def _parted(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type and its marks: Annotated[int, mark] → (int, (mark,))."""
    if get_origin(hint) is Annotated:
        inner, *marks = get_args(hint)
        return inner, tuple(marks)
    return hint, ()


def _plain(hint: Any) -> Any:
    """The type inside Annotated and Optional."""
    hint, _ = _parted(hint)
    if NoneType in get_args(hint):
        (inner,) = (part for part in get_args(hint) if part is not NoneType)
        return _plain(inner)
    return hint


def _mark(marks: Any, kind: type[T]) -> T | None:
    return next((mark for mark in marks if isinstance(mark, kind)), None)


def _is_given(context: typer.Context, option: str) -> bool:
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"
