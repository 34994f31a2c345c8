// CPConv with channels in lanes: a vector holds L channels of one pixel, so that every load of the
// depthwise stage is aligned, any stride reads what it needs and no more, and padding is nothing
// but zeros around the block.
//
// Channels of one output group, (g, k) order, are cut into chunks of one or two vectors. Per chunk:
//   Z[pixel][lane] = sum_t a[t][lane] x[source[t]][pixel]
//   T[lane][pixel] = sum_taps w[tap][lane] Z[pixel * stride + tap][lane]
// where t runs over the input channels that any lane of the chunk reads, and T is transposed in
// registers; and then Y = B T for all channels, pixels in lanes.
#include "../describe.h"
#include "low_rank.h"
#include "scratch.h"
#include "threads.h"

namespace onnx_lowrank {
namespace {

class VectorKernel : public Kernel {
 public:
  VectorKernel(const LowRank& d, const Simd& simd)
      : simd_(simd), d_(d), position_(d.filters), taps_(d.window.taps()) {
    const int64_t L = simd.lanes;
    const int64_t G = d.input_groups, H = d.output_groups, K = d.rank1, per_in = d.channels / G,
                  per_out = d.filters / H;
    for (int64_t f = 0; f < d.filters; ++f) position_[d.output_order[f]] = f;
    for (int64_t h = 0; h < H; ++h) {
      const int64_t vectors = ceil_div(G * K, L);
      for (int64_t v = 0; v < vectors;) {
        Chunk c;
        // Two vectors share the loads of X, unless they read different groups of channels.
        c.vectors =
            v + 1 < vectors && (v * L + L - 1) / K == (std::min(v * L + 2 * L, G * K) - 1) / K ? 2
                                                                                               : 1;
        c.first = v * L;
        c.lanes = std::min<int64_t>(c.vectors * L, G * K - c.first);
        const int64_t width = c.vectors * L, g0 = c.first / K, g1 = (c.first + c.lanes - 1) / K + 1;
        c.sources_at = sources_.size();
        c.terms = (g1 - g0) * per_in;
        c.a_at = weights_.size();
        for (int64_t t = 0; t < c.terms; ++t) {
          const int64_t g = g0 + t / per_in;
          sources_.push_back(g * per_in + t % per_in);
          for (int64_t i = 0; i < width; ++i) {
            const int64_t channel = c.first + i, k = channel - g * K;
            weights_.push_back(channel < G * K && k >= 0 && k < K
                                   ? d.a[((g * H + h) * K + k) * per_in + t % per_in]
                                   : 0.0f);
          }
        }
        c.w_at = weights_.size();
        for (int64_t t = 0; t < taps_; ++t)
          for (int64_t i = 0; i < width; ++i) {
            const int64_t channel = c.first + i, g = channel / K;
            weights_.push_back(channel < G * K ? d.core[((g * H + h) * K + channel % K) * taps_ + t]
                                               : 0.0f);
          }
        chunks_.push_back(c);
        v += c.vectors;
      }
      b_.emplace_back(simd, per_out, G * K,
                      [&](int64_t m, int64_t t) { return d.b[(h * per_out + m) * G * K + t]; });
    }
    d_.a.clear();
    d_.core.clear();
    d_.b.clear();
  }

  void run(const Image& in, const float* x, float* y, const ParallelFor& parallel) override {
    if (in.size[0] != 1) throw std::runtime_error("three spatial axes");
    const int64_t L = simd_.lanes;
    const int64_t G = d_.input_groups, H = d_.output_groups, K = d_.rank1, C = d_.channels,
                  per_out = d_.filters / H;
    const Window w = d_.window.on(in.size);
    const int64_t ih = in.size[1], iw = in.size[2], oh = w.output(1, ih), ow = w.output(2, iw);
    const int64_t sy = w.stride[1], sx = w.stride[2], top = w.begin[1], left = w.begin[2];
    const int64_t kx = w.kernel[2], reach = (w.kernel[1] - 1) * w.dilation[1] + 1;
    const int64_t columns = std::max(left + iw, (ow - 1) * sx + (kx - 1) * w.dilation[2] + 1);
    // A group of many channels is copied: planes a power of two apart would share cache sets.
    const bool copied = C / G >= kCopyFrom;
    // Large groups: a task goes down its rows in strips whose T, Z and X stay in the second cache
    // level, and keeps the rows of Z that two strips share. Larger strips are for larger weights,
    // which every strip reads again. Small groups: Z is cheaper to compute than to keep, so a task
    // is one strip, of a T for the second cache level.
    int64_t lanes = 0;
    const size_t chunks = chunks_.size() / H;
    for (size_t i = 0; i < chunks; ++i) lanes += chunks_[i].vectors * L;
    const int64_t weights = d_.filters * G * K + (copied ? C * G * H * K : 0);
    const int64_t budget = (weights > 400 * 1024 ? kLarge : kSmall) * 1024;
    const int64_t t_row = Size(ow) * G * K,
                  row = Size(sy) * (Size(copied ? iw : 0) * C + Size(columns) * lanes) + t_row;
    const int64_t most = copied ? oh : kT * 1024 / t_row;
    const auto plan = threads_.plan();
    const int64_t rows = strip_rows(oh, most, in.batch * H, plan.count), tasks = ceil_div(oh, rows);
    const int64_t parts = copied ? ceil_div(rows, std::clamp<int64_t>(budget / row, 1, rows)) : 1,
                  strip = ceil_div(rows, parts);
    const bool whole = strip == rows;  // then one chunk's Z is enough
    const int64_t in_rows = (strip - 1) * sy + reach, shared = std::max<int64_t>(0, reach - sy);
    const int64_t xp = odd_lines(in_rows * iw), tp = odd_lines(strip * ow);
    const int64_t zs = Size(in_rows) * columns * (whole ? std::min<int64_t>(lanes, 2 * L) : lanes),
                  ts = round_up(Size(G) * K * tp + slack(simd_), 16),
                  xs = copied ? Size(C) * xp + 16 : Size(0);
    std::vector<int64_t> t_offset(G * K);
    for (int64_t k = 0; k < G * K; ++k) t_offset[k] = k * tp;
    std::vector<int64_t> tap(2 * taps_);  // in Z of one vector, of two
    for (int64_t t = 0; t < taps_; ++t)
      for (int m = 0; m < 2; ++m)
        tap[m * taps_ + t] =
            (t / kx * w.dilation[1] * columns + t % kx * w.dilation[2]) * (m + 1) * L;
    std::vector<int64_t> order(sources_);
    if (!copied)
      for (int64_t& c : order) c = d_.input_order[c];
    threads_.run(plan, parallel, in.batch * H * tasks, [&](size_t task) {
      const int64_t h = task % H, n = task / H / tasks, ya = task / H % tasks * rows,
                    yb = std::min(oh, ya + rows);
      Scratch::Lease lease(scratch_, zs + ts + xs);
      float *t = lease.data(), *xb = t + ts, *z0 = xb + xs;
      const float* image = x + n * C * ih * iw;
      if (!whole) std::fill_n(z0, zs, 0.0f);
      int64_t cleared = 0;
      for (int64_t y0 = ya; y0 < yb; y0 += strip) {
        const int64_t count = std::min(strip, yb - y0), first = y0 * sy - top,
                      last = first + (count - 1) * sy + reach;
        const int64_t fresh = y0 == ya ? first : first + shared;
        const int64_t r0 = std::max<int64_t>(0, fresh), r1 = std::max(r0, std::min(ih, last));
        if (copied)
          for (int64_t c = 0; c < C; ++c)
            simd_.copy(xb + c * xp, 0, image + (d_.input_order[c] * ih + r0) * iw, 0, 1,
                       (r1 - r0) * iw);
        const float* base = copied ? xb - r0 * iw : image;
        float* z = z0;
        for (size_t i = 0; i < chunks; ++i) {
          const Chunk& c = chunks_[h * chunks + i];
          const int64_t width = c.vectors * L, z_row = columns * width;
          if (whole && cleared != width)
            std::fill_n(z, in_rows * z_row, 0.0f);  // what the image does not reach
          cleared = width;
          if (y0 > ya) {
            std::copy_n(z + strip * sy * z_row, shared * z_row, z);
            if (last > ih)
              std::fill(z + std::max<int64_t>(0, ih - first) * z_row, z + (last - first) * z_row,
                        0.0f);
          }
          int64_t r = r0;
          for (int64_t q = 0; q < count; ++q) {
            // Just before they are needed: still in the first level.
            for (; r < std::min(r1, first + q * sy + reach); ++r)
              simd_.mix(base + r * iw, order.data() + c.sources_at, copied ? xp : ih * iw, c.terms,
                        weights_.data() + c.a_at, c.vectors, z + (r - first) * z_row + left * width,
                        iw);
            simd_.depthwise({z + q * sy * z_row, tap.data() + (c.vectors - 1) * taps_, taps_,
                             weights_.data() + c.w_at, c.vectors, sx * width, c.lanes,
                             t + c.first * tp + q * ow, tp, ow});
          }
          if (!whole) z += in_rows * z_row;
        }
        multiply(simd_, b_[h], {t, t_offset.data(), count * ow}, d_.bias.data() + h * per_out,
                 &d_.activation, [&](int64_t m) {
                   return y + ((n * d_.filters + position_[h * per_out + m]) * oh + y0) * ow;
                 });
      }
    });
  }

 private:
  static constexpr int64_t kCopyFrom = 16;
  static constexpr int64_t kLarge = 800, kSmall = 200, kT = 300;  // KiFloats, measured best
  struct Chunk {
    int64_t first, lanes, vectors, terms;
    size_t sources_at, a_at, w_at;
  };

  const Simd& simd_;
  LowRank d_;
  std::vector<int64_t> position_, sources_;
  int64_t taps_;
  std::vector<float, Aligned<float>> weights_;
  std::vector<Chunk> chunks_;
  std::vector<Panel> b_;
  Scratch scratch_;
  Threads threads_;
};

}  // namespace

std::unique_ptr<Kernel> cp_kernel(const LowRank& d, const Simd& simd) {
  return std::make_unique<VectorKernel>(d, simd);
}

std::unique_ptr<Node<Kernel>> nodes::cp(const Attributes& a) {
  return node<Kernel>(LowRankNode(a, true), best_kernel<LowRank>);
}

}  // namespace onnx_lowrank
