// Starting kernels on a stream. All functions throw std::runtime_error with CUDA's own words where
// something failed.
#pragma once
#include <memory>
#include <vector>

#include "plan.h"

namespace onnx_lowrank::cuda {

enum class Type { kFloat, kHalf, kBFloat16 };

// The device current in this thread.
Device current_device();

// A layer whose weights are on the device that was current when it was made.
class Layer {
 public:
  virtual ~Layer() = default;
  // x and y are on the device; `stream` is a cudaStream_t. Returns once the kernel is queued.
  virtual void run(const Image& in, Type type, const void* x, void* y, void* stream) = 0;
};

std::unique_ptr<Layer> make_layer(const Monochromatic& d);
std::unique_ptr<Layer> make_layer(const LowRank& d);  // one of the next two
std::unique_ptr<Layer> make_cp_layer(const LowRank& d);
std::unique_ptr<Layer> make_tucker2_layer(const LowRank& d);
std::unique_ptr<Layer> make_layer(const Lrn& d);

}  // namespace onnx_lowrank::cuda
