"""SCIM filters (RFC 7644, 3.4.2.2) as SQL: attributes that are listed and no others, values always bound.

They select what `ScimFilter.match` selects: what is missing equals nothing and differs from everything, and of
several values one must do, except that all must differ for `ne`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias
from uuid import UUID

from scim2_models import InvalidFilterException
from scim2_models.path import (
    AttributeBinding,
    AttrPath,
    CompareOperator,
    Comparison,
    FilterNode,
    FilterVisitor,
    LogicalExpr,
    LogicalOperator,
    Not,
    Path,
    Present,
    ScimFilter,
    ValuePath,
    coerce_value,
)
from sqlalchemy import (
    ColumnElement,
    FromClause,
    SQLColumnExpression,
    and_,
    cast,
    exists,
    false,
    func,
    literal,
    not_,
    or_,
    select,
)
from sqlalchemy.types import String, Text, Uuid

Column: TypeAlias = SQLColumnExpression[Any]

LONGEST = 2_000  # characters
DEEPEST = 20  # parentheses and brackets within each other


@dataclass(frozen=True)
class Several:
    """An attribute of several values: rows of `source` where `owned` holds, and each sub-attribute's SQL."""

    source: FromClause
    owned: ColumnElement[bool]
    parts: Mapping[str, Column]

    def any(self, condition: ColumnElement[bool]) -> ColumnElement[bool]:
        rows = select(literal(1)).select_from(self.source).where(self.owned, condition)
        return exists(rows.correlate_except(self.source))


Attributes: TypeAlias = Mapping[str, Column | Mapping[str, Column] | Several]
"""What one may filter by: the library's names of attributes, and their SQL, or that of their parts. Text that is not
case-exact is compared in lower case."""


def check_size(expression: str) -> None:
    """Raise `InvalidFilterException` for a filter or path that is long or deep beyond reason, before it is parsed."""
    depth = deepest = 0
    for character in expression:
        depth += (character in "([") - (character in ")]")
        deepest = max(deepest, depth)
    if len(expression) > LONGEST or deepest > DEEPEST or "\0" in expression:
        raise InvalidFilterException(
            detail=f"A filter has {LONGEST} characters at most, {DEEPEST} levels, and no NUL character."
        )


def condition(wanted: ScimFilter[Any], attributes: Attributes) -> ColumnElement[bool]:
    """The SQL of a filter that is bound to one model. Raises `InvalidFilterException`."""
    return _Translator(wanted, attributes).visit(wanted.ast)


def order(wanted: Path[Any], attributes: Attributes) -> Column:
    """What to sort by. Raises `InvalidFilterException`."""
    binding = wanted.resolve()
    assert binding is not None  # the library has looked
    column = _find(attributes, binding)
    if column is None or isinstance(column, Several):
        raise InvalidFilterException(detail=f"Lists cannot be sorted by {str(wanted)!r} here.")
    return _comparable(column, binding)


def _find(attributes: Attributes, binding: AttributeBinding) -> Column | Several | None:
    found = attributes.get(binding.field_name)
    if isinstance(found, Mapping):
        return found.get(binding.sub_field_name or "")
    return found


def _comparable(column: Column, binding: AttributeBinding) -> Column:
    return column if binding.case_exact or not _is(column, String) else func.lower(column, type_=Text())


def _is(column: Column, kind: type[String] | type[Uuid[Any]]) -> bool:
    return isinstance(column.type, kind)  # type: ignore[attr-defined]  # columns and mapped attributes have one


class _Translator(FilterVisitor[ColumnElement[bool]]):
    def __init__(self, wanted: ScimFilter[Any], attributes: Attributes) -> None:
        self._wanted = wanted
        self._attributes = attributes

    def visit_logical_expr(self, node: LogicalExpr) -> ColumnElement[bool]:
        join = and_ if node.op == LogicalOperator.and_ else or_
        return join(*(self.visit(term) for term in node.terms))

    def visit_not(self, node: Not) -> ColumnElement[bool]:
        return not_(self.visit(node.expr))

    def visit_present(self, node: Present) -> ColumnElement[bool]:
        binding = self._resolve(node.attr_path)
        found = self._attributes.get(binding.field_name)
        if isinstance(found, Mapping) and binding.sub_field_name is None:
            return or_(*map(_present, found.values()))
        column = self._column(binding)
        if not isinstance(column, Several):
            return _present(column)
        if binding.sub_field_name is None:
            return column.any(or_(*map(_present, column.parts.values())))
        return column.any(_present(self._part(column, binding)))

    def visit_comparison(self, node: Comparison) -> ColumnElement[bool]:
        binding = self._resolve(node.attr_path, compared=True)
        column = self._column(binding)
        if not isinstance(column, Several):
            return _compare(column, binding, node)
        if node.value is None:
            raise InvalidFilterException(detail=f"Ask for `{node.attr_path} pr` instead of null.")
        part = self._part(column, binding)
        if node.op == CompareOperator.ne:
            return not_(column.any(_compare(part, binding, _equals(node))))
        return column.any(_compare(part, binding, node))

    def visit_value_path(self, node: ValuePath) -> ColumnElement[bool]:
        binding = self._resolve(node.attr_path)
        column = self._column(binding)
        if not isinstance(column, Several):
            raise InvalidFilterException(detail=f"`{node.attr_path}` has one value.")
        return column.any(_Inside(self, column, node.attr_path).visit(node.val_filter))

    def _resolve(self, path: AttrPath, *, compared: bool = False) -> AttributeBinding:
        resolve = self._wanted.resolve_comparison if compared else self._wanted.resolve
        binding = resolve(path)
        assert binding is not None  # None is for filters that are bound to no model
        return binding

    def _column(self, binding: AttributeBinding) -> Column | Several:
        column = _find(self._attributes, binding)
        if column is None:
            raise InvalidFilterException(detail=f"Lists cannot be filtered by `{binding.urn}` here.")
        return column

    @staticmethod
    def _part(column: Several, binding: AttributeBinding) -> Column:
        part = column.parts.get(binding.sub_field_name or "value")
        if part is None:
            raise InvalidFilterException(detail=f"Lists cannot be filtered by `{binding.urn}` here.")
        return part


class _Inside(_Translator):
    """Between the brackets of `emails[type eq "work"]`: about one value of several."""

    def __init__(self, outside: _Translator, column: Several, of: AttrPath) -> None:
        super().__init__(outside._wanted, {of.attr: column})
        self._of = of
        self._values = column

    def visit_present(self, node: Present) -> ColumnElement[bool]:
        return _present(self._part(self._values, self._resolve(self._inner(node.attr_path))))

    def visit_comparison(self, node: Comparison) -> ColumnElement[bool]:
        binding = self._resolve(self._inner(node.attr_path), compared=True)
        return _compare(self._part(self._values, binding), binding, node)

    def visit_value_path(self, node: ValuePath) -> ColumnElement[bool]:
        raise InvalidFilterException(detail="Brackets hold no further brackets.")

    def _inner(self, path: AttrPath) -> AttrPath:
        return AttrPath(attr=self._of.attr, sub_attr=path.attr, uri=self._of.uri)


def _equals(node: Comparison) -> Comparison:
    return Comparison(node.attr_path, CompareOperator.eq, node.value)


def _present(column: Column) -> ColumnElement[bool]:
    return func.coalesce(column != "", false()) if _is(column, String) else column.is_not(None)


def _compare(column: Column, binding: AttributeBinding, node: Comparison) -> ColumnElement[bool]:
    """One value against another; false, and never null, where one is missing."""
    value = binding.comparable(coerce_value(binding, node.value, node.op))
    if _is(column, Uuid):
        if node.op in (CompareOperator.eq, CompareOperator.ne):  # by index
            value = _as_uuid(value)
            return column == value if node.op == CompareOperator.eq else column.is_distinct_from(value)
        column = cast(column, Text())
    column = _comparable(column, binding)
    if isinstance(value, datetime) and value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    if node.op == CompareOperator.eq:
        # `column = value`, which an index answers, must not be null where it is negated.
        return column.is_(None) if value is None else and_(column.is_not(None), column == value)
    if node.op == CompareOperator.ne:
        return column.is_distinct_from(value)
    if value is None:
        return false()
    if _is(column, String):
        if not isinstance(value, str):
            raise InvalidFilterException(detail=f"`{node.attr_path}` is a text.")
        column, value = column.collate("C"), literal(value)
    elif isinstance(value, str):
        raise InvalidFilterException(detail=f"`{node.attr_path}` is no text.")
    found: dict[CompareOperator, Any] = {
        CompareOperator.co: lambda: func.strpos(column, value) > 0,
        CompareOperator.sw: lambda: func.starts_with(column, value),
        CompareOperator.ew: lambda: func.right(column, func.length(value)) == value,
        CompareOperator.gt: lambda: column > value,
        CompareOperator.ge: lambda: column >= value,
        CompareOperator.lt: lambda: column < value,
        CompareOperator.le: lambda: column <= value,
    }
    return func.coalesce(found[node.op](), false())


def _as_uuid(value: Any) -> UUID | None:
    """The id that a text names; nothing has another id, and none equals what is no id."""
    try:
        return UUID(str(value))
    except ValueError:
        return UUID(int=0)


def simple_values(node: FilterNode) -> list[str]:
    """The values that `value eq "…"`, joined by `or`, names. Raises `InvalidFilterException` for any other filter."""
    if isinstance(node, LogicalExpr) and node.op == LogicalOperator.or_:
        return [value for term in node.terms for value in simple_values(term)]
    if (
        isinstance(node, Comparison)
        and node.op == CompareOperator.eq
        and str(node.attr_path).lower() == "value"
        and isinstance(node.value, str)
    ):
        return [node.value]
    raise InvalidFilterException(detail='Name members as `members[value eq "…"]`, joined by `or`.')
