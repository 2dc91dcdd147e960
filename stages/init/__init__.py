"""Put this pipeline into a DVC repository that exists already."""
