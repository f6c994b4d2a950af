"""The door: verbs, flags, exit codes, error blocks. The only floor that knows Hydra."""
