"""Papers reproduced, a module each: what is run, what is claimed, what is drawn."""
