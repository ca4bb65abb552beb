"""The anatomical prior: a latent per image, pulled in training towards one of its mask (Eq. 1)."""

import random

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_seg.episode import Features
from fewshot_seg.errors import OptionError, check_choice
from fewshot_seg.functional import area_average, full_precision
from fewshot_seg.interfaces import Latent, Privileged
from fewshot_seg_apscl.gaussian import (
    Gaussian,
    balanced_divergence,
    divergence,
    to_gaussian,
)
from fewshot_seg_apscl.label_encoder import LabelDecoder, LabelEncoder
from fewshot_seg_apscl.latents import SeenLatents, support_latent, with_query_latent

EVAL_LATENTS = ("mean", "sample", "train_mean", "support", "other")


class GaussianBlock(nn.Module):
    """The paper's prior and posterior block: one flatten, three linear layers (section 3.2)."""

    def __init__(
        self, *, dim: int, latent: int, hidden: int, pool: int | str, grid: tuple[int, int]
    ) -> None:
        super().__init__()
        self.pool = {"gap": (1, 1), "none": grid}.get(str(pool)) or (int(pool), int(pool))
        self.exact = pool == "none"
        cells = self.pool[0] * self.pool[1]
        self.layers = nn.Sequential(
            nn.Linear(dim * cells, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 2 * latent),
        )

    def forward(self, maps: Float[Tensor, "image dim rows cols"]) -> Gaussian:
        if self.exact and tuple(maps.shape[-2:]) != self.pool:
            raise ValueError(
                f"prior_pool 'none' was built for a feature grid of {self.pool[0]}x{self.pool[1]} "
                f"but the images give {maps.shape[-2]}x{maps.shape[-1]}: set image_size"
            )
        pooled = maps if self.exact else F.adaptive_avg_pool2d(maps, self.pool)
        with full_precision(maps):  # a few rows against large weights: rounding those costs more
            return to_gaussian(self.layers(pooled.flatten(1).float()))


class AnatomicalPrior(nn.Module):
    """Latent z_x of each image (APSCL section 3.2); in training its KL to the mask's latent.

    Given by `build`: dim (channels), grid (feature rows and columns, for prior_pool "none").

    latent: size d of the latent, 32 in the paper.   hidden: width of the linear layers (unstated).
    prior_pool: side of the average pooling before the flatten; "gap" is 1, "none" the paper's.
    label_encoder: "light", "resnet18", "resnet101" (the paper's).   label_input: "mask" or
        "mask+image".   label_recon: weight of reconstructing the mask from z_y; 0 is the paper's.
    latent_source: what the features get in training: "prior" (z_x) or "posterior" (z_y).
    prior_condition: "image", or "support_mask": the support's features are multiplied by their
        mask before pooling, which is legal at test; the query's are never.
    kl_dir: "image_label" as printed, KL(P(z_x) || P(z_y)), or "label_image".
    kl_reduction: "sum" or "mean" over the latent dimensions.
    kl_balance: share of the KL's gradient that goes to its first argument, in (0, 1); 0 is off.
    free_bits: nats per dimension that cost nothing.
    eval_latent: z at test. "mean" or "sample" of the image's own Gaussian; or, to see what z
        carries, in its place: "train_mean", for every image the mean of mu_x over the last images
        of training; "support", for the query the mean of mu_x over the episode's support images
        (another patient, about the same place); "other", for the query the mu_x of one training
        image (another patient, any place). May be changed on a trained checkpoint.
    eval_samples, num_samples: how many samples are decoded and averaged at test (with "sample")
        and in training.   eval_seed: seed of the test noise and of the choice of the "other" image,
        which are the same for every call so that results repeat.

    Losses: "kl", the support's mean plus the query's mean; "label_recon", already weighted.
    Diagnostics: "kl_per_dim", "latent_std" (mean deviation), "latent_spread" (variance of the mean
        over images; below 1e-3 the latent has collapsed).
    """

    def __init__(
        self,
        *,
        dim: int,
        grid: tuple[int, int] = (32, 32),
        latent: int = 32,
        hidden: int = 512,
        prior_pool: int | str = 4,
        label_encoder: str = "light",
        label_input: str = "mask",
        label_recon: float = 0.1,
        latent_source: str = "prior",
        prior_condition: str = "image",
        kl_dir: str = "image_label",
        kl_reduction: str = "sum",
        kl_balance: float = 0.0,
        free_bits: float = 0.0,
        eval_latent: str = "mean",
        eval_samples: int = 1,
        num_samples: int = 1,
        eval_seed: int = 0,
    ) -> None:
        super().__init__()
        check_choice("latent_source", latent_source, ("prior", "posterior"))
        check_choice("prior_condition", prior_condition, ("image", "support_mask"))
        check_choice("kl_dir", kl_dir, ("image_label", "label_image"))
        check_choice("kl_reduction", kl_reduction, ("sum", "mean"))
        check_choice("eval_latent", eval_latent, EVAL_LATENTS)
        _check_pool(prior_pool)
        _check_numbers(latent, hidden, eval_samples, num_samples, kl_balance, free_bits)
        if eval_samples > 1 and eval_latent != "sample":
            raise OptionError(
                f"eval_samples > 1 needs eval_latent='sample': '{eval_latent}' is one value"
            )
        if label_recon < 0:
            raise OptionError(f"label_recon={label_recon} is a loss weight and cannot be negative")
        self.latent = latent
        self.latent_source, self.prior_condition = latent_source, prior_condition
        self.kl_dir, self.kl_reduction = kl_dir, kl_reduction
        self.kl_balance, self.free_bits = kl_balance, free_bits
        self.eval_latent = eval_latent
        self.eval_samples, self.num_samples = eval_samples, num_samples
        self.label_recon = label_recon
        shape = {"dim": dim, "latent": latent, "hidden": hidden}
        self.prior_block = GaussianBlock(**shape, pool=prior_pool, grid=grid)
        self.label_encoder = LabelEncoder(
            dim=dim, label_encoder=label_encoder, label_input=label_input
        )
        self.posterior_block = GaussianBlock(**shape, pool=prior_pool, grid=grid)
        self.label_decoder = LabelDecoder(latent=latent) if label_recon else None
        self.seen = SeenLatents(latent=latent, required=eval_latent in ("train_mean", "other"))
        noise = torch.randn(
            eval_samples, 2, latent, generator=torch.Generator().manual_seed(eval_seed)
        )
        self.register_buffer("eval_noise", noise, persistent=False)
        self.eval_draw = random.Random(eval_seed).random()

    @property
    def samples(self) -> int:
        """How often the pipeline is to repeat the episode, in the present mode."""
        if self.training:
            return self.num_samples
        return self.eval_samples if self.eval_latent == "sample" else 1

    def forward(self, features: Features, privileged: Privileged | None) -> Latent:
        image = self.prior_block(self._conditioned(features))
        if privileged is None:
            return Latent(self._latent(image, features))
        # an encoder of another stride than the label encoder's 8 has another grid
        label_maps = area_average(self.label_encoder(privileged), features.grid)
        label = self.posterior_block(label_maps)
        if self.training:
            self.seen.remember(image.mean)
        losses = {"kl": self._kl(image, label, features.n_support)}
        z_label = label.at(torch.randn_like(label.mean))
        if self.label_decoder is not None:
            loss = self.label_decoder.loss(z_label, privileged.masks)
            losses["label_recon"] = self.label_recon * loss
        z = z_label if self.latent_source == "posterior" else self._latent(image, features)
        return Latent(z, losses, _diagnostics(image, label))

    def _conditioned(self, features: Features) -> Float[Tensor, "image dim rows cols"]:
        if self.prior_condition == "image":
            return features.maps()
        masks = rearrange(features.support_masks, "b w s r c -> (b w s) 1 r c")
        n_query = features.query.shape[0] * features.query.shape[1]
        support, query = torch.split(features.maps(), [features.n_support, n_query])
        return torch.cat([support * masks.to(support.dtype), query])

    def _latent(self, image: Gaussian, features: Features) -> Float[Tensor, "image latent"]:
        if self.training:
            return image.at(torch.randn_like(image.mean))
        if self.eval_latent == "sample":
            return image.at(self._test_noise(features))
        means = image.mean
        if self.eval_latent == "train_mean":
            return self.seen.mean().expand_as(means)
        if self.eval_latent == "support":
            return with_query_latent(means, support_latent(means, features), features)
        if self.eval_latent == "other":
            return with_query_latent(means, self.seen.one(self.eval_draw), features)
        return means

    def _test_noise(self, features: Features) -> Float[Tensor, "image latent"]:
        """Fixed noise: one vector for the support and one for the query of every sample.

        All query slices share theirs, so that an answer does not depend on how slices are batched.
        """
        noise: Tensor = self.eval_noise  # type: ignore[assignment]
        episodes = features.query.shape[0] // noise.shape[0]
        per_episode = noise.repeat_interleave(episodes, dim=0)
        support = per_episode[:, 0].repeat_interleave(
            features.support.shape[1] * features.support.shape[2], dim=0
        )
        query = per_episode[:, 1].repeat_interleave(features.query.shape[1], dim=0)
        return torch.cat([support, query])

    def _kl(self, image: Gaussian, label: Gaussian, n_support: int) -> Float[Tensor, ""]:
        first, second = (image, label) if self.kl_dir == "image_label" else (label, image)
        with full_precision(image.mean):
            per_dim = balanced_divergence(first, second, self.kl_balance)
            if self.free_bits:
                per_dim = per_dim.clamp_min(self.free_bits)
            total = per_dim.sum(1) if self.kl_reduction == "sum" else per_dim.mean(1)
        return total[:n_support].mean() + total[n_support:].mean()


def _diagnostics(image: Gaussian, label: Gaussian) -> dict[str, Tensor]:
    with torch.no_grad():
        return {
            "kl_per_dim": divergence(image, label).mean(0),
            "latent_std": torch.exp(0.5 * image.log_variance).mean(),
            "latent_spread": image.mean.var(0, unbiased=False).mean(),
        }


def _check_pool(pool: int | str) -> None:
    if pool in ("gap", "none") or (
        isinstance(pool, int) and not isinstance(pool, bool) and pool > 0
    ):
        return
    raise OptionError(f"prior_pool={pool!r} must be a positive number of cells, 'gap' or 'none'")


def _check_numbers(
    latent: int, hidden: int, eval_samples: int, num_samples: int, balance: float, bits: float
) -> None:
    sizes = {
        "latent": latent,
        "hidden": hidden,
        "eval_samples": eval_samples,
        "num_samples": num_samples,
    }
    for name, value in sizes.items():
        if value < 1:
            raise OptionError(f"{name}={value} must be at least 1")
    if not 0 <= balance < 1:
        raise OptionError(f"kl_balance={balance} must lie in [0, 1); 0 switches it off")
    if bits < 0:
        raise OptionError(f"free_bits={bits} are nats per dimension and cannot be negative")
