"""Upper bounds on the flow that any placement can carry."""
