"""`python -m fewshot_seg.cli`: the program where its script is not on the path."""

from fewshot_seg.cli.app import main

main()
