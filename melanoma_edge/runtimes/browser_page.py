"""LiteRT.js and ONNX Runtime Web: the two runtimes that compute in a web page, in WebAssembly.

In: a `.tflite` or `.onnx` file and pictures. Out: logits, as web/page.js computes them in a Chromium without a
window. A page that fails, crashes or falls silent raises with its own words, and nothing of the browser stays behind.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import weakref
from pathlib import Path
from typing import Literal

import numpy as np

from melanoma_edge.contract import Quantization
from melanoma_edge.errors import BadInput, Missing
from melanoma_edge.files import remove_folder
from melanoma_edge.runtimes import browser
from melanoma_edge.runtimes.chromium import HOW, Chromium
from melanoma_edge.runtimes.page_server import PageFailed, PageServer
from melanoma_edge.runtimes.protocol import Runtime, read_signature

AT_ONCE = 64
"""Pictures that travel together."""
SILENCE_SECONDS = 300.0
"""A page that neither answers nor reports progress for so long is given up."""

Build = Literal["relaxed", "compatible"]


class BrowserRuntime(Runtime):
    """One model in one page of one browser, all three started by :meth:`load` and gone with this object or its process."""

    engine: str
    """Which of web/*.js runs the model."""
    build: Build | None = None

    def load(self, model: Path, threads: int) -> None:
        if threads != 1:
            raise BadInput(f"{self.name} computes on one thread, {threads} were asked for: ask for one")
        folder = Path(tempfile.mkdtemp(prefix="browser-"))
        with contextlib.ExitStack() as stack:
            stack.callback(remove_folder, folder)
            self._page = PageServer({**browser.files(self.engine), "model": model}, trouble=lambda: opened and opened[0].trouble())
            stack.callback(self._page.close)
            opened: list[Chromium] = []
            opened.append(Chromium(self._page.url, folder))
            stack.callback(opened[0].close)
            try:
                found = self._ask("load", engine=self.engine, model="model", name=model.name, build=self.build)
            except PageFailed as error:
                if self._page.opened.is_set() or not opened[0].gave_up:
                    raise
                raise Missing(f"the browser did not start: {error}; {HOW}") from None
            described = json.loads(found)
            self.signature = read_signature(model, described["inputs"], described["outputs"], self.quantization(model))
            self.close = weakref.finalize(self, stack.pop_all().close)

    def prepare(self, image: np.ndarray) -> None:
        self._bound = image[np.newaxis]

    def invoke(self) -> None:
        """Have the page run the model: the picture's way there and back is inside; :meth:`times` leaves it out."""
        self._given = self.logits(self._bound)

    def output(self) -> np.ndarray:
        return self._given[0]

    def logits(self, images: np.ndarray) -> np.ndarray:
        self.signature.check(images)
        result = np.empty((len(images), self.signature.classes), np.float32)
        for start in range(0, len(images), AT_ONCE):
            part = images[start : start + AT_ONCE]
            answer = self._ask("logits", pictures=self._publish(part), count=len(part), done=start, total=len(images))
            result[start : start + len(part)] = np.frombuffer(answer, "<f4").reshape(len(part), -1)
        return result

    def times(self, images: np.ndarray, *, warmup: int, runs: int) -> np.ndarray:
        """Return the milliseconds, float64 [runs], of inferences on `images` in turn, by the page's own clock."""
        self.signature.check(images)
        answer = self._ask("times", pictures=self._publish(images), count=len(images), warmup=warmup, runs=runs)
        return np.frombuffer(answer, "<f8")

    def quantization(self, model: Path) -> Quantization | None:
        """Return that of the model's input, which the page does not tell."""
        return None

    def _publish(self, images: np.ndarray) -> str:
        """Give the page the bytes of pictures where the model takes them as they are, else the tensors made of them."""
        taken = self.signature
        plain = taken.layout == "NHWC" and taken.quantization is None and (self.contract is None or self.contract.raw)
        content = images if plain else np.concatenate([self.tensor(image) for image in images])
        self._page.publish("pictures", content.tobytes())
        return "pictures"

    def _ask(self, kind: str, **details: object) -> bytes:
        return self._page.ask(kind, silence=SILENCE_SECONDS, **details)


class LiteRTBrowser(BrowserRuntime):
    """LiteRT.js with its WebAssembly kernels: the `build` that it picks for the browser, or the one that is named.

    Browsers with relaxed SIMD get `relaxed`, the others (Safari among them, for long) `compatible`.
    """

    name = "litert-browser"
    engine = "litert"

    def __init__(self, build: Build | None = None) -> None:
        self.build = build

    def quantization(self, model: Path) -> Quantization | None:
        from melanoma_edge.runtimes.litert import input_quantization

        found = input_quantization(model)
        return None if found == Quantization(scale=1.0, zero_point=0) else found


class OnnxRuntimeBrowser(BrowserRuntime):
    """ONNX Runtime Web with its WebAssembly kernels."""

    name = "onnxruntime-browser"
    engine = "onnxruntime"

