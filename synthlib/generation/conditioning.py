"""Conditioning: real pool images in place of words, as a checkpoint's CLIP embeds them, averaged or interpolated.

The paper's domain-gap study, as far as it is known (second-hand, paper_facts): 60 images of each class, encoded by CLIP and
interpolated linearly, condition the diffusion model; by a reader, 3 of the 60 are averaged. Their model is not known.
"""

from collections.abc import Mapping

import pyarrow as pa
import torch
from PIL import Image

from synthlib import digests
from synthlib.data.real import real_training_set
from synthlib.data.sets import ImageSet
from synthlib.devices import require_drawn
from synthlib.generation.checkpoints import Checkpoint
from synthlib.generation.plan import AVERAGED, mixtures
from synthlib.inputs import InputError
from synthlib.settings import GenerateSettings

POOL_SIDE = 224  # pixels of pool images that differ in size: what CLIP's encoders take


def read_pool(settings: GenerateSettings, classes: list[str]) -> dict[str, ImageSet]:
    """`pool_per_class` images of each class, drawn from the real pool by the experiment's seed; test images are never among them.

    They are those that the first few-shot replicate of this size and seed learns from, and the same for all replicates here.
    InputError where the pool has fewer of a class, and for too few to mix.
    """
    count = settings.pool_per_class
    least = AVERAGED if settings.trick == "image_averaged" else 2
    if count < least:
        raise InputError(
            f"pool_per_class is {count}; expected at least {least} with trick {settings.trick!r}: give more."
        )
    given = (settings.dataset, settings.real_dir, classes)
    drawn = real_training_set(*given, images_per_class=count, seed=settings.seed, image_size=POOL_SIDE)
    ids, found = drawn.rows["image_id"].to_pylist(), {}
    for number, name in enumerate(drawn.classes):
        mine = slice(number * count, (number + 1) * count)
        found[name] = ImageSet(drawn.images[mine], drawn.labels[mine], drawn.classes, ids[mine])
    return found


def pool_digest(pool: Mapping[str, ImageSet]) -> str:
    """sha256 of the ids and the pixels of pool images, by class."""
    return digests.sha256_json({name: [images.ids, images.digest()] for name, images in pool.items()})


@torch.inference_mode()
def encode_images(checkpoint: Checkpoint, images: torch.Tensor) -> torch.Tensor:
    """CLIP embeddings float32 [P, D] of images uint8 [P, 3, H, W], each encoded on its own so that it depends on nothing else.

    They are prepared (resized, cropped, normalised) as the checkpoint's feature extractor says. NotFinite: some are nan or
    infinite.
    """
    encoder, found = checkpoint.image_encoder, []
    for image in images:
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        pixels = checkpoint.feature_extractor(images=picture, return_tensors="pt").pixel_values
        found.append(encoder(pixels.to(checkpoint.device, encoder.dtype)).image_embeds.float())
    embeddings = torch.cat(found)
    finite = torch.isfinite(embeddings).all()
    require_drawn(finite, "image embeddings", checkpoint.folder, encoder.dtype, checkpoint.device)
    return embeddings


class PoolEmbeddings:
    """What rows give a checkpoint in place of a prompt's embedding; each pool image is encoded when a row first needs it."""

    def __init__(self, checkpoint: Checkpoint, pool: Mapping[str, ImageSet]) -> None:
        self.checkpoint, self.pool = checkpoint, pool
        self.encoded: dict[tuple[str, int], torch.Tensor] = {}

    def at(self, rows: pa.Table) -> torch.Tensor:
        """Embeddings float32 [B, 1, D] of some rows of one trick and class: weighted sums, see plan.mixtures."""
        name, seeds = rows["class"][0].as_py(), rows["seed"].to_numpy()
        places, weights = mixtures(rows["trick"][0].as_py(), seeds, len(self.pool[name].ids))
        each = torch.stack([torch.stack([self._embedding(name, place) for place in row]) for row in places.tolist()])
        return (torch.from_numpy(weights).to(each)[:, :, None] * each).sum(dim=1, keepdim=True)

    def nothing(self) -> torch.Tensor:
        """The embedding without an image, zeros [1, 1, D], as diffusers' StableDiffusionImageVariationPipeline has it."""
        return torch.zeros(1, 1, self.checkpoint.image_encoder.config.projection_dim, device=self.checkpoint.device)

    def _embedding(self, name: str, place: int) -> torch.Tensor:
        if (name, place) not in self.encoded:
            image = self.pool[name].images[place : place + 1]
            self.encoded[name, place] = encode_images(self.checkpoint, image)[0]
        return self.encoded[name, place]
