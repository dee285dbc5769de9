"""Models that hold checked values and check nothing: what `device_agent.schema` gives to the daemon.

They are made by unpickling a pydantic model, with all its values; defaults are class attributes besides.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

ConfigDict = dict
ValidationInfo = Any


def Field(default: Any = ..., *, default_factory: Callable[[], Any] | None = None, **_: Any) -> Any:
    """The default alone."""
    return default if default_factory is None else default_factory()


def _as_it_is(*_: Any, **__: Any) -> Callable[[Any], Any]:
    return lambda function: function


AfterValidator = BeforeValidator = field_validator = model_validator = _as_it_is


class BaseModel:
    """As much of pydantic's as a driver at work may ask of its options."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """From the state of a pydantic model: its fields, what `extra="allow"` let in, private attributes."""
        for part in ("__dict__", "__pydantic_extra__", "__pydantic_private__"):
            self.__dict__.update(state.get(part) or {})

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        yield from self.__dict__.items()

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.__dict__ == self.__dict__

    def __hash__(self) -> int:
        return hash((type(self), *self.__dict__.values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self)})"

    def model_copy(self, *, update: Mapping[str, Any] | None = None) -> Self:
        return type(self)(**{**self.__dict__, **(update or {})})

    def model_dump(self) -> dict[str, Any]:
        return {name: _dumped(value) for name, value in self}


def _dumped(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, dict):
        return {name: _dumped(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_dumped, value))
    return value
