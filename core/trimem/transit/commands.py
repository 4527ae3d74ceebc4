"""``trimem transit``: codecs fitted to images and texts; images by folder, compressed and expanded again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from trimem.console import JsonOption, errors_said, out, print_json

transit = typer.Typer(
    name="transit",
    help="Store images in few bytes, with a bound on the error; fit codecs to texts (fit-texts), for banks of them.",
    no_args_is_help=True,
)

_ENCODED_AT_ONCE = 512
_TEXT_BYTES = 1 << 30
_SMALLER = 16
_CHOOSING = 1 << 20
"""Numbers of patches that choose the best state, for they are looked at often."""

CodecOption = Annotated[Path, typer.Option("--codec", help="File of the codec.")]


@transit.command("fit")
@errors_said
def fit_images(
    images: Annotated[Path, typer.Argument(help="Folder of images.")],
    codec: CodecOption,
    patch: Annotated[int, typer.Option("--patch", help="Height and width of a patch, in pixels.")] = 32,
    code: Annotated[
        int | None,
        typer.Option("--code", help="Numbers that are stored of a patch; by default a sixteenth of its own."),
    ] = None,
    numbers: Annotated[str, typer.Option("--numbers", help="In what: int8, int4, int2, float16 or float32.")] = "int8",
    max_error: Annotated[
        float | None, typer.Option("--max-error", help="How far off a pixel may be, of 1; by default, as comes.")
    ] = None,
    steps: Annotated[int, typer.Option("--steps", help="Of training; 0 is PCA.")] = 800,
    seed: Annotated[int, typer.Option("--seed", help="Of training.")] = 0,
    plot: Annotated[Path | None, typer.Option("--plot", help="Where to draw the loss, as PNG or SVG.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Fit a codec to patches from anywhere in images; every tenth image, and at least one, chooses the best state."""
    import torch

    from trimem.transit.config import TransitConfig
    from trimem.transit.images import crops, image_files, learned_and_held, mirrored, read_image, to_patches
    from trimem.transit.pictures import CHANNELS
    from trimem.transit.train import fit, plot_fit

    files = image_files(images)
    learned, held = ([read_image(file) for file in part] for part in learned_and_held(files))
    patches, validation = (torch.cat([to_patches(image, patch) for image in part]) for part in (learned, held))
    found = len(patches) + len(validation)
    validation = validation[:: max(1, validation.numel() // _CHOOSING)]
    code = max(1, CHANNELS * patch**2 // _SMALLER) if code is None else code
    config = TransitConfig.of_patches(patch, code, numbers=numbers, max_error=max_error)
    done = fit(
        patches,
        config,
        validation=validation,
        steps=steps,
        batch=512 if config.patch is None else 64,
        augment=mirrored,
        draw=crops(learned, patch),
        seed=seed,
    )
    done.codec.save(codec)
    if plot is not None:
        plot_fit(done, plot)
    if as_json:
        print_json(
            {
                "codec": str(codec),
                "fingerprint": done.codec.fingerprint,
                "images": len(files),
                "patches": found,
                "loss": done.best.loss,
                "seconds": done.seconds,
            }
        )
        return
    out.print(
        f"{found:,} patches of {len(files)} images: {patch * patch * 3} numbers to {code}, mean squared error "
        f"{done.best.loss:.3f} of PCA's, in {done.seconds:.0f} s",
        highlight=False,
    )


@transit.command("fit-texts")
@errors_said
def fit_texts(
    texts: Annotated[Path, typer.Argument(help="File of texts, one a line.")],
    codec: CodecOption,
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="Hub id or folder; by default all-MiniLM-L6-v2.")
    ] = None,
    code: Annotated[int, typer.Option("--code", help="Numbers that are stored of an embedding.")] = 256,
    numbers: Annotated[str, typer.Option("--numbers", help="In what: int8, int4, int2, float16 or float32.")] = "int4",
    max_error: Annotated[
        float | None, typer.Option("--max-error", help="How far off a number may be; by default, as comes.")
    ] = None,
    steps: Annotated[int, typer.Option("--steps", help="Of training that nearest neighbours stay so; 0 is PCA.")] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Of training.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Fit a codec for a bank of transit memory to embeddings of texts like those it is to hold."""
    import numpy as np
    import torch

    from trimem.progress import track
    from trimem.text.encoders import as_encoder
    from trimem.text.readers import read_file
    from trimem.transit.config import TransitConfig
    from trimem.transit.train import fit

    lines = [line for line in read_file(texts, max_bytes=_TEXT_BYTES).splitlines() if line.strip()]
    chosen = as_encoder(encoder)
    batches = [lines[start : start + _ENCODED_AT_ONCE] for start in range(0, len(lines), _ENCODED_AT_ONCE)]
    vectors = []
    with track("encoding texts", len(lines), None) as advance:
        for batch in batches:
            vectors.append(chosen.encode_documents(batch))
            advance(len(batch))
    config = TransitConfig(
        code, numbers=numbers, max_error=max_error, **({} if steps else {"layers": 0, "predictor_hidden": 8})
    )
    done = fit(torch.from_numpy(np.concatenate(vectors)), config, objective="neighbours", steps=steps, seed=seed)
    done.codec.save(codec)
    if as_json:
        print_json(
            {
                "codec": str(codec),
                "fingerprint": done.codec.fingerprint,
                "encoder": chosen.fingerprint,
                "texts": len(lines),
                "bytes": done.codec.nbytes,
                "loss": done.best.loss,
            }
        )
        return
    out.print(
        f"{len(lines):,} texts: {done.codec.dim} numbers to {done.codec.nbytes} bytes, in {done.seconds:.0f} s",
        highlight=False,
    )


@transit.command("compress")
@errors_said
def compress_images(
    images: Annotated[Path, typer.Argument(help="Folder of images.")],
    codec: CodecOption,
    folder: Annotated[Path, typer.Option("--out", help="Folder for what is stored, a file an image.")],
    max_error: Annotated[
        float | None, typer.Option("--max-error", help="How far off a pixel may be, of 1; by default the codec's.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compress the images of a folder."""
    from trimem.transit.idrp import Idrp
    from trimem.transit.images import image_files, read_image
    from trimem.transit.stored_images import compress_image

    opened = Idrp.load(codec)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for file in image_files(images):
        path = folder / f"{file.stem}.transit"
        image = read_image(file)
        rows.append({"image": file.name, "bytes": compress_image(opened, image, path, max_error), "raw": image.numel()})
    if as_json:
        print_json(rows)
        return
    for row in rows:
        out.print(f"{escape(str(row['image']))}  {row['raw']:,} bytes to {row['bytes']:,}", highlight=False)


@transit.command("expand")
@errors_said
def expand_images(
    stored: Annotated[Path, typer.Argument(help="Folder that trimem transit compress wrote.")],
    codec: CodecOption,
    folder: Annotated[Path, typer.Option("--out", help="Folder for the images, as PNG.")],
    compare: Annotated[
        Path | None, typer.Option("--compare", help="Folder of the originals: they are shown beside what came back.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Expand what was compressed, beside the originals if they are given."""
    from trimem.transit.idrp import Idrp
    from trimem.transit.images import image_files, read_image, write_image
    from trimem.transit.stored_images import SUFFIX, beside, expand_image, psnr

    opened = Idrp.load(codec)
    folder.mkdir(parents=True, exist_ok=True)
    originals = {} if compare is None else {file.stem: file for file in image_files(compare)}
    rows = []
    for file in sorted(stored.glob(f"*{SUFFIX}")):
        image = expand_image(opened, file)
        row: dict[str, object] = {"image": file.stem}
        if file.stem in originals:
            original = read_image(originals[file.stem])
            row |= {"psnr": psnr(original, image), "max_error": float((original - image).abs().max())}
            image = beside(original, image)
        write_image(image, folder / f"{file.stem}.png")
        rows.append(row)
    if as_json:
        print_json(rows)
        return
    for row in rows:
        said = f"  {row['psnr']:.2f} dB, no pixel further off than {row['max_error']:.3f}" if "psnr" in row else ""
        out.print(f"{escape(str(row['image']))}{said}", highlight=False)
