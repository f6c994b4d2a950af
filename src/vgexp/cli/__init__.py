"""The command line: verbs, flags, exit codes and error blocks. No other room imports Hydra."""
