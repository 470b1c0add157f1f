"""The shipped recipes, one TOML file each, and the reading of anyone's recipe."""
