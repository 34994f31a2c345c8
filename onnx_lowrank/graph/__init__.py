"""Reading, checking, editing and writing of ONNX graphs."""
