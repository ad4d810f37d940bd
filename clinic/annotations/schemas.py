"""Annotations over the wire.

Coordinates are shares of the upright picture: x of its width from the left, y of its height from the top.
"""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from clinic.fields import Line, Sent, Storable

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Extent = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Corner = tuple[Share, Share]

_ROUNDING = 1e-9  # what adding two shares may be above 1


class Point(Sent):
    x: Share
    y: Share


class Polyline(Sent):
    points: Annotated[list[Corner], Field(min_length=2, max_length=500)]


class Polygon(Sent):
    points: Annotated[list[Corner], Field(min_length=3, max_length=500)]


class Circle(Point):
    """`radius` is a share of the picture's width; the circle may reach beyond its edge."""

    radius: Extent


class Ellipse(Point):
    """`radius_x` is a share of the picture's width, `radius_y` of its height."""

    radius_x: Extent
    radius_y: Extent


class Rectangle(Point):
    """`x` and `y` are the upper left corner."""

    width: Extent
    height: Extent

    @model_validator(mode="after")
    def _lies_inside(self) -> Self:
        if self.x + self.width > 1 + _ROUNDING or self.y + self.height > 1 + _ROUNDING:
            raise ValueError("the rectangle reaches beyond the picture")
        return self


class _Mark(Sent):
    source: Literal["human", "ai"] = "human"
    label: Line
    text: Annotated[str, StringConstraints(max_length=2_000), Storable] = ""
    supersedes: UUID | None = Field(
        None, description="The annotation of this photograph that this one replaces."
    )


class PointMark(_Mark):
    shape: Literal["point"]
    geometry: Point


class PolylineMark(_Mark):
    shape: Literal["polyline"]
    geometry: Polyline


class PolygonMark(_Mark):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "shape": "polygon",
                "geometry": {"points": [[0.41, 0.38], [0.57, 0.4], [0.52, 0.55]]},
                "label": "irregular border",
                "text": "Notched towards the elbow.",
            }
        }
    )

    shape: Literal["polygon"]
    geometry: Polygon


class CircleMark(_Mark):
    shape: Literal["circle"]
    geometry: Circle


class EllipseMark(_Mark):
    shape: Literal["ellipse"]
    geometry: Ellipse


class RectangleMark(_Mark):
    shape: Literal["rectangle"]
    geometry: Rectangle


NewAnnotation = Annotated[
    PointMark | PolylineMark | PolygonMark | CircleMark | EllipseMark | RectangleMark,
    Field(discriminator="shape"),
]


class AnnotationOut(BaseModel):
    """A mark on a photograph; `geometry` is as it was sent, by `shape`."""

    id: UUID
    case_id: UUID
    image_id: UUID
    author: UUID
    source: Literal["human", "ai"]
    shape: Literal["point", "polyline", "polygon", "circle", "ellipse", "rectangle"]
    geometry: dict[str, Any]
    label: str
    text: str
    supersedes: UUID | None
    superseded_by: UUID | None
    created_at: datetime
