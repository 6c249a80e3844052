"""What the sections of the configuration are made of: one type for each shape that a value can have."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from prism_vault_agent.config import shapes

Name = Annotated[str, AfterValidator(shapes.name)]
Path = Annotated[str, AfterValidator(shapes.path)]
Text = Annotated[str, AfterValidator(shapes.text)]
Namespace = Annotated[str, AfterValidator(shapes.namespace)]
Url = Annotated[str, AfterValidator(shapes.url)]
LogKey = Annotated[str, AfterValidator(shapes.log_key)]
Duration = Annotated[str, AfterValidator(shapes.duration)]
Ttl = Annotated[str, AfterValidator(shapes.ttl)]
Timeout = Annotated[str, AfterValidator(shapes.timeout)]
Mode = Annotated[str, AfterValidator(shapes.mode)]
FileName = Annotated[str, AfterValidator(shapes.file_name)]
Template = Annotated[str, AfterValidator(shapes.template)]
FileMode = Annotated[str, AfterValidator(shapes.file_mode)]
Unit = Annotated[str, AfterValidator(shapes.unit)]
ContainerName = Annotated[str, AfterValidator(shapes.container_name)]
MaintenanceWindow = Annotated[str, AfterValidator(shapes.window)]
Id = Annotated[int, Field(ge=0, le=2**32 - 2)]


class Section(BaseModel):
    """What all sections share: frozen, strict types, unknown keys refused, values never repeated in an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)
