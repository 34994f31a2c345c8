// LRN over channels, pixels in lanes.
#include "lrn.h"

#include <cmath>

#include "../describe.h"
#include "../reference.h"
#include "vector.h"

namespace onnx_lowrank {
namespace {

class ReferenceKernel : public Kernel {
 public:
  explicit ReferenceKernel(const Lrn& d) : d_(d) {}
  void run(const Image& in, const float* x, float* y, const ParallelFor& parallel) override {
    const int64_t plane = volume(in.size), before = (d_.size - 1) / 2, after = d_.size - 1 - before;
    parallel(in.batch * in.channels, [&](size_t i) {
      const int64_t c = i % in.channels;
      const float* image = x + (i - c) * plane;
      const int64_t from = std::max<int64_t>(0, c - before),
                    to = std::min(in.channels - 1, c + after);
      for (int64_t p = 0; p < plane; ++p) {
        float sum = 0;
        for (int64_t k = from; k <= to; ++k) sum += image[k * plane + p] * image[k * plane + p];
        y[i * plane + p] =
            image[c * plane + p] * std::pow(d_.bias + d_.alpha / d_.size * sum, -d_.beta);
      }
    });
  }

 private:
  Lrn d_;
};

class VectorKernel : public Kernel {
 public:
  VectorKernel(const Lrn& d, const Simd& simd) : simd_(simd), d_(d) {}
  void run(const Image& in, const float* x, float* y, const ParallelFor& parallel) override {
    const int64_t plane = volume(in.size), L = simd_.lanes;
    const int64_t blocks = ceil_div(plane, L), chunk = std::min<int64_t>(blocks, 64),
                  chunks = ceil_div(blocks, chunk);
    const int64_t before = (d_.size - 1) / 2;
    const Normalise n{
        plane,   in.channels, before, d_.size - 1 - before, d_.alpha / static_cast<float>(d_.size),
        d_.beta, d_.bias};
    parallel(in.batch * chunks, [&](size_t task) {
      const int64_t image = task / chunks * in.channels * plane, first = task % chunks * chunk * L;
      simd_.normalise(n, x + image, y + image, first, std::min(plane, first + chunk * L));
    });
  }

 private:
  const Simd& simd_;
  Lrn d_;
};

}  // namespace

std::unique_ptr<Kernel> reference_kernel(const Lrn& d) {
  return std::make_unique<ReferenceKernel>(d);
}
std::unique_ptr<Kernel> vector_kernel(const Lrn& d, const Simd& simd) {
  return std::make_unique<VectorKernel>(d, simd);
}

std::unique_ptr<Node<Kernel>> nodes::lrn(const Attributes& a) {
  return node<Kernel>(LrnNode(a), best_kernel<Lrn>);
}

}  // namespace onnx_lowrank
