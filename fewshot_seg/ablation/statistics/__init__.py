"""What the scores of a study say, and how surely: pure functions, data frame in, data frame out.

    from fewshot_seg.ablation.statistics import paired, ranks, signs, summary
    summary(scores)                      # means, spread over runs, intervals over scans
    paired(scores, "none")               # every variant against one, on the scans both have
    ranks(scores)                        # mean ranks over scans, Friedman, Nemenyi
    signs(scores, paper, "none")         # do the published differences reproduce?

`scores` is a frame of one row a scan score (`load_results`) under ONE protocol and data version;
more are refused. Dice and differences of Dice are fractions throughout, also the published ones.
docs/statistics.md tells what each figure means.
"""

from fewshot_seg.ablation.installed import need

need("the statistics of a study", "pandas", "statsmodels")

from fewshot_seg.ablation.statistics.bootstrap import INTERVAL_RULE as INTERVAL_RULE  # noqa: E402
from fewshot_seg.ablation.statistics.paired import paired as paired  # noqa: E402
from fewshot_seg.ablation.statistics.ranks import ranks as ranks  # noqa: E402
from fewshot_seg.ablation.statistics.signs import signs as signs  # noqa: E402
from fewshot_seg.ablation.statistics.summary import summary as summary  # noqa: E402
