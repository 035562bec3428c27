"""A folder of photos and masks in which nearly every pair is broken in its own way, and what must be said of each."""

from __future__ import annotations

import io
import os
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from crack_sweeps.data.examination import PairFacts, examine
from crack_sweeps.data.photos import ResolvedMaskRule

HEIGHT, WIDTH = 60, 80
NUM_SOUND = 12

Photo = np.ndarray
Writer = Callable[["Pair"], None]


class Pair:
    """A sound photo and mask, about to be broken."""

    def __init__(self, root: Path, name: str, number: int) -> None:
        self.root, self.name = root, name
        rng = np.random.default_rng(number)
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        points = np.array([[0, rng.integers(5, 55)], [40, rng.integers(5, 55)], [79, rng.integers(5, 55)]], np.int32)
        cv2.polylines(mask, [points.reshape(-1, 1, 2)], False, 255, 3)
        self.mask = mask
        broad = cv2.resize(rng.integers(110, 200, (12, 16, 3), dtype=np.uint8), (WIDTH, HEIGHT))
        self.photo = np.clip(broad + rng.normal(0, 6, (HEIGHT, WIDTH, 3)), 0, 255).astype(np.uint8)
        self.photo[mask > 0] //= 3

    def image_path(self, ending: str = "png") -> Path:
        return self.root / "images" / f"{self.name}.{ending}"

    def mask_path(self, ending: str = "png") -> Path:
        return self.root / "masks" / f"{self.name}.{ending}"

    def write_photo(self, mode: str | None = None, ending: str = "png", **options: object) -> Path:
        image = Image.fromarray(self.photo)
        path = self.image_path(ending)
        (image.convert(mode) if mode else image).save(path, **options)
        return path

    def write_mask(self, values: np.ndarray | None = None, mode: str | None = None, ending: str = "png") -> Path:
        image = Image.fromarray(self.mask if values is None else values)
        path = self.mask_path(ending)
        (image.convert(mode) if mode else image).save(path)
        return path


def build(root: Path) -> dict[str, tuple[str, str, str]]:
    """Write the folder; for each broken pair the severity, the file's name and words of the cause."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for number in range(NUM_SOUND):
        pair = Pair(root, f"sound_{chr(97 + number)}", 1000 + number)
        pair.write_photo()
        pair.write_mask()
    expected = {}
    for number, (name, (write, severity, file, words)) in enumerate(BROKEN.items()):
        write(Pair(root, name, number))
        expected[name] = (severity, file.format(name=name), words)
    return expected


def cut(path: Path, share: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])


def huge_png(path: Path) -> None:
    """20,000 x 20,000 px, as its header says; 50 kB."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)

    side = (20_000).to_bytes(4)
    rows = zlib.compress(bytes(20_000 * (1 + 2_500)), 9)
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", side + side + bytes([1, 0, 0, 0, 0]))
    path.write_bytes(head + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


# --- broken photos -------------------------------------------------------------------------------


def photo_of_bytes(content: bytes) -> Writer:
    def write(pair: Pair) -> None:
        pair.image_path("jpg").write_bytes(content)
        pair.write_mask()

    return write


def cut_photo(ending: str, share: float) -> Writer:
    def write(pair: Pair) -> None:
        cut(pair.write_photo(ending=ending), share)
        pair.write_mask()

    return write


def photo_in(mode: str, ending: str = "png") -> Writer:
    def write(pair: Pair) -> None:
        pair.write_photo(mode, ending)
        pair.write_mask()

    return write


def photo_16_bit(pair: Pair) -> None:
    grey = pair.photo.mean(axis=2)
    Image.fromarray((grey * 256).astype(np.uint16)).save(pair.image_path())
    pair.write_mask()


def photo_of_floats(pair: Pair) -> None:
    Image.fromarray(pair.photo.mean(axis=2).astype(np.float32) / 255).save(pair.image_path("tif"))
    pair.write_mask()


def photo_wrong_size(pair: Pair) -> None:
    pair.photo = np.pad(pair.photo, ((0, 7), (0, 3), (0, 0)))
    pair.write_photo()
    pair.write_mask()


def photo_turned_by_exif(pair: Pair, *, mask_too: bool = False) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pair.write_photo(ending="jpg", exif=exif)
    pair.write_mask(np.rot90(pair.mask, -1).copy() if mask_too else None)


def photo_and_mask_turned(pair: Pair) -> None:
    photo_turned_by_exif(pair, mask_too=True)


def huge_photo(pair: Pair) -> None:
    huge_png(pair.image_path())
    pair.write_mask()


def flipped_bits(pair: Pair) -> None:
    path = pair.write_photo()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    pair.write_mask()


# --- broken masks --------------------------------------------------------------------------------


def mask_made(made: Callable[[np.ndarray], np.ndarray], mode: str | None = None, ending: str = "png") -> Writer:
    def write(pair: Pair) -> None:
        pair.write_photo()
        pair.write_mask(made(pair.mask), mode, ending)

    return write


def mask_of_bytes(content: bytes, ending: str = "png") -> Writer:
    def write(pair: Pair) -> None:
        pair.write_photo()
        pair.mask_path(ending).write_bytes(content)

    return write


def cut_mask(pair: Pair) -> None:
    pair.write_photo()
    cut(pair.write_mask(), 0.6)


def palette_mask(pair: Pair) -> None:
    pair.write_photo()
    image = Image.frombytes("P", (WIDTH, HEIGHT), (pair.mask // 255).tobytes())
    image.putpalette([0, 0, 0, 200, 30, 30])
    image.save(pair.mask_path())


def huge_mask(pair: Pair) -> None:
    pair.write_photo()
    huge_png(pair.mask_path())


def coloured(mask: np.ndarray) -> np.ndarray:
    return np.stack([mask // 2, mask // 10, np.zeros_like(mask)], axis=2)


def transparent(mask: np.ndarray) -> np.ndarray:
    return np.stack([np.zeros_like(mask)] * 3 + [mask], axis=2)


def antialiased(mask: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(mask, (0, 0), 1.5)


def halves(mask: np.ndarray) -> np.ndarray:
    return mask.astype(np.float32) / 510


def labels(mask: np.ndarray) -> np.ndarray:
    planks = mask.copy()
    planks[:6] = 204
    return planks


# --- broken names and contents -------------------------------------------------------------------


def two_photos(pair: Pair) -> None:
    pair.write_photo()
    pair.write_photo(ending="jpg")
    pair.write_mask()


def two_masks(pair: Pair) -> None:
    pair.write_photo()
    for word in ("mask", "gt"):
        Image.fromarray(pair.mask).save(pair.root / "masks" / f"{pair.name}_{word}.png")


def photo_alone(pair: Pair) -> None:
    pair.write_photo()


def mask_alone(pair: Pair) -> None:
    pair.write_mask()


def unprintable(pair: Pair) -> None:
    with open(os.fsencode(pair.root / "images") + b"/bell\x07.png", "wb") as file:
        file.write(pair.write_photo().read_bytes())
    pair.write_mask()


def copied(pair: Pair) -> None:
    path = pair.write_photo()
    pair.write_mask()
    (pair.root / "images" / f"{pair.name}2.png").write_bytes(path.read_bytes())
    Image.fromarray(255 - (255 - pair.mask)).save(pair.root / "masks" / f"{pair.name}2.png")


def turned_copy(pair: Pair) -> None:
    pair.write_photo()
    pair.write_mask()
    Image.fromarray(np.rot90(pair.photo).copy()).save(pair.root / "images" / f"{pair.name}2.png")
    Image.fromarray(np.rot90(pair.mask).copy()).save(pair.root / "masks" / f"{pair.name}2.png")


def copy_saved_anew(pair: Pair) -> None:
    pair.write_photo()
    pair.write_mask()
    Image.fromarray(pair.photo).save(pair.root / "images" / f"{pair.name}2.jpg", quality=80)
    thicker = cv2.dilate(pair.mask, np.ones((2, 2), np.uint8))
    Image.fromarray(thicker).save(pair.root / "masks" / f"{pair.name}2.png")


def one_mask_for_two(pair: Pair) -> None:
    pair.write_photo()
    mask = pair.write_mask()
    other = Pair(pair.root, f"{pair.name}2", 5000)
    other.photo[pair.mask > 0] //= 3
    other.write_photo()
    other.mask_path().write_bytes(mask.read_bytes())


def other_photos_mask(pair: Pair) -> None:
    mask = np.zeros_like(pair.mask)
    rows = np.flatnonzero(pair.mask.max(axis=1))
    top = 4 if rows.min() > 25 else HEIGHT - 10
    mask[top : top + 3] = 255
    pair.photo[top - 4 : top + 8] = np.clip(  # whatever the noise did, nothing is darker here
        np.random.default_rng(9).normal(150, 12, (12, WIDTH, 3)), 0, 255
    )[: HEIGHT - top + 4]
    pair.write_photo()
    pair.write_mask(mask)


def accents(pair: Pair) -> None:
    """A photo whose name macOS wrote, a mask whose name Linux wrote; they are a pair all the same."""
    name = "mur_fêlé"
    Image.fromarray(pair.photo).save(pair.root / "images" / f"{unicodedata.normalize('NFD', name)}.png")
    turned = 255 - pair.mask
    Image.fromarray(turned).save(pair.root / "masks" / f"{unicodedata.normalize('NFC', name)}.png")


def jpeg_bytes() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG")
    return stream.getvalue()


def dies_of_sound_c(image: Path, mask: Path, rule: ResolvedMaskRule | None, *, widths: bool) -> PairFacts:
    """Stands in for a decoder that crashes on one file."""
    if image.name == "sound_c.png":
        os._exit(9)
    return examine(image, mask, rule, widths=widths)


PAGE = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"

# name: how it is broken, and the severity, file and words that must be told.
BROKEN: dict[str, tuple[Writer, str, str, str]] = {
    "cut_jpeg": (cut_photo("jpg", 0.5), "error", "images/{name}.jpg", "not a whole image"),
    "cut_png": (cut_photo("png", 0.7), "error", "images/{name}.png", "not a whole image"),
    "zero_bytes": (photo_of_bytes(b""), "error", "images/{name}.jpg", "an empty file (0 bytes)"),
    "text": (photo_of_bytes(b"this is no photo\n"), "error", "images/{name}.jpg", "not a whole image"),
    "web_page": (photo_of_bytes(PAGE), "error", "images/{name}.jpg", "a web page, not an image"),
    "pointer": (photo_of_bytes(POINTER), "error", "images/{name}.jpg", "a Git LFS pointer"),
    "bits": (flipped_bits, "error", "images/{name}.png", "not a whole image"),
    "floats": (photo_of_floats, "error", "images/{name}.tif", "pixels of type float32"),
    "huge": (huge_photo, "error", "images/{name}.png", "more than 89 million pixels"),
    "wrong_size": (photo_wrong_size, "error", "images/{name}.png", "83x67 px, its mask 80x60"),
    "exif": (photo_turned_by_exif, "error", "images/{name}.jpg", "60x80 px, its mask 80x60: its EXIF tag turns"),
    "exif_both": (photo_and_mask_turned, "note", "images/{name}.jpg", "turned by its EXIF tag, like its mask"),
    "photo_rgba": (photo_in("RGBA"), "note", "images/{name}.png", "RGBA, most others are RGB; its transparency"),
    "photo_16_bit": (photo_16_bit, "note", "images/{name}.png", "16-bit grey, most others are RGB; the upper byte"),
    "photo_palette": (photo_in("P"), "note", "images/{name}.png", "palette, most others are RGB"),
    "photo_1_bit": (photo_in("1"), "note", "images/{name}.png", "1-bit, most others are RGB"),
    "photo_cmyk": (photo_in("CMYK", "jpg"), "note", "images/{name}.jpg", "CMYK, most others are RGB"),
    "photo_alpha": (photo_in("LA"), "note", "images/{name}.png", "grey with alpha, most others are RGB"),
    "mask_cut": (cut_mask, "error", "masks/{name}.png", "not a whole image"),
    "mask_zero_bytes": (mask_of_bytes(b""), "error", "masks/{name}.png", "an empty file (0 bytes)"),
    "mask_matlab": (mask_of_bytes(b"MATLAB", "mat"), "error", "masks/{name}.mat", "not a whole MATLAB file"),
    "mask_jpeg_as_png": (mask_of_bytes(jpeg_bytes()), "error", "images/{name}.png", "80x60 px, its mask 8x8"),
    "mask_huge": (huge_mask, "error", "masks/{name}.png", "more than 89 million pixels"),
    "mask_half": (mask_made(lambda m: m[::2, ::2].copy()), "error", "images/{name}.png", "the same shape at another"),
    "mask_on_its_side": (mask_made(lambda m: m.T.copy()), "error", "images/{name}.png", "80x60 px, its mask 60x80"),
    "mask_inverted": (mask_made(lambda m: 255 - m), "error", "masks/{name}.png", "inverted: "),
    "mask_in_colour": (mask_made(coloured), "error", "masks/{name}.png", "a mask in colour, (0, 0, 0)"),
    "mask_0_1": (mask_made(lambda m: m // 255), "error", "masks/{name}.png", "holds 0 and 1, so it looks black"),
    "mask_antialiased": (mask_made(antialiased), "error", "masks/{name}.png", "antialiased or saved as JPEG"),
    "mask_as_jpeg": (mask_made(lambda m: m, None, "jpg"), "error", "masks/{name}.jpg", "antialiased or saved as JPEG"),
    "mask_labels": (mask_made(labels), "error", "masks/{name}.png", "204 (10.0 %)"),
    "mask_transparent": (mask_made(transparent), "error", "masks/{name}.png", "transparent in places"),
    "mask_full": (mask_made(np.ones_like), "error", "masks/{name}.png", "every pixel is 1"),
    "mask_16_bit": (
        mask_made(lambda m: m.astype(np.uint16) * 257), "error", "masks/{name}.png", "holds 0 and 65535; the others"
    ),
    "mask_floats": (mask_made(halves, None, "tif"), "error", "masks/{name}.tif", "values from 0 to 0.5"),
    "mask_palette": (palette_mask, "error", "masks/{name}.png", "holds 0 and 1, so it looks black"),
    "mask_1_bit": (mask_made(lambda m: m > 0), "note", "masks/{name}.png", "1-bit, most others are grey; it is read"),
    "mask_rgba": (
        mask_made(lambda m: m, "RGBA"), "note", "masks/{name}.png", "RGBA, most others are grey; its grey is read"
    ),
    "mask_empty": (mask_made(np.zeros_like), "note", "masks/{name}.png", "no crack in the mask"),
    "two_photos": (two_photos, "error", "images/{name}.png", "2 photos for one name"),
    "two_masks": (two_masks, "error", "masks/{name}_mask.png", "2 masks for one name"),
    "widow": (photo_alone, "error", "images/{name}.png", "without a mask"),
    "orphan": (mask_alone, "note", "masks/{name}.png", "a mask without a photo"),
    "unprintable": (unprintable, "error", "bell\\x07.png", "a name that no report can show"),
    "accents": (accents, "error", "masks/mur_fêlé.png", "inverted: "),
    "copied": (copied, "warning", "images/{name}2.png", "2 photos show the same (equal files)"),
    "saved_anew": (copy_saved_anew, "warning", "images/{name}2.jpg", "2 photos show the same (same picture)"),
    "turned": (turned_copy, "warning", "images/{name}2.png", "2 photos show the same (same picture turned)"),
    "one_mask": (one_mask_for_two, "warning", "masks/{name}2.png", "one and the same mask for different photos"),
    "other_mask": (other_photos_mask, "warning", "masks/{name}.png", "no darker than what is around it"),
}  # fmt: skip
