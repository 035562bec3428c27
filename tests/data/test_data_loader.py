"""Batches: equal for any number of processes, and every way in which a loader process can fail, told in words."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from crack_sweeps.data.crops import CropDataset, Draw, draws
from crack_sweeps.data.loader import Loader
from crack_sweeps.data.photos import Photo, ResolvedMaskRule
from crack_sweeps.errors import DataError, LoaderStalled, TrainingError

AUGMENTATIONS = (
    *("A.RandomRotate90(p=0.5)", "A.HorizontalFlip(p=0.5)", "A.RandomBrightnessContrast(p=0.5)"),
    "A.OneOf([A.GaussNoise(p=1.0), A.ElasticTransform(p=1.0)], p=0.5)",
)
NUM_PHOTOS = 7


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Photo]:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    made = []
    for number in range(NUM_PHOTOS):
        photo = Photo(str(number), folder / f"{number}.png", folder / f"{number}_mask.png", "train", str(number))
        Image.fromarray(rng.integers(0, 256, (50, 60, 3), dtype=np.uint8)).save(photo.image)
        Image.fromarray((rng.random((50, 60)) < 0.05).astype(np.uint8) * np.uint8(255)).save(photo.mask)
        made.append(photo)
    return made


def dataset(photos: list[Photo], rule: ResolvedMaskRule | None = None) -> CropDataset:
    return CropDataset(
        photos,
        rule or ResolvedMaskRule(crack_values=(255,)),
        crop_px=32,
        crack_crop_fraction=0.7,
        augmentations=AUGMENTATIONS,
        seed=3,
        cache_bytes=1 << 24,
    )


@pytest.fixture
def damaged_photo(tmp_path: Path, photos: list[Photo]) -> Photo:
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(photos[0].image.read_bytes()[:900])
    return Photo("damaged", damaged, photos[0].mask, "train", "damaged")


@pytest.fixture(scope="module")
def loader_with(photos: list[Photo]) -> Iterator[Callable[[int], Loader]]:
    """One loader for each number of processes, for all tests that break nothing: starting processes takes time."""
    opened: dict[int, Loader] = {}

    def get(num_workers: int) -> Loader:
        if num_workers not in opened:
            opened[num_workers] = Loader(dataset(photos), num_workers=num_workers, timeout_s=60.0)
        return opened[num_workers]

    yield get
    for loader in opened.values():
        loader.close()


@pytest.fixture
def open_loader(photos: list[Photo]) -> Iterator[Callable[..., Loader]]:
    opened: list[Loader] = []

    def open_it(num_workers: int, *, timeout_s: float = 60.0, source: CropDataset | None = None) -> Loader:
        opened.append(Loader(source or dataset(photos), num_workers=num_workers, timeout_s=timeout_s))
        return opened[-1]

    yield open_it
    for loader in opened:
        loader.close()


def joined(batches: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    images, masks = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(masks)


def same(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def gone_within(pids: list[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(map(alive, pids)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def pids_of(loader: Loader) -> list[int]:
    return [worker.pid for worker in loader._workers if worker.pid is not None]


# --- the same for any number of processes --------------------------------------------------------


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")  # on a machine of fewer cores
@pytest.mark.parametrize("num_workers", [1, 2, 4])
def test_batches_are_equal_bit_for_bit_for_any_number_of_processes(loader_with, num_workers: int) -> None:
    alone, many = loader_with(0), loader_with(num_workers)
    for epoch in range(2):
        wanted = draws(3, epoch, NUM_PHOTOS, 21)
        assert same(joined(alone.epoch(wanted, 4)), joined(many.epoch(wanted, 4)))
    assert len(set(pids_of(many))) == num_workers


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_started_in_the_middle_gives_what_the_whole_epoch_gives_there(loader_with, num_workers: int) -> None:
    wanted = draws(3, 5, NUM_PHOTOS, 20)
    images, masks = joined(loader_with(0).epoch(wanted, 4))
    assert same(joined(loader_with(num_workers).epoch(wanted[8:], 4)), (images[8:], masks[8:]))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_batch_size_changes_nothing_but_the_cuts(loader_with, num_workers: int) -> None:
    wanted = draws(3, 0, NUM_PHOTOS, 13)
    loader = loader_with(num_workers)
    by_four = joined(loader.epoch(wanted, 4))
    pids = pids_of(loader)
    assert same(by_four, joined(loader.epoch(wanted, 2)))  # halved, as after running out of memory
    assert same(by_four, joined(loader.epoch(wanted, 8)))
    assert [len(masks) for _, masks in loader.epoch(wanted, 4)] == [4, 4, 4, 1]
    assert list(loader.epoch([], 4)) == []
    assert pids_of(loader) == pids


def test_batches_are_bytes_in_the_shape_that_models_take_and_stay_as_they_are(loader_with) -> None:
    kept = list(loader_with(1).epoch(draws(3, 0, NUM_PHOTOS, 40), 4))
    image_B3HW, mask_B1HW = kept[0]
    assert (image_B3HW.dtype, tuple(image_B3HW.shape)) == (torch.uint8, (4, 3, 32, 32))
    assert (mask_B1HW.dtype, tuple(mask_B1HW.shape)) == (torch.uint8, (4, 1, 32, 32))
    assert set(mask_B1HW.unique().tolist()) == {0, 1}
    again = list(loader_with(0).epoch(draws(3, 0, NUM_PHOTOS, 40), 4))
    assert all(same(one, other) for one, other in zip(kept, again, strict=True))  # no batch was written over


@pytest.mark.parametrize("num_workers", [0, 1])
def test_no_global_random_state_is_touched_and_none_matters(loader_with, open_loader, num_workers: int) -> None:
    wanted = draws(3, 0, NUM_PHOTOS, 8)
    expected = joined(loader_with(num_workers).epoch(wanted, 4))
    random.seed(99), np.random.seed(99), torch.manual_seed(99)
    before = (random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state())
    loader = open_loader(num_workers)
    for _ in range(2):
        assert same(expected, joined(loader.epoch(wanted, 4)))
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tobytes() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_without_workers_there_is_no_multiprocessing(open_loader, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("multiprocessing was used")

    monkeypatch.setattr("multiprocessing.forkserver.ensure_running", refuse)
    monkeypatch.setattr("multiprocessing.process.BaseProcess.start", refuse)
    assert len(joined(open_loader(0).epoch(draws(3, 0, NUM_PHOTOS, 5), 2))[0]) == 5


@pytest.mark.gpu
def test_pinned_batches_are_the_same_and_a_damaged_photo_is_told_all_the_same(
    loader_with, photos: list[Photo], damaged_photo: Photo
) -> None:
    wanted = draws(3, 0, NUM_PHOTOS, 8)
    with Loader(dataset([*photos, damaged_photo]), num_workers=1, timeout_s=60.0, pin_memory=True) as loader:
        pinned = list(loader.epoch(wanted, 4))
        assert all(image_B3HW.is_pinned() and mask_B1HW.is_pinned() for image_B3HW, mask_B1HW in pinned)
        assert same(joined(iter(pinned)), joined(loader_with(0).epoch(wanted, 4)))
        with pytest.raises(DataError, match=str(damaged_photo.image)):
            list(loader.epoch([Draw(0, 0, NUM_PHOTOS)], 1))


# --- leaving early, closing ----------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_left_early_leaves_nothing_behind_and_the_next_one_ends_it(loader_with, num_workers: int) -> None:
    loader = loader_with(num_workers)
    left = loader.epoch(draws(3, 0, NUM_PHOTOS, 24), 4)
    next(left)
    pids = pids_of(loader)
    wanted = draws(3, 1, NUM_PHOTOS, 24)
    newer = loader.epoch(wanted, 2)
    with pytest.raises(RuntimeError, match="ended by a newer one"):
        next(left)
    assert same(joined(newer), joined(loader_with(0).epoch(wanted, 2)))
    assert pids_of(loader) == pids


def test_close_ends_every_process_even_in_the_middle_of_an_epoch(open_loader, loader_with) -> None:
    loader = open_loader(2)
    batches = loader.epoch(draws(3, 0, NUM_PHOTOS, 400), 8)
    next(batches)
    pids = pids_of(loader)
    assert len(pids) == 2
    assert all(map(alive, pids))
    loader.close()
    assert gone_within(pids, 1.0)
    with pytest.raises(RuntimeError, match="closing"):
        next(batches)
    loader.close()  # twice does no harm
    wanted = draws(3, 0, NUM_PHOTOS, 4)
    assert same(joined(loader.epoch(wanted, 4)), joined(loader_with(0).epoch(wanted, 4)))


def test_a_loader_that_is_forgotten_takes_its_processes_with_it(photos: list[Photo]) -> None:
    loader = Loader(dataset(photos), num_workers=1, timeout_s=60.0)
    batches = loader.epoch(draws(3, 0, NUM_PHOTOS, 40), 4)
    next(batches)
    pids = pids_of(loader)
    assert all(map(alive, pids))
    del loader, batches
    gc.collect()
    assert gone_within(pids, 5.0)


# --- what goes wrong -----------------------------------------------------------------------------


@pytest.fixture
def hanging_photo(tmp_path: Path, photos: list[Photo]) -> Photo:
    fifo = tmp_path / "hangs.png"
    os.mkfifo(fifo)  # opening it waits for a writer that never comes, as a dead network disk would
    return Photo("hangs", fifo, photos[0].mask, "train", "hangs")


def test_a_read_that_hangs_ends_as_a_stalled_loader_that_names_the_photo(
    open_loader, photos: list[Photo], hanging_photo: Photo
) -> None:
    loader = open_loader(2, timeout_s=2.0, source=dataset([photos[0], hanging_photo]))
    good, bad = Draw(0, 0, 0), Draw(0, 1, 1)
    batches = loader.epoch([good, good, bad, good], 2)
    next(batches)
    pids = pids_of(loader)
    start = time.monotonic()
    with pytest.raises(LoaderStalled) as stall:
        next(batches)
    assert 1.9 < time.monotonic() - start < 6.0
    assert stall.value.message.startswith("the data loader gave nothing for 2 s while reading ")
    assert str(hanging_photo.image) in stall.value.message
    assert "data.loader_timeout_s" in str(stall.value.hint)
    assert gone_within(pids, 1.0)
    assert len(joined(loader.epoch([good, good], 2))[0]) == 2  # with new processes

    next(loader.epoch([good, bad], 1))  # and left while its second batch hangs
    with pytest.raises(LoaderStalled, match="left early"):
        loader.epoch([good], 1)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_damaged_photo_reaches_the_user_as_the_error_it_was(
    open_loader, photos: list[Photo], damaged_photo: Photo, num_workers: int
) -> None:
    source = dataset([photos[0], damaged_photo])
    with pytest.raises(DataError) as told_directly:
        source[Draw(0, 0, 1)]
    loader = open_loader(num_workers, source=source)
    with pytest.raises(DataError) as told:
        list(loader.epoch([Draw(0, 0, 0), Draw(0, 1, 1), Draw(0, 2, 0), Draw(0, 3, 0)], 1))
    assert told.value.message == told_directly.value.message
    assert str(damaged_photo.image) in told.value.message
    assert told.value.hint == told_directly.value.hint
    assert told.value.hint
    assert len(joined(loader.epoch([Draw(0, 0, 0)], 1))[0]) == 1  # the loader itself is unharmed


def test_a_bug_in_a_worker_keeps_its_type_and_traceback(open_loader, photos: list[Photo]) -> None:
    source = dataset(photos)
    source.crack_crop_fraction = None  # type: ignore[assignment]
    with pytest.raises(TypeError, match=r"(?s)Original Traceback.*in _place"):
        list(open_loader(1, source=source).epoch(draws(3, 0, NUM_PHOTOS, 4), 4))


def test_a_killed_worker_is_an_error_within_the_timeout(open_loader) -> None:
    loader = open_loader(2, timeout_s=2.0)
    batches = loader.epoch(draws(3, 0, NUM_PHOTOS, 4000), 8)
    next(batches)
    pids = pids_of(loader)
    os.kill(pids[1], signal.SIGKILL)
    start = time.monotonic()
    with pytest.raises(TrainingError) as death:
        list(batches)
    assert time.monotonic() - start < 6.0
    assert f"loader process {pids[1]} died (exit code -9)" in death.value.message
    assert "data.num_workers" in str(death.value.hint)
    assert gone_within(pids, 1.0)


SCRIPT = """
import os, signal, sys
from pathlib import Path
from crack_sweeps.data.crops import CropDataset, draws
from crack_sweeps.data.loader import Loader
from crack_sweeps.data.photos import Photo, ResolvedMaskRule

if __name__ == "__main__":
    image, mask, end = sys.argv[1:]
    source = CropDataset(
        [Photo("a", Path(image), Path(mask), "train", "a")], ResolvedMaskRule(crack_values=(255,)), crop_px=32,
        crack_crop_fraction=0.7, augmentations=(), seed=0, cache_bytes=0,
    )
    loader = Loader(source, num_workers=2, timeout_s=10)
    batches = loader.epoch(draws(0, 0, 1, 400), 8)
    next(batches)
    print(*[worker.pid for worker in loader._workers], flush=True)
    if end == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if end == "signalled":
        told = []
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, lambda number, _: told.append(number))
            os.killpg(0, signum)  # this process, fork server, workers: as Ctrl-C, a scheduler, a closed terminal do
        print(*told, 1 + len(list(batches)), len(list(loader.epoch(draws(0, 0, 1, 16), 8))))
"""


def run_script(folder: Path, photo: Photo, end: str) -> subprocess.CompletedProcess[str]:
    script = folder / "train.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(photo.image), str(photo.mask), end]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, start_new_session=True)


def test_a_signal_to_the_whole_process_group_ends_neither_the_epoch_nor_the_next(
    tmp_path: Path, photos: list[Photo]
) -> None:
    done = run_script(tmp_path, photos[0], "signalled")
    assert (done.returncode, done.stderr) == (0, "")
    pids, counted = done.stdout.splitlines()
    assert counted == f"{signal.SIGINT:d} {signal.SIGTERM:d} {signal.SIGHUP:d} 50 2"
    assert gone_within([int(pid) for pid in pids.split()], 10.0)  # it ended without closing the loader


@pytest.mark.slow
def test_no_worker_outlives_a_training_that_is_killed(tmp_path: Path, photos: list[Photo]) -> None:
    done = run_script(tmp_path, photos[0], "killed")
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert "Traceback" not in done.stderr  # Python's resource tracker says what it cleans up
    assert gone_within([int(pid) for pid in done.stdout.split()], 10.0)
