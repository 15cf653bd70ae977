"""What sessions share: runs and data sets in memory, images, training jobs, maps, evidence. Nothing here draws."""
