"""Whether JSON has the form that a schema describes, with the standard library alone.

It knows the keywords of JSON Schema draft 7 that the kit's schema uses, and says what ``jsonschema`` says, of
which a run that finds nothing to do has no copy.  Another keyword in a schema is a ``KeyError``.
"""

import re
from typing import Any, Callable, Dict, Iterator, Tuple, Union

Place = Tuple[Union[str, int], ...]
Problem = Tuple[Place, Any, str]
"""Keys and indices that lead to a value, the value, and what is wrong with it."""

_TYPES: Dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "integer": lambda value: (
        (isinstance(value, int) and not isinstance(value, bool))
        or (isinstance(value, float) and value.is_integer())
    ),
}

_WORDLESS = ("$schema", "title", "description", "definitions")

_LIMITS: Dict[str, Tuple[str, Callable[[Any, Any], bool], str]] = {
    "minimum": ("number", lambda value, limit: value >= limit, "is less than the minimum of {}"),
    "maximum": ("number", lambda value, limit: value <= limit, "is greater than the maximum of {}"),
    "minItems": ("array", lambda value, limit: len(value) >= limit, "is too short"),
    "minProperties": ("object", lambda value, limit: len(value) >= limit, "does not have enough properties"),
    "maxLength": ("string", lambda value, limit: len(value) <= limit, "is too long"),
    "pattern": (
        "string",
        lambda value, pattern: re.search(pattern, value) is not None,
        "does not match {!r}",
    ),
}


def problems(schema: Dict[str, Any], content: Any) -> Iterator[Problem]:
    """Yield where ``content`` has not the form of ``schema``, in the schema's order.

    :param schema: with ``definitions``, to which its ``$ref`` lead.
    """
    return _problems(schema, schema, content, ())


def _problems(root: Dict[str, Any], schema: Dict[str, Any], value: Any, place: Place) -> Iterator[Problem]:
    if "$ref" in schema:  # beside which draft 7 reads nothing
        schema = root["definitions"][schema["$ref"].rpartition("/")[2]]
    known = schema.get("properties", {})
    for keyword, wanted in schema.items():
        if keyword in _WORDLESS:
            continue
        if keyword == "type":
            names = wanted if isinstance(wanted, list) else [wanted]
            if not any(_TYPES[name](value) for name in names):
                yield place, value, f"{value!r} is not of type {', '.join(map(repr, names))}"
        elif keyword == "const":
            if not _same(value, wanted):
                yield place, value, f"{wanted!r} was expected"
        elif keyword == "enum":
            if not any(_same(value, one) for one in wanted):
                yield place, value, f"{value!r} is not one of {wanted!r}"
        elif keyword == "required":
            if isinstance(value, dict):
                for name in wanted:
                    if name not in value:
                        yield place, value, f"{name!r} is a required property"
        elif keyword == "properties":
            if isinstance(value, dict):
                for name, one in wanted.items():
                    if name in value:
                        yield from _problems(root, one, value[name], (*place, name))
        elif keyword == "additionalProperties":
            extra = [name for name in value if name not in known] if isinstance(value, dict) else []
            if wanted is False and extra:
                words = f"{', '.join(map(repr, extra))} {'was' if len(extra) == 1 else 'were'} unexpected"
                yield place, value, f"Additional properties are not allowed ({words})"
            elif wanted is not False:
                for name in extra:
                    yield from _problems(root, wanted, value[name], (*place, name))
        elif keyword == "items":
            if isinstance(value, list):
                for number, item in enumerate(value):
                    yield from _problems(root, wanted, item, (*place, number))
        else:
            kind, holds, words = _LIMITS[keyword]
            if _TYPES[kind](value) and not holds(value, wanted):
                yield place, value, f"{value!r} {words.format(wanted)}"


def _same(one: Any, other: Any) -> bool:
    """Return whether two values of JSON are equal; True and 1 are not."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
