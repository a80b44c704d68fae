"""What each command does, as typed functions that the command line and Python call alike."""
