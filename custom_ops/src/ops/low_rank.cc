// What CPConv and Tucker2Conv share: the scalar reference.
#include "low_rank.h"

#include "../reference.h"

namespace onnx_lowrank {
namespace {

class ReferenceKernel : public Kernel {
 public:
  explicit ReferenceKernel(const LowRank& d) : d_(d) {}
  void run(const Image& in, const float* x, float* y, const ParallelFor& parallel) override {
    const auto out = output_size(d_.window, in.size);
    const int64_t plane = volume(in.size), out_plane = volume(out);
    const int64_t G = d_.input_groups, H = d_.output_groups, K1 = d_.rank1, K2 = d_.rank2;
    parallel(in.batch, [&](size_t n) {
      std::vector<float> xo(Size(d_.channels) * plane), z(Size(G) * H * K1 * plane),
          t(Size(G) * H * K2 * out_plane), m(t.size()), sorted(Size(d_.filters) * out_plane);
      for (int64_t c = 0; c < d_.channels; ++c) {
        const float* from = x + (n * d_.channels + d_.input_order[c]) * plane;
        std::copy(from, from + plane, xo.begin() + c * plane);
      }
      conv(Window{}, in.size, in.size, G, d_.channels / G, G * H * K1, xo.data(), d_.a.data(),
           nullptr, z.data());
      if (d_.depthwise)
        conv(d_.window, in.size, out, G * H * K1, 1, G * H * K1, z.data(), d_.core.data(), nullptr,
             t.data());
      else
        conv(d_.window, in.size, out, G * H, K1, G * H * K2, z.data(), d_.core.data(), nullptr,
             t.data());
      for (int64_t g = 0; g < G; ++g)
        for (int64_t h = 0; h < H; ++h)
          std::copy_n(t.begin() + (g * H + h) * K2 * out_plane, K2 * out_plane,
                      m.begin() + (h * G + g) * K2 * out_plane);
      conv(Window{}, out, out, H, G * K2, d_.filters, m.data(), d_.b.data(), d_.bias.data(),
           sorted.data());
      finish(sorted, d_.output_order, d_.activation, out_plane, y + n * d_.filters * out_plane);
    });
  }

 private:
  LowRank d_;
};

}  // namespace

std::unique_ptr<Kernel> reference_kernel(const LowRank& d) {
  return std::make_unique<ReferenceKernel>(d);
}
std::unique_ptr<Kernel> vector_kernel(const LowRank& d, const Simd& simd) {
  return d.depthwise ? cp_kernel(d, simd) : tucker2_kernel(d, simd);
}

}  // namespace onnx_lowrank
