"""How our tables are read by the definitions of other tools."""
