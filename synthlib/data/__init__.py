"""Images with labels: shards of synthetic images, real data sets."""
