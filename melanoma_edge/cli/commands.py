"""All commands: importing this module registers them with the group.

Nothing heavier than click is imported at the top of their modules: `--help` and every usage error come at once.
"""

from __future__ import annotations

from melanoma_edge.cli import commands_bench, commands_bundles, commands_data, commands_machine, commands_training
from melanoma_edge.cli.group import group

__all__ = ["commands_bench", "commands_bundles", "commands_data", "commands_machine", "commands_training", "group"]
