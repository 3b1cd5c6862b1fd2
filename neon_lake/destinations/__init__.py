"""Where the tables of the lake live."""
