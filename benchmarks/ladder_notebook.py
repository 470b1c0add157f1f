"""One step of the ladder as the usual notebooks do it, with the leak of their split counted.

In: the training folder of a data set (``Train/<class>/*``) and a step's recipe. Out: what the notebook would print, the training and
validation accuracy of every epoch, and how many of its validation pictures stand in its training part too.

Pictures are read and split by Keras' own ``image_dataset_from_directory``, samples are written by the real Augmentor, and training is
``compile`` and ``fit``. Only what makes no difference to the method is ours: seeds, so that the same command finds the same again.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import common

from melanoma_edge.contract import Recipe
from melanoma_edge.errors import BadInput
from melanoma_edge.files import new_folder, read_json, sha256_file, write_json

SEED = 123
"""The notebooks' seed of the split; also that of weights, augmentation and samples, which they leave open."""
VALIDATION_SHARE = 0.2
OUTPUT = "output"
"""The folder in each class folder that Augmentor writes into, and so a part of what Keras reads."""

EPOCHS_FILE = "epochs.json"

SAMPLE = """
import random, sys, uuid
from pathlib import Path
import Augmentor

folder, count = Path(sys.argv[1]), int(sys.argv[2])
random.seed(int(sys.argv[3]))
names = random.Random(int(sys.argv[3]))
uuid.uuid4 = lambda: uuid.UUID(int=names.getrandbits(128), version=4)  # names of files decide the split
for one in sorted(path for path in folder.iterdir() if path.is_dir()):
    p = Augmentor.Pipeline(str(one))
    p.augmentor_images.sort(key=lambda image: image.image_path)
    p.rotate(probability=0.7, max_left_rotation=10, max_right_rotation=10)
    p.sample(count, multi_threaded=False)
"""


def add_samples(train: Path, target: Path, count: int) -> None:
    """Copy `train` to the new folder `target` and let Augmentor write `count` samples of each class into it, as the notebooks do.

    The folder is whole or absent. Raises Missing where Augmentor cannot be had, BadInput where it fails.
    """
    python = common.augmentor()
    with new_folder(target) as folder:
        shutil.copytree(train, folder, dirs_exist_ok=True)
        done = subprocess.run([python, "-I", "-c", SAMPLE, folder, str(count), str(SEED)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for one in (path for path in folder.iterdir() if path.is_dir()):
            written = len(list((one / OUTPUT).glob("*")))
            if done.returncode or written != count:
                lines = done.stderr.strip().splitlines() or ["it said nothing"]
                raise BadInput(f"Augmentor wrote {written} samples of {one.name}: expected {count} (its last line: {lines[-1][:200]})")


def original_of(file: Path) -> Path:
    """Return the picture that `file` of a training folder was made from: itself, unless Augmentor wrote it.

    Augmentor calls a sample CLASS_original_NAME_UUID.SUFFIX and puts it into CLASS/output/.
    """
    if file.parent.name != OUTPUT:
        return file
    folder = file.parents[1]
    return folder / file.name.removeprefix(f"{folder.name}_original_").rpartition("_")[0]


def leak(training: Sequence[Path], validation: Sequence[Path]) -> dict[str, int | float]:
    """Return `pictures`, `seen` and `share`: of the validation pictures, those whose source stands in the training part as well.

    The source of a picture is the content of the original that it is or was made from: so an original, its samples and identical files
    under other names or classes are one.
    """
    known: dict[Path, str] = {}

    def source(file: Path) -> str:
        original = original_of(file)
        if original not in known:
            known[original] = sha256_file(original)
        return known[original]

    trained_on = {source(file) for file in training}
    seen = sum(source(file) in trained_on for file in validation)
    return {"pictures": len(validation), "seen": seen, "share": seen / len(validation)}


def train(folder: Path, recipe: Recipe, state: Path, report: Callable[[dict], None]) -> dict:
    """Train as a notebook does on ``folder/<class>/**`` and return its figures; `report` gets each epoch's.

    Of the recipe only what both protocols share counts: network, dropout, image size, batch size, epochs and learning rate. Returns `files`,
    `classes`, `training` and `validation` (the last epoch's accuracies, shares), `leak` (see :func:`leak`), `epochs`, `seconds`, and `starts`:
    an interrupted training goes on after its last whole epoch, from what it kept in the folder `state`, with other draws than it would have had.
    """
    from melanoma_edge.model.tensorflow import quiet, require, seed_everything

    require()
    import tf_keras as keras

    started = time.perf_counter()
    state.mkdir(parents=True, exist_ok=True)
    kept = read_json(state / EPOCHS_FILE, "epochs of a training") if (state / EPOCHS_FILE).is_file() else {"starts": 0, "seconds": 0.0, "epochs": []}
    starts, before, epochs = kept["starts"] + 1, kept["seconds"], kept["epochs"]
    keras.backend.clear_session()
    seed_everything(SEED)
    options = {"seed": SEED, "validation_split": VALIDATION_SHARE, "image_size": (recipe.image_size,) * 2, "batch_size": recipe.batch_size}
    keras.utils.disable_interactive_logging()
    with quiet():
        training, validation = (keras.utils.image_dataset_from_directory(str(folder), subset=part, **options) for part in ("training", "validation"))
    parts = [[Path(file) for file in data.file_paths] for data in (training, validation)]
    model = _network(recipe, len(training.class_names))
    model.compile(optimizer=keras.optimizers.Adam(recipe.learning_rate), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])

    def follow(epoch: int, logs: dict) -> None:
        epochs[epoch:] = [{name: float(logs[name]) for name in ("loss", "accuracy", "val_loss", "val_accuracy")}]
        write_json(state / EPOCHS_FILE, {"starts": starts, "seconds": before + time.perf_counter() - started, "epochs": epochs})
        report({"epoch": epoch, "training": epochs[-1]["accuracy"], "validation": epochs[-1]["val_accuracy"]})

    if len(epochs) < recipe.epochs:
        # The epoch is written down before its checkpoint: one without is done again, but none can lack its figures.
        callbacks = [keras.callbacks.LambdaCallback(on_epoch_end=follow), keras.callbacks.BackupAndRestore(str(state / "checkpoint"))]
        model.fit(training, validation_data=validation, epochs=recipe.epochs, verbose=0, callbacks=callbacks)
    return {
        "files": sum(map(len, parts)),
        "classes": list(training.class_names),
        "parameters": int(model.count_params()),
        "training": epochs[-1]["accuracy"],
        "validation": epochs[-1]["val_accuracy"],
        "leak": leak(*parts),
        "epochs": epochs,
        "starts": starts,
        "seconds": before + time.perf_counter() - started,
    }


def _network(recipe: Recipe, classes: int):
    """Return the notebooks' Sequential network, with the step's augmentation as its first layers."""
    import tf_keras as keras

    layers = keras.layers
    model = keras.Sequential([keras.Input((recipe.image_size, recipe.image_size, 3)), *_augmentation(recipe.name), layers.Rescaling(1 / 255)])
    for filters in (32, 64, 128):
        model.add(layers.Conv2D(filters, 3, padding="same"))
        if recipe.network == "classic-batchnorm":
            model.add(layers.BatchNormalization())
        model.add(layers.ReLU())
        model.add(layers.MaxPooling2D())
    model.add(layers.Flatten())
    model.add(layers.Dense(128, activation="relu"))
    if recipe.dropout:
        model.add(layers.Dropout(recipe.dropout))
    model.add(layers.Dense(classes))
    return model


def _augmentation(step: str) -> list:
    """Return the layers that change pictures during training: those of the step, none for most."""
    import tensorflow as tf
    import tf_keras as keras

    layers = keras.layers

    class RandomCrop(layers.Layer):
        """A crop of 0.8 to 1.0 of the side from a random place, enlarged to the whole frame."""

        def call(self, pictures, training=None):
            if not training:
                return pictures
            count, height, width = (tf.shape(pictures)[axis] for axis in range(3))
            side = tf.random.uniform([count, 1], 0.8, 1.0)
            start = tf.random.uniform([count, 2]) * (1 - side)
            return tf.image.crop_and_resize(pictures, tf.concat([start, tf.minimum(start + side, 1.0)], axis=1), tf.range(count), [height, width])

        def compute_output_shape(self, shape):
            return shape

    if step == "classic-augmented":
        return [layers.RandomFlip("horizontal_and_vertical"), RandomCrop()]
    if step == "classic-dropout":  # as ImageDataGenerator does it: beyond the border stands the nearest pixel
        fill = {"fill_mode": "nearest"}
        return [layers.RandomFlip("horizontal"), layers.RandomRotation(20 / 360, **fill), layers.RandomTranslation(0.1, 0.1, **fill), layers.RandomZoom(0.1, **fill)]
    return []
