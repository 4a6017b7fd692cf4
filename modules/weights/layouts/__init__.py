"""How other tools name and group the tensors of these networks; one file for each tool."""
