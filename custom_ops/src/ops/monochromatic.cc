// MonochromaticConv: colours of a block of rows, then one product per colour.
#include "monochromatic.h"

#include "../describe.h"
#include "../reference.h"
#include "layout.h"
#include "scratch.h"
#include "threads.h"

namespace onnx_lowrank {
namespace {

class ReferenceKernel : public Kernel {
 public:
  explicit ReferenceKernel(const Monochromatic& d) : d_(d) {}
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

class VectorKernel : public Kernel {
 public:
  VectorKernel(const Monochromatic& d, const Simd& simd)
      : simd_(simd), d_(d), position_(d.filters), bias_(d.bias) {
    const int64_t per = d.filters / d.colours, taps = d.window.taps();
    for (int64_t f = 0; f < d.filters; ++f) position_[d.order[f]] = f;
    for (int64_t c = 0; c < d.colours; ++c)
      mixers_.emplace_back(simd, 1, d.channels,
                           [&](int64_t, int64_t t) { return d.colour[c * d.channels + t]; });
    for (int64_t c = 0; c < d.colours; ++c)
      panels_.emplace_back(simd, per, taps, [&](int64_t m, int64_t t) {
        return d.filter[(c * per + m) * taps + t];
      });
  }
  void run(const Image& in, const float* x, float* y, const ParallelFor& parallel) override {
    const int64_t images = in.batch * in.size[0], ih = in.size[1], iw = in.size[2];
    if (in.size[0] != 1) throw std::runtime_error("three spatial axes");
    const Window w = d_.window.on(in.size);
    const int64_t oh = w.output(1, ih), ow = w.output(2, iw), per = d_.filters / d_.colours;
    const Layout one(simd_, w, iw, 1);
    const int64_t row_floats = one.sy * one.sx * one.pitch;
    const int64_t most = std::max<int64_t>(4, 6144 / row_floats - one.rows + 1);
    const auto plan = threads_.plan();
    const int64_t strip = strip_rows(oh, std::min<int64_t>(most, 16), images, plan.count),
                  strips = ceil_div(oh, strip);
    const Layout lay(simd_, w, iw, strip);
    const auto offset = lay.offsets(1);
    // Few channels are padded and split by phase before they are mixed, many colours would repeat
    // it; else the colours are.
    const bool early = d_.channels <= d_.colours;
    const int64_t xp = early ? odd_lines(lay.plane + slack(simd_)) : 0,
                  zs = odd_lines(lay.plane + slack(simd_));
    const size_t need = Size(d_.channels) * xp + zs + lay.padded_size();
    std::vector<int64_t> x_offset(d_.channels);
    for (int64_t c = 0; c < d_.channels; ++c) x_offset[c] = c * xp;
    threads_.run(plan, parallel, images * strips, [&](size_t task) {
      const int64_t n = task / strips, y0 = task % strips * strip, count = std::min(strip, oh - y0);
      Scratch::Lease lease(scratch_, need);
      float* z = lease.data();
      float *xs = z + zs, *padded = xs + d_.channels * xp;
      std::fill_n(padded, lay.padded_size(), 0.0f);
      const float* image = x + n * d_.channels * ih * iw;
      // fill(r) puts row r of the image into `padded`.
      auto rows = [&](float* to, const auto& fill) {
        for (int64_t r = lay.first_row(y0), i = 0; r < lay.last_row(y0, count); ++r, ++i) {
          if (r < 0 || r >= ih) {
            lay.clear(to, i);
            continue;
          }
          fill(r);
          lay.put(to, i, padded);
        }
      };
      if (early)
        for (int64_t c = 0; c < d_.channels; ++c)
          rows(xs + c * xp, [&](int64_t r) {
            simd_.copy(padded + lay.left, 0, image + (c * ih + r) * iw, 0, 1, iw);
          });
      for (int64_t c = 0; c < d_.colours; ++c) {
        const float* mixed = d_.colour.data() + c * d_.channels;
        if (early)
          multiply(simd_, mixers_[c], {xs, x_offset.data(), lay.plane}, nullptr, nullptr,
                   [&](int64_t) { return z; });
        else
          rows(z, [&](int64_t r) {
            simd_.combine(padded + lay.left, image + r * iw, ih * iw, mixed, d_.channels, iw);
          });
        multiply(simd_, panels_[c], {z, offset.data(), ow, count, lay.pitch, ow},
                 bias_.data() + c * per, &d_.activation, [&](int64_t m) {
                   return y + ((n * d_.filters + position_[c * per + m]) * oh + y0) * ow;
                 });
      }
    });
  }

 private:
  const Simd& simd_;
  Monochromatic d_;
  std::vector<int64_t> position_;
  std::vector<float> bias_;
  std::vector<Panel> mixers_, panels_;
  Scratch scratch_;
  Threads threads_;
};

}  // namespace

std::unique_ptr<Kernel> reference_kernel(const Monochromatic& d) {
  return std::make_unique<ReferenceKernel>(d);
}
std::unique_ptr<Kernel> vector_kernel(const Monochromatic& d, const Simd& simd) {
  return std::make_unique<VectorKernel>(d, simd);
}

std::unique_ptr<Node<Kernel>> nodes::monochromatic(const Attributes& a) {
  return node<Kernel>(MonochromaticNode(a), best_kernel<Monochromatic>);
}

}  // namespace onnx_lowrank
