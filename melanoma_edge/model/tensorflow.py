"""The one place that brings TensorFlow in: quiet, seeded, and with a clear word when it is missing."""

from __future__ import annotations

import os

from melanoma_edge.errors import Missing


def require() -> None:
    """Import TensorFlow, tf_keras and tensorflow-model-optimization quietly.

    Raises Missing with the command that installs them.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    try:
        import tensorflow as tf
        import tensorflow_model_optimization  # noqa: F401
        import tf_keras  # noqa: F401
    except ImportError as error:
        raise Missing(f"training and export need TensorFlow ({error.name} is missing): pip install 'melanoma-edge[train]'") from None
    tf.get_logger().setLevel("ERROR")


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and TensorFlow, and make TensorFlow's kernels deterministic."""
    import tensorflow as tf
    import tf_keras

    tf_keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def gpus() -> int:
    """Return the number of GPUs that TensorFlow sees."""
    import tensorflow as tf

    return len(tf.config.list_physical_devices("GPU"))
