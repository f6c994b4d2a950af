"""Networks whose health is known, and what the diagnosis says of each."""
