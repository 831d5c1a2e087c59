"""An experiment: the settings turned into cells, subjects, volumes and ensembles for the modes."""
