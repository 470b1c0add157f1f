"""The one place that brings TensorFlow in: quiet, seeded, and with a clear word when it is missing."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator

from melanoma_edge.errors import Missing


def require() -> None:
    """Import TensorFlow, tf_keras and tensorflow-model-optimization quietly, and Keras 3 not with them.

    Raises Missing with the command that installs them.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["TF_USE_LEGACY_KERAS"] = "1"  # tensorflow-model-optimization sets it, too, when TensorFlow has imported Keras 3 already
    try:
        with quiet():
            import tensorflow as tf

            with _without_keras_3():
                import tensorflow_model_optimization  # noqa: F401
            import tf_keras  # noqa: F401
    except ImportError as error:
        raise Missing(f"training and export need TensorFlow ({error.name} is missing): pip install 'melanoma-edge[train]'") from None
    tf.get_logger().setLevel("ERROR")


@contextlib.contextmanager
def _without_keras_3() -> Iterator[None]:
    """Have `import keras` fail in the block, as where Keras 3 is not installed, unless it has been imported already.

    tensorflow-model-optimization looks there for a class that Keras 3 does not have, and does without. Importing it, with scikit-learn and matplotlib behind it, would take
    a third of the time in which a command starts.
    """
    if "keras" in sys.modules:
        yield
        return
    sys.modules["keras"] = None
    try:
        yield
    finally:
        del sys.modules["keras"]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what TensorFlow's C++ and converters write to standard error, unless the block fails.

    TensorFlow logs before its log level applies, straight to file descriptor 2.
    """
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:  # no standard error at all: nothing to hold back
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except Exception:
            sys.stderr.flush()
            held.seek(0)
            os.write(saved, held.read()[-4000:])
            raise
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and TensorFlow, and make TensorFlow's kernels deterministic."""
    import tensorflow as tf
    import tf_keras

    tf_keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
