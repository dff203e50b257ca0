"""What a person sees of a cell: its equations as a formula. Views read equations and programs."""
