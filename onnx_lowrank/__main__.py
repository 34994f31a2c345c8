"""The command line as ``python -m onnx_lowrank``."""

from onnx_lowrank.cli import main

if __name__ == "__main__":
    main()
