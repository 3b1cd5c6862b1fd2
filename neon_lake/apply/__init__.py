"""From changes to what a Delta table has to become. Arrow in, Arrow out."""
