"""The paper's mixed-integer program (Helix, section 4.4)."""
