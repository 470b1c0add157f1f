"""What the HTML pages share: nothing outside of them, so pictures and plots are data: URIs, and all text is escaped.

In: bytes of pictures and values for a template. Out: parts of a page, and the page.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Plot:
    """One plot in both themes, as data: URIs, with the words that stand for it."""

    light: str
    dark: str
    alt: str
    width: int
    height: int


def plot(alt: str, draw: Callable[..., bytes], *figures) -> Plot:
    """Return ``draw(theme, *figures)``, which gives PNG bytes, in both themes."""
    from melanoma_edge.proof import plot_style

    light, dark = (draw(theme, *figures) for theme in (plot_style.LIGHT, plot_style.DARK))
    with Image.open(io.BytesIO(light)) as drawn:
        width, height = (round(side * 100 / plot_style.DPI) for side in drawn.size)
    return Plot(uri(light, "png"), uri(dark, "png"), alt, width, height)


def jpeg(picture: Image.Image, quality: int) -> bytes:
    """Return `picture` as JPEG bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, format="jpeg", quality=quality)
    return buffer.getvalue()


def shown(pixels: np.ndarray, widest: int) -> str:
    """Return `pixels` (uint8 [h, w, 3]) as a JPEG in a data: URI, at most `widest` pixels wide."""
    picture = Image.fromarray(pixels)
    if picture.width > widest:
        picture = picture.resize((widest, max(1, round(picture.height * widest / picture.width))), Image.Resampling.LANCZOS)
    return uri(jpeg(picture, 84), "jpeg")


def uri(content: bytes, kind: str) -> str:
    """Return picture bytes of the kind `png` or `jpeg` as a data: URI."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def render(template: str, view: Mapping, *, tests: Mapping[str, Callable] = {}, filters: Mapping[str, Callable] = {}) -> str:
    """Return the page that `template` makes of `view`; everything that comes from data is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("melanoma_edge.proof"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.tests.update(tests)
    environment.filters.update(filters)
    return environment.get_template(template).render(**view)
