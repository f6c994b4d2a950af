"""A run in the terminal: heat map, curves, verdict; and the profile shown while it trains."""
