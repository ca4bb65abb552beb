"""What a method costs, part by part, beside its bare networks.

from fewshot_seg import build
from fewshot_seg.profiling import Load, profile
print(profile(build("panet"), Load(size=128)).train_ratio)
"""

from fewshot_seg.profiling.clocks import CLOCKS
from fewshot_seg.profiling.loading import episodes_a_second, phantom_source
from fewshot_seg.profiling.measure import profile, profile_together
from fewshot_seg.profiling.report import summary, table
from fewshot_seg.profiling.result import Costs, Memory, Profile, Row
from fewshot_seg.profiling.scan import time_organs, time_scan
from fewshot_seg.profiling.subject import Load, Subject

__all__ = [
    "CLOCKS",
    "Costs",
    "Load",
    "Memory",
    "Profile",
    "Row",
    "Subject",
    "episodes_a_second",
    "phantom_source",
    "profile",
    "profile_together",
    "summary",
    "table",
    "time_organs",
    "time_scan",
]
