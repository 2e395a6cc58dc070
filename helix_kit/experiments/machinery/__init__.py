"""What runs experiments, keeps their provenance and writes them into documents."""
