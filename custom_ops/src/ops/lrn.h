// LRN: what a node says, and what its kernels are made from.
#pragma once
#include "../describe.h"

namespace onnx_lowrank {

// Y = X / (bias + alpha / size * sum of squares over `size` neighbouring channels)^beta.
struct Lrn {
  int64_t size;
  float alpha, beta, bias;
};

inline ShapesOf shapes_of(const Lrn& d, size_t) {
  return [d](const std::vector<int64_t>& x) {
    require(x.size() >= 2, "X has shape " + text(x) + ", expected two axes or more");
    expect_extents(x, "X");
    require(std::min(d.size, x[1]) <= kMostSummed,
            "LRN sums over at most " + std::to_string(kMostSummed) + " channels; size is " +
                std::to_string(d.size) + ", X has shape " + text(x));
    Shapes s{{x[0], x[1], {1, 1, 1}}, x, count_of(x), count_of(x)};
    for (size_t i = 2; i < x.size(); ++i) s.image.size[2] = Size(s.image.size[2]) * x[i];
    return s;
  };
}

struct LrnNode {
  Lrn d;

  explicit LrnNode(const Attributes& a)
      : d{a.integer("size"), a.real("alpha", 1e-4f), a.real("beta", 0.75f), a.real("bias", 1.0f)} {
    require(d.size > 0 && d.size <= kMostExtent,
            "size is " + std::to_string(d.size) + ", expected 1 to " + std::to_string(kMostExtent));
  }
  std::vector<int64_t> image(const std::vector<Tensor>&) const { return {}; }
  Lrn describe(const std::vector<int64_t>&, const std::vector<Tensor>&) const { return d; }
};

std::unique_ptr<Kernel> reference_kernel(const Lrn& d);
std::unique_ptr<Kernel> vector_kernel(const Lrn& d, const Simd& simd);

}  // namespace onnx_lowrank
