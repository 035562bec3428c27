"""Tiled prediction: the same as untiled where it must be, at any size, without a trace left in the model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from crack_sweeps.evaluation.tiles import predict_image, tile_starts

CPU = torch.device("cpu")


class PixelModel(nn.Module):
    """Logits that depend on the pixel alone."""

    def forward(self, image: Tensor) -> Tensor:
        return 7.0 * image[:, :1] - 5.0 * image[:, 1:2] + image[:, 2:3] - 1.5


class Recorder(nn.Module):
    """PixelModel that remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = PixelModel()
        self.batches: list[Tensor] = []

    def forward(self, image: Tensor) -> Tensor:
        self.batches.append(image.clone())
        return self.inner(image)


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def untiled(model: nn.Module, image: np.ndarray) -> np.ndarray:
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        return torch.sigmoid(model(pixels))[0, 0].numpy()


def predict(
    model: nn.Module,
    image: np.ndarray,
    *,
    tile_px: int = 32,
    overlap: float = 0.25,
    batch_size: int = 4,
    amp_dtype: torch.dtype | None = None,
) -> np.ndarray:
    return predict_image(
        model, image, tile_px=tile_px, overlap=overlap, device=CPU, batch_size=batch_size, amp_dtype=amp_dtype
    )


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    tile_px=st.sampled_from([8, 16, 32]),
    overlap=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75]),
    batch_size=st.integers(1, 9),
)
def test_a_model_of_single_pixels_gives_the_same_tiled_as_untiled(
    height: int, width: int, tile_px: int, overlap: float, batch_size: int
) -> None:
    image = photo(height, width)
    tiled = predict(PixelModel(), image, tile_px=tile_px, overlap=overlap, batch_size=batch_size)
    assert tiled.shape == (height, width)
    assert tiled.dtype == np.float32
    np.testing.assert_allclose(tiled, untiled(PixelModel(), image), rtol=0, atol=1e-6)


@pytest.mark.parametrize("value", [0.5, 0.01, 0.07, 0.7, 0.99, 1.0, 0.0, 1e-30])
@pytest.mark.parametrize("overlap", [0.25, 0.75])
def test_where_tiles_agree_the_average_is_that_very_value_bit_for_bit(value: float, overlap: float) -> None:
    logit = torch.logit(torch.tensor(value, dtype=torch.float64)).float()

    class Constant(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return torch.full_like(image[:, :1], logit)

    expected = torch.sigmoid(torch.full((4096,), logit)).unique()
    assert len(expected) == 1
    assert np.unique(predict(Constant(), photo(200, 333), tile_px=64, overlap=overlap)).tolist() == expected.tolist()


@settings(deadline=None)
@given(
    length=st.integers(1, 3000),
    tile_px=st.sampled_from([32, 64, 128, 256]),
    overlap=st.floats(0, 0.75),
)
def test_tiles_cover_the_side_and_overlap_at_least_as_asked(length: int, tile_px: int, overlap: float) -> None:
    starts = tile_starts(length, tile_px, overlap)
    assert starts[0] == 0
    assert starts[-1] == max(0, length - tile_px)
    steps = np.diff(starts)
    assert (steps > 0).all()
    assert (steps <= tile_px * (1 - overlap)).all()


def test_there_are_no_more_tiles_than_the_overlap_needs() -> None:
    assert tile_starts(256, 256, 0.25) == (0,)
    assert tile_starts(257, 256, 0.25) == (0, 1)
    assert tile_starts(448, 256, 0.25) == (0, 192)
    assert tile_starts(449, 256, 0.25) == (0, 96, 193)
    assert tile_starts(512, 256, 0.0) == (0, 256)


def test_the_tiles_given_to_the_model_do_not_depend_on_the_batch_size() -> None:
    seen = []
    for batch_size in (1, 2, 5, 100):
        recorder = Recorder()
        predict(recorder, photo(70, 100), batch_size=batch_size)
        assert max(len(batch) for batch in recorder.batches) <= batch_size
        seen.append(torch.cat(recorder.batches))
    assert len(seen[0]) == 3 * 4
    assert all(torch.equal(tiles, seen[0]) for tiles in seen)


def test_a_convolution_predicts_the_same_whatever_the_batch_size() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 1, 5, padding=2))
    maps = [predict(model, photo(70, 100), batch_size=batch_size) for batch_size in (1, 3, 12)]
    np.testing.assert_allclose(maps[1], maps[0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(maps[2], maps[0], rtol=0, atol=1e-6)


def test_the_photo_reaches_the_model_as_rgb_between_0_and_1() -> None:
    recorder = Recorder()
    image = np.zeros((32, 32, 3), np.uint8)
    image[..., 0], image[..., 1], image[..., 2] = 255, 51, 0
    predict(recorder, image)
    (batch,) = recorder.batches
    assert batch.dtype == torch.float32
    assert batch[0].mean(dim=(1, 2)).tolist() == pytest.approx([1.0, 0.2, 0.0])


def test_a_photo_smaller_than_a_tile_is_continued_by_reflection_on_all_sides() -> None:
    recorder = Recorder()
    image = photo(20, 24)
    predict(recorder, image)
    (batch,) = recorder.batches
    seen = (batch[0] * 255).round().byte().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(seen[6:26, 4:28], image)
    np.testing.assert_array_equal(seen[5, 4:28], image[1])
    np.testing.assert_array_equal(seen[6:26, 28], image[:, 22])


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (2, 3), (3, 100)])
def test_photos_of_a_pixel_or_a_line_are_predicted_too(size: tuple[int, int]) -> None:
    image = photo(*size)
    np.testing.assert_allclose(predict(PixelModel(), image), untiled(PixelModel(), image), rtol=0, atol=1e-6)


def test_tiles_fade_into_each_other_without_a_seam() -> None:
    class Moody(nn.Module):
        """Another constant for every tile."""

        def __init__(self) -> None:
            super().__init__()
            self.num_calls = 0

        def forward(self, image: Tensor) -> Tensor:
            self.num_calls += 1
            return torch.full_like(image[:, :1], 3.0 if self.num_calls % 2 else -3.0)

    smooth = predict(Moody(), photo(64, 200), tile_px=64, overlap=0.5, batch_size=1)
    assert np.ptp(smooth) > 0.5
    assert np.abs(np.diff(smooth, axis=1)).max() < 0.06


def test_the_weight_of_a_tile_at_its_rim_is_next_to_nothing_inside_the_photo() -> None:
    class LeftRim(nn.Module):
        """Sure of a crack in the first column of every tile, and only there."""

        def forward(self, image: Tensor) -> Tensor:
            logits = torch.full_like(image[:, :1], -20.0)
            logits[..., 0] = 20.0
            return logits

    probability = predict(LeftRim(), photo(32, 56), tile_px=32, overlap=0.25)
    assert probability[:, 0].min() > 0.99  # nothing else covers the photo's own rim
    assert probability[:, 1:].max() < 0.05


class Stateful(nn.Module):
    """Layers that behave differently in training, one of them frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 1, 1))
        self.frozen = nn.BatchNorm2d(3)
        self.fail = False

    def forward(self, image: Tensor) -> Tensor:
        if self.fail:
            raise RuntimeError("as asked")
        return self.body(self.frozen(image))


@pytest.mark.parametrize("fail", [False, True])
def test_a_model_in_training_is_left_as_it_was_even_when_it_fails(fail: bool) -> None:
    model = Stateful().train()
    model.frozen.eval()
    model.fail = fail
    modes = {name: module.training for name, module in model.named_modules()}
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if fail:
        with pytest.raises(RuntimeError, match="as asked"):
            predict(model, photo(40, 40))
    else:
        predict(model, photo(40, 40))
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_no_random_number_is_drawn() -> None:
    model = Stateful().train()
    torch.manual_seed(3)
    np.random.seed(3)
    before_torch, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()
    predict(model, photo(70, 70))
    assert torch.equal(torch.get_rng_state(), before_torch)
    np.testing.assert_array_equal(np.random.get_state()[1], before_numpy)
    model(torch.rand(2, 3, 8, 8))  # in training mode its dropout does draw, so the comparison above can fail
    assert not torch.equal(torch.get_rng_state(), before_torch)


def test_mixed_precision_is_used_where_asked_and_the_result_is_float32_all_the_same() -> None:
    seen: list[torch.dtype] = []

    class Spy(nn.Conv2d):
        def forward(self, image: Tensor) -> Tensor:
            logits = super().forward(image)
            seen.append(logits.dtype)
            return logits

    torch.manual_seed(0)
    model = Spy(3, 1, 3, padding=1)
    full = predict(model, photo(40, 40))
    half = predict(model, photo(40, 40), amp_dtype=torch.bfloat16)
    assert set(seen) == {torch.float32, torch.bfloat16}
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, full, atol=0.02)


def test_huge_logits_are_certainties_and_nan_stays_nan() -> None:
    class Extremes(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            logits = torch.full_like(image[:, :1], 1e4)
            logits[..., 16:, :] = -float("inf")
            return logits

    probability = predict(Extremes(), photo(32, 32))
    assert probability[:16].min() == 1.0
    assert probability[16:].max() == 0.0

    class Broken(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image[:, :1] * float("nan")

    assert np.isnan(predict(Broken(), photo(70, 40))).all()


def test_a_model_of_another_resolution_is_an_error_of_ours() -> None:
    with pytest.raises(AssertionError, match=r"logits of shape \(1, 1, 16, 16\)"):
        predict(nn.Sequential(PixelModel(), nn.AvgPool2d(2)), photo(32, 32))


@pytest.mark.gpu
def test_a_gpu_predicts_what_the_cpu_does_in_float32_and_nearly_so_in_bfloat16() -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA GPU")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 1, 5, padding=2))
    image, cuda = photo(100, 150), torch.device("cuda")
    expected = predict(model, image)
    model.to(cuda)
    for amp_dtype, tolerance in ((None, 1e-3), (torch.bfloat16, 2e-2)):
        on_gpu = predict_image(model, image, tile_px=32, overlap=0.25, device=cuda, batch_size=7, amp_dtype=amp_dtype)
        np.testing.assert_allclose(on_gpu, expected, rtol=0, atol=tolerance)
