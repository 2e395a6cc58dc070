"""The published simulator's rules, to the last digit."""
