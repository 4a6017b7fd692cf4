"""PSNR and SSIM against scikit-image, and where they have a known value."""

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from modules.metrics import psnr, ssim


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    images = torch.rand(3, 3, 24, 31, generator=rng)
    return images, (images + 0.1 * torch.randn(images.shape, generator=rng)).clamp(0, 1)


def test_psnr_is_scikit_images() -> None:
    images, noisy = pair()
    expected = [
        peak_signal_noise_ratio(a.numpy(), b.numpy(), data_range=1)
        for a, b in zip(images, noisy, strict=True)
    ]
    torch.testing.assert_close(
        psnr(noisy, images), torch.tensor(expected), rtol=1e-5, atol=1e-4, check_dtype=False
    )


def test_ssim_is_scikit_images() -> None:
    images, noisy = pair()
    options = {
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
        "data_range": 1,
        "channel_axis": 0,
    }
    expected = [
        structural_similarity(a.double().numpy(), b.double().numpy(), **options)
        for a, b in zip(images, noisy, strict=True)
    ]
    torch.testing.assert_close(
        ssim(noisy, images), torch.tensor(expected), rtol=1e-4, atol=1e-4, check_dtype=False
    )


def test_equal_pictures() -> None:
    images, _ = pair()
    assert psnr(images, images).isinf().all()
    torch.testing.assert_close(ssim(images, images), torch.ones(3))


def test_pictures_smaller_than_the_window_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 11 pixels"):
        ssim(torch.rand(1, 3, 10, 40), torch.rand(1, 3, 10, 40))
