"""Photos as networks want them, smaller and cropped, and the way back to the photo's full size."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fvgen.cameras import Cameras


@dataclass(frozen=True)
class Picture:
    """A photo resampled as a whole, then cropped.

    Attributes:
        image: ``[h, w, 3]`` uint8.
        photo: (width, height) of the photo.
        resized: (width, height) of the whole photo after resampling.
        corner: (left, top) of the crop in it.
    """

    image: Tensor
    photo: tuple[int, int]
    resized: tuple[int, int]
    corner: tuple[int, int]

    def camera_of_photo(self, camera: Cameras) -> Cameras:
        """The full-size photo's camera from the picture's."""
        left, top = self.corner
        return camera.cropped(-left, -top, *self.resized).resized(*self.photo)

    def cut(self, width: int, height: int) -> "Picture":
        """The middle ``width`` x ``height`` pixels."""
        left, top = (self.image.shape[1] - width) // 2, (self.image.shape[0] - height) // 2
        image = self.image[top : top + height, left : left + width].contiguous()
        return Picture(image, self.photo, self.resized, (self.corner[0] + left, self.corner[1] + top))


def resample(image: Tensor, width: int, height: int) -> Picture:
    """The photo ``[H, W, 3]`` uint8 at another size, uncropped."""
    from PIL import Image

    photo = (image.shape[1], image.shape[0])
    kernel = Image.Resampling.LANCZOS if max(photo) > max(width, height) else Image.Resampling.BICUBIC
    small = Image.fromarray(image.cpu().numpy()).resize((width, height), kernel)
    return Picture(torch.from_numpy(np.array(small)), photo, (width, height), (0, 0))
