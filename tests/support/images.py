"""Images of every kind, written by hand and by OpenCV, for tests of decoders."""

import struct
import zlib

import cv2
import numpy as np

OPENCV = tuple(int(part) for part in cv2.__version__.split(".")[:2])


def picture(height=40, width=60, channels=3, dtype=np.uint8):
    """A smooth RGB(A) picture without symmetry: red grows to the right, green downwards."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [x * 255 / width, y * 255 / height, (x + y) * 127 / (height + width)]
    planes.append(255 - planes[2])
    image = np.stack(planes[:channels], axis=-1)
    if dtype == np.uint16:
        return (image * 257).astype(dtype)
    if np.dtype(dtype).kind == "f":
        return (image / 255).astype(dtype)
    return image.astype(dtype)


def encoded(suffix, image, *flags):
    """The bytes OpenCV writes for an RGB(A) picture."""
    if image.shape[-1] == 3:
        image = image[..., ::-1]
    elif image.shape[-1] == 4:
        image = image[..., [2, 1, 0, 3]]
    done, buffer = cv2.imencode(suffix, np.ascontiguousarray(image), list(flags))
    assert done
    return buffer.tobytes()


def exif(orientation, order="<"):
    """A TIFF directory with only the orientation."""
    start = b"II*\0" if order == "<" else b"MM\0*"
    return start + struct.pack(order + "IHHHIHHI", 8, 1, 274, 3, 1, orientation, 0, 0)


def jpeg_with_exif(raw, orientation, order="<", thumbnail=b""):
    """The JPEG with an EXIF segment after its start marker."""
    body = b"Exif\0\0" + exif(orientation, order) + thumbnail
    return raw[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + raw[2:]


def png_chunk(kind, body):
    """One chunk with its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with_exif(raw, orientation):
    """The PNG with an eXIf chunk after its header."""
    return raw[:33] + png_chunk(b"eXIf", exif(orientation)) + raw[33:]


def webp_with_exif(raw, orientation, height, width):
    """The simple WebP as an extended one with an EXIF chunk."""
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    alpha = 0x10 if raw[12:16] == b"VP8L" and raw[24] & 0x10 else 0
    chunks = b"VP8X" + struct.pack("<I", 10) + bytes([8 | alpha, 0, 0, 0]) + size + raw[12:]
    body = exif(orientation)
    chunks += b"EXIF" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks


def tiff(image, orientation=1, pages=1):
    """An uncompressed RGB TIFF by hand; the second page is the first one inverted."""
    height, width, channels = image.shape
    raw = b"II*\0" + struct.pack("<I", 8)
    for page in range(pages):
        start, entries = len(raw), 10
        data_at = start + 2 + 12 * entries + 4 + 8
        data = (image if page == 0 else 255 - image).tobytes()
        fields = [
            (256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, data_at - 8), (259, 3, 1, 1),
            (262, 3, 1, 2), (273, 4, 1, data_at), (274, 3, 1, orientation), (277, 3, 1, channels),
            (278, 3, 1, height), (279, 4, 1, len(data)),
        ]  # fmt: skip
        raw += struct.pack("<H", entries)
        for tag, kind, count, value in fields:
            raw += struct.pack("<HHII", tag, kind, count, value)
        raw += struct.pack("<I", data_at + len(data) if page + 1 < pages else 0)
        raw += struct.pack("<HHHH", 8, 8, 8, 0) + data
    return raw


def turned(image, orientation):
    """The image as a viewer shows it: EXIF's definition, in NumPy."""
    return {
        1: image,
        2: image[:, ::-1],
        3: image[::-1, ::-1],
        4: image[::-1],
        5: image.transpose(1, 0, 2),
        6: image[::-1].transpose(1, 0, 2),
        7: image[::-1, ::-1].transpose(1, 0, 2),
        8: image[:, ::-1].transpose(1, 0, 2),
    }[orientation]


def kinds():
    """One small file of each kind, by name."""
    image = picture(24, 32)
    files = {
        "jpeg": encoded(".jpg", image),
        "progressive": encoded(".jpg", image, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        "exif": jpeg_with_exif(encoded(".jpg", image), 3, thumbnail=encoded(".jpg", image[:8, :8])),
        "png": encoded(".png", image),
        "bmp": encoded(".bmp", image),
        "webp": encoded(".webp", image),
        "lossless webp": encoded(".webp", image, cv2.IMWRITE_WEBP_QUALITY, 101),
        "tiff": encoded(".tiff", image),
        "plain tiff": tiff(image),
    }
    if OPENCV >= (4, 12):
        files["gif"] = encoded(".gif", image)
    return files


def npy_header(descr="'<f4'", shape="(2, 3)", extra=""):
    """An .npy header by hand."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, {extra}}}\n".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text
