"""The generators: same seed, same images; labels that the pictures really show."""

import numpy as np
import pytest
from scipy import ndimage
from sklearn.linear_model import LogisticRegression

from recsys_ms.core.errors import UsageError

pytest.importorskip("PIL", reason="the generators need pillow (extra embed)")

from training.zoo.tasks.base import ImageSet
from training.zoo.tasks.registry import TASKS

pytestmark = pytest.mark.zoo

SIZE = 32
EVERY_TASK = sorted(TASKS)


def sample(task_id: str, split: str = "train", n: int = 120, seed: int = 0) -> ImageSet:
    return TASKS[task_id].sample(split, n, seed=seed, size=SIZE)


@pytest.mark.parametrize("task_id", EVERY_TASK)
def test_images_are_a_function_of_seed_and_split(task_id):
    first, again = sample(task_id), sample(task_id)
    assert first.images.dtype == np.uint8
    assert first.images.shape == (120, SIZE, SIZE, 3)
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint != sample(task_id, seed=1).fingerprint


@pytest.mark.parametrize("task_id", EVERY_TASK)
def test_classes_are_balanced(task_id):
    data = sample(task_id)
    counts = np.bincount(data.labels, minlength=len(data.class_names))
    assert len(counts) == len(data.class_names) == len(set(data.class_names))
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("task_id", EVERY_TASK)
def test_no_test_image_occurs_in_training(task_id):
    train = {image.tobytes() for image in sample(task_id, "train", 300).images}
    test = {image.tobytes() for image in sample(task_id, "test", 300).images}
    assert len(train) == len(test) == 300
    assert not train & test


def test_sources_and_targets_share_no_letter():
    capitals, letters = TASKS["capitals"], TASKS["letters"]
    assert not set(capitals.class_names) & set(letters.class_names)


def salience(data: ImageSet) -> np.ndarray:
    """Brightness over the backdrop, whose gradient is fitted and taken out; (n, side, side)."""
    y, x = np.mgrid[:SIZE, :SIZE]
    plane = np.stack([x.ravel(), y.ravel(), np.ones(SIZE * SIZE)], axis=1)
    grey = data.images.astype(float).max(axis=3).reshape(len(data.images), -1)
    # Fitted on the darker half of the pixels, which is backdrop in every sprite image.
    left = []
    for pixels in grey:
        dark = pixels <= np.median(pixels)
        slope, *_ = np.linalg.lstsq(plane[dark], pixels[dark], rcond=None)
        left.append(pixels - plane @ slope)
    return np.clip(np.reshape(left, (-1, SIZE, SIZE)), 0.0, None)


def correlation(found: np.ndarray, labels: np.ndarray) -> float:
    return float(np.corrcoef(found, labels)[0, 1])


def test_position_shows_in_the_centre_of_brightness():
    data = sample("sprites-position", n=240)
    light = salience(data) ** 2
    column = (light.sum(axis=1) * np.arange(SIZE)).sum(axis=1) / light.sum(axis=(1, 2))
    assert correlation(column, data.labels) > 0.8


def test_scale_shows_in_the_bright_area():
    data = sample("sprites-scale", n=240)
    light = salience(data)
    area = (light > 0.5 * np.quantile(light, 0.995, axis=(1, 2), keepdims=True)).mean(axis=(1, 2))
    assert correlation(area, data.labels) > 0.5


def test_count_shows_in_the_number_of_blobs():
    data = sample("counting", n=240)
    blobs = [ndimage.label(ndimage.gaussian_filter(x, 0.7) > 45)[1] for x in salience(data)]
    assert correlation(np.array(blobs), data.labels) > 0.6


def spectrum(data: ImageSet) -> np.ndarray:
    # Along the axis from one colour to the other: two colours may be equally bright.
    colours = data.images.reshape(len(data.images), -1, 3).astype(float)
    colours -= colours.mean(axis=1, keepdims=True)
    _, axes = np.linalg.eigh(np.einsum("nps,npt->nst", colours, colours))
    along = np.einsum("nps,ns->np", colours, axes[:, :, -1])
    return np.abs(np.fft.fft2(along.reshape(-1, SIZE, SIZE)))


def peaks(data: ImageSet) -> tuple[np.ndarray, np.ndarray]:
    """Horizontal and vertical frequency of the strongest wave, cycles per image."""
    strongest = spectrum(data).reshape(len(data.images), -1).argmax(axis=1)
    cycles = np.fft.fftfreq(SIZE) * SIZE
    return cycles[strongest % SIZE], cycles[strongest // SIZE]


def test_frequency_shows_in_the_fourier_peak():
    data = sample("grating-frequency", n=240)
    assert correlation(np.hypot(*peaks(data)), data.labels) > 0.8


def test_orientation_shows_in_the_fourier_peak():
    data = sample("grating-orientation", n=240)
    x, y = peaks(data)
    found = np.arctan2(y, x) % np.pi
    wanted = (data.labels + 0.5) * np.pi / 8
    apart = np.abs((found - wanted + np.pi / 2) % np.pi - np.pi / 2)
    assert np.median(apart) < np.pi / 8


def test_slope_shows_in_the_share_of_low_frequencies():
    data = sample("noise-spectrum", n=240)
    power = spectrum(data) ** 2
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(SIZE) * SIZE, np.fft.fftfreq(SIZE) * SIZE))
    low = power[:, radius < 5].sum(axis=1) / power.sum(axis=(1, 2))
    assert correlation(low, data.labels) > 0.8


def test_a_linear_model_reads_the_handwritten_digits():
    train, test = sample("digits", "train", 300), sample("digits", "test", 300)
    flat = [d.images.mean(axis=3).reshape(300, -1) / 255.0 for d in (train, test)]
    learner = LogisticRegression(max_iter=2000).fit(flat[0], train.labels)
    assert learner.score(flat[1], test.labels) > 0.85


@pytest.mark.parametrize(
    ("split", "n", "size", "message"),
    [
        ("validation", 10, 32, "split 'validation' is unknown"),
        ("train", 0, 32, "ask for at least one"),
        ("train", 10, 4, "8 or more"),
    ],
)
@pytest.mark.parametrize("task_id", ["digits", "letters"])
def test_invalid_requests(task_id, split, n, size, message):
    with pytest.raises(UsageError, match=message):
        TASKS[task_id].sample(split, n, seed=0, size=size)


def test_more_digits_than_there_are():
    with pytest.raises(UsageError, match="lower n_train"):
        sample("digits", "train", 5000)
