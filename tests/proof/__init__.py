"""The published page: what was tried against the promises, with figures from runs only."""
