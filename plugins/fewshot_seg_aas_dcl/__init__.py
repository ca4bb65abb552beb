"""AAS-DCL: dual contrastive learning with anatomical auxiliary supervision.

H. Wu, F. Xiao, C. Liang, "Dual Contrastive Learning with Anatomical Auxiliary Supervision for
Few-Shot Medical Image Segmentation", ECCV 2022, LNCS 13680; official code
cvszusparkle/AAS-DCL_FSS (network and losses, no training script).

A support U-Net gates a query U-Net at every level; slices without the organ, with a superpixel in
its place, are the negatives of two contrastive losses; the answer is refined five times and the
iterate that fits a similarity map best is kept. Network and losses agree with the official code
under `compat="official"`; the training recipe is reconstructed (docs/methods/aas_dcl.md).
"""

from fewshot_seg_aas_dcl.method import AASDCL

__all__ = ["AASDCL"]
