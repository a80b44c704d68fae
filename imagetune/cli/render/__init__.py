"""What commands show, laid out for the screen."""
