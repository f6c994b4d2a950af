"""What can happen to a run, made to happen; `scripts/faults.py` shows the `Result`s."""
