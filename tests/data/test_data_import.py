"""Sets under a name: what a manifest says, what it refuses, and how public sets are read by their presets."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

import crack_sweeps
from crack_sweeps.data.importing import Imported, import_data
from crack_sweeps.data.masks import read_pair
from crack_sweeps.data.open import open_photos
from crack_sweeps.data.photos import PhotoSet
from crack_sweeps.data.presets import PRESETS
from crack_sweeps.errors import DataError, UserError
from crack_sweeps.specs.experiment import Data

ARTIFACTS = Path("artifacts")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def crack(number: int, side: tuple[int, int] = (48, 64)) -> tuple[np.ndarray, np.ndarray]:
    """A photo of noise and where its dark crack is; the crack grows with the number."""
    rng = np.random.default_rng(number)
    mask = np.zeros(side, np.uint8)
    cv2.line(
        mask, (0, int(rng.integers(5, side[0] - 5))), (side[1], int(rng.integers(5, side[0] - 5))), 1, 1 + number // 4
    )
    photo = rng.integers(120, 200, (*side, 3), dtype=np.uint8)
    photo[mask > 0] //= 3
    return photo, mask


def unlike(
    root: Path, count: int, split: str | None = None, first: int = 0, names: Sequence[str] | None = None
) -> Path:
    """Photos that nothing joins but perhaps their names."""
    base = root if split is None else root / split
    for kind in ("images", "masks"):
        (base / kind).mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        photo, mask = crack(number)
        name = names[number] if names is not None else f"wall{number}x"
        Image.fromarray(photo).save(base / f"images/{name}.png")
        Image.fromarray(mask * np.uint8(255)).save(base / f"masks/{name}.png")
    return root


def named(name: str, **settings: object) -> PhotoSet:
    return open_photos(Data(path=Path(name), **settings))


def splits_of(photos: PhotoSet) -> dict[str, str]:
    return {photo.name: photo.split for photo in photos.photos}


# --- a manifest ----------------------------------------------------------------------------------


def test_an_imported_set_opens_by_its_name_and_copies_nothing(here: Path) -> None:
    unlike(here / "walls", 20)
    made = import_data("walls", name="mine")
    photos = named("mine")
    assert made.num_photos == {"train": 13, "val": 3, "test": 4}
    assert (photos.name, photos.digest, photos.root) == ("mine", made.digest, Path("walls"))
    assert photos.rule.crack_values == (255,)
    assert {path.name for path in (here / "artifacts/data/mine").iterdir()} == {"manifest.json"}
    image, mask = read_pair(photos.photos[0], photos.rule)
    assert image.shape[:2] == mask.shape


def test_a_manifest_says_image_mask_split_group_and_digest_of_each_photo(here: Path) -> None:
    import_data(unlike(here / "walls", 12), name="mine")
    content = json.loads(Path("artifacts/data/mine/manifest.json").read_text())
    row = next(row for row in content["photos"] if row["name"] == "wall3x")
    assert (row["image"], row["mask"], row["group"]) == ("images/wall3x.png", "masks/wall3x.png", "wall3x")
    assert row["split"] in ("train", "val", "test")
    assert len(row["image_sha256"]) == len(row["mask_sha256"]) == 64
    assert row["crack_share"] == pytest.approx(crack(3)[1].mean(), abs=1e-5)
    assert content["rule"] == {
        "crack_values": [255], "threshold": None, "invert": False, "channel": None, "allowed": [0, 255]
    }  # fmt: skip


def test_files_that_were_copied_may_lose_their_origin(here: Path) -> None:
    shutil.copytree(unlike(here / "walls", 12), here / "lost")
    stays = import_data("walls", name="stays")
    copied = import_data("lost", name="copied", copy=True)
    shutil.rmtree(here / "lost")
    assert named("copied").digest == copied.digest == stays.digest
    assert copied.root == "artifacts/data/copied/files"


def test_a_folder_and_its_import_have_one_digest_where_split_and_rule_agree(here: Path) -> None:
    """The digest is of content and of names within the set; where it lies plays no part."""
    for first, split in enumerate(("train", "val", "test")):
        unlike(here / "walls", 6, split, first=first * 6)
    shutil.copytree(here / "walls", here / "elsewhere" / "moved")
    import_data("walls", name="mine")
    import_data("elsewhere/moved", name="moved")
    digests = {named("mine").digest, named("moved").digest, open_photos(Data(path=here / "walls")).digest}
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda root: Image.new("RGB", (64, 48)).save(root / "images/wall3x.png"), "images/wall3x.png: changed since"),
        (lambda root: (root / "masks/wall5x.png").write_bytes(b"x"), "masks/wall5x.png: changed since"),
        (lambda root: (root / "images/wall7x.png").unlink(), "images/wall7x.png: no such file, which was imported as"),
        (lambda root: root.rename("moved"), "no such file, which was imported as mine"),
    ],
)
def test_a_set_whose_files_changed_is_refused_by_the_files_name(
    here: Path, harm: Callable[[Path], object], said: str
) -> None:
    import_data(unlike(here / "walls", 12), name="mine")
    harm(here / "walls")
    with pytest.raises(DataError, match=said) as caught:
        named("mine")
    assert caught.value.hint


@pytest.mark.parametrize(
    "harm",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"format": 1', '"format": 99'),
        lambda text: text.replace('"image": "images/', '"image": "/etc/'),
        lambda text: text.replace('"image": "images/', '"image": "../images/'),
        lambda text: text.replace('"split": "val"', '"split": "vall"'),
        lambda text: text.replace('"crack_values": [\n   255\n  ]', '"crack_values": null'),
        lambda text: text.replace('"group":', '"grope":'),
        lambda text: "[]",
        lambda text: "",
    ],
)
def test_a_damaged_manifest_is_refused_in_one_line(here: Path, harm: Callable[[str], str]) -> None:
    import_data(unlike(here / "walls", 12), name="mine")
    path = Path("artifacts/data/mine/manifest.json")
    text = path.read_text()
    assert harm(text) != text
    path.write_text(harm(text))
    with pytest.raises(DataError, match="not a manifest that can be read") as caught:
        named("mine")
    assert "\n" not in caught.value.message


def test_a_split_that_was_moved_by_hand_is_noticed(here: Path) -> None:
    import_data(unlike(here / "walls", 12), name="mine")
    path = Path("artifacts/data/mine/manifest.json")
    path.write_text(path.read_text().replace('"split": "test"', '"split": "train"', 1))
    with pytest.raises(DataError, match="was changed by hand"):
        named("mine")


def test_a_folder_of_that_name_wins_over_the_import_and_says_so(here: Path) -> None:
    import_data(unlike(here / "walls", 12), name="mine")
    unlike(here / "mine", 15, first=20)
    photos = named("mine")
    assert photos.root == Path("mine")
    assert photos.warnings[-1] == "mine is a folder here, and an imported set too: the folder is used"


def test_a_name_that_was_never_imported_says_what_there_is(here: Path) -> None:
    import_data(unlike(here / "walls", 12), name="concrete")
    with pytest.raises(DataError, match="concrte does not exist") as caught:
        named("concrte")
    assert caught.value.hint == "did you mean concrete, which was imported?"
    with pytest.raises(DataError, match="zzz does not exist"):
        named("zzz")


def test_what_was_decided_by_the_import_cannot_be_changed_by_a_spec(here: Path) -> None:
    import_data(unlike(here / "walls", 12), name="mine")
    for setting, key in (({"mask": {"threshold": 9}}, "data.mask"), ({"group_pattern": "(a)"}, "data.group_pattern")):
        with pytest.raises(DataError, match=f"{key}: mine was imported with its rule"):
            named("mine", **setting)
    photos = named("mine", split_seed=4)
    assert photos.digest == named("mine").digest
    assert photos.warnings[-1] == "data.split_seed has no effect: mine was split when it was imported"


# --- splits and groups ---------------------------------------------------------------------------


def test_groups_come_from_a_pattern_a_column_or_the_names(here: Path) -> None:
    names = [f"site{site}-{number}" for site in range(8) for number in range(4)]
    unlike(here / "walls", 32, names=names)
    rows = [f"{name}.png,{'north' if name < 'site4' else 'south' if name < 'site6' else 'west'}" for name in names]
    Path("table.csv").write_text("\n".join(["file,place", *rows]))
    by = {
        "names": import_data("walls", name="names"),
        "pattern": import_data("walls", name="pattern", settings=[r"data.group_pattern=^site(\d)"]),
        "column": import_data("walls", name="column", groups="table.csv", group_column="place"),
        "file": import_data("walls", name="file", settings=["data.group_pattern=(.+)"]),
    }
    assert {how: made.num_groups for how, made in by.items()} == {"names": 8, "pattern": 8, "column": 3, "file": 32}
    assert "file names, which look like crops" in by["names"].groups_from
    groups = {photo.name: photo.group for photo in named("column").photos}
    assert (groups["site1-2"], groups["site5-0"], groups["site7-3"]) == ("north", "south", "west")
    for how in ("names", "pattern", "column"):
        split_of: dict[str, set[str]] = {}
        for photo in named(how).photos:
            split_of.setdefault(photo.group, set()).add(photo.split)
        assert all(len(splits) == 1 for splits in split_of.values())


def test_copies_under_other_names_stay_in_one_split(here: Path) -> None:
    unlike(here / "walls", 16)
    for number in range(3):  # saved anew, turned, and byte for byte
        Image.open(f"walls/images/wall{number}x.png").save(f"walls/images/z{number}.jpg", quality=90)
        shutil.copy(f"walls/masks/wall{number}x.png", f"walls/masks/z{number}.png")
    for seed in range(4):
        import_data("walls", name="mine", settings=[f"data.split_seed={seed}"], replace=True)
        found = splits_of(named("mine"))
        assert all(found[f"wall{number}x"] == found[f"z{number}"] for number in range(3))


def test_held_out_photos_have_little_and_much_crack_like_the_rest(here: Path) -> None:
    made = import_data(unlike(here / "walls", 60), name="mine")
    assert set(made.num_photos.values()) == {38, 10, 12}
    for split in ("val", "test"):
        assert made.crack_share[split] == pytest.approx(made.crack_share["train"], rel=0.1)


def test_an_official_test_split_stays_and_train_loses_what_it_shows(here: Path) -> None:
    unlike(here / "walls", 20, "train")
    unlike(here / "walls", 8, "test", first=30)
    for number in (2, 3):
        shutil.copy(f"walls/train/images/wall{number}x.png", f"walls/test/images/copy{number}x.png")
        shutil.copy(f"walls/train/masks/wall{number}x.png", f"walls/test/masks/copy{number}x.png")
    honest = import_data("walls", name="honest")
    assert honest.num_photos == {"train": 14, "val": 4, "test": 10}
    assert "2 photos of train or val show what the official test split shows" in honest.warnings[0]
    leaky = import_data("walls", name="leaky", keep_leaks=True)
    assert leaky.num_photos == {"train": 16, "val": 4, "test": 10}
    assert "2 of 10 test photos were cut from photos that are in train or val too" in leaky.warnings[0]


def test_deepcrack_is_imported_without_its_leaks(deepcrack: Path, here: Path) -> None:
    for folder_name in ("train_img", "train_lab", "test_img", "test_lab"):
        (here / "dc" / folder_name).mkdir(parents=True)
        for number, path in enumerate(sorted((deepcrack / folder_name).iterdir())):
            if number % 12 == 0 or path.stem.startswith(("11142", "11289-1", "IMG_6536", "11158", "11216")):
                (here / "dc" / folder_name / path.name).symlink_to(path)
    made = import_data("dc", name="honest", preset="DeepCrack")
    assert "(11142, 11158, 11289, IMG_6536): left out" in made.warnings[0]
    photos = named("honest")
    assert not {photo.group for photo in photos.split("train")} & {photo.group for photo in photos.split("test")}


# --- mistakes ------------------------------------------------------------------------------------


def test_files_that_cannot_be_used_stop_an_import_unless_they_are_to_be_left_out(here: Path) -> None:
    unlike(here / "walls", 14)
    (here / "walls/images/wall2x.png").write_bytes(b"")
    (here / "walls/masks/wall4x.png").unlink()
    with pytest.raises(DataError, match=r"2 files cannot be used: images/wall4x\.png: without a mask") as caught:
        import_data("walls", name="mine")
    assert "--leave-out" in (caught.value.hint or "")
    assert not ARTIFACTS.exists()
    made = import_data("walls", name="mine", leave_out=True)
    assert sum(made.num_photos.values()) == 12
    assert any("images/wall2x.png: an empty file (0 bytes); left out" in line for line in made.left_out)


def test_masks_that_need_a_rule_are_refused_with_it(here: Path) -> None:
    unlike(here / "walls", 12)
    for path in (here / "walls/masks").iterdir():
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    with pytest.raises(DataError, match="they are inverted") as caught:
        import_data("walls", name="mine")
    assert caught.value.hint == "`data.mask.invert=true` swaps crack and background"
    assert import_data("walls", name="mine", settings=["data.mask.invert=true"]).mask_rule == "== 255, inverted"


@pytest.mark.parametrize(
    ("arguments", "said", "remedy"),
    [
        ({"name": "a/b"}, "--as 'a/b' cannot be the name of a set", "letters, digits"),
        ({"name": ""}, "--as '' cannot", "letters, digits"),
        ({"name": ".."}, "--as '..' cannot", "letters, digits"),
        ({"name": "builtin-v1"}, "--as 'builtin-v1' cannot", "is taken"),
        ({"name": "taken"}, "--as taken: a set of this name was imported already", "--replace"),
        ({"name": "walls"}, "--as walls: there is a folder of that name here", "another name"),
        ({"name": "n", "preset": "crack5000"}, "--preset crack5000: no such preset", "did you mean crack500?"),
        ({"name": "n", "preset": "zzz"}, "--preset zzz: no such preset", "there are plain, deepcrack"),
        ({"name": "n", "settings": ["training.epochs=3"]}, "does not say how photos are read", "data.mask.threshold"),
        ({"name": "n", "settings": ["data.mask.treshold=3"]}, "does not say", "did you mean `data.mask.threshold`?"),
        ({"name": "n", "settings": ["data.mask.threshold=many"]}, "data.mask.threshold=many", ""),
        ({"name": "n", "test_fraction": 1.0}, "--test-fraction 1", "a fifth"),
        ({"name": "n", "groups": "none.csv"}, "--groups none.csv: no such file", "CSV"),
        ({"name": "n", "group_column": "group"}, None, ""),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    here: Path, arguments: dict[str, object], said: str | None, remedy: str
) -> None:
    unlike(here / "walls", 12)
    import_data("walls", name="taken")
    before = sorted(path.as_posix() for path in here.rglob("*"))
    if said is None:
        import_data("walls", **arguments)
        return
    with pytest.raises(UserError) as caught:
        import_data("walls", **arguments)
    assert said in caught.value.message
    assert remedy in (caught.value.hint or "")
    assert "\n" not in f"{caught.value.message}{caught.value.hint}"
    assert sorted(path.as_posix() for path in here.rglob("*")) == before


def test_replacing_imports_anew(here: Path) -> None:
    first = import_data(unlike(here / "walls", 12), name="mine")
    second = import_data("walls", name="mine", settings=["data.split_seed=9"], replace=True)
    assert named("mine").digest == second.digest != first.digest


def test_a_disk_without_room_leaves_nothing_behind(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from crack_sweeps.errors import DiskFull

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(DiskFull, match="artifacts/data/mine: the disk is full"):
        import_data(unlike(here / "walls", 12), name="mine", copy=True)
    assert list((here / "artifacts/data").iterdir()) == []


def test_both_can_be_called_from_python(here: Path) -> None:
    unlike(here / "walls", 12)
    assert crack_sweeps.check_data("walls").num_usable == 12
    made = crack_sweeps.import_data("walls", name="mine")
    assert isinstance(made, Imported)
    assert made.as_dict()["num_photos"]["train"] == 8


# --- presets: each on small files in the encoding that DOMAIN.md tells ---------------------------


def png(values: np.ndarray, mode: str | None = None) -> Callable[[Path], None]:
    image = Image.fromarray(values)
    return lambda path: (image.convert(mode) if mode else image).save(path.with_suffix(".png"))


def antialiased(mask: np.ndarray) -> np.ndarray:
    """Full at the middle of the crack, with a rim of half a pixel."""
    rim = (cv2.dilate(mask, np.ones((3, 3), np.uint8)) - mask) * np.random.default_rng(0).integers(10, 120, mask.shape)
    return (mask * 255 + rim).astype(np.uint8)


def nha12d(mask: np.ndarray) -> np.ndarray:
    bright = np.linspace(84, 191, mask.size).reshape(mask.shape)
    return np.stack([mask * bright, mask * bright * 0.4, mask * 20.0], axis=2).astype(np.uint8)


def uav75(mask: np.ndarray) -> np.ndarray:
    values = np.where(np.indices(mask.shape)[0] % 12 < 3, 204, 0).astype(np.uint8)
    values[mask == 1] = 255
    return values


def crackforest_labels(mask: np.ndarray) -> Callable[[Path], None]:
    labels = mask + np.uint8(1)
    labels[:3, :9][mask[:3, :9] == 0] = 3
    labels[-1, -3:][mask[-1, -3:] == 0] = 4
    return lambda path: savemat(path.with_suffix(".mat"), {"groundTruth": {"Segmentation": labels}})


WRITTEN: dict[str, Callable[[np.ndarray], Callable[[Path], None]]] = {
    "plain": lambda m: png(m * np.uint8(255)),
    "deepcrack": lambda m: png(m * np.uint8(255)),
    "crack500": lambda m: png(m > 0),
    "crackforest": crackforest_labels,
    "crackmap": lambda m: png(m * np.uint8(255), "RGBA"),
    "nha12d": lambda m: png(nha12d(m)),
    "uav75": lambda m: png(uav75(m), "RGBA"),
    "sut130": lambda m: png(np.repeat(antialiased(m)[:, :, None], 3, axis=2)),
    "masonry": lambda m: png(m * np.uint8(255)),
    "asphaltcrack300": lambda m: png((1 - m) * np.uint8(255)),
    "crackseg9k": lambda m: png(antialiased(m)),
}
NAMES = {
    "deepcrack": [f"111{site}{end}" for site in range(10, 16) for end in ("", "-1", "-2")],
    "crack500": [f"20160222_0810{site}_{top}_361" for site in range(10, 16) for top in (1, 641, 1281)],
}
GROUPS = {"deepcrack": 6, "crack500": 6}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_reads_its_set_as_it_was_drawn(preset: str, here: Path) -> None:
    names = NAMES.get(preset, [f"p{number}x" for number in range(12)])
    matlab = preset == "crackforest"
    for kind in ("image", "groundTruth"):
        (here / "set" / kind).mkdir(parents=True)
    mode = "RGBA" if preset in ("crackmap", "uav75") else "RGB"
    for number, name in enumerate(names):
        photo, mask = crack(number)
        Image.fromarray(photo).convert(mode).save(here / "set/image" / f"{name}.png")
        WRITTEN[preset](mask)(here / "set/groundTruth" / f"{name}.png")
    made = import_data("set", name="mine", preset=preset)
    assert made.num_groups == GROUPS.get(preset, 12)
    photos = named("mine")
    assert {photo.mask.suffix for photo in photos.photos} == {".mat" if matlab else ".png"}
    for photo in photos.photos:
        assert np.array_equal(read_pair(photo, photos.rule)[1], crack(names.index(photo.image.stem))[1]), photo.name


def test_every_preset_is_tried_above() -> None:
    assert set(WRITTEN) == set(PRESETS)


def test_a_typed_rule_replaces_the_presets(here: Path) -> None:
    unlike(here / "walls", 12)
    made = import_data("walls", name="mine", preset="asphaltcrack300", settings=["data.mask.threshold=9"])
    assert made.mask_rule == ">= 9"


def test_crackseg9k_says_which_sets_it_holds(here: Path) -> None:
    made = import_data(unlike(here / "walls", 12), name="mine", preset="crackseg9k")
    assert "never test on those what was trained on this" in made.warnings[-1]
