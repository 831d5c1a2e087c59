"""Everything between the command line and the packages of data and networks; each subfolder is a noun of the field."""
