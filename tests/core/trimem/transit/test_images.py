"""Images: cut and put together, compressed and expanded by the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner, Result

from trimem import CorruptTensorError, FingerprintMismatch, InvalidInputError
from trimem.cli import app
from trimem.transit.config import TransitConfig
from trimem.transit.idrp import Idrp
from trimem.transit.images import (
    crops,
    from_patches,
    image_files,
    learned_and_held,
    mirrored,
    patch_size,
    read_image,
    to_patches,
    write_image,
)
from trimem.transit.stored_images import compress_image, expand_image, psnr


def picture(height: int, width: int, seed: int) -> Tensor:
    """Return an image of soft waves, in whole steps of 1/255 as a file holds them."""
    y, x = torch.meshgrid(torch.arange(height) / 9, torch.arange(width) / 7, indexing="ij")
    waves = [(x * (c + 1) + y * seed).sin() * (y + c).cos() for c in range(3)]
    return (torch.stack(waves, dim=2) * 127 + 127).round() / 255


@pytest.mark.parametrize(("height", "width", "size"), [(16, 24, 8), (17, 23, 8), (1, 1, 4), (5, 40, 32)])
def test_patches_come_together_again(height: int, width: int, size: int) -> None:
    image = torch.rand(height, width, 3, generator=torch.Generator().manual_seed(0))
    patches = to_patches(image, size)
    assert patches.shape == (-(-height // size) * -(-width // size), size * size * 3)
    assert torch.equal(from_patches(patches, height, width), image)
    assert patch_size(patches.shape[1]) == size


def test_a_patch_is_a_square_of_the_image() -> None:
    image = picture(16, 24, seed=1)
    assert torch.equal(to_patches(image, 8)[4].view(8, 8, 3), image[8:, 8:16])


def test_a_square_is_looked_at_in_eight_ways() -> None:
    patch = torch.arange(2 * 2 * 3.0).view(1, 12)
    seen = mirrored(patch.repeat(200, 1), torch.Generator().manual_seed(0)).unique(dim=0)
    turned = [patch.view(2, 2, 3).rot90(quarters) for quarters in range(4)]
    ways = [way.reshape(12) for each in turned for way in (each, each.flip(0))]
    assert torch.equal(seen, torch.stack(ways).unique(dim=0))
    assert len(seen) == 8


def test_patches_are_drawn_from_anywhere() -> None:
    picture = torch.arange(6 * 5 * 3.0).view(6, 5, 3) / 255
    draw = crops([picture, torch.zeros(3, 9, 3)], 4)
    seen = draw(400, torch.Generator().manual_seed(0)).unique(dim=0)
    all_there_are = [picture[top : top + 4, left : left + 4].reshape(-1) for top in range(3) for left in range(2)]
    torch.testing.assert_close(seen, torch.stack(all_there_are).unique(dim=0))
    with pytest.raises(InvalidInputError, match="none of 1 images holds a patch of 8 x 8"):
        crops([picture], 8)


def test_some_images_are_held_back_to_choose() -> None:
    files = [Path(str(i)) for i in range(21)]
    learned, held = learned_and_held(files)
    assert held == [files[0], files[10], files[20]]
    assert sorted([*learned, *held]) == sorted(files)
    assert learned_and_held(files[:2]) == ([files[1]], [files[0]])
    assert learned_and_held(files[:1]) == (files[:1], files[:1]), "there is no other"


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="height, width, 3"):
        to_patches(torch.zeros(4, 4), 2)
    with pytest.raises(InvalidInputError, match="6 patches, got 5"):
        from_patches(torch.zeros(5, 192), 16, 24)
    with pytest.raises(InvalidInputError, match="no square patches"):
        patch_size(384)
    with pytest.raises(InvalidInputError, match="holds no image"):
        image_files(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    with pytest.raises(InvalidInputError, match=r"broken.png cannot be read"):
        read_image(tmp_path / "broken.png")


def test_a_file_holds_an_image_within_the_bound_and_says_whose_it_is(tmp_path: Path) -> None:
    image = picture(20, 30, seed=2)
    codec = Idrp.principal(to_patches(image, 4), TransitConfig(6, layers=0))
    path = tmp_path / "one.transit"
    plain = compress_image(codec, image, path)
    assert plain == 5 * 8 * 6
    assert psnr(image, expand_image(codec, path)) > 20
    bounded = compress_image(codec, image, path, max_error=0.01)
    assert plain < bounded < 2 * image.numel()
    assert (expand_image(codec, path) - image).abs().max() <= 0.01 + 1e-7
    with pytest.raises(FingerprintMismatch, match="give the codec"):
        expand_image(Idrp.principal(to_patches(image, 4), TransitConfig(5, layers=0)), path)
    path.write_bytes(b"0")
    with pytest.raises(CorruptTensorError, match=r"one.transit"):
        expand_image(codec, path)


def command(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["transit", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def test_from_a_folder_of_images_and_back(tmp_path: Path) -> None:
    images, codec, packed, back = (tmp_path / name for name in ("images", "codec.safetensors", "packed", "back"))
    images.mkdir()
    for seed in range(3):
        write_image(picture(33, 40, seed), images / f"{seed}.png")
    fitted = (
        "fit",
        images,
        "--codec",
        codec,
        "--patch",
        4,
        "--code",
        6,
        "--steps",
        10,
        "--plot",
        tmp_path / "loss.png",
    )
    said = json.loads(command(*fitted, "--json").stdout)
    assert (said["images"], said["patches"]) == (3, 270)
    assert said["loss"] <= 1.0
    assert "48 numbers to 6" in command(*fitted).stdout
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")

    rows = json.loads(command("compress", images, "--codec", codec, "--out", packed, "--json").stdout)
    assert [(row["bytes"], row["raw"]) for row in rows] == [(540, 3960)] * 3
    assert "3,960 bytes to 540" in command("compress", images, "--codec", codec, "--out", packed).stdout
    command("expand", packed, "--codec", codec, "--out", back)
    assert read_image(back / "1.png").shape == (33, 40, 3)

    command("compress", images, "--codec", codec, "--out", packed, "--max-error", 0.05)
    rows = json.loads(command("expand", packed, "--codec", codec, "--out", back, "--compare", images, "--json").stdout)
    assert all(row["max_error"] <= 0.05 + 1e-6 and row["psnr"] > 26 for row in rows)
    assert read_image(back / "1.png").shape == (33, 88, 3), "side by side"
    assert torch.equal(read_image(back / "1.png")[:, :40], read_image(images / "1.png"))
    assert "dB" in command("expand", packed, "--codec", codec, "--out", back, "--compare", images).stdout
    (images / "1.png").rename(images / "[b].png")
    assert "[b].png  " in command("compress", images, "--codec", codec, "--out", packed).stdout
    assert "[b]\n" in command("expand", packed, "--codec", codec, "--out", back).stdout
    assert "holds no image" in command("compress", packed, "--codec", codec, "--out", back, code=1).stderr
