"""Pictures of what recurrent networks do: one function, one picture.

Each takes a `Trace`, of any cell and any trained network (`Network.trace`, a language model's
`trace`), and returns a matplotlib `Figure` to style and save; `axes=` draws into yours instead.
Nothing touches pyplot. Steps, units, layers and examples are counted from one, as the field does,
in arguments, in what is printed, and in the coordinates of the axes.
"""
