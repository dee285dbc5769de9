"""What models of options are made of: `Field`, `model_validator` and the like, as pydantic has them.

They are pydantic's, except in the daemon: it is handed options that another process has checked
(`config.handover`), so pydantic would only cost memory there, and `plain` has classes that hold values.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import AfterValidator as AfterValidator
    from pydantic import BaseModel as BaseModel
    from pydantic import BeforeValidator as BeforeValidator
    from pydantic import ConfigDict as ConfigDict
    from pydantic import Field as Field
    from pydantic import ValidationInfo as ValidationInfo
    from pydantic import field_validator as field_validator
    from pydantic import model_validator as model_validator

__all__ = [
    "AfterValidator",
    "BaseModel",
    "BeforeValidator",
    "ConfigDict",
    "Field",
    "ValidationInfo",
    "field_validator",
    "model_validator",
]

_source = ["pydantic"]
"""The module that has them; another one after `hold_only`."""


def hold_only() -> None:
    """In this process models hold what others have checked. To be called before any model is made."""
    _source[:] = ["device_agent.schema.plain"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(*_source), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
