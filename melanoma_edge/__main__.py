"""``python -m melanoma_edge`` is the command line."""

from melanoma_edge.cli import main

main()
