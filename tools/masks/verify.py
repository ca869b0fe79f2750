"""Masks of melo held to pydicom, highdicom, nibabel and Pillow: see README.md."""

import subprocess
import sys
import tempfile
import warnings
import zlib
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
from PIL import Image
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

PROGRAM = sys.argv[1]
held = 0


def run(*arguments):
    return subprocess.run([PROGRAM, *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def check(what, truth):
    global held
    if not truth:
        sys.exit(f"FAILED: {what}")
    held += 1


def said(labels):
    labels = np.ascontiguousarray(labels, np.uint8)
    return [str(labels.shape[1]), str(labels.shape[0]), f"{zlib.crc32(labels.tobytes()):08x}"]


def reads(path, labels, image=None):
    """The file is read as these labels, [rows, columns]."""
    out = run("image", image, path) if image else run("read", path)
    check(f"{path} is read as other software reads it", out.split()[:3] == said(labels))


def blobs(rows, columns, classes, seed=0):
    random = np.random.default_rng(seed)
    coarse = random.integers(0, classes, (rows // 7 + 1, columns // 7 + 1))
    return np.kron(coarse, np.ones((7, 7), int))[:rows, :columns].astype(np.uint8)


def pictures(folder):
    labels = blobs(45, 61, 4)
    palette = np.random.default_rng(1).integers(0, 256, 768).astype(np.uint8).tobytes()
    indexed = Image.fromarray(labels, "L").convert("P")
    indexed.putdata(labels.flatten().tolist())
    indexed.putpalette(palette)
    for name, image, options in [
        ("grey.png", Image.fromarray(labels), {}),
        ("palette.png", indexed, {}),
        ("palette2.png", indexed, {"bits": 2}),
        ("sixteen.png", Image.fromarray(labels.astype(np.uint16)), {}),
        ("rgb.png", Image.fromarray(labels).convert("RGB"), {}),
        ("grey.tif", Image.fromarray(labels), {}),
        ("lzw.tif", Image.fromarray(labels), {"compression": "tiff_lzw"}),
        ("palette.tif", indexed, {}),
        ("sixteen.tif", Image.fromarray(labels.astype(np.uint16)), {}),
        ("grey.bmp", Image.fromarray(labels), {}),
        ("grey.gif", Image.fromarray(labels), {}),
    ]:
        image.save(folder / name, **options)
        reads(folder / name, labels)
    bits = Image.fromarray((labels > 1).astype(np.uint8) * 255).convert("1")
    bits.save(folder / "one.png")
    reads(folder / "one.png", labels > 1)
    np.save(folder / "labels.npy", labels.astype(np.int64))
    reads(folder / "labels.npy", labels)


def written_picture(folder):
    labels = blobs(45, 61, 3)
    Image.fromarray(labels).save(folder / "in.png")
    run("write", folder, folder / "in.png")
    image = Image.open(folder / "mask.png")
    check("a written PNG has a palette", image.mode == "P")
    check("a written PNG has the indices", np.array_equal(np.array(image), labels))
    check("a written PNG has the colours", image.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0])
    volume = nibabel.load(folder / "mask.nii.gz")
    check("NIfTI without a space is ITK's", np.array_equal(volume.affine, np.diag([-1, -1, 1, 1])))
    check("NIfTI without a space holds the labels", np.array_equal(np.asarray(volume.dataobj)[:, :, 0].T, labels))
    check("NIfTI is uint8", volume.get_data_dtype() == np.uint8)
    reads(folder / "mask.nii.gz", labels)


def volumes(folder):
    labels = np.stack([blobs(20, 30, 3, seed) for seed in range(9)], 2).transpose(1, 0, 2)
    spin = nibabel.eulerangles.euler2mat(0.3, 0.2, -0.1) if hasattr(nibabel, "eulerangles") else np.eye(3)
    for flips in [(1, 1), (-1, -1), (-1, 1), (1, -1)]:
        affine = np.eye(4)
        affine[:3, :3] = spin @ np.diag([*flips, 1]) @ np.diag([0.7, 0.8, 2.5])
        affine[:3, 3] = [10, -20, 30]
        # The slice as radiologists see it: right of the patient on the left, front above.
        shown = labels[:, :, 4]
        shown = shown[::-1] if flips[0] > 0 else shown
        shown = shown[:, ::-1] if flips[1] > 0 else shown
        for name, kind in [("byte", np.uint8), ("word", np.int16), ("real", np.float64), ("swapped", ">i2")]:
            path = folder / f"{name}.nii.gz"
            header = nibabel.Nifti1Header(endianness=">") if name == "swapped" else None
            image = nibabel.Nifti1Image(labels.astype(kind), affine, header)
            image.to_filename(path)
            reads(path, shown.T)
            Image.fromarray(np.ascontiguousarray(shown.T)).save(folder / "in.png")
            run("write", folder, folder / "in.png", path)
            back = nibabel.load(folder / "mask.nii.gz")
            check("written NIfTI has the geometry of its source", np.array_equal(back.affine, nibabel.load(path).affine))
            check("written NIfTI is uint8", back.get_data_dtype() in (np.uint8, np.dtype("u1")))
            expected = np.zeros_like(labels)
            expected[:, :, 4] = labels[:, :, 4]
            check("written NIfTI has the labels in their slice", np.array_equal(np.asarray(back.dataobj), expected))
            reads(folder / "mask.nii.gz", shown.T)
        # nibabel leaves numbers as they are where a slope is set: 5 times 0.2 is nearly 1.
        scaled = nibabel.Nifti1Image(labels.astype(np.int16) * 5, affine)
        scaled.header.set_slope_inter(0.2, 0)
        path = folder / "scaled.nii.gz"
        scaled.to_filename(path)
        reads(path, shown.T)


def source(kind, rows, columns, series, z=0.0):
    """A made-up image of one slice."""
    image = pydicom.Dataset()
    image.file_meta = pydicom.dataset.FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID = {"CT": "1.2.840.10008.5.1.4.1.1.2", "CR": "1.2.840.10008.5.1.4.1.1.1"}[kind]
    image.SOPInstanceUID = generate_uid()
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.SpecificCharacterSet = "ISO_IR 100"
    image.PatientName, image.PatientID = "Müller^Jörg", "7"
    image.PatientBirthDate, image.PatientSex = "", "M"
    image.StudyInstanceUID, image.SeriesInstanceUID = series
    image.StudyDate, image.StudyTime, image.AccessionNumber, image.ReferringPhysicianName = "20250101", "101010", "", ""
    image.StudyID, image.SeriesNumber, image.InstanceNumber = "1", 1, 1
    image.Modality, image.Manufacturer = kind, "nobody"
    if kind == "CT":
        image.FrameOfReferenceUID, image.PositionReferenceIndicator = series[0] + ".9", ""
        image.ImagePositionPatient = [-10.5, 20.25, z]
        image.ImageOrientationPatient = [1, 0, 0, 0, 0.8, 0.6]
        image.PixelSpacing, image.SliceThickness = [0.5, 0.75], 2
    image.Rows, image.Columns, image.SamplesPerPixel = rows, columns, 1
    image.PhotometricInterpretation, image.PixelRepresentation = "MONOCHROME2", 0
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.PixelData = np.zeros((rows, columns), np.uint16).tobytes()
    return image


def written_segmentation(folder, kind):
    # Frames that do not begin at a byte.
    rows, columns = 37, 43
    labels = blobs(rows, columns, 3)
    image = source(kind, rows, columns, (generate_uid(), generate_uid()))
    image.save_as(folder / "image.dcm", enforce_file_format=True)
    Image.fromarray(labels).save(folder / "in.png")
    run("write", folder, folder / "in.png", folder / "image.dcm")
    plain = pydicom.dcmread(folder / "mask.dcm")
    frames = plain.pixel_array
    check("pydicom reads three frames", frames.shape == (3, rows, columns))
    for segment in (1, 2, 3):
        check(f"pydicom's frame {segment} is the class", np.array_equal(frames[segment - 1], labels == segment))
    check("the patient is the image's", str(plain.PatientName) == "Müller^Jörg" and plain.PatientID == "7")
    check("the study is the image's", plain.StudyInstanceUID == image.StudyInstanceUID)
    check("the series is its own", plain.SeriesInstanceUID != image.SeriesInstanceUID)
    segmentation = highdicom.seg.segread(folder / "mask.dcm")
    check("highdicom counts the segments", segmentation.number_of_segments == 3)
    check("highdicom finds the algorithm", segmentation.get_segment_description(1).SegmentAlgorithmName == "polyps")
    check("highdicom finds the code", segmentation.get_segment_description(1).segmented_property_type.value == "41329004")
    check("highdicom finds the names", segmentation.get_segment_numbers(segment_label="polyp") == [1])
    pixels = segmentation.get_pixels_by_source_instance([image.SOPInstanceUID], combine_segments=True)
    check("highdicom's combined segments are the labels", np.array_equal(pixels[0], labels))
    if kind == "CT":
        check("the frame of reference is the image's", segmentation.FrameOfReferenceUID == image.FrameOfReferenceUID)
        volume = segmentation.get_volume(combine_segments=True)
        check("highdicom's volume is the labels", np.array_equal(volume.array[0], labels))
        check("highdicom's spacing is the image's", np.allclose(volume.pixel_spacing, (0.5, 0.75)))
        check("highdicom's position is the image's", np.allclose(volume.position, (-10.5, 20.25, 0)))
        check("highdicom's orientation is the image's", np.allclose(volume.direction_cosines, (1, 0, 0, 0, 0.8, 0.6)))
    reads(folder / "mask.dcm", labels)
    reads(folder / "mask.dcm", labels, folder / "image.dcm")


def read_segmentation(folder, kind):
    """Segmentations that highdicom writes, of a series."""
    rows, columns, uids = 30, 22, (generate_uid(), generate_uid())
    images = [source("CT", rows, columns, uids, float(z)) for z in range(4)]
    labels = np.stack([blobs(rows, columns, 3, seed) for seed in range(4)])
    # A slice without a segment, which is left out of the file.
    labels[2] = 0
    description = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=f"class {number}",
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Neoplasm,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number in (1, 2)
    ]
    segmentation = highdicom.seg.Segmentation(
        source_images=images,
        pixel_array=labels,
        segmentation_type=kind,
        segment_descriptions=description,
        series_instance_uid=generate_uid(),
        series_number=2,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="nobody",
        manufacturer_model_name="none",
        software_versions="1",
        device_serial_number="1",
    )
    segmentation.save_as(folder / "seg.dcm")
    for image, slice_labels in zip(images, labels):
        image.save_as(folder / "image.dcm", enforce_file_format=True)
        reads(folder / "seg.dcm", slice_labels, folder / "image.dcm")
    refused = subprocess.run([PROGRAM, "read", folder / "seg.dcm"], capture_output=True, text=True)
    check("of several slices none is guessed", refused.returncode != 0 and "slices" in refused.stderr)


def sets(folders):
    for folder in folders:
        masks = sorted(Path(folder).glob("*.png"))
        for line, path in zip(run("read", *masks).splitlines(), masks):
            check(f"{path} is what Pillow reads", line.split()[:3] == said(np.array(Image.open(path))))


def main():
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        pictures(folder)
        written_picture(folder)
        volumes(folder)
        for kind in ("CT", "CR"):
            written_segmentation(folder, kind)
        for kind in ("BINARY", "LABELMAP"):
            read_segmentation(folder, kind)
    sets(sys.argv[2:])
    print(f"{held} comparisons held")


main()
