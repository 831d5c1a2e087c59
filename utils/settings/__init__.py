"""Settings of an experiment: the schema (typed, with units) and the reader of the ini pair."""
