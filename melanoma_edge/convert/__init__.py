"""Weights to artifacts: TFLite, ONNX, and the sealed bundle that holds them."""
