"""The default placement method: stages by column generation, chosen by an integer program.

Each module imports only those listed after it:

- `method`: the method, from a task to a placement with bounds;
- `regions`, `region_chain`, `mixed_regions`, `region_sets`: several regions, in a chain, side by side or mixed;
- `pins`, `pins_program`: placements around nodes whose layer range is given;
- `search`: the largest flow whose pattern program covers the model;
- `chain_program`, `program`: the integer programs over stages;
- `small`: small problems, solved exactly;
- `pricing`, `stages`: the cheapest stages, and what a stage is;
- `depth`: how many nodes a request passes.

Nothing is imported here, so that Pyomo is loaded only when a program is built.
"""

__all__: list[str] = []
