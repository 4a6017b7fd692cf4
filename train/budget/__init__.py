"""What a training needs, counted without building it: parameters, memory, operations; and what fits."""
