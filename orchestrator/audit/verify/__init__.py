"""Checks of the log that import nothing of the engine they check, so that an error of the engine cannot hide here."""
