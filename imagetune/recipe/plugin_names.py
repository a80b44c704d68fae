"""Field type for a recipe value that names something built in or a plug-in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from imagetune.core.plugins import PluginKind, find_name_clash, list_plugin_names


@dataclass(frozen=True)
class NameOf:
    """Annotation of a ``str`` that names something built in or an installed plug-in.

    A plug-in is not imported to check its name: recipes must load instantly.

    Mistakes read as those of a ``Literal``, so that the nearest name is suggested, plug-ins included.

    Attributes:
        kind: Kind of plug-in, which has an entry-point group.
        built_in: Names of what is built in.
    """

    kind: PluginKind
    built_in: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All names, the built-in ones first."""
        return (*self.built_in, *(name for name in list_plugin_names(self.kind) if name not in self.built_in))

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"enum": list(self.names), "type": "string"}

    def _check(self, value: Any) -> str:
        if not isinstance(value, str) or value not in self.names:
            quoted = [repr(name) for name in self.names]
            raise PydanticKnownError(
                "literal_error", {"expected": " or ".join(filter(None, (", ".join(quoted[:-1]), quoted[-1])))}
            )
        if clash := find_name_clash(self.kind, value, self.built_in):
            raise ValueError(clash)
        return value
