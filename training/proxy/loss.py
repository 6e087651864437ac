"""open_clip's contrastive loss where a caption may be true of several images."""

import torch
from open_clip.loss import ClipLoss
from torch.nn import functional


class SharedCaptionLoss(ClipLoss):  # type: ignore[misc]
    """Cross entropy of images with the captions true of them, and of captions with their images.

    The logits are open_clip's. An image's target is uniform over its true captions, a caption's
    over its images, as in UniCL (Yang et al. 2022, "Unified Contrastive Learning in
    Image-Text-Label Space", Eq. 3 and 4): no true pair is pushed apart. With one caption an image,
    true of nothing else, it is :class:`open_clip.loss.ClipLoss` itself.
    """

    def forward(  # noqa: D102 - as its base class, with truth
        self,
        image_features: torch.Tensor,
        text_features: torch.Tensor,
        logit_scale: torch.Tensor,
        truth: torch.Tensor,
    ) -> torch.Tensor:
        per_image, per_text = self.get_logits(image_features, text_features, logit_scale)
        of_images = functional.cross_entropy(per_image, _shares(truth))
        of_texts = functional.cross_entropy(per_text, _shares(truth.T))
        return (of_images + of_texts) / 2


def _shares(truth: torch.Tensor) -> torch.Tensor:
    weights = truth.float()
    return weights / weights.sum(dim=1, keepdim=True)
