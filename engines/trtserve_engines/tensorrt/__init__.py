"""TensorRT: building, keeping and running engines. The only folder that imports `tensorrt`, lazily."""
