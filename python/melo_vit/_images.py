"""Images as Python has them, to what the native module takes: files, bytes of files, and ``uint8 [h, w, 3]``."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ._errors import ImageError, SettingError

Pixels = NDArray[np.uint8]
Taken = "Pixels | list[Pixels | str | tuple[str, bytes]]"

#: Axes of one image; an ``n`` in front is a batch. ``cwh`` is how MONAI's PILReader gives images.
LAYOUTS = ("hw", "hwc", "chw", "cwh")


def taken(images: Any, layout: str | None, value_range: tuple[float, float] | None) -> Any:
    """One image, a batch in one array, or any iterable of images; ``layout`` and ``value_range`` as in ``Predictor.predict``."""
    if layout is not None and layout.removeprefix("n") not in LAYOUTS:
        known = ", ".join(LAYOUTS + tuple(f"n{known}" for known in LAYOUTS))
        raise SettingError(f"layout: is {layout!r}, expected one of {known}", "Setting", {"setting": "layout"})
    value_range = None if value_range is None else (float(value_range[0]), float(value_range[1]))
    if value_range is not None and not (np.isfinite(value_range).all() and value_range[0] < value_range[1]):
        raise SettingError(f"value_range: is {value_range}, expected (lowest, highest)", "Setting", {"setting": "value_range"})
    if is_file(images) or is_alone(images):
        return [one(images, layout, value_range, "the image")]
    array = as_array(images, "the images")
    if array is not None:
        return of_array(array, layout, value_range)
    try:
        items: Iterable[Any] = iter(images)
    except TypeError:
        raise refused("the images", f"{type(images).__name__}, expected files, bytes, arrays or images") from None
    return [one(image, layout, value_range, f"image {index}") for index, image in enumerate(items)]


def refused(name: str, found: str, kind: str = "Array") -> ImageError:
    return ImageError(f"{name}: found {found}", kind, {"image": name})


def is_file(image: Any) -> bool:
    return isinstance(image, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(image, "read")


def is_alone(image: Any) -> bool:
    return is_pil(image) or is_dicom(image)


def is_pil(image: Any) -> bool:
    return hasattr(image, "getbands") and hasattr(image, "mode")


def is_dicom(image: Any) -> bool:
    return hasattr(image, "save_as") and hasattr(image, "SOPClassUID")


def one(image: Any, layout: str | None, value_range: tuple[float, float] | None, name: str) -> Pixels | str | tuple[str, bytes]:
    """One image of a list."""
    if isinstance(image, (str, os.PathLike)):
        return os.fspath(cast("os.PathLike[str]", image))
    if isinstance(image, (bytes, bytearray, memoryview)):
        return name, bytes(image)
    if is_dicom(image):
        return f"{name}.dcm", of_dicom(image, name)
    if is_pil(image):
        return of_pil(image, name)
    if hasattr(image, "read"):
        return of_open_file(image, name)
    array = as_array(image, name)
    if array is None:
        raise refused(name, f"{type(image).__name__}, expected a file, bytes, an array or an image")
    axes = layout.removeprefix("n") if layout is not None else None
    batch = of_batch(checked(array, value_range, name)[None], axes_of(array.shape, axes, name), name)
    return cast("Pixels", batch[0])


def of_open_file(image: Any, name: str) -> tuple[str, bytes]:
    try:
        content = image.read()
    except (OSError, ValueError) as error:
        raise refused(name, f"a file that cannot be read: {error}", "Io") from error
    if not isinstance(content, bytes):
        raise refused(name, "a file of text, expected one that is opened in binary")
    return str(getattr(image, "name", name)), content


def of_dicom(image: Any, name: str) -> bytes:
    buffer = io.BytesIO()
    try:
        image.save_as(buffer, enforce_file_format=True)
    except Exception as error:
        raise refused(name, f"a DICOM dataset that cannot be written: {error}", "Dicom") from error
    return buffer.getvalue()


def of_pil(image: Any, name: str) -> Pixels:
    if image.mode.startswith(("I", "F")):
        raise refused(name, f"a PIL image of mode {image.mode}: give numpy.asarray of it, and value_range=(lowest, highest)")
    try:
        return np.ascontiguousarray(image.convert("RGB"), dtype=np.uint8)
    except (OSError, ValueError) as error:
        raise refused(name, f"a PIL image that cannot be read: {error}", "Io") from error


def as_array(value: Any, name: str) -> NDArray[Any] | None:
    """An array without a copy where the library allows it; none of what is no array."""
    if isinstance(value, np.ndarray):
        return cast("NDArray[Any]", value)
    if hasattr(value, "detach"):  # torch: on the processor, without its graph
        value = value.detach().cpu()
    if hasattr(value, "__array_interface__"):
        return np.asarray(value)
    if hasattr(value, "__dlpack__"):
        try:
            return np.from_dlpack(value)
        except (BufferError, TypeError, RuntimeError) as error:
            raise refused(name, f"{type(value).__name__} that cannot be shared: {error}") from error
    return None


def checked(array: NDArray[Any], value_range: tuple[float, float] | None, name: str) -> Pixels:
    """As ``uint8``, by ``value_range`` where it is given."""
    if array.size == 0:
        raise refused(name, f"an empty array of shape {array.shape}", "Shape")
    if array.dtype == np.uint8 and value_range is None:
        return cast("Pixels", array)
    if array.dtype.kind not in "uif":
        raise refused(name, f"an array of {array.dtype}, expected uint8", "DType")
    if value_range is None:
        raise refused(name, f"an array of {array.dtype}, expected uint8; other numbers need value_range=(lowest, highest)", "DType")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise refused(name, "an array that holds NaN or an infinity", "NonFinite")
    low, high = value_range
    scaled = (array.astype(np.float64) - low) * (255.0 / (high - low))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def axes_of(shape: Sequence[int], layout: str | None, name: str) -> str:
    """The axes of one image of this shape, refusing what is open."""
    shape = tuple(shape)
    if layout is not None:
        if len(layout) != len(shape):
            raise refused(name, f"an array of shape {shape}, expected axes {layout}", "Shape")
        return layout
    if len(shape) == 2:
        return "hw"
    if len(shape) == 3 and shape[2] in (1, 3):
        return "hwc"
    if len(shape) == 3 and shape[0] in (1, 3):
        raise refused(name, f"an array of shape {shape}, which looks like channels first: say layout='chw'", "Shape")
    raise refused(name, f"an array of shape {shape}, expected [h, w, 3] or [h, w]; say its axes by layout=", "Shape")


def of_batch(array: Pixels, axes: str, name: str) -> Pixels:
    """``[n, …]`` to contiguous ``[n, h, w, 3]``: no copy where it is that already."""
    order = {"hw": (0, 1, 2), "hwc": (0, 1, 2, 3), "chw": (0, 2, 3, 1), "cwh": (0, 3, 2, 1)}[axes]
    array = array.transpose(order) if axes != "hw" else array[..., None]
    if array.shape[3] == 1:
        array = np.repeat(array, 3, axis=3)
    if array.shape[3] != 3:
        raise refused(name, f"an array of {array.shape[3]} channels, expected 1 or 3", "Shape")
    return np.ascontiguousarray(array)


def of_array(array: NDArray[Any], layout: str | None, value_range: tuple[float, float] | None) -> Any:
    """A batch, or one image, in one array."""
    if array.dtype == object and array.ndim != 1:
        raise refused("the images", f"an array of objects of shape {array.shape}, expected [n]", "Shape")
    if array.dtype == object:
        return [one(image, layout, value_range, f"image {index}") for index, image in enumerate(array.tolist())]
    if array.dtype.kind in "US":
        return [str(path) for path in array.ravel().tolist()]
    batch = layout is not None and layout.startswith("n")
    if layout is None and array.ndim == 4:
        batch = True
    if not batch:
        return [one(array, layout, value_range, "the image")]
    axes = axes_of(array.shape[1:], layout.removeprefix("n") if layout is not None else None, "the images")
    if array.shape[0] == 0:
        return []
    return of_batch(checked(array, value_range, "the images"), axes, "the images")
