"""What a study found, to look at and to print: tables, figures and one page."""

from fewshot_seg.ablation.installed import need

need("tables and pages of a study", "pandas", "statsmodels", "jinja2")
