"""One run's life: its recipe checked, its training prepared, run and tested, its folder opened again."""
