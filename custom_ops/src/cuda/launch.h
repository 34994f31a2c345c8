// Starting kernels on a stream. All functions throw std::runtime_error with CUDA's own words where
// something failed.
#pragma once
#include <memory>
#include <vector>

#include "../describe.h"
#include "plan.h"

namespace onnx_lowrank::cuda {

enum class Type { kFloat, kHalf, kBFloat16 };

// A layer whose weights are on the device that was current when it was made.
class Layer {
 public:
  virtual ~Layer() = default;
  // x and y are on the device; `stream` is a cudaStream_t. Returns once the kernel is queued.
  virtual void run(const Image& in, Type type, const void* x, void* y, void* stream) = 0;
};

// Reads the attributes of a node; one function of each op.
namespace nodes {
#define ONNX_LOWRANK_OP(file, ...) std::unique_ptr<Node<Layer>> file(const Attributes& a);
#include "../ops.inc"
#undef ONNX_LOWRANK_OP
}  // namespace nodes

}  // namespace onnx_lowrank::cuda
