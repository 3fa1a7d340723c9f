"""Numbers and colours of heat maps of shares between 0 and 1; ``templates/parts.html`` draws them."""

from typing import Tuple

COLOURS = ("#f7fbff", "#deebf7", "#c6dbef", "#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08519c", "#08306b")
"""ColorBrewer's scheme *Blues* of nine classes, and what lies between: values differ in lightness alone, so
that no colour vision is needed, and a print in black and white says the same."""

# Relative luminance of an sRGB colour as WCAG 2.1 defines it.
_LUMINANCE = (0.2126, 0.7152, 0.0722)


def percent(share: float, digits: int = 1) -> str:
    """Return a share in percent without its sign; ``0`` and ``100`` stand for exactly none and all.

    :param digits: after the point.
    """
    if share in (0, 1):
        return str(int(100 * share))
    least = 10.0**-digits
    return f"{min(max(100 * share, least), 100 - least):.{digits}f}"


def colour(share: float) -> str:
    """Return the colour of a share."""
    return "#" + "".join(f"{round(255 * part):02x}" for part in _mixed(share))


def ink(share: float) -> str:
    """Return the class of a text on the colour of a share: ``on-dark`` where white has more contrast."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in _mixed(share)]
    luminance = sum(weight * part for weight, part in zip(_LUMINANCE, linear))
    # Contrast is (lighter + 0.05) / (darker + 0.05); white has luminance 1 and black 0.
    return "on-dark" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "on-light"


def _mixed(share: float) -> Tuple[float, ...]:
    """Return red, green and blue, from 0 to 1."""
    place = min(max(share, 0.0), 1.0) * (len(COLOURS) - 1)
    first = min(int(place), len(COLOURS) - 2)
    pair = zip(*([int(text[at : at + 2], 16) for at in (1, 3, 5)] for text in COLOURS[first : first + 2]))
    return tuple((one + (other - one) * (place - first)) / 255 for one, other in pair)
