"""Segment whole scans by the example of labelled ones: files in, files out."""

from fewshot_seg.inference.frame import Frame, Placement
from fewshot_seg.inference.pairing import DEFAULT, NAMES, get_pairing
from fewshot_seg.inference.report import Failed, SegmentationReport, Written
from fewshot_seg.inference.run import channels_of, segment_scans
from fewshot_seg.inference.segmenter import Segmenter

__all__ = [
    "DEFAULT",
    "NAMES",
    "Failed",
    "Frame",
    "Placement",
    "SegmentationReport",
    "Segmenter",
    "Written",
    "channels_of",
    "get_pairing",
    "segment_scans",
]
