// The scalar reference: one loop nest per stage, any number of axes up to three, no blocking.
#include <algorithm>
#include <cmath>

#include "kernels.h"

namespace onnx_lowrank::scalar {
namespace {

int64_t volume(const std::array<int64_t, 3>& s) { return s[0] * s[1] * s[2]; }

struct Range {
  int64_t from, to;
};

// The taps of an axis that read the image for output `o`: padding costs nothing, however much there
// is.
Range taps_inside(const Window& w, int axis, int64_t o, int64_t size) {
  const int64_t first = o * w.stride[axis] - w.begin[axis], d = w.dilation[axis];
  return {first >= 0 ? 0 : (-first + d - 1) / d,
          first >= size ? 0 : std::min(w.kernel[axis], (size - first + d - 1) / d)};
}

// y[f] = sum over `per_group` channels and taps; w[rows][per_group][taps], `rows / groups` rows per
// group.
void conv(const Window& win, const std::array<int64_t, 3>& in, const std::array<int64_t, 3>& out,
          int64_t groups, int64_t per_group, int64_t rows, const float* x, const float* w,
          const float* bias, float* y) {
  const int64_t plane = volume(in), taps = win.taps();
  for (int64_t f = 0; f < rows; ++f) {
    const int64_t g = f / (rows / groups);
    for (int64_t o0 = 0; o0 < out[0]; ++o0) {
      const Range r0 = taps_inside(win, 0, o0, in[0]);
      for (int64_t o1 = 0; o1 < out[1]; ++o1) {
        const Range r1 = taps_inside(win, 1, o1, in[1]);
        for (int64_t o2 = 0; o2 < out[2]; ++o2) {
          const Range r2 = taps_inside(win, 2, o2, in[2]);
          float sum = bias ? bias[f] : 0.0f;
          for (int64_t c = 0; c < per_group; ++c) {
            const float* xc = x + (g * per_group + c) * plane;
            const float* wc = w + (f * per_group + c) * taps;
            for (int64_t k0 = r0.from; k0 < r0.to; ++k0)
              for (int64_t k1 = r1.from; k1 < r1.to; ++k1)
                for (int64_t k2 = r2.from; k2 < r2.to; ++k2) {
                  const int64_t i0 = o0 * win.stride[0] + k0 * win.dilation[0] - win.begin[0];
                  const int64_t i1 = o1 * win.stride[1] + k1 * win.dilation[1] - win.begin[1];
                  const int64_t i2 = o2 * win.stride[2] + k2 * win.dilation[2] - win.begin[2];
                  sum += wc[(k0 * win.kernel[1] + k1) * win.kernel[2] + k2] *
                         xc[(i0 * in[1] + i1) * in[2] + i2];
                }
          }
          *y++ = sum;
        }
      }
    }
  }
}

std::array<int64_t, 3> output_size(const Window& w, const std::array<int64_t, 3>& in) {
  return {w.output(0, in[0]), w.output(1, in[1]), w.output(2, in[2])};
}

void finish(const std::vector<float>& sorted, const std::vector<int64_t>& order,
            const Activation& act, int64_t plane, float* y) {
  for (size_t f = 0; f < order.size(); ++f)
    for (int64_t p = 0; p < plane; ++p) y[f * plane + p] = act(sorted[order[f] * plane + p]);
}

class MonochromaticKernel : public Kernel {
 public:
  explicit MonochromaticKernel(const Monochromatic& d) : d_(d) {}
  void run(const Image& in, const float* x, float* y, const ParallelFor& parallel) override {
    const auto out = output_size(d_.window, in.size);
    const int64_t plane = volume(in.size), out_plane = volume(out);
    parallel(in.batch, [&](size_t n) {
      std::vector<float> z(Size(d_.colours) * plane), sorted(Size(d_.filters) * out_plane);
      conv(Window{}, in.size, in.size, 1, d_.channels, d_.colours, x + n * d_.channels * plane,
           d_.colour.data(), nullptr, z.data());
      conv(d_.window, in.size, out, d_.colours, 1, d_.filters, z.data(), d_.filter.data(),
           d_.bias.data(), sorted.data());
      finish(sorted, d_.order, d_.activation, out_plane, y + n * d_.filters * out_plane);
    });
  }

 private:
  Monochromatic d_;
};

class LowRankKernel : public Kernel {
 public:
  explicit LowRankKernel(const LowRank& d) : d_(d) {}
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

class LrnKernel : public Kernel {
 public:
  explicit LrnKernel(const Lrn& d) : d_(d) {}
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

}  // namespace

std::unique_ptr<Kernel> make(const Monochromatic& d) {
  return std::make_unique<MonochromaticKernel>(d);
}
std::unique_ptr<Kernel> make(const LowRank& d) { return std::make_unique<LowRankKernel>(d); }
std::unique_ptr<Kernel> make(const Lrn& d) { return std::make_unique<LrnKernel>(d); }

}  // namespace onnx_lowrank::scalar
