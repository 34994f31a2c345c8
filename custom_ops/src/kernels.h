// What the kernels compute, apart from any runtime. Every op is one plain description and one
// Kernel made from it.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "bounds.h"
#include "simd/simd.h"

namespace onnx_lowrank {

// Runs body(i) for i in [0, count), possibly at the same time.
using ParallelFor = std::function<void(size_t count, const std::function<void(size_t)>& body)>;

// A window over three spatial axes; missing leading axes have size 1.
struct Window {
  std::array<int64_t, 3> kernel{1, 1, 1}, stride{1, 1, 1}, dilation{1, 1, 1}, begin{}, end{};
  int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
  // Positions between the first output and the last that the image has room for; negative where
  // there is none.
  int64_t span(int axis, int64_t input) const {
    return input + begin[axis] + end[axis] - dilation[axis] * (kernel[axis] - 1) - 1;
  }
  int64_t output(int axis, int64_t input) const {
    const int64_t s = span(axis, input);
    return s < 0 ? 0 : s / stride[axis] + 1;
  }
  // The same on an image of this size, with no stride beyond its padded end: buffers grow with the
  // stride.
  Window on(const std::array<int64_t, 3>& input) const {
    Window w = *this;
    for (int axis = 0; axis < 3; ++axis)
      w.stride[axis] = std::clamp<int64_t>(span(axis, input[axis]) + 1, 1, stride[axis]);
    return w;
  }
};

struct Image {
  int64_t batch, channels;
  std::array<int64_t, 3> size;
};

class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual void run(const Image& in, const float* x, float* y, const ParallelFor& parallel) = 0;
};

// An instruction set that kernels run with.
struct Isa {
  const char* name;
  const Simd* simd;  // null for the scalar reference
  bool (*runs)();    // whether this CPU has it
};

// All of this build: the scalar reference first, then from the least to the best.
const std::vector<Isa>& isas();

// The best that the CPU has, or what ONNX_LOWRANK_ISA names; throws std::runtime_error for a name
// that this CPU or build does not have.
const Isa& selected_isa();

// A kernel for a description: the scalar reference, or vectors where the instruction set has them.
// `flat`: images have one or two spatial axes; three have no fast path.
template <class D>
std::unique_ptr<Kernel> make_kernel(const Isa& isa, const D& d, bool flat = true) {
  return flat && isa.simd ? vector_kernel(d, *isa.simd) : reference_kernel(d);
}

// The same for the instruction set that is selected.
template <class D>
std::unique_ptr<Kernel> best_kernel(const D& d, bool flat) {
  return make_kernel(selected_isa(), d, flat);
}

}  // namespace onnx_lowrank
