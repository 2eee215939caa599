"""TensorRT: from an ONNX file to an engine, and the engine at work. The only folder that imports `tensorrt`."""
