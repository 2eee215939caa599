"""The only folder that calls CUDA: one port, two adapters (pycuda, cuda.bindings), and the choice between them."""
