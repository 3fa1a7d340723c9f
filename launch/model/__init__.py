"""What is made: a variant's dimensions, its config and questions, the metric, its ONNX graph."""
