"""Every form of image that is read: voxels, scaling and affine are those that nibabel gives."""

from __future__ import annotations

import gzip
import io
import itertools
import zlib

import nibabel as nib
import numpy as np
import pytest

from datasets import compression
from datasets.images import ImageHeader, VolumeError, open_image, read_header
from datasets.volumes import read_crop
from tests.datasets.image_bytes import (
    BOX,
    CONTRAST,
    SHAPE,
    analyze_parts,
    gzip_with_fields,
    mgh,
    nifti,
    nifti_parts,
    patched,
    some_values,
    write_pair,
)

NIFTI_TYPES = ("u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")
BACKENDS = ("libdeflate", "zlib_ng.zlib_ng", "zlib")
SCALINGS = {
    "none": (1.0, 0.0), "both": (0.25, -3.0), "negative": (-0.1, 7.3), "zero": (0.0, 5.0),
    "NaN": (np.nan, 5.0), "intercept alone": (1.0, 1000.5), "tiny": (1e-8, 0.0), "large": (1e6, -1e6),
}  # fmt: skip


def same_header(one: ImageHeader, other: ImageHeader) -> bool:
    plain = [name for name in vars(one) if name != "affine"]
    return all(getattr(one, n) == getattr(other, n) for n in plain) and np.array_equal(
        one.affine, other.affine
    )


def check_read(path, expected: np.ndarray, affine: np.ndarray) -> ImageHeader:
    """Header, scaled voxels and crop are the expected ones; `expected` is what get_fdata gives."""
    image = open_image(path)
    header = image.header
    assert same_header(header, read_header(path))
    shape = expected.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    assert header.shape == shape == image.voxels.shape and header.n_volumes == (*shape, 1)[3]
    scaled = image.voxels.astype(np.float64) * header.slope + header.intercept
    np.testing.assert_array_equal(scaled, expected.reshape(shape))
    np.testing.assert_array_equal(header.affine, affine)
    np.testing.assert_allclose(header.zooms, nib.affines.voxel_sizes(affine), rtol=1e-6)
    if len(shape) == 3:
        crop = read_crop(path, CONTRAST)
        assert crop.dtype == np.float32 and crop.flags.c_contiguous
        np.testing.assert_array_equal(crop, expected.reshape(shape)[BOX].astype(np.float32))
    return header


def check_as_nibabel(path) -> ImageHeader:
    image = nib.load(path)
    return check_read(path, image.get_fdata(), image.affine)


def check_content(path, content: bytes, of: bytes) -> ImageHeader:
    """`content` is written, and is the single-file NIfTI image `of`, however it is wrapped."""
    path.write_bytes(content)
    kind = nib.Nifti2Image if of[4:8] == b"n+2\x00" else nib.Nifti1Image
    image = kind.from_bytes(of)
    return check_read(path, image.get_fdata(), image.affine)


@pytest.fixture(params=BACKENDS)
def backend(request, monkeypatch):
    """Each library that decompresses, as if it were the only one."""
    if request.param == "libdeflate":
        pytest.importorskip("deflate")
    else:
        monkeypatch.setattr(compression, "_whole", None)
        monkeypatch.setattr(compression, "_STREAMING", pytest.importorskip(request.param))
    return request.param


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", NIFTI_TYPES)
def test_nifti_of_every_kind_of_number_and_byte_order(tmp_path, version, order, dtype):
    content = nifti(some_values("kinds", dtype, dtype=dtype), version, order)
    for name, form in (("a.nii", content), ("a.nii.gz", gzip.compress(content))):
        (tmp_path / name).write_bytes(form)
        header = check_as_nibabel(tmp_path / name)
        assert header.form == f"NIfTI-{version}" and header.positioned and header.axes == "LAS"
        assert header.dtype == np.dtype(dtype).newbyteorder(order)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize("scaling", SCALINGS)
def test_slope_and_intercept(tmp_path, order, dtype, scaling):
    slope, intercept = SCALINGS[scaling]
    values = some_values("scaled", dtype, dtype=dtype)
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(nifti(values, 1, order, scl_slope=slope, scl_inter=intercept)))
    header = check_as_nibabel(path)
    assert (header.slope, header.intercept) == (1.0, 0.0) or scaling not in ("none", "zero", "NaN")


@pytest.mark.parametrize(
    "name", ["a.nii", "a.nii.gz", "A.NII", "A.NII.GZ", "a.nii.GZ", "a", "a.b.c"]
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_single_file_is_known_by_its_content_not_by_its_name(tmp_path, name, packed):
    content = nifti(some_values("names"))
    check_content(tmp_path / name, gzip.compress(content) if packed else content, content)


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4"])
@pytest.mark.parametrize("name", ["a.mgz", "a.mgh", "A.MGZ", "A.MGH"])
def test_freesurfer_volumes(tmp_path, dtype, name):
    content = mgh(some_values("mgh", dtype, dtype=dtype))
    image = nib.MGHImage.from_bytes(content)
    for form in (content, gzip.compress(content)):
        (tmp_path / name).write_bytes(form)
        header = check_read(tmp_path / name, image.get_fdata(), image.affine)
        assert header.form == "MGH" and header.positioned and header.axes == "LAS"
    tagged = content + b"\x00\x00\x00\x03" + b"some command line" * 100
    (tmp_path / name).write_bytes(gzip.compress(tagged))
    check_read(tmp_path / name, image.get_fdata(), image.affine)


def test_a_freesurfer_volume_of_four_dimensions(tmp_path):
    (tmp_path / "a.mgz").write_bytes(gzip.compress(mgh(some_values("mgh4", shape=(*SHAPE, 3)))))
    assert check_as_nibabel(tmp_path / "a.mgz").n_volumes == 3


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("kind", ["Analyze", "NIfTI-1 pair", "NIfTI-2 pair"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8"])
def test_pairs(tmp_path, order, gz, kind, dtype):
    values = some_values("pairs", dtype, dtype=dtype)
    if kind == "Analyze":
        parts = analyze_parts(values, order)
    else:
        version = int(kind[6])
        parts = nifti_parts(values, version, order, single=False, scl_slope=0.5, scl_inter=2)
    path = write_pair(tmp_path, parts, gz)
    image = nib.load(path)
    for given in (path, path.with_name(path.name.replace(".hdr", ".img"))):
        header = check_read(given, image.get_fdata(), image.affine)
        assert header.positioned == (kind != "Analyze")
        assert header.form == kind or (kind == "Analyze" and "Analyze" in header.form)


def test_a_pair_with_upper_case_endings_an_offset_and_one_file_compressed(tmp_path):
    values = some_values("odd pair")
    header, voxels = nifti_parts(values, single=False, vox_offset=32.0)
    (tmp_path / "A.HDR").write_bytes(header)
    (tmp_path / "A.IMG").write_bytes(b"\xee" * 32 + voxels)
    check_read(tmp_path / "A.HDR", values.astype(float), CONTRAST.affine)
    (tmp_path / "b.hdr").write_bytes(header)
    (tmp_path / "b.img.gz").write_bytes(gzip.compress(b"\xee" * 32 + voxels))
    check_read(tmp_path / "b.hdr", values.astype(float), CONTRAST.affine)
    check_read(tmp_path / "b.img.gz", values.astype(float), CONTRAST.affine)


@pytest.mark.parametrize(
    "beginning", [b"{}", b"  {", b"<html", b"PK\x03\x04", b"II*\x00", b"\x80\x04.", b"n+1"]
)
def test_voxels_of_a_pair_may_begin_with_anything(tmp_path, beginning):
    values = some_values("anything", dtype="u1")
    content = beginning + values.tobytes("F")[len(beginning) :]
    values = np.frombuffer(content, "u1").reshape(SHAPE, order="F")
    path = write_pair(tmp_path, nifti_parts(values, single=False))
    for given in (path, path.with_suffix(".img")):
        check_read(given, values.astype(float), CONTRAST.affine)


def test_an_spm_pair_keeps_its_slope(tmp_path):
    image = nib.Spm2AnalyzeImage(some_values("spm"), None)
    image.header["scl_slope"] = 0.125
    image.header.set_zooms((8, 8, 8))
    header = bytearray(image.header.binaryblock)
    (tmp_path / "a.hdr").write_bytes(bytes(header))
    (tmp_path / "a.img").write_bytes(some_values("spm").tobytes("F"))
    assert check_as_nibabel(tmp_path / "a.img").slope == 0.125


@pytest.mark.parametrize("cuts", [(1,), (10,), (347,), (348,), (352,), (1000,), (0, 5, 5, 400), ()])
def test_several_gzip_members(tmp_path, backend, cuts):
    content = nifti(some_values("members"))
    cuts = cuts or tuple(range(0, len(content), 7))  # a member for each 7 bytes
    edges = [0, *cuts, len(content)]
    members = [gzip.compress(content[a:b]) for a, b in itertools.pairwise(edges)]
    check_content(tmp_path / "a.nii.gz", b"".join(members), content)
    padded = b"".join(member + b"\x00" * 3 for member in members)
    check_content(tmp_path / "b.nii.gz", padded, content)


@pytest.mark.parametrize("n_zeros", [1, 7, 512, 100_000])
def test_zeros_after_the_compressed_data(tmp_path, backend, n_zeros):
    content = nifti(some_values("padding"))
    check_content(tmp_path / "a.nii.gz", gzip.compress(content) + b"\x00" * n_zeros, content)


@pytest.mark.parametrize(
    "fields",
    [
        {"name": b"sub-01_T1w.nii"},
        {"note": "von Müller".encode("latin-1")},
        {"extra": b"BC\x02\x00\x11\x22"},
        {"extra": b"e" * 65_535, "name": b"n" * 70_000, "note": b"c" * 70_000},
    ],
)
def test_fields_of_the_gzip_header(tmp_path, backend, fields):
    content = nifti(some_values("gzip fields"))
    check_content(tmp_path / "a.nii.gz", gzip_with_fields(content, **fields), content)


@pytest.mark.parametrize("level", [0, 1, 9])
def test_levels_of_compression(tmp_path, backend, level):
    for values in (
        some_values("levels", dtype="f4"),
        np.ones(SHAPE, "i2") * np.arange(9, dtype="i2"),
    ):
        content = nifti(values)
        check_content(tmp_path / "a.nii.gz", gzip.compress(content, level), content)


def test_every_library_reads_a_megabyte_alike(tmp_path, backend):
    """More than a piece and many chunks; half of it compresses well."""
    values = some_values("megabyte", shape=(64, 64, 128), dtype="i2")
    values[:, :, 64:] //= 4096
    content = nifti(values)
    whole, half = gzip.compress(content, 6), len(content) // 2
    assert bytes(compression.decompressed(whole, len(content))) == content
    two = gzip.compress(content[:half], 1) + gzip.compress(content[half:], 9)
    assert bytes(compression.decompressed(two, len(content))) == content
    zeros = bytes(5_000_000)
    assert bytes(compression.decompressed(gzip.compress(zeros), len(zeros))) == zeros
    for damaged in (whole[:-1], whole + b"x", patched(whole, len(whole) - 6, b"\x00")):
        with pytest.raises(compression.DamagedGzipError):
            compression.decompressed(damaged, len(content))
    assert compression.library() == {"libdeflate": "libdeflate"}.get(
        backend, backend.split(".")[-1].replace("_", "-")
    )


def test_extensions_come_before_the_voxels(tmp_path):
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        image = kind(some_values("extended"), CONTRAST.affine)
        for text in (b"comment", b"x" * 5000):
            image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", text))
        nib.save(image, tmp_path / "a.nii.gz")
        assert nib.load(tmp_path / "a.nii.gz").dataobj.offset > 5000
        check_as_nibabel(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("offset", [353, 355, 360, 1000])
@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8"])
def test_voxels_at_any_offset(tmp_path, offset, dtype):
    content = nifti(some_values("offset", dtype, dtype=dtype), vox_offset=offset)
    content = content[:352] + b"\xaa" * (offset - 352) + content[352:]
    for name, form in (("a.nii", content), ("a.nii.gz", gzip.compress(content))):
        check_content(tmp_path / name, form, content)


@pytest.mark.parametrize(
    "shape", [(*SHAPE, 1), (*SHAPE, 1, 1), (*SHAPE, 1, 1, 1, 1), (*SHAPE, 3, 1)]
)
def test_trailing_dimensions_of_one(tmp_path, shape):
    (tmp_path / "a.nii").write_bytes(nifti(some_values("trailing", shape=shape)))
    assert check_as_nibabel(tmp_path / "a.nii").n_volumes == (*shape, 1)[3]


def test_one_volume_of_a_file_of_several(tmp_path):
    values = some_values("several", shape=(*SHAPE, 3))
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(nifti(values)))
    image = open_image(tmp_path / "a.nii.gz")
    for index in range(3):
        np.testing.assert_array_equal(image.volume(index), values[..., index])


@pytest.mark.parametrize(
    "name", ["with space.nii.gz", "Müller_ß_脳.nii.gz", "0007.nii.gz", "-x.nii.gz"]
)
def test_any_name_and_a_symbolic_link(tmp_path, name):
    content = nifti(some_values("paths"))
    folder = tmp_path / "ein Ordner ü"
    folder.mkdir()
    check_content(folder / name, gzip.compress(content), content)
    (tmp_path / "link.nii.gz").symlink_to(folder / name)
    (tmp_path / "linked").symlink_to(folder)
    for path in (tmp_path / "link.nii.gz", tmp_path / "linked" / name):
        check_read(path, some_values("paths").astype(float), CONTRAST.affine)
    assert np.array_equal(open_image(str(folder / name)).voxels, some_values("paths"))


def test_a_path_relative_to_here(tmp_path, monkeypatch):
    (tmp_path / "a.nii").write_bytes(nifti(some_values("relative")))
    monkeypatch.chdir(tmp_path)
    check_as_nibabel("a.nii")


@pytest.mark.parametrize("fields", [
    {"sform_code": 0}, {"qform_code": 0}, {"sform_code": 0, "qform_code": 0}, {"sform_code": 1},
    {"pixdim": [-1, 8, 8, 8, 0, 0, 0, 0]}, {"pixdim": [0, 8, 8, 8, 1, 1, 1, 1]},
    {"pixdim": [1, -8, 8, 8, 0, 0, 0, 0]}, {"bitpix": 0}, {"intent_code": 1001}, {"xyzt_units": 99},
    {"cal_max": np.nan}, {"descrip": b"\xff" * 80}, {"quatern_b": 9.0}, {"pixdim": [1, 8, 8, 8] + [np.nan] * 4},
])  # fmt: skip
def test_fields_that_are_odd_and_do_no_harm(tmp_path, fields):
    (tmp_path / "a.nii").write_bytes(nifti(some_values("odd"), **fields))
    image = nib.load(tmp_path / "a.nii")
    codes = [fields.get(name, 4) for name in ("sform_code", "qform_code")]
    header = read_header(tmp_path / "a.nii")
    assert header.positioned == any(codes)
    np.testing.assert_array_equal(header.affine, image.affine)
    np.testing.assert_array_equal(open_image(tmp_path / "a.nii").voxels, image.get_fdata())


def test_other_forms_that_nibabel_reads_come_with_their_own_scaling(tmp_path):
    """AFNI's BRIK scales each volume on its own."""
    values = some_values("afni", dtype="i2")
    (tmp_path / "a+orig.BRIK").write_bytes(values.tobytes("F"))
    attributes = [
        ("string", "IDCODE_STRING", "x"), ("string", "TYPESTRING", "3DIM_HEAD_ANAT"),
        ("string", "BYTEORDER_STRING", "LSB_FIRST"), ("string", "TEMPLATE_SPACE", "ORIG"),
        ("integer", "DATASET_DIMENSIONS", "10 12 9 0 0"), ("integer", "DATASET_RANK", "3 1 0 0 0 0 0 0"),
        ("integer", "BRICK_TYPES", "1"), ("float", "BRICK_FLOAT_FACS", "0.5"),
        ("integer", "ORIENT_SPECIFIC", "1 2 4"), ("integer", "SCENE_DATA", "0 2 0"),
        ("float", "ORIGIN", "-90 126 -72"), ("float", "DELTA", "8 -8 8"),
        ("float", "IJK_TO_DICOM_REAL", "8 0 0 -90 0 -8 0 126 0 0 8 -72"),
    ]  # fmt: skip
    lines = []
    for kind, name, value in attributes:
        count = len(value) + 1 if kind == "string" else len(value.split())
        shown = f"'{value}~" if kind == "string" else f" {value}"
        lines.append(f"type = {kind}-attribute\nname = {name}\ncount = {count}\n{shown}\n")
    (tmp_path / "a+orig.HEAD").write_text("\n" + "\n".join(lines))
    expected = nib.load(tmp_path / "a+orig.BRIK").get_fdata()
    assert np.array_equal(expected.reshape(SHAPE), values * 0.5)
    np.testing.assert_array_equal(open_image(tmp_path / "a+orig.BRIK").voxels, values * 0.5)


def test_reading_a_header_decompresses_the_beginning_alone(tmp_path, monkeypatch):
    values = some_values("beginning", shape=(96, 96, 96))
    content = gzip.compress(nifti(values, vox_offset=352), 1)
    (tmp_path / "a.nii.gz").write_bytes(content[:80_000])  # the rest is not there
    read = []
    real = zlib.decompressobj

    class Counting:
        def __init__(self, *words):
            self.object = real(*words)

        def decompress(self, given, most):
            found = self.object.decompress(given, most)
            read.append((len(given), len(found)))
            return found

        def __getattr__(self, name):
            return getattr(self.object, name)

    monkeypatch.setattr(compression.zlib, "decompressobj", Counting)
    monkeypatch.setattr(compression, "decompressed", None)
    # 96^3 voxels do not fit into what is there, and a header alone must not mind
    header = read_header(tmp_path / "a.nii.gz")
    assert header.shape == (96, 96, 96)
    assert sum(n for n, _ in read) <= 32_768 and sum(n for _, n in read) <= 1024


def test_first_bytes_go_through_members_and_stop(tmp_path):
    content = bytes(range(256)) * 8
    members = b"".join(gzip.compress(content[i : i + 100]) for i in range(0, len(content), 100))
    for n_bytes in (1, 99, 100, 101, 1024, 2048, 9999):
        assert compression.first_bytes(io.BytesIO(members), n_bytes) == content[:n_bytes]
    assert compression.first_bytes(io.BytesIO(members[:400]), 2048) == content[: len(
        compression.first_bytes(io.BytesIO(members[:400]), 2048)
    )]  # fmt: skip
    with pytest.raises(compression.DamagedGzipError):
        compression.first_bytes(io.BytesIO(b"\x1f\x8b\x07" + bytes(30)), 10)


def test_many_members_take_no_time_of_their_own():
    """BGZF has a member for each 64 KiB; what follows a member is not copied for each of them."""
    piece = gzip.compress(bytes(65_280), 1)
    n_members = 3000
    assert len(compression._streamed(piece * n_members, 65_280 * n_members)) == 65_280 * n_members
    with pytest.raises(compression.DamagedGzipError, match="it has 0 of the 10 bytes"):
        compression._streamed(gzip.compress(b"") * 50_000, 10)


def test_headers_say_what_they_hold(tmp_path):
    (tmp_path / "a.nii").write_bytes(nifti(some_values("says", shape=(*SHAPE, 5), dtype="f4")))
    header = read_header(tmp_path / "a.nii")
    assert header.n_volumes == 5 and header.n_voxel_bytes == 10 * 12 * 9 * 5 * 4
    assert header.zooms == (8.0, 8.0, 8.0)
    with pytest.raises(VolumeError, match="no such file"):
        read_header(tmp_path / "b.nii")
