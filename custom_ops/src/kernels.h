// What the kernels compute, apart from any runtime. Every op is one plain description and one
// Kernel made from it.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "bounds.h"

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

// x -> clip to [min, max] -> x if x >= 0 else alpha x.
struct Activation {
  float min = -std::numeric_limits<float>::infinity(), max = std::numeric_limits<float>::infinity(),
        alpha = 1.0f;
  float operator()(float x) const {
    x = x < min ? min : x;
    x = x > max ? max : x;
    return x < 0 ? alpha * x : x;
  }
};

// Y[n, f] = act(bias[s] + sum_taps filters[s] * Z[colour(s)]), s = order[f], Z[c] = sum_i
// colours[c, i] X[n, i]; colour(s) = s / (F / C').
struct Monochromatic {
  int64_t channels, filters, colours;
  Window window;
  Activation activation;
  std::vector<float> colour, filter, bias;
  std::vector<int64_t> order;
};

// GH blocks, block (g, h): Z = A_gh X_g (K1 rows), T = core_gh * Z (K2 rows; depthwise when
// `depthwise`, then K1 = K2), Y_h = act(bias + sum_g B_hg T); input channel i of the blocks is
// X[input_order[i]], Y[f] = sorted[output_order[f]].
struct LowRank {
  bool depthwise;
  int64_t channels, filters, input_groups, output_groups, rank1, rank2;
  Window window;
  Activation activation;
  std::vector<float> a, core, b, bias;
  std::vector<int64_t> input_order, output_order;
};

// Y = X / (bias + alpha / size * sum of squares over `size` neighbouring channels)^beta.
struct Lrn {
  int64_t size;
  float alpha, beta, bias;
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

enum class Isa { kScalar, kAvx2, kAvx512 };

// The best the CPU has, or what ONNX_LOWRANK_ISA names; throws std::runtime_error for a name it
// does not have.
Isa selected_isa();

// `flat`: images have one or two spatial axes.
std::unique_ptr<Kernel> make_kernel(Isa isa, const Monochromatic& d, bool flat = true);
std::unique_ptr<Kernel> make_kernel(Isa isa, const LowRank& d, bool flat = true);
std::unique_ptr<Kernel> make_kernel(Isa isa, const Lrn& d);

namespace scalar {
std::unique_ptr<Kernel> make(const Monochromatic& d);
std::unique_ptr<Kernel> make(const LowRank& d);
std::unique_ptr<Kernel> make(const Lrn& d);
}  // namespace scalar
namespace avx2 {
std::unique_ptr<Kernel> make(const Monochromatic& d);
std::unique_ptr<Kernel> make(const LowRank& d);
std::unique_ptr<Kernel> make(const Lrn& d);
}  // namespace avx2
namespace avx512 {
std::unique_ptr<Kernel> make(const Monochromatic& d);
std::unique_ptr<Kernel> make(const LowRank& d);
std::unique_ptr<Kernel> make(const Lrn& d);
}  // namespace avx512

}  // namespace onnx_lowrank
