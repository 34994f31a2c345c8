// Tucker2Conv: three products over a block of rows, the second by Winograd where it can be.
#include "../describe.h"
#include "layout.h"
#include "low_rank.h"
#include "scratch.h"
#include "threads.h"

namespace onnx_lowrank {
namespace {

// Winograd's F(2x2, 3x3): Y = At [(G g Gt) . (Bt d B)] A on 4x4 patches d, 16 products where the
// direct sum has 36; here g is transformed. G = [1 0 0; .5 .5 .5; .5 -.5 .5; 0 0 1].
class Winograd {
 public:
  static constexpr int64_t kTerms = 16;
  static bool fits(const Window& w, int64_t rank1, int64_t rank2) {
    for (int a : {1, 2})
      if (w.kernel[a] != 3 || w.stride[a] != 1 || w.dilation[a] != 1) return false;
    return rank1 >= 8 && rank2 >= 8;  // below, the transforms cost more than the products saved
  }

  // core: [rank2][rank1][3][3]
  Winograd(const Simd& simd, const float* core, int64_t rank1, int64_t rank2) {
    static constexpr double g[4][3] = {{1, 0, 0}, {.5, .5, .5}, {.5, -.5, .5}, {0, 0, 1}};
    for (int p = 0; p < kTerms; ++p)
      panels_.emplace_back(simd, rank2, rank1, [&](int64_t m, int64_t t) {
        double sum = 0;
        for (int i = 0; i < 3; ++i)
          for (int j = 0; j < 3; ++j)
            sum += g[p / 4][i] * g[p % 4][j] * core[((m * rank1 + t) * 3 + i) * 3 + j];
        return static_cast<float>(sum);
      });
  }
  const Panel& panel(int64_t term) const { return panels_[term]; }

 private:
  std::vector<Panel> panels_;
};

class VectorKernel : public Kernel {
 public:
  VectorKernel(const LowRank& d, const Simd& simd) : simd_(simd), d_(d), position_(d.filters) {
    const int64_t G = d.input_groups, H = d.output_groups, K1 = d.rank1, K2 = d.rank2,
                  taps = d.window.taps();
    const int64_t per_in = d.channels / G, per_out = d.filters / H;
    for (int64_t f = 0; f < d.filters; ++f) position_[d.output_order[f]] = f;
    for (int64_t b = 0; b < G * H; ++b) {
      a_.emplace_back(simd, K1, per_in,
                      [&](int64_t m, int64_t t) { return d.a[(b * K1 + m) * per_in + t]; });
      const float* core = d.core.data() + b * K2 * K1 * taps;
      // Of many blocks the transformed cores, 16 values for 9, would leave the second cache level.
      if (G * H == 1 && Winograd::fits(d.window, K1, K2))
        winograd_.emplace_back(simd, core, K1, K2);
      else
        core_.emplace_back(simd, K2, K1 * taps,
                           [&](int64_t m, int64_t t) { return core[m * K1 * taps + t]; });
    }
    for (int64_t h = 0; h < H; ++h)
      b_.emplace_back(simd, per_out, G * K2,
                      [&](int64_t m, int64_t t) { return d.b[(h * per_out + m) * G * K2 + t]; });
    d_.a.clear();
    d_.core.clear();
    d_.b.clear();
  }
  void run(const Image& in, const float* x, float* y, const ParallelFor& parallel) override {
    if (in.size[0] != 1) throw std::runtime_error("three spatial axes");
    const int64_t L = simd_.lanes;
    const int64_t G = d_.input_groups, H = d_.output_groups, K1 = d_.rank1, K2 = d_.rank2,
                  C = d_.channels;
    const int64_t per_in = C / G, per_out = d_.filters / H;
    const Window w = d_.window.on(in.size);
    const int64_t ih = in.size[1], iw = in.size[2], oh = w.output(1, ih), ow = w.output(2, iw);
    const int64_t weights = G * H * (K1 * per_in + K2 * K1 * w.taps()) + d_.filters * G * K2;
    const int64_t row = Size(ow) * G * K2 + Size(w.stride[1]) * iw * (per_in + K1);
    const auto plan = threads_.plan();
    const bool winograd = !winograd_.empty();
    // With one block and stride 1 a task goes down the image in strips that stay in the second
    // cache level, and keeps the rows of Z that two strips share. Otherwise a task is one strip:
    // smaller ones read the weights again and compute the shared rows twice, larger ones leave the
    // second level. Sizes in KiFloats were measured best.
    const bool rolls = G == 1 && H == 1 && w.stride[1] == 1 && w.stride[2] == 1;
    const int64_t budget = rolls                  ? (weights > 32 * 1024 ? 200 : 60)
                           : weights > 400 * 1024 ? 900
                                                  : 400;
    const int64_t most = std::max<int64_t>(rolls ? 1 : 4, budget * 1024 / row);
    const int64_t rows = strip_rows(oh, rolls ? oh : most, in.batch * H, plan.count),
                  tasks = ceil_div(oh, rows);
    int64_t strip = ceil_div(rows, ceil_div(rows, std::min(most, rows)));
    if (winograd) strip = round_up(strip, 2);
    const int64_t tiles = ceil_div(ow, 2),
                  tile_rows = winograd ? rows_of_tiles(strip / 2, tiles) : 0;
    // Gaps between rows are work for nothing; copies for each column of the window are cheaper
    // where rows are short.
    const Layout gaps(simd_, w, iw, strip),
        lay(simd_, w, iw, strip, !rolls && gaps.sx == 1 && gaps.gap() * kUnroll > ow);
    const int64_t in_rows = (strip - 1) * lay.sy + (lay.ky - 1) * lay.dy + 1;
    const int64_t xp = odd_lines(in_rows * iw), tp = odd_lines(strip * ow),
                  fp = round_up(lay.positions(strip), L) + L;
    const int64_t wp = odd_lines(tile_rows * tiles), up = Size(K1) * wp + 16,
                  mp = Size(K2) * wp + 16;
    // Every buffer starts on a cache line.
    const int64_t xs = round_up(Size(per_in) * xp + slack(simd_), 16),
                  zs = round_up(Size(K1) * lay.plane + slack(simd_), 16),
                  ts = round_up(Size(G) * K2 * tp + slack(simd_), 16), ps = lay.padded_size(),
                  reduced = Size(K1) * xp,
                  product = winograd ? Size(Winograd::kTerms) * (up + mp) : Size(K2) * fp,
                  us = round_up(std::max(reduced, product) + slack(simd_) + ps, 16);
    std::vector<int64_t> x_offset(per_in), t_offset(G * K2);
    // X is read where it is, unless a row ends inside a vector or many blocks of A would read it
    // again.
    const bool in_place = rolls && iw % L == 0 && K1 <= 2 * simd_.max_rows;
    for (int64_t c = 0; c < per_in; ++c)
      x_offset[c] = in_place ? d_.input_order[c] * ih * iw : c * xp;
    for (int64_t k = 0; k < G * K2; ++k) t_offset[k] = k * tp;
    const auto offset = lay.offsets(K1);
    std::vector<int64_t> u_offset(K1);
    for (int64_t k = 0; k < K1; ++k) u_offset[k] = k * wp;
    threads_.run(plan, parallel, in.batch * H * tasks, [&](size_t task) {
      const int64_t h = task % H, n = task / H / tasks, ya = task / H % tasks * rows,
                    yb = std::min(oh, ya + rows);
      Scratch::Lease lease(scratch_, xs + zs + ts + us + ps);
      float *xb = lease.data(), *z = xb + xs, *t = z + zs, *u = t + ts, *padded = u + us;
      std::fill_n(padded, ps, 0.0f);
      // At column stride 1 only the image's columns are written, the padding stays zero.
      const bool direct = lay.sx == 1;
      // Without column padding a row is split where it stands; what lies behind it reaches only
      // positions that are dropped.
      const bool bare = w.begin[2] == 0 && w.end[2] == 0;
      const int64_t shared = (lay.ky - 1) * lay.dy;
      for (int64_t y0 = ya; y0 < yb; y0 += strip) {
        const int64_t count = std::min(strip, yb - y0), first = lay.first_row(y0),
                      last = lay.last_row(y0, count);
        const int64_t fresh = y0 > ya ? first + shared : first;
        const int64_t r0 = std::max<int64_t>(0, fresh), r1 = std::max(r0, std::min(ih, last)),
                      px = (r1 - r0) * iw;
        Ahead ahead{};
        if (rolls) {
          add(&ahead, y + (n * d_.filters * oh + y0) * ow, d_.filters, oh * ow, count * ow);
          if (y0 + strip < yb)
            add(&ahead, x + (n * C * ih + r1) * iw, C, ih * iw, std::min(strip, ih - r1) * iw);
        }
        if (y0 > ya) {
          for (int64_t k = 0; k < K1; ++k) {
            float* plane = z + k * lay.plane;
            std::copy_n(plane + strip * lay.pitch, shared * lay.pitch, plane);
            for (int64_t r = std::max(ih, fresh); r < last; ++r) lay.clear(plane, r - first);
          }
        } else if (direct) {
          std::fill_n(z, K1 * lay.plane, 0.0f);
        } else {
          for (int64_t k = 0; k < K1; ++k)
            for (int64_t r = first; r < last; ++r)
              if (r < 0 || r >= ih) lay.clear(z + k * lay.plane, r - first);
        }
        for (int64_t g = 0; g < G; ++g) {
          const int64_t block = g * H + h;
          for (int64_t c = 0; c < per_in && !in_place; ++c)
            simd_.copy(xb + c * xp, 0,
                       x + ((n * C + d_.input_order[g * per_in + c]) * ih + r0) * iw, 0, 1, px);
          const float* from_x = in_place ? x + (n * C * ih + r0) * iw : xb;
          if (px)
            multiply(
                simd_, a_[block], {from_x, x_offset.data(), px}, nullptr, nullptr,
                [&](int64_t m) { return u + m * xp; }, &ahead);
          for (int64_t k = 0; k < K1; ++k) {
            if (direct) {
              lay.put_inside(z + k * lay.plane, r0 - first, r1 - r0, u + k * xp);
              continue;
            }
            for (int64_t r = r0; r < r1; ++r) {
              const float* from = u + k * xp + (r - r0) * iw;
              if (!bare) simd_.copy(padded + lay.left, 0, from, 0, 1, iw);
              lay.put(z + k * lay.plane, r - first, bare ? from : padded);
            }
          }
          if (winograd) {
            for (int64_t q = 0; q < ceil_div(count, 2); q += tile_rows)
              patches(winograd_[block], z + 2 * q * lay.pitch, lay,
                      std::min(tile_rows, ceil_div(count, 2) - q), count - 2 * q, wp,
                      u_offset.data(), u, t + g * K2 * tp + 2 * q * ow, tp, ahead);
            continue;
          }
          multiply(
              simd_, core_[block], {z, offset.data(), lay.positions(count)}, nullptr, nullptr,
              [&](int64_t m) { return u + m * fp; }, &ahead);
          for (int64_t k = 0; k < K2; ++k)
            simd_.copy(t + (g * K2 + k) * tp, ow, u + k * fp, lay.pitch, count, ow);
        }
        multiply(
            simd_, b_[h], {t, t_offset.data(), count * ow}, d_.bias.data() + h * per_out,
            &d_.activation,
            [&](int64_t m) {
              return y + ((n * d_.filters + position_[h * per_out + m]) * oh + y0) * ow;
            },
            &ahead);
      }
    });
  }

 private:
  // How many rows of tiles to transform at once: what fits, with the fewest lanes left empty.
  int64_t rows_of_tiles(int64_t most, int64_t tiles) const {
    most = std::clamp<int64_t>(
        kTiles * 1024 / (Size(Winograd::kTerms) * (d_.rank1 + d_.rank2) * tiles), 1, most);
    int64_t best = 1;
    for (int64_t r = 2; r <= most; ++r)
      if (round_up(r * tiles, simd_.lanes) * best <= round_up(best * tiles, simd_.lanes) * r)
        best = r;
    return best;
  }
  // T of `rows` rows of tiles, i.e. of at most `count` rows of outputs, from the padded Z.
  void patches(const Winograd& w, const float* z, const Layout& lay, int64_t rows, int64_t count,
               int64_t wp, const int64_t* u_offset, float* u, float* t, int64_t tp,
               Ahead& ahead) const {
    const int64_t tiles = ceil_div(lay.out_width, 2), up = d_.rank1 * wp + 16,
                  mp = d_.rank2 * wp + 16;
    float* m = u + Winograd::kTerms * up;
    for (int64_t k = 0; k < d_.rank1; ++k)
      for (int64_t r = 0; r < rows; ++r)
        simd_.winograd_input(z + k * lay.plane + 2 * r * lay.pitch, lay.pitch, tiles,
                             u + k * wp + r * tiles, up);
    for (int64_t p = 0; p < Winograd::kTerms; ++p)
      multiply(
          simd_, w.panel(p), {u + p * up, u_offset, rows * tiles}, nullptr, nullptr,
          [&](int64_t k) { return m + p * mp + k * wp; }, &ahead);
    for (int64_t k = 0; k < d_.rank2; ++k)
      for (int64_t r = 0; r < rows; ++r)
        simd_.winograd_output(m + k * wp + r * tiles, mp, lay.out_width, 2 * r + 1 < count,
                              t + k * tp + 2 * r * lay.out_width);
  }
  // A gap of a row that is this many times as long costs what the copies cost.
  static constexpr int64_t kUnroll = 25;
  static constexpr int64_t kTiles = 160;  // KiFloats of transformed tiles

  const Simd& simd_;
  LowRank d_;
  std::vector<int64_t> position_;
  std::vector<Panel> a_, core_, b_;
  std::vector<Winograd> winograd_;
  Scratch scratch_;
  Threads threads_;
};

}  // namespace

std::unique_ptr<Kernel> tucker2_kernel(const LowRank& d, const Simd& simd) {
  return std::make_unique<VectorKernel>(d, simd);
}

std::unique_ptr<Node<Kernel>> nodes::tucker2(const Attributes& a) {
  return node<Kernel>(LowRankNode(a, false), best_kernel<LowRank>);
}

}  // namespace onnx_lowrank
