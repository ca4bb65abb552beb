"""`fewshot-seg demo`: the whole way on synthetic scans, in under three minutes on two cores."""

from fewshot_seg.demo.run import DEFAULT_STEPS, NOVEL, next_command, run_demo

__all__ = ["DEFAULT_STEPS", "NOVEL", "next_command", "run_demo"]
