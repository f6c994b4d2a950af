"""Pictures of tables: each a function of a DataFrame that returns a matplotlib figure."""
