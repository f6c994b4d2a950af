"""Tables and diagnoses shown to a reader; everything here is read from files or frames."""
