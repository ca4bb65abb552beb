"""Synthetic scans for demonstrations, tests and first steps: no download, nobody's data.

`abdomen()` and `heart()` are data sets of patients who differ in size, shape, place, filling and
contrast. They look like scans and behave like scans (oblique geometry, thick slices, bias field,
noise), but no accuracy measured on them says anything about real ones.
"""

from fewshot_seg.data.phantom.dataset import Phantom, abdomen, heart

__all__ = ["Phantom", "abdomen", "heart"]
