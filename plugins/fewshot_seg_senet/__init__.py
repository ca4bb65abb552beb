"""SE-Net: squeeze and excite guided few-shot segmentation.

A. Guha Roy, S. Siddiqui, S. Poelsterl, N. Navab, C. Wachinger, "'Squeeze & excite' guided few-shot
segmentation of volumetric images", Medical Image Analysis 59 (2020) 101587, arXiv 1902.01314;
official code abhi4ssj/few-shot-segmentation.

Two arms trained from scratch: a small conditioner reads the support slice with its mask and emits
a gate map at every stage, which multiplies the maps of a wider segmenter that reads the query.
No prototypes and no pretrained weights. The network agrees with the official code once that is
made to run (tests/test_senet.py); what differs stands in docs/methods/senet.md.
"""

from fewshot_seg_senet.arms import Gates
from fewshot_seg_senet.network import Conditioning, SENet

__all__ = ["Conditioning", "Gates", "SENet"]
