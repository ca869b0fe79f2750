"""Images of every kind are answered alike, and what is no image is refused by name."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import drawn

import melo_vit as melo


@pytest.fixture(scope="module")
def predictor(backbone: melo.Backbone, plugin: melo.Plugin, folder: Path) -> melo.Predictor:
    return melo.Predictor(backbone, [plugin, folder / "chest_film.safetensors"])


def answers(predictor: melo.Predictor, images: Any, **options: Any) -> np.ndarray[Any, Any]:
    return predictor.predict(images, **options).probabilities("spots")


def test_the_same_pixels_are_answered_alike_however_they_come(predictor: melo.Predictor, folder: Path) -> None:
    paths = [folder / f"{number}.png" for number in range(4)]
    batch = np.stack([drawn(number) for number in range(4)])
    expected = answers(predictor, paths)
    assert expected.shape == (4, 2) and np.allclose(expected.sum(axis=1), 1)
    same = [
        answers(predictor, [str(path) for path in paths]),
        answers(predictor, [path.read_bytes() for path in paths]),
        answers(predictor, [io.BytesIO(path.read_bytes()) for path in paths]),
        answers(predictor, batch),
        answers(predictor, list(batch)),
        answers(predictor, (image for image in batch)),
        answers(predictor, batch.transpose(0, 3, 1, 2), layout="nchw"),
        answers(predictor, list(batch.transpose(0, 3, 1, 2)), layout="chw"),
        answers(predictor, batch.transpose(0, 3, 2, 1), layout="ncwh"),
        answers(predictor, batch.astype(np.float32) / 255, value_range=(0, 1)),
        answers(predictor, batch.astype(np.uint16), value_range=(0, 255)),
        answers(predictor, np.asfortranarray(batch)),
        answers(predictor, batch[::-1])[::-1],
    ]
    for found in same:
        assert np.array_equal(found, expected)
    assert np.array_equal(answers(predictor, paths[0]), expected[:1])
    assert np.array_equal(answers(predictor, batch[0]), expected[:1])


def test_whatever_shares_its_memory_is_an_array(predictor: melo.Predictor) -> None:
    class Shared:
        def __init__(self, array: Any) -> None:
            self.array = array

        def __dlpack__(self, **options: Any) -> Any:
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self) -> Any:
            return self.array.__dlpack_device__()

    batch = np.stack([drawn(number) for number in range(3)])
    assert np.array_equal(answers(predictor, Shared(batch)), answers(predictor, batch))
    grey = batch[..., 0].copy()
    expected = answers(predictor, np.repeat(grey[..., None], 3, axis=3))
    assert np.array_equal(answers(predictor, grey, layout="nhw"), expected)
    assert np.array_equal(answers(predictor, grey[..., None]), expected)


def test_images_of_pil_and_pydicom(predictor: melo.Predictor) -> None:
    image = pytest.importorskip("PIL.Image")
    picture = image.fromarray(drawn(1))
    assert np.array_equal(answers(predictor, picture), answers(predictor, drawn(1)))
    assert np.array_equal(answers(predictor, [picture]), answers(predictor, drawn(1)))
    with pytest.raises(melo.ImageError, match="mode I"):
        predictor.predict(image.fromarray(np.zeros((8, 8), np.int32)))

    dicom = pytest.importorskip("pydicom")
    dataset = dicom.Dataset()
    dataset.file_meta = dicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = dicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = dicom.uid.SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 64, 64, 3
    dataset.PhotometricInterpretation, dataset.PlanarConfiguration = "RGB", 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = drawn(1).tobytes()
    assert np.array_equal(answers(predictor, dataset), answers(predictor, drawn(1)))


@pytest.mark.parametrize(
    ("images", "options", "said"),
    [
        (np.zeros((2, 3, 64, 64), np.uint8), {}, "channels first"),
        (np.zeros((3, 64, 64), np.uint8), {}, "channels first"),
        (np.zeros((64, 64, 4), np.uint8), {}, "layout"),
        (np.zeros((64, 64, 4), np.uint8), {"layout": "hwc"}, "4 channels"),
        (np.zeros((64, 64, 3), np.float32), {}, "expected uint8"),
        (np.zeros((64, 64, 3), np.bool_), {}, "bool"),
        (np.zeros((64, 64, 3), np.complex64), {"value_range": (0, 1)}, "complex64"),
        (np.full((64, 64, 3), np.nan, np.float32), {"value_range": (0, 1)}, "NaN"),
        (np.zeros((0, 64, 3), np.uint8), {}, "empty"),
        (np.zeros((2, 0, 64, 3), np.uint8), {}, "empty"),
        (np.zeros(5, np.uint8), {}, "expected"),
        (np.zeros((2, 2, 2, 2, 2), np.uint8), {}, "expected"),
        ([np.zeros((4, 4, 3), np.uint8), [[1, 2], [3]]], {}, "image 1"),
        (np.array([None, 1], object), {}, "image 0"),
        ([3], {}, "int"),
        (3, {}, "int"),
        (b"no image", {}, "image"),
        ("missing.png", {}, "missing.png"),
    ],
)
def test_what_is_no_image_is_refused_by_name(
    predictor: melo.Predictor, images: Any, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(melo.ImageError, match=said):
        predictor.predict(images, **options)


def test_closed_files_and_wrong_words_are_refused(predictor: melo.Predictor, folder: Path) -> None:
    file = open(folder / "film.png", "rb")
    file.close()
    with pytest.raises(melo.ImageError, match="closed"):
        predictor.predict(file)
    with open(folder / "spots.csv") as text, pytest.raises(melo.ImageError, match="binary"):
        predictor.predict(text)
    with pytest.raises(melo.SettingError, match="layout") as refused:
        predictor.predict(drawn(0), layout="whatever")
    assert refused.value.setting == "layout"
    with pytest.raises(melo.SettingError, match="value_range"):
        predictor.predict(drawn(0), value_range=(1, 1))


def test_an_empty_list_has_no_answers(predictor: melo.Predictor) -> None:
    assert len(predictor.predict([])) == 0
    assert len(predictor.predict(np.zeros((0, 8, 8, 3), np.uint8))) == 0


def test_random_arrays_never_end_the_process(predictor: melo.Predictor) -> None:
    rng = np.random.default_rng(0)
    dtypes = [np.uint8, np.int16, np.float32, np.float64, np.bool_, object]
    layouts = [None, "hw", "hwc", "chw", "cwh", "nhw", "nhwc", "nchw", "ncwh"]
    refused = 0
    for _ in range(300):
        shape = tuple(int(side) for side in rng.integers(0, 6, rng.integers(0, 6)))
        array = rng.integers(0, 255, shape).astype(dtypes[rng.integers(len(dtypes))])
        try:
            predictor.predict(array, layout=layouts[rng.integers(len(layouts))], value_range=[None, (0, 255)][rng.integers(2)])
        except (melo.ImageError, melo.SettingError):
            refused += 1
    assert 0 < refused < 300


def test_errors_have_their_facts_and_survive_pickling(backbone: melo.Backbone, plugin: melo.Plugin, folder: Path) -> None:
    with pytest.raises(melo.ImageError) as raised:
        melo.Predictor(backbone, plugin).predict([b"nothing"])
    again = pickle.loads(pickle.dumps(raised.value))
    assert (str(again), again.kind, again.facts) == (str(raised.value), raised.value.kind, raised.value.facts)
    assert isinstance(again, ValueError) and not hasattr(again, "no_such_fact")
