"""What is minimised: pure functions of raw logits and a mask, each finite for any logit and any mask.

Every term is a mean over images of something computed per image, so the mean over micro-batches of equal size
is the loss of the large batch, and so is the gradient. Everything is computed in float32 or wider.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from crack_sweeps.specs.experiment import Loss

# Below this, 1 - Tversky index counts as 0: its power below 1 has an infinite slope at 0.
SMALLEST_TVERSKY_MISS = 1e-6


def focal_loss(
    logits_B1HW: Float[Tensor, "B 1 H W"], mask_B1HW: Float[Tensor, "B 1 H W"], *, gamma: float, alpha: float | None
) -> Float[Tensor, ""]:
    """Cross-entropy that fades where the net is already sure (Lin et al. 2017, eq. 5), mean over pixels.

    Args:
        logits_B1HW: Raw output, before any sigmoid.
        mask_B1HW: 1.0 on crack pixels, 0.0 elsewhere.
        gamma: Strength of the fading; 0 is plain cross-entropy.
        alpha: Weight of the crack class in (0, 1), 1 - alpha of the background; None weighs both with 1.
    """
    logits_B1HW, mask_B1HW = _wide(logits_B1HW, mask_B1HW)
    surprise_B1HW = F.binary_cross_entropy_with_logits(logits_B1HW, mask_B1HW, reduction="none")
    # (1 - p_t)^gamma through its logarithm: the power itself has no finite slope where p_t rounds to 1.
    towards_truth_B1HW = logits_B1HW * (2 * mask_B1HW - 1)
    focal_B1HW = torch.exp(gamma * F.logsigmoid(-towards_truth_B1HW)) * surprise_B1HW
    if alpha is not None:
        focal_B1HW = focal_B1HW * (alpha * mask_B1HW + (1 - alpha) * (1 - mask_B1HW))
    return focal_B1HW.mean()


def bce_loss(logits_B1HW: Float[Tensor, "B 1 H W"], mask_B1HW: Float[Tensor, "B 1 H W"]) -> Float[Tensor, ""]:
    """Plain binary cross-entropy, mean over pixels, in nats."""
    return F.binary_cross_entropy_with_logits(*_wide(logits_B1HW, mask_B1HW))


def dice_loss(
    logits_B1HW: Float[Tensor, "B 1 H W"], mask_B1HW: Float[Tensor, "B 1 H W"], *, smooth: float
) -> Float[Tensor, ""]:
    """1 - Dice of each image (Milletari et al. 2016, with plain sums below the line), then the mean of images.

    Args:
        logits_B1HW: Raw output, before any sigmoid.
        mask_B1HW: 1.0 on crack pixels, 0.0 elsewhere.
        smooth: Pixels added above and below the line: an image without crack, found empty, scores 0.
    """
    logits_B1HW, mask_B1HW = _wide(logits_B1HW, mask_B1HW)
    p_B1HW = torch.sigmoid(logits_B1HW)
    overlap_B = _pixels(p_B1HW * mask_B1HW)
    return (1 - (2 * overlap_B + smooth) / (_pixels(p_B1HW) + _pixels(mask_B1HW) + smooth)).mean()


def focal_tversky_loss(
    logits_B1HW: Float[Tensor, "B 1 H W"],
    mask_B1HW: Float[Tensor, "B 1 H W"],
    *,
    alpha: float,
    beta: float,
    gamma: float,
    smooth: float,
) -> Float[Tensor, ""]:
    """(1 - Tversky index)^gamma of each image (Abraham and Khan 2019), then the mean of images.

    Args:
        logits_B1HW: Raw output, before any sigmoid.
        mask_B1HW: 1.0 on crack pixels, 0.0 elsewhere.
        alpha: Weight of false positives.
        beta: Weight of false negatives.
        gamma: Exponent; below 1 it keeps the slope steep near a perfect score.
        smooth: Pixels added above and below the line.
    """
    logits_B1HW, mask_B1HW = _wide(logits_B1HW, mask_B1HW)
    p_B1HW = torch.sigmoid(logits_B1HW)
    hit_B = _pixels(p_B1HW * mask_B1HW)
    # 1 - index, written without the subtraction, which would lose the last digits where the net is good
    wrong_B = alpha * _pixels(p_B1HW * (1 - mask_B1HW)) + beta * _pixels((1 - p_B1HW) * mask_B1HW)
    miss_B = wrong_B / (hit_B + wrong_B + smooth)
    return miss_B.clamp_min(SMALLEST_TVERSKY_MISS).pow(gamma).mean()


def soft_cldice_loss(
    logits_B1HW: Float[Tensor, "B 1 H W"], mask_B1HW: Float[Tensor, "B 1 H W"], *, iterations: int, smooth: float
) -> Float[Tensor, ""]:
    """1 - soft clDice of each image (Shit et al. 2021, algorithm 2), then the mean of images.

    The dearest term by far: it keeps about 15 * (iterations + 1) float32 maps for the backward pass, which is
    23 MiB per image of 256 px at 5 iterations, where the other terms together keep 2 MiB.

    Args:
        logits_B1HW: Raw output, before any sigmoid.
        mask_B1HW: 1.0 on crack pixels, 0.0 elsewhere.
        iterations: Erosions of the soft skeleton; half the widest crack in px, or more.
        smooth: Pixels added above and below both lines, so that an image without crack is defined.
    """
    logits_B1HW, mask_B1HW = _wide(logits_B1HW, mask_B1HW)
    p_B1HW = torch.sigmoid(logits_B1HW)
    p_line_B1HW = soft_skeleton(p_B1HW, iterations=iterations)
    with torch.no_grad():
        mask_line_B1HW = soft_skeleton(mask_B1HW, iterations=iterations)
    precision_B = (_pixels(p_line_B1HW * mask_B1HW) + smooth) / (_pixels(p_line_B1HW) + smooth)
    recall_B = (_pixels(mask_line_B1HW * p_B1HW) + smooth) / (_pixels(mask_line_B1HW) + smooth)
    return (1 - 2 * precision_B * recall_B / (precision_B + recall_B)).mean()


def soft_skeleton(p_B1HW: Float[Tensor, "B 1 H W"], *, iterations: int) -> Float[Tensor, "B 1 H W"]:
    """The differentiable centre line of Shit et al. 2021, algorithm 1: what each opening takes away, added up."""
    eroded_B1HW = _eroded(p_B1HW)
    line_B1HW = F.relu(p_B1HW - _dilated(eroded_B1HW))
    for _ in range(iterations):
        p_B1HW, eroded_B1HW = eroded_B1HW, _eroded(eroded_B1HW)
        rest_B1HW = F.relu(p_B1HW - _dilated(eroded_B1HW))
        line_B1HW = line_B1HW + F.relu(rest_B1HW - line_B1HW * rest_B1HW)
    return line_B1HW


def loss_terms(
    logits_B1HW: Float[Tensor, "B 1 H W"], mask_B1HW: Shaped[Tensor, "B 1 H W"], loss: Loss
) -> dict[str, Tensor]:
    """Every term of the loss with its weight applied: their sum is what is minimised.

    Args:
        logits_B1HW: Raw output of any float type; under autocast too, this is computed in float32.
        mask_B1HW: 1 on crack pixels, 0 elsewhere, of any type.
        loss: Which terms, with what weights. `dice_smooth` serves every overlap term; a weight of 0 leaves a term out.
    """
    with torch.autocast(logits_B1HW.device.type, enabled=False):
        logits, mask = _wide(logits_B1HW, mask_B1HW)
        terms: dict[str, Tensor] = {}
        if loss.focal_weight:
            terms["focal"] = loss.focal_weight * focal_loss(
                logits, mask, gamma=loss.focal_gamma, alpha=loss.focal_alpha
            )
        if loss.dice_weight:
            terms["dice"] = loss.dice_weight * dice_loss(logits, mask, smooth=loss.dice_smooth)
        if loss.bce_weight:
            terms["bce"] = loss.bce_weight * bce_loss(logits, mask)
        if loss.tversky_weight:
            terms["tversky"] = loss.tversky_weight * focal_tversky_loss(
                logits,
                mask,
                alpha=loss.tversky_alpha,
                beta=loss.tversky_beta,
                gamma=loss.tversky_gamma,
                smooth=loss.dice_smooth,
            )
        if loss.cldice_weight:
            terms["cldice"] = loss.cldice_weight * soft_cldice_loss(
                logits, mask, iterations=loss.cldice_iterations, smooth=loss.dice_smooth
            )
    return terms


def total_loss(terms: dict[str, Tensor]) -> Float[Tensor, ""]:
    """The sum of the weighted terms."""
    return torch.stack(list(terms.values())).sum()


def _wide(logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float32, or in float64 where the logits are: half precision adds up no 65,536 pixels."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits, mask.to(logits.dtype)


def _pixels(map_B1HW: Tensor) -> Tensor:
    return map_B1HW.sum(dim=(1, 2, 3))


# Minimum and maximum over neighbours by shifted views, not by max_pool2d: on CUDA the pool's backward pass may add up
# overlapping windows in no fixed order, and resuming must be bit-exact.


def _eroded(p_B1HW: Tensor) -> Tensor:
    """Minimum over the plus-shaped neighbourhood; the border continues outwards as +inf, which never wins."""
    return torch.minimum(
        _best_of_three(p_B1HW, torch.minimum, torch.inf, dim=2), _best_of_three(p_B1HW, torch.minimum, torch.inf, dim=3)
    )


def _dilated(p_B1HW: Tensor) -> Tensor:
    """Maximum over 3x3."""
    column_B1HW = _best_of_three(p_B1HW, torch.maximum, -torch.inf, dim=2)
    return _best_of_three(column_B1HW, torch.maximum, -torch.inf, dim=3)


def _best_of_three(
    p_B1HW: Tensor, better: Callable[[Tensor, Tensor], Tensor], outside: float, *, dim: Literal[2, 3]
) -> Tensor:
    """The better of each cell and its two neighbours along one axis, with `outside` beyond the border."""
    size = p_B1HW.shape[dim]
    padded = F.pad(p_B1HW, (0, 0, 1, 1) if dim == 2 else (1, 1, 0, 0), value=outside)
    return better(better(padded.narrow(dim, 0, size), p_B1HW), padded.narrow(dim, 2, size))
